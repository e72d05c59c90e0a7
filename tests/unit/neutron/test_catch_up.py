"""What was missed is asked for in the background, for as many as wait for it at once."""

import threading
from collections.abc import Collection
from queue import SimpleQueue

import oslo_messaging
import pytest

from agent_flows.neutron.agent.catch_up import CatchingUp
from agent_flows.report import Trouble
from agent_flows.supervision import Troubles
from lab.process import wait_until

Ports = Collection[str] | None


class Server:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.asked: SimpleQueue[Ports] = SimpleQueue()
        self.answering = threading.Semaphore(0)

    def catch_up(self, port_ids: Ports) -> None:
        self.asked.put(port_ids)
        if not self.answering.acquire(timeout=10):
            raise oslo_messaging.MessagingTimeout("nobody answered")


@pytest.fixture
def server() -> Server:
    return Server()


def test_who_asks_while_an_answer_is_awaited_is_served_by_the_next_one(server: Server) -> None:
    catching_up, served = CatchingUp(server.catch_up, Troubles()), SimpleQueue[str]()
    catching_up.soon(["a"], lambda: served.put("first"))
    assert server.asked.get(timeout=10) == {"a"}
    catching_up.soon(["b"], lambda: served.put("second"))
    catching_up.soon(["c", "b"], lambda: served.put("third"))
    server.answering.release()
    assert served.get(timeout=10) == "first"
    assert server.asked.get(timeout=10) == {"b", "c"}
    catching_up.soon(["d"])
    catching_up.soon(None)
    server.answering.release()
    assert [served.get(timeout=10) for _ in range(2)] == ["second", "third"]
    assert server.asked.get(timeout=10) is None
    server.answering.release()


def test_a_question_without_an_answer_keeps_no_caller_waiting_and_is_asked_again() -> None:
    troubles = Troubles()
    asked: SimpleQueue[Ports] = SimpleQueue()
    down = threading.Event()
    down.set()

    def catch_up(port_ids: Ports) -> None:
        asked.put(port_ids)
        if down.is_set():
            raise oslo_messaging.MessagingTimeout("no answer")

    catching_up = CatchingUp(catch_up, troubles)
    served = threading.Event()
    catching_up.soon(["a"], served.set)
    assert served.wait(10)
    assert asked.get(timeout=10) == {"a"}
    wait_until(lambda: Trouble.CONTROL in troubles.current(), 10, "the trouble")
    served.clear()
    catching_up.soon(["b"], served.set)
    assert served.wait(10)
    assert asked.get(timeout=10) == {"a", "b"}
    down.clear()
    wait_until(lambda: not troubles.current(), 10, "the question is answered")
    catching_up.soon(["c"])
    last: Ports = None
    while last != {"c"}:
        last = asked.get(timeout=10)
        assert last in ({"a", "b"}, {"c"})
    catching_up.stop(10)


def test_a_question_that_raises_what_nobody_expects_does_not_end_the_thread() -> None:
    asked: SimpleQueue[Ports] = SimpleQueue()
    errors = [AttributeError("no rules"), RuntimeError("changed size")]

    def catch_up(port_ids: Ports) -> None:
        if errors:
            raise errors.pop()
        asked.put(port_ids)

    catching_up = CatchingUp(catch_up, Troubles())
    catching_up.soon(None)
    assert asked.get(timeout=10) is None
    catching_up.stop(10)
