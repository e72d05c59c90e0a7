"""Heartbeats tell how the agent fares, and notice when the server is back."""

import queue
import sqlite3
import threading

import oslo_messaging
import pytest

from agent_flows.report import Trouble
from agent_flows.reporting.heartbeat import Heartbeat
from agent_flows.rpc.answers import Held
from agent_flows.supervision import Troubles
from agent_flows.validation import Invalid
from lab.process import wait_until


class Server:
    def __init__(self, answers):
        self.answers = queue.Queue()
        for answer in answers:
            self.answers.put(answer)
        self.states = []
        self.done = threading.Event()

    def heartbeat(self, state):
        self.states.append(state)
        if self.answers.empty():
            self.done.set()
            return Held(0)
        answer = self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return Held(answer)


def beats(*answers):
    server = Server(answers)
    heard, back = [], []
    count = iter(range(1000))
    heartbeat = Heartbeat(
        server,
        0.01,
        lambda: {"beat": next(count)},
        lambda held: heard.append(held.sequence),
        lambda: back.append(True),
    )
    heartbeat.start()
    assert server.done.wait(5)
    heartbeat.stop(5)
    return server, heard, back


def test_each_heartbeat_tells_the_state_of_its_moment():
    server, _, _ = beats(1, 2)
    assert [state["beat"] for state in server.states[:3]] == [0, 1, 2]


def test_the_highest_sequence_of_the_server_is_handed_on():
    _, heard, back = beats(41, 42)
    assert heard[:2] == [41, 42]
    assert back == []


def test_a_server_that_was_silent_is_noticed_when_it_is_back():
    silence = oslo_messaging.MessagingTimeout("nobody there")
    _, heard, back = beats(1, silence, silence, 2, 3)
    assert heard[:3] == [1, 2, 3]
    assert back == [True]


def test_a_trouble_is_sent_at_once_and_so_is_its_end():
    server, troubles = Server([]), Troubles()
    heartbeat = Heartbeat(
        server,
        3600.0,
        lambda: dict(troubles.current()),
        lambda held: None,
        lambda: None,
        troubles=troubles,
    )
    troubles.changed = heartbeat.soon
    heartbeat.start()
    try:
        wait_until(lambda: server.states == [{}], 5, "the first heartbeat")
        troubles.report(Trouble.SWITCH, "ovs-vswitchd is gone")
        wait_until(lambda: len(server.states) == 2, 2, "the trouble is sent")
        assert server.states[-1] == {Trouble.SWITCH: "ovs-vswitchd is gone"}
        troubles.clear(Trouble.SWITCH)
        wait_until(lambda: len(server.states) == 3, 2, "its end is sent")
        assert server.states[-1] == {}
    finally:
        heartbeat.stop(5)


def test_many_changes_at_once_are_one_heartbeat():
    server, troubles = Server([]), Troubles()
    heartbeat = Heartbeat(
        server, 3600.0, lambda: dict(troubles.current()), lambda held: None, lambda: None
    )
    troubles.changed = heartbeat.soon
    heartbeat.start()
    try:
        wait_until(lambda: len(server.states) == 1, 5, "the first heartbeat")
        for n in range(50):
            troubles.report(Trouble.PORTS, f"{n} ports")
        wait_until(lambda: server.states[-1] == {Trouble.PORTS: "49 ports"}, 2, "the last")
        assert len(server.states) <= 3
    finally:
        heartbeat.stop(5)


@pytest.mark.parametrize(
    "fault",
    [sqlite3.OperationalError("disk I/O error"), KeyError("x"), Invalid("sequence", None, "int")],
    ids=lambda fault: type(fault).__name__,
)
def test_heartbeats_go_on_whatever_one_raised(fault):
    troubles = Troubles()
    seen = []
    troubles.changed = lambda: seen.append(dict(troubles.current()))
    server = Server([fault, 5])
    heard = []
    heartbeat = Heartbeat(
        server, 0.01, dict, lambda held: heard.append(held.sequence), lambda: None,
        troubles=troubles,
    )  # fmt: skip
    heartbeat.start()
    assert server.done.wait(10)
    heartbeat.stop(5)
    assert heard[0] == 5
    assert list(seen[0]) == [Trouble.HEARTBEAT]
    assert troubles.current() == {}


def test_an_agent_whose_host_is_taken_has_that_trouble_and_no_storm_of_heartbeats():
    troubles = Troubles()
    count = iter(range(1000))

    class Taken:
        def heartbeat(self, state):
            words = f"host h1 is taken: last heard {next(count)} s ago"
            raise oslo_messaging.RemoteError("HostTaken", words)

    heartbeat = Heartbeat(Taken(), 0.4, dict, lambda held: None, lambda: None, troubles=troubles)
    troubles.changed = heartbeat.soon
    heartbeat.start()
    try:
        wait_until(lambda: Trouble.IDENTITY in troubles.current(), 5, "the trouble")
        assert troubles.current()[Trouble.IDENTITY] == "host h1 is taken: last heard 0 s ago"
        threading.Event().wait(1.0)
        assert next(count) < 6
    finally:
        heartbeat.stop(5)
