"""The in-process bus delivers messages, and a listener without messages sleeps."""

import threading
from collections.abc import Iterator
from typing import Any

import kombu
import pytest

from agent_flows.allinone import memory_bus

LONGEST = 20  # seconds until a test gives up; it waits only as long as it must


@pytest.fixture
def connection() -> Iterator[kombu.Connection]:
    with kombu.Connection(transport=memory_bus.Transport) as made:
        yield made


def consume(connection: kombu.Connection, exchange: kombu.Exchange, name: str) -> list[Any]:
    received: list[Any] = []
    queue = kombu.Queue(name, exchange, routing_key=name)
    consumer = connection.Consumer(queue, no_ack=True, accept=["json"])
    consumer.register_callback(lambda body, message: received.append(body))
    consumer.consume()
    return received


def test_a_waiting_listener_receives_a_message_of_another_thread(
    connection: kombu.Connection,
) -> None:
    exchange = kombu.Exchange("direct-test", type="direct")
    received = consume(connection, exchange, "waited-for")

    def send() -> None:
        with kombu.Connection(transport=memory_bus.Transport) as other:
            other.Producer().publish({"n": 1}, exchange=exchange, routing_key="waited-for")

    sender = threading.Timer(0.05, send)
    sender.start()
    connection.drain_events(timeout=LONGEST)
    sender.join()
    assert received == [{"n": 1}]


def test_a_message_sent_before_the_wait_is_delivered(connection: kombu.Connection) -> None:
    exchange = kombu.Exchange("direct-test", type="direct")
    received = consume(connection, exchange, "sent-before")
    connection.Producer().publish({"n": 2}, exchange=exchange, routing_key="sent-before")
    connection.drain_events(timeout=LONGEST)
    assert received == [{"n": 2}]


def test_every_listener_of_a_fanout_receives_the_message(connection: kombu.Connection) -> None:
    exchange = kombu.Exchange("fanout-test", type="fanout")
    first = consume(connection, exchange, "fanout-one")
    second = consume(connection, exchange, "fanout-two")
    connection.Producer().publish({"n": 3}, exchange=exchange, routing_key="")
    connection.drain_events(timeout=LONGEST)
    connection.drain_events(timeout=LONGEST)
    assert (first, second) == ([{"n": 3}], [{"n": 3}])


def test_a_listener_without_messages_polls_once_and_sleeps(
    connection: kombu.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    consume(connection, kombu.Exchange("direct-test", type="direct"), "silent")
    polls: list[object] = []
    drain = memory_bus.memory.Transport.drain_events

    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        polls.append(self)
        drain(self, *args, **kwargs)

    monkeypatch.setattr(memory_bus.memory.Transport, "drain_events", counted)
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.2)
    assert len(polls) <= 3


def test_a_patient_listener_still_receives_a_message_at_once(
    connection: kombu.Connection,
) -> None:
    exchange = kombu.Exchange("direct-test", type="direct")
    received = consume(connection, exchange, "patient")

    def send() -> None:
        with kombu.Connection(transport=memory_bus.Transport) as other:
            other.Producer().publish({"n": 4}, exchange=exchange, routing_key="patient")

    with memory_bus.patience():
        sender = threading.Timer(0.05, send)
        sender.start()
        connection.drain_events(timeout=0.001)  # Without patience it would not see the message.
        sender.join()
    assert received == [{"n": 4}]


def test_the_end_of_patience_ends_a_wait(connection: kombu.Connection) -> None:
    consume(connection, kombu.Exchange("direct-test", type="direct"), "silent")
    ended = threading.Event()

    def listen() -> None:
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.001)
        ended.set()

    listener = threading.Thread(target=listen)
    with memory_bus.patience():
        listener.start()
        assert not ended.wait(0.2)
    assert ended.wait(LONGEST)
    listener.join()
