"""What keeps the one thread of Neutron 26's agent, and for how long; for ours and for others.

Run it in an environment of Neutron 26: ``tests/releases/run make 26`` makes one. Its agent has
green threads: while one runs, no other does, neither heartbeats nor RPC.
"""

import argparse
import collections
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import neutron
from bench.runner import Bench, Command, Figures, progress

_LONG_MS = 50
_SHOWN = 12
_OURS = "agent_flows/"


@dataclass(frozen=True)
class Block:
    """A time in which no other thread could run: ``ms``, of which the thread computed ``cpu_ms``.
    ``at``: where it was seen, and how often."""

    ms: float
    cpu_ms: float
    at: tuple[tuple[str, int], ...]

    @property
    def share(self) -> float:
        """How much of it was in code of ours, or in what that called."""
        ours = sum(times for place, times in self.at if _OURS in place)
        return ours / max(1, sum(times for _, times in self.at))

    def __str__(self) -> str:
        places = "; ".join(f"{times}x {place}" for place, times in self.at[:4])
        return f"{self.ms:7.1f} ms ({self.cpu_ms:.0f} ms CPU, {self.share:.0%} ours): {places}"


def read(record: Path, skip: int) -> list[Block]:
    """The blocks recorded after the first ``skip``."""
    lines = record.read_text().splitlines()[skip:]
    found = [json.loads(line) for line in lines]
    return [Block(each["ms"], each["cpu_ms"], tuple(map(tuple, each["at"]))) for each in found]


def figures(blocks: Sequence[Block], prefix: str) -> Figures:
    """A block counts as ours if code of ours was seen in most of it. CPU time is given too: on a
    busy machine a block also contains the time in which the thread had no processor."""
    ours = [block for block in blocks if block.share > 0.5]
    others = [block for block in blocks if block.share <= 0.5]
    found = {
        "longest_ms": max((block.ms for block in ours), default=0.0),
        "longest_cpu_ms": max((block.cpu_ms for block in ours), default=0.0),
        "longer_than_50_ms": sum(block.ms > _LONG_MS for block in ours),
        "neutrons_longest_ms": max((block.ms for block in others), default=0.0),
        "neutrons_longest_cpu_ms": max((block.cpu_ms for block in others), default=0.0),
        "neutrons_longer_than_50_ms": sum(block.ms > _LONG_MS for block in others),
    }
    return {f"{prefix}_{name}": value for name, value in found.items()}


def _show(title: str, blocks: Sequence[Block]) -> None:
    progress(f"{title}: the longest")
    for block in sorted(blocks, key=lambda each: -each.ms)[:_SHOWN]:
        progress(str(block))
    lines = collections.Counter[str]()
    for block in blocks:
        if block.ms > _LONG_MS:
            lines.update({place: times for place, times in block.at if _OURS in place})
    for place, times in lines.most_common(_SHOWN):
        progress(f"  {times:4} samples in long ones: {place}")


@contextlib.contextmanager
def prepare(options: argparse.Namespace) -> Iterator[Bench]:
    """All ports are plugged in at once, get a rule, and are unplugged at once; the figures of each
    also contain what the agent does afterwards, until it is idle."""
    with tempfile.TemporaryDirectory(prefix="agent-flows-blocked-") as directory:
        record = Path(directory) / "blocks"
        launcher = (sys.executable, "-m", "lab.neutron.blocked", str(record))
        with neutron.cloud("agent_flows", options.ports, launcher) as cloud:

            def measure() -> Figures:
                parts: dict[str, float] = {}
                for name, work in (
                    ("plug", cloud.plug),
                    ("rule", cloud.refresh),
                    ("unplug", cloud.unplug),
                ):
                    cloud.wait_until_idle()
                    skip = len(record.read_text().splitlines())
                    work()
                    cloud.wait_until_idle()
                    blocks = read(record, skip)
                    _show(f"{name}, {options.ports} ports at once", blocks)
                    parts |= figures(blocks, name)
                return parts

            yield Bench(measure)


COMMAND = Command(
    "blocked",
    "what blocks the one thread of Neutron 26's agent (in an environment of it)",
    prepare,
    ports=500,
    rounds=1,
)
