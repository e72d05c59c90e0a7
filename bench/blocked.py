"""What keeps the one thread of Neutron 26's agent, and for how long; for ours and for others.

Run it in an environment of Neutron 26: ``tests/releases/run make 26`` makes one. Its agent has
green threads: while one runs, no other does, neither heartbeats nor RPC.
"""

import argparse
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
_SHOWN = 10
_OURS = "agent_flows/"


@dataclass(frozen=True)
class Block:
    """A time in which no other thread could run: ``ms``. In it the thread computed for ``cpu_ms``,
    of which ``gc_ms`` were Python's collection of garbage, and waited for a processor, which other
    programs used, for ``waited_ms``. ``at``: where it was seen, and how often."""

    ms: float
    cpu_ms: float
    waited_ms: float
    gc_ms: float
    at: tuple[tuple[str, int], ...]

    @property
    def kept_ms(self) -> float:
        """Without what other programs took, and without garbage, which anything may set off."""
        return max(0.0, self.ms - self.waited_ms - self.gc_ms)

    @property
    def share(self) -> float:
        """How much of it was in code of ours, or in what that called."""
        ours = sum(times for place, times in self.at if _OURS in place)
        return ours / max(1, sum(times for _, times in self.at))

    def __str__(self) -> str:
        parts = (
            f"{self.cpu_ms:.0f} computing, {self.gc_ms:.0f} of it garbage; "
            f"{self.waited_ms:.0f} waiting for a processor; {self.share:.0%} ours"
        )
        places = "; ".join(f"{times}x {place}" for place, times in self.at[:4])
        return f"{self.kept_ms:7.1f} of {self.ms:.1f} ms ({parts}): {places}"


def read(record: Path, skip: int) -> list[Block]:
    """The blocks recorded after the first ``skip``."""
    lines = record.read_text().splitlines()[skip:]
    found = [json.loads(line) for line in lines]
    return [Block(**{**each, "at": tuple(map(tuple, each["at"]))}) for each in found]


def figures(blocks: Sequence[Block], prefix: str) -> Figures:
    """Of each block as much counts as ours as code of ours was seen in it."""
    ours = [block.kept_ms * block.share for block in blocks]
    others = [block.kept_ms * (1 - block.share) for block in blocks]
    return {
        f"{prefix}_longest_ms": max(ours, default=0.0),
        f"{prefix}_longer_than_50_ms": sum(ms > _LONG_MS for ms in ours),
        f"{prefix}_neutrons_longest_ms": max(others, default=0.0),
        f"{prefix}_neutrons_longer_than_50_ms": sum(ms > _LONG_MS for ms in others),
        f"{prefix}_garbage_longest_ms": max((block.gc_ms for block in blocks), default=0.0),
    }


def _show(title: str, blocks: Sequence[Block]) -> None:
    progress(f"{title}: the longest of ours")
    for block in sorted(blocks, key=lambda each: -each.kept_ms * each.share)[:_SHOWN]:
        progress(str(block))
    progress(f"{title}: the longest of others")
    for block in sorted(blocks, key=lambda each: -each.kept_ms * (1 - each.share))[:_SHOWN]:
        progress(str(block))


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
