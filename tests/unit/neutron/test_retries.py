"""When a port that failed is tried again."""

from agent_flows.neutron.agent.retries import Retries
from agent_flows.supervision import Backoff

A, B, C = "a", "b", "c"


def retries(maximum: float = 60.0) -> Retries:
    return Retries(Backoff(4.0, maximum))


def test_a_port_is_due_when_its_own_pause_is_over() -> None:
    pending = retries()
    pending.failed(A, 1, now=100.0)
    pending.failed(B, 1, now=110.0)
    assert pending.due(101.9, 10) == []
    assert pending.due(104.0, 10) == [A]
    assert pending.due(114.0, 10) == [A, B]
    assert pending.due(114.0, 1) == [A]


def test_the_pause_grows_with_each_failed_attempt_up_to_the_longest() -> None:
    pending = retries(maximum=16.0)
    pauses = []
    for attempt in (1, 2, 3, 4, 9):
        pending.failed(A, attempt, now=0.0)
        pause = pending.pause(0.0)
        assert pause is not None
        pauses.append(pause)
    for pause, full in zip(pauses, (4.0, 8.0, 16.0, 16.0, 16.0), strict=True):
        assert full / 2 <= pause <= full


def test_a_port_that_is_only_looked_at_is_looked_at_again_soon_and_keeps_its_attempts() -> None:
    pending = retries()
    pending.look_again(A, now=0.0)
    assert (pending.attempts(A), A in pending) == (0, True)
    assert pending.due(4.0, 10) == [A]
    pending.failed(B, 9, now=0.0)
    pending.look_again(B, now=0.0)
    assert pending.attempts(B) == 9
    assert set(pending.due(4.0, 10)) == {A, B}


def test_who_succeeded_or_is_no_longer_needed_is_forgotten() -> None:
    pending = retries()
    for port_id in (A, B, C):
        pending.failed(port_id, 3, now=0.0)
    pending.settled(A)
    pending.settled(A)
    pending.keep(lambda port_id: port_id == C)
    assert [each in pending for each in (A, B, C)] == [False, False, True]
    assert (pending.attempts(A), pending.attempts(C)) == (0, 3)
    pending.settled(C)
    assert pending.pause(0.0) is None


def test_it_is_known_whether_every_port_had_its_chances() -> None:
    pending = retries()
    assert pending.all_tried(3)
    pending.failed(A, 3, now=0.0)
    pending.failed(B, 2, now=0.0)
    assert not pending.all_tried(3)
    pending.failed(B, 3, now=0.0)
    assert pending.all_tried(3)
