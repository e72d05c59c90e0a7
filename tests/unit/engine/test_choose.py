"""The flow that a port needs."""

import dataclasses
from typing import Any

import pytest

from agent_flows.engine.port_life import Applied, Life, Request
from agent_flows.engine.reconciler import Desired, choose, is_concerned
from agent_flows.report import FlowName

PORT = "port-1"
PLAIN, FORCED, ASKED = Request(PORT), Request(PORT, forced=True), Request(PORT, asked=True)
DESIRED = Desired("spec 7", {"group": 3}, 7, {"group": 3})
PROVEN = Applied("tap1", "spec 7", {"group": 3}, proven=True)


def flow_of(
    request: Request = PLAIN,
    present: Any = "tap1",
    desired: Desired | None = DESIRED,
    **life: Any,
) -> FlowName | None:
    return choose(Life(request, **life), present, desired, FlowName.RESYNC)


def test_a_port_seen_for_the_first_time_is_wired() -> None:
    assert flow_of() is FlowName.WIRE


def test_a_proven_port_needs_nothing() -> None:
    assert flow_of(applied=PROVEN) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"desired": dataclasses.replace(DESIRED, wiring="spec 8")},
        {"present": "tap2"},
        {"present": "an error of the interface"},
        {"applied": dataclasses.replace(PROVEN, proven=False)},
    ],
    ids=["spec", "interface", "broken interface", "flow failed"],
)
def test_port_that_differs_from_what_was_proven_is_wired(changed: dict[str, Any]) -> None:
    assert flow_of(**{"applied": PROVEN, **changed}) is FlowName.WIRE


def test_port_with_changed_rules_is_refreshed() -> None:
    changed = dataclasses.replace(DESIRED, rules={"group": 4})
    assert flow_of(desired=changed, applied=PROVEN) is FlowName.REFRESH


def test_failed_refresh_is_refreshed_again() -> None:
    assert flow_of(applied=dataclasses.replace(PROVEN, rules=None)) is FlowName.REFRESH


@pytest.mark.parametrize("applied", [None, PROVEN], ids=["new", "proven"])
def test_a_forced_port_goes_through_the_hosts_forced_flow(applied: Applied | None) -> None:
    assert flow_of(FORCED, applied=applied) is FlowName.RESYNC


@pytest.mark.parametrize("gone", [{"present": None}, {"desired": None}], ids=["plug", "spec"])
def test_a_wired_port_without_interface_or_spec_is_unwired(gone: dict[str, Any]) -> None:
    assert flow_of(applied=PROVEN, **gone) is FlowName.UNWIRE


def test_a_port_that_leaves_is_unwired_with_or_without_interface() -> None:
    leaving = dataclasses.replace(DESIRED, leaving=True)
    assert flow_of(applied=PROVEN, desired=leaving) is FlowName.UNWIRE
    assert flow_of(ASKED, present=None, desired=leaving) is FlowName.UNWIRE


def test_a_plugged_port_without_spec_is_left_closed_unless_forced() -> None:
    assert flow_of(desired=None) is None
    assert flow_of(FORCED, desired=None) is FlowName.UNWIRE


def test_absence_is_reported_once_per_revision_if_asked() -> None:
    assert flow_of(PLAIN, present=None) is None
    assert flow_of(FORCED, present=None) is FlowName.UNWIRE
    assert flow_of(ASKED, present=None) is FlowName.UNWIRE
    assert flow_of(ASKED, present=None, absent_at=7) is None
    assert flow_of(ASKED, present=None, absent_at=6) is FlowName.UNWIRE


def test_the_absence_of_a_port_that_is_not_desired_here_is_not_reported() -> None:
    assert flow_of(ASKED, present=None, desired=None) is None


def test_unplugged_and_unwired_port_concerns_the_host_only_if_asked() -> None:
    assert not is_concerned(Life(PLAIN), None)
    assert is_concerned(Life(FORCED), None)
    assert is_concerned(Life(ASKED), None)
    assert is_concerned(Life(PLAIN), "tap1")
    assert is_concerned(Life(PLAIN, applied=PROVEN), None)
