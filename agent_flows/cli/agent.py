"""agent-flows agent list."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from agent_flows.cli import columns
from agent_flows.cli.api_command import ListCommand


class ListAgents(ListCommand):
    """List the agents that ever reported, whether they live and when they last said so."""

    examples = """
        agent-flows agent list
        agent-flows agent list -f json
    """

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        agents = self.api.find("agents", {})
        return ("host", "alive", "heartbeat_at", "ports", "state"), [
            (
                agent["host"],
                agent["alive"],
                agent["heartbeat_at"],
                columns.Facts(agent["ports"]),
                columns.Facts(agent["state"]),
            )
            for agent in agents
        ]
