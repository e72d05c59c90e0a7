"""What was missed is asked for in the background, for as many as wait for it at once."""

import threading
from collections.abc import Collection
from queue import SimpleQueue

import oslo_messaging
import pytest

from agent_flows.neutron.missed import CatchingUp

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
    catching_up, served = CatchingUp(server.catch_up), SimpleQueue[str]()
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


def test_a_server_that_does_not_answer_keeps_nobody_waiting() -> None:
    def refuse(port_ids: Ports) -> None:
        raise oslo_messaging.MessagingTimeout("nobody answered")

    catching_up = CatchingUp(refuse)
    for _ in range(2):
        served = threading.Event()
        catching_up.soon(["a"], served.set)
        assert served.wait(10)
