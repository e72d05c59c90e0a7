"""The checks that all scenarios share: each of them sees what it is for."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator

import pytest

from agent_flows.openflow.priorities import CONJUNCTIONS
from lab.switch import RULES_INGRESS
from tests.faults.any_stage import BRIDGE, Seen
from tests.faults.scenario import Outcome, table
from tests.faults.scenarios import ALL
from tests.faults.stage import Stage

QUIET = Seen(
    unproven=(),
    damage=(),
    reports=50,
    uncounted=(),
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
        {"damage": ("the outbox is damaged",)},
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


def test_the_table_keeps_the_figures_of_faults_that_were_not_tried_again() -> None:
    first, second, third = ALL[:3]
    old = table(ALL, [Outcome(first.name, 1.0, QUIET), Outcome(second.name, 2.0, QUIET)])
    new = table(ALL, [Outcome(second.name, 3.0, QUIET), Outcome(third.name, 4.0, QUIET)], old)
    assert new == table(
        ALL,
        [Outcome(each.name, at, QUIET) for each, at in ((first, 1.0), (second, 3.0), (third, 4.0))],
    )


@contextlib.contextmanager
def without(stage: Stage, match: str) -> Iterator[None]:
    """The switch lacks these flows until the block is left. The agent, which is stopped meanwhile,
    finds nothing to repair: it would not do so again and again without longer and longer pauses."""
    management, flows = stage.switch.management(BRIDGE), stage.switch.flows(BRIDGE, match)
    with stage.held_agent():
        stage.switch.ofctl("del-flows", management, match)
        yield
        again = "\n".join(f"add {flow}" for flow in flows)
        stage.switch.ofctl("--bundle", "add-flows", management, "-", stdin=again)
    stage.wait_converged()


@pytest.mark.parametrize("table_number", [0, 71, 82, 84])
def test_a_flow_that_is_missing_makes_its_port_unproven(stage: Stage, table_number: int) -> None:
    port = stage.lines[0]
    ofport = stage.switch.ofport(port.tap)
    match = f"reg5={ofport}" if table_number else f"in_port={ofport}"
    with without(stage, f"table={table_number},{match}"):
        (found,) = stage.unproven()
    assert re.search(rf"port {port.port_id} is ACTIVE; missing: \['", found)


def test_an_address_of_a_remote_group_that_is_missing_makes_its_port_unproven(stage: Stage) -> None:
    with without(stage, f"table={RULES_INGRESS},ip,nw_src={stage.client.ip}"):
        found = stage.unproven()
    assert {each.split()[1] for each in found} == {stage.victim.port_id, stage.other.port_id}


def test_a_conjunction_whose_flows_have_two_priorities_makes_its_port_unproven(
    stage: Stage,
) -> None:
    management = stage.switch.management(BRIDGE)
    ofport = stage.switch.ofport(stage.victim.tap)
    (flow,) = [
        each
        for each in stage.switch.flows(BRIDGE, f"table={RULES_INGRESS},reg5={ofport}")
        if "conjunction(" in each
    ]
    used = int(re.search(r"priority=(\d+)", flow)[1])
    free = next(each for each in CONJUNCTIONS if each != used)
    match = flow.partition(", ")[2].partition(" actions=")[0]
    other = match.replace(f"priority={used}", f"priority={free}")

    def replace(one: str, by: str) -> None:
        lines = [f"delete_strict {one}", f"add {flow.replace(match, by)}"]
        stage.switch.ofctl("--bundle", "add-flows", management, "-", stdin="\n".join(lines))

    with stage.held_agent():
        replace(match, other)
        (found,) = stage.unproven()
        replace(other, match)
    assert found.startswith(f"port {stage.victim.port_id} is ACTIVE; missing: ['")
    stage.wait_converged()
