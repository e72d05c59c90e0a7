"""agent-flows task list and show."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from agent_flows.cli import columns, refs
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
    """List the tasks of flows, with their outcome for each port.

    A table shows the names of ports that have one, and what task show takes as a task's id. On a
    narrow terminal it has no column of attempts, and then none of hosts.
    """

    shown = ("id", "resource_id", "host", "attempt", "name", "task_state", "started_at", "error")
    whole = ("id", "host", "name")
    spare = ("attempt", "host")
    ids: ClassVar[Mapping[str, str]] = {"resource_id": "ports"}
    examples = """
        agent-flows task list --port web1
        agent-flows task list --state FAILED --sort started_at:desc --limit 20
        agent-flows task list --host compute-7 --flow refresh -f json
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--resource-id",
            "--port",
            metavar="PORT",
            help="Only tasks of this port: its name, its id or the beginning of it.",
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
        port = parsed_args.resource_id
        filters = {
            "resource_id": None if port is None else refs.resolve_any(self.api, port),
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
        rows = [_values(task, _SHOWN, columns.Error) for task in tasks]
        if self.is_short(parsed_args):
            self._shorten(rows, tasks)
        return _SHOWN, rows

    def _shorten(self, rows: Iterable[list[Any]], tasks: Sequence[columns.Task]) -> None:
        flows = refs.shortened(task["flow_id"] for task in tasks)
        began, id_ = _SHOWN.index("started_at"), _SHOWN.index("id")
        for row, task in zip(rows, tasks, strict=True):
            row[began] = columns.Since(row[began])
            if self.api.shortens_tasks:
                row[id_] = refs.short_task(flows[task["flow_id"]], task["order"])


class ShowTask(ShowCommand):
    """Show one task with its whole error."""

    examples = """
        agent-flows task show 7b0f3c1e.1
        agent-flows task show 7b0f3c1e-1d6b-4d0c-a2a5-8c5d5a7f9e10-1
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("id", metavar="TASK", help="The task's id, as task list shows it.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        task = self.api.show("tasks", refs.resolve_task(self.api, parsed_args.id))
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
