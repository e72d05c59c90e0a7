"""agent-flows problem list."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from agent_flows.cli import columns, refs
from agent_flows.cli.api_command import ListCommand

_SHOWN = ("error_type", "host", "ports", "since", "resource_type", "resource_id", "message")


class ListProblems(ListCommand):
    """List what is out of sync now, by cause and host, oldest first.

    All ports with one type of error on one host are one line; resource and message are those of the
    oldest. The ports of a line: agent-flows port list --problems --host HOST.
    """

    shown = ("error_type", "host", "ports", "since", "resource_id", "message")
    ids: ClassVar[Mapping[str, str]] = {"resource_id": "ports"}
    examples = """
        agent-flows problem list
        agent-flows problem list --host compute-7
        agent-flows problem list --type AgentSilent -f value -c host
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--host", help="Only problems of this host.")
        parser.add_argument("--type", help="Only this type of error, as FlowRefused.")
        parser.add_argument(
            "--resource-id",
            "--port",
            metavar="PORT",
            help="Only of this port, or of this security group where the group failed: name or id.",
        )
        parser.add_argument("--limit", type=int, metavar="N", help="At most N problems.")
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        resource = parsed_args.resource_id
        filters = {
            "host": parsed_args.host,
            "error_type": parsed_args.type,
            "resource_id": None if resource is None else refs.resolve_any(self.api, resource),
        }
        given = {name: value for name, value in filters.items() if value is not None}
        found = self.api.find("problems", given, parsed_args.limit)
        shown = {"ports": columns.Facts, "since": columns.Moment}
        return _SHOWN, [
            [shown[name](each[name]) if name in shown else each[name] for name in _SHOWN]
            for each in found
        ]
