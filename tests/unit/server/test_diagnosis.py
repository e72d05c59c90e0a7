"""The reason why a port does not work, and the remedy."""

import dataclasses
import datetime
import itertools

import pytest

from agent_flows.errors import remedy
from agent_flows.report import SyncState
from agent_flows.server.standalone import diagnosis
from agent_flows.server.standalone.diagnosis import Agent, Failure, Port

LAST_HEARTBEAT = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
ID = "4e8e5957-649f-477b-9e5b-f1f75b21c03c"
FINE = Port(ID, "h1", SyncState.IN_SYNC, admin_state_up=True, filtered=True, grouped=True)
ALIVE = Agent(alive=True, heard_at=LAST_HEARTBEAT)
DEAD = dataclasses.replace(ALIVE, alive=False)


def port(**changes: object) -> Port:
    return dataclasses.replace(FINE, **changes)  # type: ignore[arg-type]


def failure(type_: str, message: str = "the output of the tool") -> Failure:
    return Failure("some-task", type_, message)


def reason(port: Port, agent: Agent | None, failed: Failure | None) -> str:
    found = diagnosis.reason(port, agent, failed)
    assert found is not None
    return found


def test_working_port_has_no_reason() -> None:
    assert diagnosis.reason(FINE, ALIVE, None) is None


@pytest.mark.parametrize(
    "type_", ["FlowRefused", "UnknownPhysicalNetwork", "InterfaceError", "Timeout", "Conflict"]
)
def test_failed_task_is_named_with_its_error_and_remedy(type_: str) -> None:
    text = reason(port(sync_state=SyncState.OUT_OF_SYNC), ALIVE, failure(type_))
    assert text.startswith(f"some-task failed: {type_}: the output of the tool. To do: ")
    assert remedy(type_) in text


@pytest.mark.parametrize("state", SyncState)
def test_dead_agent_is_the_reason_in_every_state(state: SyncState) -> None:
    text = reason(port(sync_state=state), DEAD, failure("FlowRefused"))
    assert "agent of host h1 has been silent since 2026-01-02T03:04:05+00:00: start it" in text
    assert "FlowRefused" not in text


@pytest.mark.parametrize("state", SyncState)
def test_a_host_where_no_agent_was_ever_seen_is_named(state: SyncState) -> None:
    text = reason(port(host="h2", sync_state=state), None, None)
    assert "No agent was ever seen on host h2" in text
    assert "binding:host_id" in text


def test_unplugged_port_shows_how_to_plug_it() -> None:
    text = reason(port(sync_state=SyncState.ABSENT), ALIVE, failure("FlowRefused"))
    assert f"external_ids:iface-id={ID}" in text
    assert "host h1 found no interface" in text
    assert "FlowRefused" not in text


def test_port_bound_to_no_host_has_that_as_reason() -> None:
    text = reason(port(host=None, sync_state=SyncState.ABSENT), None, None)
    assert text.startswith("Bound to no host")


@pytest.mark.parametrize("state", SyncState)
@pytest.mark.parametrize("agent", [None, DEAD, ALIVE])
def test_administratively_down_is_the_first_reason(state: SyncState, agent: Agent | None) -> None:
    text = reason(port(sync_state=state, admin_state_up=False), agent, None)
    assert text.startswith("Administratively down: it passes nothing")


def test_port_without_a_security_group_shows_that_it_lets_nothing_in() -> None:
    text = reason(port(grouped=False), ALIVE, None)
    assert "No security group: lets nothing in" in text
    assert diagnosis.reason(port(grouped=False, filtered=False), ALIVE, None) is None


@pytest.mark.parametrize(
    ("source", "shown"), [("switch", True), ("bridge", True), ("outbox", False)]
)
def test_trouble_that_makes_claims_untrue_is_shown_for_a_proven_port(
    source: str, shown: bool
) -> None:
    troubled = dataclasses.replace(ALIVE, troubles={source: "it is gone"})
    text = diagnosis.reason(FINE, troubled, None)
    assert (text is not None) is shown
    assert text is None or f"Host h1 is in trouble ({source}): it is gone." in text


@pytest.mark.parametrize("state", [SyncState.SYNCING, SyncState.UNKNOWN, SyncState.OUT_OF_SYNC])
def test_any_trouble_of_the_host_is_shown_for_a_waiting_port(state: SyncState) -> None:
    troubled = dataclasses.replace(ALIVE, troubles={"outbox": "the disk is full"})
    text = reason(port(sync_state=state), troubled, None)
    assert "(outbox): the disk is full." in text


def test_agent_that_came_back_is_alive_despite_an_old_task() -> None:
    state = port(sync_state=SyncState.UNKNOWN)
    text = reason(state, ALIVE, Failure("await-report", "AgentSilent", "since yesterday"))
    assert "silent" not in text
    assert "alive" in text


def test_every_port_that_is_not_in_sync_has_a_reason() -> None:
    states = [state for state in SyncState if state is not SyncState.IN_SYNC]
    for state, agent, failed in itertools.product(
        states, [None, DEAD, ALIVE], [None, failure("ReportOverdue")]
    ):
        if state is SyncState.OUT_OF_SYNC and failed is None:
            continue  # its tasks may have been deleted; no reason is known
        assert diagnosis.reason(port(sync_state=state), agent, failed)


def test_unknown_error_is_a_defect_to_report() -> None:
    text = reason(port(sync_state=SyncState.OUT_OF_SYNC), ALIVE, failure("KeyError"))
    assert "report it as a defect" in text
