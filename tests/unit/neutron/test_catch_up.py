"""Missed changes are requested in the background, in one request for all that wait."""

import threading
from collections.abc import Collection
from queue import SimpleQueue

import oslo_messaging
import pytest

from agent_flows.neutron.agent.catch_up import CatchUpLoop
from agent_flows.report import Trouble
from agent_flows.supervision import Troubles
from lab.process import wait_until

Ports = Collection[str] | None


class Server:
    """Answers when ``answering`` is released."""

    def __init__(self) -> None:
        self.asked: SimpleQueue[Ports] = SimpleQueue()
        self.answering = threading.Semaphore(0)

    def catch_up(self, port_ids: Ports) -> None:
        self.asked.put(port_ids)
        if not self.answering.acquire(timeout=10):
            raise oslo_messaging.MessagingTimeout("no answer")


@pytest.fixture
def server() -> Server:
    return Server()


def test_requests_during_an_update_share_the_next_update(server: Server) -> None:
    loop, served = CatchUpLoop(server.catch_up, Troubles()), SimpleQueue[str]()
    loop.request(["a"], lambda: served.put("first"))
    assert server.asked.get(timeout=10) == {"a"}
    loop.request(["b"], lambda: served.put("second"))
    loop.request(["c", "b"], lambda: served.put("third"))
    server.answering.release()
    assert served.get(timeout=10) == "first"
    assert server.asked.get(timeout=10) == {"b", "c"}
    loop.request(["d"])
    loop.request(None)
    server.answering.release()
    assert [served.get(timeout=10) for _ in range(2)] == ["second", "third"]
    assert server.asked.get(timeout=10) is None
    server.answering.release()


def test_unanswered_request_calls_back_and_is_repeated() -> None:
    troubles = Troubles()
    asked: SimpleQueue[Ports] = SimpleQueue()
    down = threading.Event()
    down.set()

    def catch_up(port_ids: Ports) -> None:
        asked.put(port_ids)
        if down.is_set():
            raise oslo_messaging.MessagingTimeout("no answer")

    loop = CatchUpLoop(catch_up, troubles)
    served = threading.Event()
    loop.request(["a"], served.set)
    assert served.wait(10)
    assert asked.get(timeout=10) == {"a"}
    wait_until(lambda: Trouble.CONTROL in troubles.current(), 10, "the trouble")
    served.clear()
    loop.request(["b"], served.set)
    assert served.wait(10)
    assert asked.get(timeout=10) == {"a", "b"}
    down.clear()
    wait_until(lambda: not troubles.current(), 10, "the request is answered")
    loop.request(["c"])
    last: Ports = None
    while last != {"c"}:
        last = asked.get(timeout=10)
        assert last in ({"a", "b"}, {"c"})
    loop.stop(10)


def test_unexpected_exception_does_not_end_the_thread() -> None:
    asked: SimpleQueue[Ports] = SimpleQueue()
    errors = [AttributeError("no rules"), RuntimeError("changed size")]

    def catch_up(port_ids: Ports) -> None:
        if errors:
            raise errors.pop()
        asked.put(port_ids)

    loop = CatchUpLoop(catch_up, Troubles())
    loop.request(None)
    assert asked.get(timeout=10) is None
    loop.stop(10)
