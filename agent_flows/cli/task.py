"""agent-flows task list and show."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from agent_flows.cli import columns
from agent_flows.cli.api_command import ListCommand, ShowCommand
from agent_flows.report import FlowName, TaskState

_SHOWN = (
    "id",
    "resource_id",
    "host",
    "flow",
    "attempt",
    "name",
    "task_state",
    "started_at",
    "duration",
    "error",
)


class ListTasks(ListCommand):
    """List the tasks of flows, with their outcome for each port."""

    examples = """
        agent-flows task list --resource-id 4e8e5957-649f-477b-9e5b-f1f75b21c03c
        agent-flows task list --state FAILED --sort started_at:desc --limit 20
        agent-flows task list --host compute-7 --flow refresh -f json
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--resource-id", "--port", metavar="ID", help="Only tasks of this port."
        )
        parser.add_argument(
            "--state",
            choices=[state.value for state in TaskState],
            help="Only tasks in this state.",
        )
        parser.add_argument("--host", help="Only tasks that ran on this host.")
        parser.add_argument(
            "--flow", choices=[flow.value for flow in FlowName], help="Only tasks of this flow."
        )
        parser.add_argument("--name", help="Only tasks with this name, as apply-security-groups.")
        parser.add_argument(
            "--limit",
            type=int,
            default=100,
            metavar="N",
            help="At most N tasks (default %(default)s); 0 for all.",
        )
        parser.add_argument(
            "--sort",
            type=_sort,
            metavar="KEY[:asc|desc]",
            help="Sort by this field, as started_at:desc.",
        )
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        key, direction = parsed_args.sort or (None, None)
        filters = {
            "resource_id": parsed_args.resource_id,
            "task_state": parsed_args.state,
            "host": parsed_args.host,
            "flow": parsed_args.flow,
            "name": parsed_args.name,
            "sort_key": key,
            "sort_dir": direction,
        }
        given = {name: value for name, value in filters.items() if value is not None}
        tasks = self.api.find("tasks", given, parsed_args.limit or None)
        if len(tasks) == parsed_args.limit:
            self.say(f"showing {len(tasks)} tasks, there may be more; --limit 0 shows all")
        return _SHOWN, [_values(task, _SHOWN, columns.Error) for task in tasks]


class ShowTask(ShowCommand):
    """Show one task with its whole error."""

    examples = "agent-flows task show 7b0f3c1e-1d6b-4d0c-a2a5-8c5d5a7f9e10"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("id", metavar="ID", help="The task's id, as task list shows it.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        task = self.api.show("tasks", parsed_args.id)
        return tuple(task), _values(task, tuple(task), columns.Detailed)


def _values(
    task: columns.Task, names: Sequence[str], error: type[columns.Error | columns.Detailed]
) -> list[Any]:
    shown = {"error": error, "duration": columns.Seconds}
    # Neutron's API leaves out what a project may not see.
    return [shown[name](task.get(name)) if name in shown else task.get(name) for name in names]


def _sort(text: str) -> tuple[str, str]:
    key, _, direction = text.partition(":")
    direction = direction or "asc"
    if not key or direction not in ("asc", "desc"):
        raise argparse.ArgumentTypeError("must be KEY, KEY:asc or KEY:desc")
    return key, direction
