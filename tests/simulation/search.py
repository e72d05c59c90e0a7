"""How much is searched."""

import contextlib
import gc
from collections.abc import Iterator

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import run_state_machine_as_test

from tests.simulation.machine import Histories

SEEDS = range(4, 44)
HISTORIES = 20
"""For each seed, unless ``--examples`` is given: few, for hypothesis makes most of them by a change
of those before."""
STEPS = 20
"""The rules of one history."""


def search(histories: int, seed: int | None, *, shrink: bool = True) -> None:
    """Raises what a history raised that breaks an invariant, shrunk to the fewest rules. None seeks
    other histories each time."""

    class Seeded(Histories):
        """hypothesis keeps the seed in the class."""

    if seed is not None:
        hypothesis.seed(seed)(Seeded)
    with _little_garbage():
        run_state_machine_as_test(Seeded, settings=_settings(histories, shrink=shrink))


@contextlib.contextmanager
def _little_garbage() -> Iterator[None]:
    """Each world is full of cycles: it is collected as a whole, and not looked through while it
    grows. That saves a tenth of the time."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _settings(histories: int, *, shrink: bool) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=histories,
        stateful_step_count=STEPS,
        database=None,
        deadline=None,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
