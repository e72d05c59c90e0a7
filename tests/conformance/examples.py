"""Tries a property on many worlds, and reports the smallest world that breaks it."""

import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.conformance.disagreement import Disagreement, smallest
from tests.conformance.packets import packets
from tests.conformance.world import Packet, World

PACKETS = 150
"""For each world: to install one costs as much as to ask about that many packets."""
_PROGRESS = 10.0  # seconds between two lines

Judge = Callable[[World, Packet], Disagreement | None]


@dataclass
class Examples:
    """``count`` worlds, the same each time for the same ``seed``; ``say`` prints progress."""

    count: int
    seed: int
    say: Callable[[str], None]

    def hold(
        self,
        worlds: st.SearchStrategy[World],
        install: Callable[[World], None],
        judge: Judge,
        *,
        each_from_nothing: bool = True,
    ) -> None:
        """Fails with the first disagreement, in the smallest world that shows it, and how
        to see it again: by that world alone, or by all that came before, too."""
        __tracebackhide__ = True
        found = self.search(worlds, install, judge)
        if found is not None:
            less = smallest(found, install, judge)
            first = self._at if each_from_nothing else self.seed
            again = f"--examples {self._at - first + 1} --hypothesis-seed={first}"
            pytest.fail(f"{less}\nagain: {again}")

    def search(
        self,
        worlds: st.SearchStrategy[World],
        install: Callable[[World], None],
        judge: Judge,
    ) -> Disagreement | None:
        """The first disagreement that ``judge`` finds."""
        shown = time.monotonic()
        for tried in range(self.count):
            self._at = self.seed + tried
            world, rng = _drawn(worlds, self._at)
            install(world)
            for packet in itertools.islice(packets(world, rng), PACKETS):
                found = judge(world, packet)
                if found is not None:
                    return found
            if time.monotonic() - shown > _PROGRESS:
                shown = time.monotonic()
                self.say(f"{tried} of {self.count} worlds, {tried * PACKETS} packets")
        return None


def _drawn(worlds: st.SearchStrategy[World], seed: int) -> tuple[World, random.Random]:
    """One world, and the chance that makes its packets.

    Of many worlds of one run of hypothesis most are the one before with a
    detail changed, and the first of each run is the smallest there is.
    """
    drawn: list[tuple[World, int]] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=2,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(worlds, st.integers(0, 1 << 32))
    def take(world: World, chance: int) -> None:
        drawn.append((world, chance))

    take()
    world, chance = drawn[-1]
    return world, random.Random(chance)
