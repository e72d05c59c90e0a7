"""Faults made on purpose, and what holds during and after each of them."""

from tests.faults.scenario import Outcome, Scenario, run
from tests.faults.scenarios import ALL
from tests.faults.stage import Stage

SCENARIOS = ALL


def test_nothing_is_lost_and_nothing_is_open(
    stage: Stage, outcomes: list[Outcome], scenario: Scenario[Stage], seed: int
) -> None:
    outcome = run(scenario, stage, seed)
    outcomes.append(outcome)
    assert outcome.wrong == []
