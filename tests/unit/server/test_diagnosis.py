"""A port says of itself what keeps it from working, and what to do."""

import dataclasses
import datetime
import itertools

import pytest

from agent_flows.errors import remedy
from agent_flows.report import SyncState
from agent_flows.server.standalone import diagnosis
from agent_flows.server.standalone.diagnosis import Agent, Failure, Port

HEARD = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
ID = "4e8e5957-649f-477b-9e5b-f1f75b21c03c"
FINE = Port(ID, "h1", SyncState.IN_SYNC, admin_state_up=True, filtered=True, grouped=True)
ALIVE = Agent(alive=True, heard_at=HEARD)
DEAD = dataclasses.replace(ALIVE, alive=False)


def port(**changes: object) -> Port:
    return dataclasses.replace(FINE, **changes)  # type: ignore[arg-type]


def failure(type_: str, message: str = "the tool's own words") -> Failure:
    return Failure("some-task", type_, message)


def test_a_port_that_works_has_nothing_to_say() -> None:
    assert diagnosis.reason(FINE, ALIVE, None) is None


@pytest.mark.parametrize(
    "type_", ["FlowRefused", "UnknownPhysicalNetwork", "InterfaceError", "Timeout", "Conflict"]
)
def test_a_failed_task_is_named_with_its_words_and_with_what_helps(type_: str) -> None:
    said = diagnosis.reason(port(sync_state=SyncState.OUT_OF_SYNC), ALIVE, failure(type_))
    assert said is not None
    assert said.startswith(f"some-task failed: {type_}: the tool's own words. To do: ")
    assert remedy(type_) in said


@pytest.mark.parametrize("state", SyncState)
def test_a_dead_agent_is_the_reason_whatever_it_said_last(state: SyncState) -> None:
    said = diagnosis.reason(port(sync_state=state), DEAD, failure("FlowRefused"))
    assert said is not None
    assert "agent of host h1 has been silent since 2026-01-02T03:04:05+00:00: start it" in said
    assert "FlowRefused" not in said


@pytest.mark.parametrize("state", SyncState)
def test_a_host_where_no_agent_was_ever_seen_is_named(state: SyncState) -> None:
    said = diagnosis.reason(port(host="h2", sync_state=state), None, None)
    assert said is not None
    assert "No agent was ever seen on host h2" in said
    assert "binding:host_id" in said


def test_a_port_that_is_not_plugged_says_how_to_plug_it() -> None:
    said = diagnosis.reason(port(sync_state=SyncState.ABSENT), ALIVE, failure("FlowRefused"))
    assert said is not None
    assert f"external_ids:iface-id={ID}" in said
    assert "host h1 found no interface" in said
    assert "FlowRefused" not in said


def test_a_port_bound_to_no_host_says_so() -> None:
    said = diagnosis.reason(port(host=None, sync_state=SyncState.ABSENT), None, None)
    assert said is not None
    assert said.startswith("Bound to no host")


@pytest.mark.parametrize("state", SyncState)
@pytest.mark.parametrize("agent", [None, DEAD, ALIVE])
def test_administratively_down_comes_first_whatever_else_is_wrong(
    state: SyncState, agent: Agent | None
) -> None:
    said = diagnosis.reason(port(sync_state=state, admin_state_up=False), agent, None)
    assert said is not None
    assert said.startswith("Administratively down: it passes nothing")


def test_a_port_without_a_security_group_says_that_nothing_comes_in() -> None:
    said = diagnosis.reason(port(grouped=False), ALIVE, None)
    assert said is not None
    assert "No security group: lets nothing in" in said
    assert diagnosis.reason(port(grouped=False, filtered=False), ALIVE, None) is None


@pytest.mark.parametrize(
    ("source", "shown"), [("switch", True), ("bridge", True), ("outbox", False)]
)
def test_a_trouble_that_makes_claims_untrue_is_said_of_a_proven_port(
    source: str, shown: bool
) -> None:
    troubled = dataclasses.replace(ALIVE, troubles={source: "it is gone"})
    said = diagnosis.reason(FINE, troubled, None)
    assert (said is not None) is shown
    assert said is None or f"Host h1 is in trouble ({source}): it is gone." in said


@pytest.mark.parametrize("state", [SyncState.SYNCING, SyncState.UNKNOWN, SyncState.OUT_OF_SYNC])
def test_any_trouble_of_the_host_is_said_of_a_port_that_waits(state: SyncState) -> None:
    troubled = dataclasses.replace(ALIVE, troubles={"outbox": "the disk is full"})
    said = diagnosis.reason(port(sync_state=state), troubled, None)
    assert said is not None
    assert "(outbox): the disk is full." in said


def test_an_agent_that_came_back_is_not_called_silent_by_an_old_task() -> None:
    state = port(sync_state=SyncState.UNKNOWN)
    said = diagnosis.reason(state, ALIVE, Failure("await-report", "AgentSilent", "since yesterday"))
    assert said is not None
    assert "silent" not in said
    assert "alive" in said


def test_every_port_that_is_not_in_sync_has_a_reason() -> None:
    states = [state for state in SyncState if state is not SyncState.IN_SYNC]
    for state, agent, failed in itertools.product(
        states, [None, DEAD, ALIVE], [None, failure("ReportOverdue")]
    ):
        if state is SyncState.OUT_OF_SYNC and failed is None:
            continue  # its task's history may be gone; nothing better is known
        assert diagnosis.reason(port(sync_state=state), agent, failed)


def test_an_error_nobody_foresaw_is_a_defect_to_report() -> None:
    said = diagnosis.reason(port(sync_state=SyncState.OUT_OF_SYNC), ALIVE, failure("KeyError"))
    assert said is not None
    assert "report it as a defect" in said
