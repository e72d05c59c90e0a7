"""Garbage on a real message bus: refused in few words, and the server goes on."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import oslo_messaging
import pytest
from oslo_config import cfg

from agent_flows.rpc import transport as wire
from agent_flows.rpc.agent import ServerClient
from agent_flows.rpc.dispatch import listener
from agent_flows.rpc.server import ServerEndpoint
from lab.process import wait_until
from lab.rabbit import Rabbit
from lab.server_parts import Server, running

SECONDS = 30


@pytest.fixture
def rabbit() -> Iterator[Rabbit]:
    with Rabbit() as made:
        yield made


@pytest.fixture
def listening(rabbit: Rabbit, tmp_path: Path) -> Iterator[oslo_messaging.Transport]:
    """A server on the bus."""
    bus = oslo_messaging.get_rpc_transport(cfg.CONF, url=rabbit.url)
    with running(f"sqlite:///{tmp_path / 'server.sqlite'}") as parts:
        server = listener(bus, wire.server_target("one"), ServerEndpoint(parts.store))
        server.start()
        yield bus
        server.stop()
        server.wait()
    bus.cleanup()


def envelope(message: object) -> str:
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)})


def call(**fields: Any) -> str:
    return envelope({"version": "1.0", "args": {}, "_msg_id": None, "_reply_q": None, **fields})


GARBAGE = [
    b"\xff\xfe\x00",
    b"not json",
    b"[]",
    b"7",
    b'"text"',
    envelope([]).encode(),
    envelope("text").encode(),
    envelope(None).encode(),
    call(method="report", args=[]).encode(),
    call(method="report", args={"host": "h1", "reports": [1, 2, {"id": "x"}]}).encode(),
    call(method=None).encode(),
    call(method=["report"]).encode(),
    call(method="__init__").encode(),
    call(method="heartbeat", args={"host": "h1"}).encode(),
    call(method="heartbeat", args={"host": 5, "state": 5}, version=[1]).encode(),
    call(method="heartbeat", args={"host": "h1", "state": {}}, _timeout="soon").encode(),
    call(method="heartbeat", args={"host": "h1", "state": {}}, _timeout=[1]).encode(),
    call(method="nothing", _timeout=2).encode(),
    b'{"oslo.version": "2.0", "oslo.message": "' + b"[" * 100_000 + b'"}',
    envelope({"method": "heartbeat", "args": {"host": "h", "state": "x" * 1_000_000}}).encode(),
]


def test_garbage_makes_no_traceback_and_little_log_and_the_server_answers_on(
    rabbit: Rabbit, listening: oslo_messaging.Transport, caplog: pytest.LogCaptureFixture
) -> None:
    client = ServerClient(listening, "h1", SECONDS)
    client.heartbeat({})
    caplog.clear()
    caplog.set_level(logging.INFO)
    with kombu.Connection(rabbit.url.replace("rabbit://", "amqp://")) as connection:
        producer = connection.Producer()
        for body in GARBAGE:
            producer.publish(
                body,
                exchange=listening.conf.control_exchange,
                routing_key=wire.SERVER_TOPIC,
                content_type="application/json",
                content_encoding="utf-8",
                serializer=None,
            )
    for _ in range(3):
        assert client.heartbeat({}).clock > 0
    assert client.report([]).accepted == []
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [record.getMessage() for record in warnings if record.exc_info]
    assert len(warnings) <= len(GARBAGE)
    assert sum(len(record.getMessage()) for record in warnings) < 20_000


def test_a_made_up_host_is_known_by_what_is_kept_of_it(rabbit: Rabbit, tmp_path: Path) -> None:
    bus = oslo_messaging.get_rpc_transport(cfg.CONF, url=rabbit.url)
    with running(f"sqlite:///{tmp_path / 'server.sqlite'}") as parts:
        server = listener(bus, wire.server_target("one"), ServerEndpoint(parts.store))
        server.start()
        for number in range(20):
            ServerClient(bus, f"ghost-{number}", SECONDS).heartbeat({"padding": "x" * 15_000})
        wait_until(lambda: len(_agents(parts)) == 20, SECONDS, "they are known")
        assert all(len(json.dumps(each["state"])) < 100 for each in _agents(parts))
        server.stop()
        server.wait()
    bus.cleanup()


def _agents(parts: Server) -> list[dict[str, Any]]:
    return parts.find("agents")
