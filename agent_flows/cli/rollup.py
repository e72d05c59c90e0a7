"""agent-flows network, security-group and address-group: list and show.

``show`` has how far the ports of a network or security group are in sync.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from agent_flows.cli import columns, refs
from agent_flows.cli.api_command import ListCommand, ShowCommand

_DISPLAYED: Mapping[str, Callable[[Any], Any]] = {
    "security_group_rules": columns.Rules,
    "addresses": columns.Words,
    "sync": columns.Rollup,
}


class _List(ListCommand):
    collection: ClassVar[str]
    fields: ClassVar[Sequence[str]]

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--name", help="Only those with this name.")
        parser.add_argument("--limit", type=int, metavar="N", help="At most N.")
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        filters: dict[str, object] = {"fields": self.fields}
        if parsed_args.name is not None:
            filters["name"] = parsed_args.name
        found = self.api.find(self.collection, filters, parsed_args.limit)
        return self.fields, [
            [_shown(name, each.get(name)) for name in self.fields] for each in found
        ]


class ListNetworks(_List):
    """List networks, and how many of their ports are in sync."""

    collection = "networks"
    fields = (
        "id",
        "name",
        "network_type",
        "physical_network",
        "segmentation_id",
        "mtu",
        "sync",
    )
    examples = """
        agent-flows network list
        agent-flows network list -f value -c id
    """


class ListSecurityGroups(_List):
    """List security groups with their rules, and how many of their ports are in sync."""

    collection = "security-groups"
    fields = ("id", "name", "stateful", "security_group_rules", "sync", "revision_number")
    shown = ("id", "name", "stateful", "sync")
    examples = """
        agent-flows security-group list
        agent-flows security-group list --name web --long
    """


class ListAddressGroups(_List):
    """List address groups with their addresses."""

    collection = "address-groups"
    fields = ("id", "name", "addresses")
    examples = "agent-flows address-group list"


class _Show(ShowCommand):
    collection: ClassVar[str]

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "id",
            metavar=refs.KINDS[self.collection].upper().replace(" ", "-"),
            help="Its name, its id, or the beginning of its id.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        resource_id = refs.resolve(self.api, self.collection, parsed_args.id)
        found = self.api.show(self.collection, resource_id)
        return tuple(found), tuple(_shown(name, value) for name, value in found.items())


def _shown(name: str, value: Any) -> Any:
    return _DISPLAYED[name](value) if name in _DISPLAYED else value


class ShowSecurityGroup(_Show):
    """Show a security group, how many of its ports are in sync, and which hosts lag."""

    collection = "security-groups"
    examples = """
        agent-flows security-group show web -c sync
        agent-flows security-group show 22222222-0000-4000-8000-000000000001 -f json -c sync
    """


class ShowNetwork(_Show):
    """Show a network, how many of its ports are in sync, and which hosts lag."""

    collection = "networks"
    examples = """
        agent-flows network show net1 -c sync
        agent-flows network show 11111111-0000-4000-8000-000000000001 -f json -c sync
    """


class ShowAddressGroup(_Show):
    """Show an address group."""

    collection = "address-groups"
    examples = "agent-flows address-group show offices"
