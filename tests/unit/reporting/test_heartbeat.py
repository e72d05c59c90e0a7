"""Heartbeats send the agent's state, and notice when the server answers again."""

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import oslo_messaging
import pytest

from agent_flows.report import Trouble
from agent_flows.reporting.heartbeat import Heartbeat
from agent_flows.rpc.answers import Held
from agent_flows.supervision import Troubles
from agent_flows.validation import Invalid
from lab.process import wait_until


class Server:
    """Answers with these sequences or errors, then always with 0."""

    def __init__(self, *answers: int | Exception) -> None:
        self._answers = queue.SimpleQueue[int | Exception]()
        for answer in answers:
            self._answers.put(answer)
        self.states: list[Mapping[str, Any]] = []
        self.done = threading.Event()

    def heartbeat(self, state: Mapping[str, Any]) -> Held:
        self.states.append(state)
        if self._answers.empty():
            self.done.set()
            return Held(0)
        answer = self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return Held(answer)


@contextmanager
def beating(
    server: Any,
    interval: float = 3600.0,
    *,
    troubles: Troubles | None = None,
    on_answer: Callable[[Held], None] = lambda held: None,
    on_return: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Heartbeats with the current troubles as state, also sent when these change."""
    current = troubles or Troubles()
    heartbeat = Heartbeat(
        server, interval, lambda: dict(current.current()), on_answer, on_return, troubles=current
    )
    before = current.changed

    def changed() -> None:
        before()
        heartbeat.soon()

    current.changed = changed
    heartbeat.start()
    try:
        yield
    finally:
        heartbeat.stop(5)


def sequences_and_returns(*answers: int | Exception) -> tuple[list[int], int]:
    """What the agent learns of these answers: sequences, and how often the server was back."""
    server, sequences, returns = Server(*answers), list[int](), list[bool]()
    with beating(
        server,
        0.01,
        on_answer=lambda held: sequences.append(held.sequence),
        on_return=lambda: returns.append(True),
    ):
        assert server.done.wait(10)
    return sequences, len(returns)


def test_the_sequence_of_each_answer_is_passed_on() -> None:
    sequences, returns = sequences_and_returns(41, 42)
    assert sequences[:2] == [41, 42]
    assert returns == 0


def test_a_server_that_answers_again_is_noticed_once() -> None:
    silence = oslo_messaging.MessagingTimeout("no answer")
    sequences, returns = sequences_and_returns(1, silence, silence, 2, 3)
    assert sequences[:3] == [1, 2, 3]
    assert returns == 1


def test_a_heartbeat_without_an_answer_is_soon_followed_by_another() -> None:
    server = Server(oslo_messaging.MessagingTimeout("no answer"))
    with beating(server, 3600.0):
        assert server.done.wait(10)


def test_the_begin_and_the_end_of_a_trouble_are_sent_at_once() -> None:
    server, troubles = Server(), Troubles()
    with beating(server, troubles=troubles):
        wait_until(lambda: server.states == [{}], 5, "the first heartbeat")
        troubles.report(Trouble.SWITCH, "ovs-vswitchd is gone")
        wait_until(lambda: len(server.states) == 2, 2, "the trouble is sent")
        assert server.states[-1] == {Trouble.SWITCH: "ovs-vswitchd is gone"}
        troubles.clear(Trouble.SWITCH)
        wait_until(lambda: len(server.states) == 3, 2, "its end is sent")
        assert server.states[-1] == {}


def test_many_changes_at_once_are_one_heartbeat() -> None:
    server, troubles = Server(), Troubles()
    with beating(server, troubles=troubles):
        wait_until(lambda: len(server.states) == 1, 5, "the first heartbeat")
        for n in range(50):
            troubles.report(Trouble.PORTS, f"{n} ports")
        wait_until(lambda: server.states[-1] == {Trouble.PORTS: "49 ports"}, 2, "the last")
        assert len(server.states) <= 3


@pytest.mark.parametrize(
    "error",
    [sqlite3.OperationalError("disk I/O error"), KeyError("x"), Invalid("sequence", None, "int")],
    ids=lambda error: type(error).__name__,
)
def test_heartbeats_continue_after_any_error(error: Exception) -> None:
    server, troubles, seen = Server(error, 5), Troubles(), list[Mapping[str, str]]()
    troubles.changed = lambda: seen.append(troubles.current())
    with beating(server, 0.01, troubles=troubles):
        assert server.done.wait(10)
    assert list(seen[0]) == [Trouble.HEARTBEAT]
    assert troubles.current() == {}


def test_a_taken_host_is_a_trouble_and_no_storm_of_heartbeats() -> None:
    troubles, count = Troubles(), iter(range(1000))

    class Taken:
        def heartbeat(self, state: Mapping[str, Any]) -> Held:
            reason = f"host h1 is taken: last heartbeat {next(count)} s ago"
            raise oslo_messaging.RemoteError("HostTaken", reason)

    with beating(Taken(), 0.4, troubles=troubles):
        wait_until(lambda: Trouble.IDENTITY in troubles.current(), 5, "the trouble")
        assert troubles.current()[Trouble.IDENTITY] == "host h1 is taken: last heartbeat 0 s ago"
        threading.Event().wait(1.0)
        assert next(count) < 6
