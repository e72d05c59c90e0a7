"""agent-flows agent list, show, resync and delete."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent_flows.cli import columns
from agent_flows.cli.api_command import ApiCommand, ListCommand, ShowCommand

if TYPE_CHECKING:
    from agent_flows.cli.client import RestClient

# Shown in columns of their own.
_TROUBLES = frozenset({"trouble", "troubles"})


class ListAgents(ListCommand):
    """List agents with liveness, last heartbeat, troubles and ports."""

    shown = ("host", "alive", "heartbeat_at", "ports", "trouble", "conflict")
    examples = """
        agent-flows agent list
        agent-flows agent list -f json
    """

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        return _NAMES, [_values(agent) for agent in self.api.find("agents", {})]


class ShowAgent(ShowCommand):
    """Show one agent with liveness, last heartbeat, troubles and ports."""

    examples = """
        agent-flows agent show compute-7
        agent-flows agent show compute-7 -f json -c troubles
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("host", metavar="HOST", help="The agent's host.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        agent = self.api.show("agents", parsed_args.host)
        shown = dict(zip(_NAMES, _values(agent), strict=True))
        shown["trouble"] = columns.Lines(agent["state"].get("troubles") or {})
        shown["desired"] = columns.Desired(agent.get("desired"))
        shown["host_key"] = columns.Facts(agent.get("host_key") or {})
        shown["gating_off"] = columns.Facts(agent.get("gating_off") or {})
        shown["sequence"] = agent.get("sequence")
        return tuple(shown), tuple(shown.values())


class _HostsCommand(ApiCommand):
    """Acts on the agents of several hosts; one that fails does not stop the others."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("hosts", metavar="HOST", nargs="+", help="An agent's host.")
        return parser

    @property
    def rest(self) -> "RestClient":
        """Neutron's API has no such requests."""
        client: RestClient = self.app.client_manager.agent_flows  # type: ignore[attr-defined]
        return client


class ResyncAgents(_HostsCommand):
    """Request that agents wire every port of their host again."""

    examples = "agent-flows agent resync compute-7"

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        self.for_each(parsed_args.hosts, self.rest.resync_host, "resync of all its ports requested")


class DeleteAgents(_HostsCommand):
    """Delete agents that no longer exist; a running one is back after its next heartbeat."""

    examples = "agent-flows agent delete compute-7"

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        self.for_each(parsed_args.hosts, self.rest.forget_agent, "deleted")


_NAMES = ("host", "alive", "heartbeat_at", "trouble", "conflict", "ports", "state")


def _values(agent: Mapping[str, Any]) -> tuple[Any, ...]:
    """In the order of ``_NAMES``; agents and servers of the first release do not send them all."""
    state: Mapping[str, Any] = agent["state"]
    trouble = next(iter((state.get("troubles") or {}).values()), state.get("trouble"))
    return (
        agent["host"],
        agent["alive"],
        columns.Moment(agent["heartbeat_at"]),
        trouble,
        columns.Conflict(agent.get("conflict")),
        columns.Facts(agent["ports"]),
        columns.Facts(state, _TROUBLES),
    )
