"""How much is searched."""

import contextlib
import functools
import gc
from collections.abc import Iterator

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import run_state_machine_as_test

from tests.simulation.machine import Histories

SEEDS = range(250)
HISTORIES = 9
"""For each seed. The first is the simplest one, whatever the seed, so 2,000 differ; hypothesis
would make most of those after the tenth by a change of one before."""
STEPS = 12
"""The rules of one history."""


def search(seed: int, *, shrink: bool = True) -> None:
    """Raises what a history raised that breaks an invariant, shrunk to the fewest rules."""

    class Seeded(Histories):
        """hypothesis keeps the seed in the class."""

    hypothesis.seed(seed)(Seeded)
    with _little_garbage():
        run_state_machine_as_test(Seeded, settings=_settings(shrink=shrink))


@contextlib.contextmanager
def _little_garbage() -> Iterator[None]:
    """Each world is full of cycles: it is collected as a whole, and not looked through while it
    grows. That saves a tenth of the time."""
    before = gc.get_threshold()
    _freeze()
    gc.set_threshold(200_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@functools.cache
def _freeze() -> None:
    """What was imported stays."""
    gc.collect()
    gc.freeze()


def _settings(*, shrink: bool) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=HISTORIES,
        stateful_step_count=STEPS,
        database=None,
        deadline=None,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
