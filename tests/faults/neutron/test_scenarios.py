"""Faults made on purpose in a live Neutron, and what holds during and after each of them."""

from tests.faults.neutron.scenarios import ALL
from tests.faults.neutron.stage import NeutronStage
from tests.faults.scenario import Outcome, Scenario, run

SCENARIOS = ALL


def test_nothing_is_lost_and_nothing_is_open_inside_neutron(
    stage: NeutronStage, outcomes: list[Outcome], scenario: Scenario[NeutronStage], seed: int
) -> None:
    outcomes.append(run(scenario, stage, seed))
    assert outcomes[-1].wrong == []
