"""agent-flows agent list, show, resync and delete."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent_flows.cli import columns
from agent_flows.cli.api_command import ApiCommand, ListCommand, ShowCommand
from agent_flows.cli.each import each

if TYPE_CHECKING:
    from agent_flows.cli.client import RestClient

# Shown in columns of their own.
_TROUBLES = frozenset({"trouble", "troubles"})


class ListAgents(ListCommand):
    """List agents: whether they live, their last heartbeat, what troubles them and their ports."""

    examples = """
        agent-flows agent list
        agent-flows agent list -f json
    """

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        agents = self.api.find("agents", {})
        rows = [_shown(agent) for agent in agents]
        names = tuple(rows[0]) if rows else _NAMES
        return names, [tuple(row.values()) for row in rows]


class ShowAgent(ShowCommand):
    """Show one agent: whether it lives, what troubles its host, and how its ports fare."""

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
        shown = _shown(agent)
        troubles = agent["state"].get("troubles") or {}
        shown["trouble"] = columns.Lines(troubles)
        shown["sequence"] = agent.get("sequence")
        return tuple(shown), tuple(shown.values())


class _HostsCommand(ApiCommand):
    """Does something to each of several hosts' agents, whatever becomes of the others."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("hosts", metavar="HOST", nargs="+", help="An agent's host.")
        return parser

    @property
    def rest(self) -> "RestClient":
        """Only our own server knows agents."""
        client: RestClient = self.app.client_manager.agent_flows  # type: ignore[attr-defined]
        return client


class ResyncAgents(_HostsCommand):
    """Have agents wire every port of their host anew, whatever they did before."""

    examples = "agent-flows agent resync compute-7"

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        each(self, parsed_args.hosts, self.rest.resync_host, "resync of all its ports requested")


class DeleteAgents(_HostsCommand):
    """Forget agents that are gone; one that lives is known again with its next heartbeat."""

    examples = "agent-flows agent delete compute-7"

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        each(self, parsed_args.hosts, self.rest.forget_agent, "forgotten")


_NAMES = ("host", "alive", "heartbeat_at", "trouble", "conflict", "ports", "state")


def _shown(agent: Mapping[str, Any]) -> dict[str, Any]:
    state: Mapping[str, Any] = agent["state"]
    # Neither the first release's agents nor its servers know them all.
    trouble = next(iter((state.get("troubles") or {}).values()), state.get("trouble"))
    values = (
        agent["host"],
        agent["alive"],
        columns.Moment(agent["heartbeat_at"]),
        trouble,
        columns.Conflict(agent.get("conflict")),
        columns.Facts(agent["ports"]),
        columns.Facts(state, _TROUBLES),
    )
    return dict(zip(_NAMES, values, strict=True))
