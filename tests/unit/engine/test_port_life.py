"""A port changes its phase only as the table MOVES allows."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_flows.engine.drift import Drift
from agent_flows.engine.port_life import (
    MOVES,
    Applied,
    Event,
    IllegalMove,
    Life,
    Phase,
    Request,
    Verdict,
)
from agent_flows.engine.port_table import PortTable
from agent_flows.report import Step, TaskError
from agent_flows.supervision import Backoff

PORT = "port-1"
PROVEN = Applied("tap1", "spec", "rules", proven=True)


def life(phase: Phase) -> Life:
    return Life(Request(PORT), phase)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_move_outside_the_table_is_refused(phase: Phase, event: Event) -> None:
    if after := MOVES.get((phase, event)):
        assert life(phase).moved(event).phase is after
    else:
        with pytest.raises(IllegalMove, match=f"port-1: {event.name} while {phase.name}"):
            life(phase).moved(event)


def test_every_phase_can_be_reached_and_left() -> None:
    assert set(MOVES.values()) == set(Phase)
    assert {before for before, _ in MOVES} == set(Phase)
    assert {event for _, event in MOVES} == set(Event)


def table() -> PortTable:
    return PortTable(10, Backoff(1.0, 60.0))


def after(ports: PortTable, verdict: Verdict, **noted: object) -> Phase:
    """The phase in which a claimed port is released."""
    [claimed] = ports.claim(wait=False)
    if noted:
        ports.note(PORT, **noted)
    ports.release([PORT], {claimed.port_id: verdict})
    return ports.life(PORT).phase


def test_verdict_and_flow_decide_the_phase_of_a_released_port() -> None:
    ports = table()
    ports.submit([PORT])
    assert after(ports, Verdict.LATER) is Phase.DELAYED
    ports.submit([PORT])
    assert after(ports, Verdict.RETRY) is Phase.DELAYED
    ports.submit([PORT])
    assert after(ports, Verdict.DONE, applied=PROVEN) is Phase.PROVEN
    ports.lose()
    assert (ports.life(PORT).phase, ports.life(PORT).proven) == (Phase.STALE, False)
    ports.submit([PORT])
    assert after(ports, Verdict.DONE, applied=None, absent_at=7) is Phase.ABSENT
    ports.submit([PORT])
    assert after(ports, Verdict.DONE, absent_at=None) is Phase.NEW
    assert ports.lives() == {}


def test_why_a_proven_port_was_lost_is_reported_at_its_next_flow() -> None:
    ports = table()
    ports.submit([PORT])
    after(ports, Verdict.DONE, applied=PROVEN)
    ports.lose(DRIFT)
    ports.submit([PORT], forced=True)
    (claimed,) = ports.claim(wait=False)
    assert claimed.request.drift == DRIFT
    assert claimed.request.forced


def test_a_port_that_was_not_proven_has_nothing_to_lose() -> None:
    ports = table()
    ports.submit([PORT])
    after(ports, Verdict.RETRY, applied=dataclasses.replace(PROVEN, proven=False))
    ports.lose(DRIFT)
    assert ports.life(PORT).request.drift is None


def test_awaited_port_is_claimed_only_when_submitted() -> None:
    ports = table()
    ports.submit([PORT], event=Event.AWAIT)
    assert (ports.life(PORT).phase, ports.claim(wait=False)) == (Phase.AWAITED, ())
    ports.submit([PORT], forced=True, event=Event.AWAIT)
    ports.submit([PORT])
    assert ports.life(PORT).request.forced
    assert after(ports, Verdict.DONE, applied=PROVEN) is Phase.PROVEN


def test_awaited_port_that_looks_right_is_proven_without_a_flow() -> None:
    ports = table()
    ports.submit([PORT], event=Event.AWAIT)
    ports.submit([PORT], event=Event.LOOK_RIGHT)
    assert (ports.life(PORT).phase, ports.claim(wait=False)) == (Phase.PROVEN, ())


def test_running_port_is_awaited_after_its_flow() -> None:
    ports = table()
    ports.submit([PORT])
    ports.claim()
    ports.submit([PORT], event=Event.AWAIT)
    assert ports.life(PORT).phase is Phase.RUNNING
    ports.release([PORT], {PORT: Verdict.RETRY})
    assert ports.life(PORT).phase is Phase.AWAITED


DRIFT = Drift(Step.L2, TaskError("Drift", "the tag is 999 instead of 2"))


def test_drift_of_a_proven_port_has_its_flow_run_again() -> None:
    ports = table()
    ports.submit([PORT])
    assert after(ports, Verdict.DONE, applied=PROVEN) is Phase.PROVEN
    ports.drifted({PORT: DRIFT})
    request = ports.life(PORT).request
    assert (ports.life(PORT).phase, request.forced, request.drift) == (Phase.READY, True, DRIFT)


def test_drift_of_a_port_that_is_not_proven_is_left_out() -> None:
    ports = table()
    ports.drifted({PORT: DRIFT})
    assert ports.lives() == {}
    ports.submit([PORT])
    ports.drifted({PORT: DRIFT})
    assert ports.life(PORT).request.drift is None


def test_drift_of_a_proven_port_whose_flow_runs_follows_that_flow() -> None:
    ports = table()
    ports.submit([PORT])
    assert after(ports, Verdict.DONE, applied=PROVEN) is Phase.PROVEN
    ports.submit([PORT])
    ports.claim()
    ports.drifted({PORT: DRIFT})
    ports.release([PORT], {PORT: Verdict.DONE})
    [claimed] = ports.claim()
    assert claimed.request.drift is DRIFT


def test_drift_does_not_end_the_pause_of_a_port() -> None:
    ports = table()
    ports.submit([PORT])
    assert after(ports, Verdict.RETRY, applied=PROVEN) is Phase.DELAYED
    ports.drifted({PORT: DRIFT})
    life = ports.life(PORT)
    assert (life.phase, life.request.drift, life.request.attempt) == (Phase.DELAYED, DRIFT, 2)


STEPS = ["submit", "force", "await", "claim", "lose", "drift", *Verdict]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(["a", "b", "c"])), max_size=60))
def test_no_course_of_events_makes_an_illegal_move_or_claims_a_port_twice(
    steps: list[tuple[object, str]],
) -> None:
    ports = table()
    running: set[str] = set()
    for step, port_id in steps:
        match step:
            case "submit" | "force":
                ports.submit([port_id], forced=step == "force")
            case "await":
                ports.submit([port_id], event=Event.AWAIT)
            case "drift":
                ports.drifted({port_id: DRIFT})
            case "lose":
                ports.lose()
            case "claim":
                claimed = {claim.port_id for claim in ports.claim(wait=False)}
                assert not claimed & running
                running |= claimed
            case Verdict() as verdict if port_id in running:
                if verdict is Verdict.DONE:
                    ports.note(port_id, applied=dataclasses.replace(PROVEN))
                ports.release([port_id], {port_id: verdict})
                running.remove(port_id)
    for port_id, known in ports.lives().items():
        assert (known.phase is Phase.RUNNING) == (port_id in running)


def test_early_look_is_repeated_soon_even_after_failures() -> None:
    now = 0.0
    table = PortTable(10, Backoff(10.0, 3600.0), clock=lambda: now)
    table.submit([PORT])
    failures = [Verdict.RETRY] * 3
    for verdict, longest in zip([*failures, Verdict.LATER, Verdict.RETRY], (10, 20, 40, 10, 80),
                                strict=True):  # fmt: skip
        table.claim(wait=False)
        table.release([PORT], {PORT: verdict})
        assert longest / 2 <= table.life(PORT).due - now <= longest
        now += longest
    assert table.life(PORT).request.attempt == 5


def test_ports_that_failed_together_are_tried_again_together() -> None:
    now = 0.0
    table = PortTable(10, Backoff(10.0, 3600.0), clock=lambda: now)
    ports = {f"port-{number}" for number in range(10)}
    table.submit(ports)
    for _ in range(3):
        assert {life.port_id for life in table.claim(wait=False)} == ports
        table.release(ports, dict.fromkeys(ports, Verdict.RETRY))
        [now] = {table.life(port_id).due for port_id in ports}
