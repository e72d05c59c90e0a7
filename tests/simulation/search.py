"""How much is searched."""

import hypothesis
from hypothesis import HealthCheck, Phase

HISTORIES = 100
"""Unless ``--examples`` is given."""
STEPS = 20
"""The rules of one history."""


def settings(histories: int, *, random: bool = False, shrink: bool = True) -> hypothesis.settings:
    """Other histories each time if ``random``. What breaks an invariant is shrunk, unless not."""
    return hypothesis.settings(
        max_examples=histories,
        stateful_step_count=STEPS,
        derandomize=not random,
        database=None,
        deadline=None,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
