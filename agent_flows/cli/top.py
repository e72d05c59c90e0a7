"""agent-flows top: how the hosts are, again and again."""

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent_flows.cli import columns
from agent_flows.cli.api_command import WIDTH, ApiCommand
from agent_flows.cli.failure import CommandFailed
from agent_flows.printable import printable
from agent_flows.report import SyncState

if TYPE_CHECKING:  # it takes a while to import, and --help needs none
    from rich.console import RenderableType

# What needs a person first.
_STATES = (
    SyncState.OUT_OF_SYNC,
    SyncState.UNKNOWN,
    SyncState.SYNCING,
    SyncState.ABSENT,
    SyncState.IN_SYNC,
)
_BAD = (SyncState.OUT_OF_SYNC, SyncState.UNKNOWN)
_PROBLEMS = 5
# Lines beside those of hosts and problems: totals, headings, rules and gaps.
_FRAME = 9


@dataclass(frozen=True)
class Seen:
    """What one look found; ``problems`` are the oldest."""

    agents: Sequence[Mapping[str, Any]]
    problems: Sequence[Mapping[str, Any]]

    @property
    def totals(self) -> Counter[str]:
        totals = Counter[str]()
        for agent in self.agents:
            totals.update(agent["ports"])
        return totals


class Top(ApiCommand):
    """Show the hosts, those in trouble first, and the oldest problems, again and again.

    Ctrl-C ends it. If standard output is no terminal, it prints once.
    """

    examples = """
        agent-flows top
        agent-flows top --interval 10
        agent-flows top | head -20
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--interval",
            type=_seconds,
            default=2.0,
            metavar="N",
            help="Seconds between two looks (default %(default).0f, at least 0.5).",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self.app.stdout, highlight=False)
        seen = self._look()
        if not console.is_terminal:
            Console(file=self.app.stdout, width=WIDTH, highlight=False).print(drawn(seen, None))
            return
        failure = ""
        with Live(console=console, screen=True, auto_refresh=False) as live:
            try:
                while True:
                    live.update(drawn(seen, console.height, failure), refresh=True)
                    time.sleep(parsed_args.interval)
                    try:
                        seen, failure = self._look(), ""
                    except CommandFailed as exc:
                        # It may be back at the next look; until then the last one is shown.
                        failure = str(exc)
            except KeyboardInterrupt:
                return

    def _look(self) -> Seen:
        return Seen(self.api.find("agents", {}), self.api.find("problems", {}, _PROBLEMS))


def drawn(seen: Seen, height: int | None, failure: str = "") -> "RenderableType":
    """What is shown, in so many lines, or in as many as it takes."""
    from rich.console import Group
    from rich.text import Text

    totals = seen.totals
    alive = sum(agent["alive"] for agent in seen.agents)
    parts = [f"{totals[state]} {state}" for state in _STATES if totals[state]]
    ports = ", ".join(parts) or "no ports"
    head = f"{alive} of {len(seen.agents)} agents alive; ports: {ports}; {time.strftime('%X')}"
    room = None if height is None else max(height - _FRAME - len(seen.problems), 1)
    found: list[RenderableType] = [Text(head, style="bold")]
    if failure:
        found.append(Text(f"Not read again: {failure}", style="red"))
    hosts = sorted(seen.agents, key=_urgency)
    found.append(_hosts(hosts[:room]))
    if room is not None and len(hosts) > room:
        found.append(Text(f"and {len(hosts) - room} more hosts"))
    if seen.problems:
        found.append(_problems(seen.problems))
    return Group(*found)


def _urgency(agent: Mapping[str, Any]) -> tuple[Any, ...]:
    ports = agent["ports"]
    bad = sum(ports.get(state, 0) for state in _BAD)
    rest = sum(ports.get(state, 0) for state in _STATES if state not in (*_BAD, SyncState.IN_SYNC))
    troubled = bool(agent["state"].get("troubles"))
    return (agent["alive"], -bad, not troubled, -rest, agent["host"])


def _hosts(agents: Sequence[Mapping[str, Any]]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, expand=True)
    table.add_column("host", no_wrap=True, ratio=2)
    table.add_column("alive")
    for state in _STATES:
        table.add_column(state.value, justify="right")
    table.add_column("trouble", no_wrap=True, ratio=3)
    for agent in agents:
        ports = agent["ports"]
        bad = not agent["alive"] or any(ports.get(state) for state in _BAD)
        troubles = agent["state"].get("troubles") or {}
        trouble = next((f"{name}: {line}" for name, line in troubles.items()), "")
        table.add_row(
            Text(printable(agent["host"])),
            "yes" if agent["alive"] else f"no, {columns.ago(agent['heartbeat_at'])}",
            *(str(ports.get(state, 0) or "-") for state in _STATES),
            Text(printable(trouble)),
            style="red" if bad else None,
        )
    return table


def _problems(problems: Sequence[Mapping[str, Any]]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, expand=True)
    for name, ratio in (("problem", 2), ("host", 2), ("ports", 1), ("since", 1), ("message", 6)):
        table.add_column(name, no_wrap=True, ratio=ratio)
    for each in problems:
        table.add_row(
            Text(printable(str(each["error_type"]))),
            Text(printable(str(each.get("host") or ""))),
            str(sum(each["ports"].values())),
            columns.ago(each["since"]),
            Text(printable(str(each["message"]))),
        )
    return table


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.5 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds from 0.5")
    return value
