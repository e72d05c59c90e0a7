"""A database that hangs, a bus without a listener: /healthz names it within seconds."""

import threading
import time
from collections.abc import Iterator

import oslo_messaging
import pytest
import requests
import sqlalchemy
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.rpc import transport
from agent_flows.server.core.database import ERRORS, Database, retried
from agent_flows.server.service import ServerService
from agent_flows.server.standalone import schema
from agent_flows.server.standalone.bounded import Bounded
from lab.databases import DatabaseServer, MariaDB, PostgreSQL
from lab.process import wait_until
from lab.server_parts import configuration

SECONDS = 30


@pytest.fixture(params=["postgresql", "mariadb"])
def server_of_databases(request: pytest.FixtureRequest) -> PostgreSQL | MariaDB:
    found: PostgreSQL | MariaDB = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def service(server_of_databases: PostgreSQL | MariaDB) -> Iterator[str]:
    """The URL of a server that runs on a database which may be frozen."""
    conf = configuration(server_of_databases.new_url())
    conf.set_override("bind_port", 0, options.API)
    conf.set_override("database_timeout", 2.0, options.SERVER)
    conf.set_override("sweep_interval", 0.5, options.SERVER)
    held = Database(conf)
    schema.upgrade(held)
    held.close()
    bus = transport.get_transport(cfg.CONF, transport.EMBEDDED_URL)
    made = ServerService(conf, bus)
    made.start()
    yield f"http://127.0.0.1:{made.api_port}"
    made.stop()
    bus.cleanup()


def test_health_and_metrics_answer_while_the_database_hangs_and_all_goes_on_afterwards(
    server_of_databases: PostgreSQL | MariaDB, service: str
) -> None:
    def health() -> requests.Response:
        return requests.get(f"{service}/healthz", timeout=SECONDS)

    wait_until(lambda: health().status_code == 200, SECONDS, "it is well")
    assert "agent_flows_database_up 1.0" in requests.get(f"{service}/metrics", timeout=SECONDS).text
    with server_of_databases.frozen():
        answer = health()
        assert answer.status_code == 503
        assert "no answer within" in answer.json()["failures"]["database"]
        metrics = requests.get(f"{service}/metrics", timeout=SECONDS)
        assert metrics.status_code == 200
        assert "agent_flows_database_up 0.0" in metrics.text
        assert 'agent_flows_server_failing{part="database"} 1.0' in metrics.text
        assert requests.get(f"{service}/ports", timeout=SECONDS).status_code == 503
        wait_until(
            lambda: "sweeper" in health().json()["failures"],
            SECONDS,
            "the sweeper's failure is shown",
        )
    wait_until(lambda: health().status_code == 200, SECONDS, "it is well again")
    assert requests.get(f"{service}/ports", timeout=SECONDS).json() == {"ports": []}


def test_a_statement_that_waits_for_a_lock_ends_and_is_not_tried_again(url: str) -> None:
    conf = configuration(url)
    held, waiting = Database(conf), Database(conf, 1.0)
    if held.is_sqlite:
        waiting.close()
        held.close()
        return
    schema.upgrade(held)
    tried: list[int] = []

    @retried
    def take() -> None:
        tried.append(1)
        with waiting.writer() as session:
            session.execute(sqlalchemy.text("UPDATE networks SET mtu = 2"))

    with held.writer() as session:
        session.execute(
            sqlalchemy.text(
                "INSERT INTO networks (id, name, network_type, mtu) VALUES ('x', 'x', 'local', 1)"
            )
        )
    with held.writer() as session:
        session.execute(sqlalchemy.text("UPDATE networks SET mtu = 3"))
        with pytest.raises(ERRORS):
            take()
    assert len(tried) == 1
    take()
    waiting.close()
    held.close()


def test_what_hangs_takes_one_thread_however_often_it_is_asked() -> None:
    answer, asked = threading.Event(), []

    def ask() -> int:
        asked.append(1)
        answer.wait()
        return 7

    bounded = Bounded(ask, 0.05)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            bounded()
    assert len(asked) == 1
    answer.set()
    wait_until(lambda: bounded() == 7, SECONDS, "it answers")


def test_a_server_that_does_not_listen_on_the_bus_is_not_healthy(
    sqlite: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = configuration(sqlite.new_url())
    conf.set_override("bind_port", 0, options.API)
    bus = transport.get_transport(cfg.CONF, transport.EMBEDDED_URL)
    monkeypatch.setattr(oslo_messaging.rpc.server.RPCServer, "start", lambda *_, **__: None)
    monkeypatch.setattr(oslo_messaging.rpc.server.RPCServer, "stop", lambda *_, **__: None)
    monkeypatch.setattr(oslo_messaging.rpc.server.RPCServer, "wait", lambda *_, **__: None)
    made = ServerService(conf, bus)
    made.start()
    try:
        began = time.monotonic()
        url = f"http://127.0.0.1:{made.api_port}/healthz"

        def bus_fails() -> bool:
            return "bus" in requests.get(url, timeout=SECONDS).json()["failures"]

        wait_until(bus_fails, SECONDS, "the bus's failure is shown")
        assert time.monotonic() - began < SECONDS
    finally:
        made.stop()
        bus.cleanup()
