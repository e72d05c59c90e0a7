"""Heartbeats tell how the agent fares, and notice when the server is back."""

import queue
import threading

import oslo_messaging

from agent_flows.flows.heartbeat import Heartbeat
from agent_flows.rpc.server import Held


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
