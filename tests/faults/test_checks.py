"""The checks that all scenarios share: each of them sees what it is for."""

import dataclasses
import re

import pytest

from tests.faults.scenario import Outcome, table
from tests.faults.scenarios import ALL
from tests.faults.stage import BRIDGE, Seen, Stage

QUIET = Seen(
    unproven=(),
    forbidden={},
    failures=2,
    kinds={"FlowRefused": 2},
    lost=(),
    doubled=(),
    answered=9,
    asked=10,
    sent=100,
)


@pytest.mark.parametrize(
    "broken",
    [
        {"unproven": ("port p is ACTIVE",)},
        {"forbidden": {"victim": 1}},
        {"lost": ("report",)},
        {"doubled": ("report",)},
        {"answered": 0},
    ],
)
def test_a_round_in_which_something_was_wrong_is_not_survived(broken: dict[str, object]) -> None:
    name = ALL[0].name
    good = Outcome(name, 1.0, QUIET)
    bad = Outcome(name, 3.0, dataclasses.replace(QUIET, **broken))
    assert good.survived
    assert not bad.survived
    assert "| 1 / 2 |" in table(ALL, [good, bad])
    assert "2.0 s, 3.0 s" in table(ALL, [good, bad])


@pytest.mark.parametrize("table_number", [0, 71, 82, 84])
def test_a_flow_that_is_missing_makes_its_port_unproven(stage: Stage, table_number: int) -> None:
    port = stage.lines[0]
    ofport = stage.switch.ofport(port.tap)
    match = f"reg5={ofport}" if table_number else f"in_port={ofport}"
    management = stage.switch.management(BRIDGE)
    with stage.held_agent():
        stage.switch.ofctl("del-flows", management, f"table={table_number},{match}")
        (found,) = stage.unproven()
        assert re.search(rf"port {port.port_id} is ACTIVE; missing: \['", found)
    stage.wait_converged()
