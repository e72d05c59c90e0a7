"""A whole server: agents over the embedded bus, operators over HTTP."""

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import oslo_messaging
import pytest
import requests
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.rpc import transport
from agent_flows.rpc.agent import AgentEndpoint, ServerClient
from agent_flows.server.core.database import Database
from agent_flows.server.service import ServerService
from lab.model import flow_report, new_id
from lab.process import wait_until
from lab.server_parts import configuration, running, together
from tests.unit.rpc.consumer import LONGEST, Agent


@pytest.fixture
def bus() -> Iterator[oslo_messaging.Transport]:
    # The global one: oslo.messaging reads its tracing options nowhere else.
    made = transport.get_transport(cfg.CONF, transport.EMBEDDED_URL)
    yield made
    made.cleanup()


@pytest.fixture
def conf(url: str) -> cfg.ConfigOpts:
    made = configuration(url)
    made.set_override("bind_port", 0, options.API)
    return made


@pytest.fixture
def rest(conf: cfg.ConfigOpts, bus: oslo_messaging.Transport) -> Iterator[str]:
    """The URL of a server that runs."""
    service = ServerService(conf, bus)
    service.start()
    yield f"http://127.0.0.1:{service.api_port}"
    service.stop()


@pytest.fixture
def agent(bus: oslo_messaging.Transport) -> Iterator[Agent]:
    made = Agent()
    server = oslo_messaging.get_rpc_server(
        bus, transport.agent_target("host-a"), [AgentEndpoint(made)]
    )
    server.start()
    yield made
    server.stop()
    server.wait()


def put(rest: str, collection: str, body: Mapping[str, Any]) -> str:
    kind, resource_id = collection.removesuffix("s"), new_id()
    answer = requests.put(f"{rest}/{collection}/{resource_id}", json={kind: body}, timeout=LONGEST)
    assert answer.status_code == 201, answer.text
    return resource_id


def make_port(rest: str) -> str:
    network = put(rest, "networks", {"network_type": "local"})
    body = {"network_id": network, "mac_address": "fa:16:3e:00:00:01"}
    return put(rest, "ports", {**body, "binding:host_id": "host-a"})


def test_from_put_to_active(rest: str, agent: Agent, bus: oslo_messaging.Transport) -> None:
    client = ServerClient(bus, "host-a", LONGEST)
    assert client.heartbeat({}).sequence == 0
    port = make_port(rest)
    assert agent.next() == ("ports_changed", [port])
    spec = client.get_ports([port]).ports[port]
    report = flow_report(resource_id=port, revision=spec.revision, sequence=7)
    assert client.report([report]).accepted == [report.id]
    shown = requests.get(f"{rest}/ports/{port}", timeout=LONGEST).json()["port"]
    assert (shown["status"], shown["sync_state"]) == ("ACTIVE", "IN_SYNC")
    assert client.heartbeat({}).sequence == 7
    requests.post(f"{rest}/ports/{port}/resync", timeout=LONGEST)
    assert agent.next() == ("resync", [port])
    requests.delete(f"{rest}/ports/{port}", timeout=LONGEST)
    assert agent.next() == ("ports_changed", [port])
    assert client.get_ports([port]).ports == {}


def test_a_malformed_message_is_refused_counted_and_the_server_goes_on(
    rest: str, bus: oslo_messaging.Transport
) -> None:
    port = make_port(rest)
    raw = oslo_messaging.get_rpc_client(bus, transport.server_target(), timeout=LONGEST)
    for reports in (None, [None], [{"id": "x"}], [{"id": new_id(), "version": "1.0"}] * 501):
        answer = raw.call({}, "report", host="host-a", reports=reports)
        assert answer["accepted"] == []
    report = flow_report(resource_id=port)
    assert ServerClient(bus, "host-a", LONGEST).report([report]).accepted == [report.id]
    metrics = requests.get(f"{rest}/metrics", timeout=LONGEST).text
    assert 'agent_flows_rpc_refused_total{field="reports"} 2.0' in metrics
    calls = 'agent_flows_rpc_seconds_count{method="report",outcome="answered"}'
    assert f"{calls} 5.0" in metrics
    assert 'agent_flows_ports{host="host-a",status="ACTIVE",sync_state="IN_SYNC"} 1.0' in metrics


def test_health_names_what_does_not_work(
    conf: cfg.ConfigOpts, bus: oslo_messaging.Transport
) -> None:
    conf.set_override("sweep_interval", 0.1, options.SERVER)
    service = ServerService(conf, bus)
    service.start()
    try:
        url = f"http://127.0.0.1:{service.api_port}/healthz"
        assert requests.get(url, timeout=LONGEST).json() == {"status": "ok", "failures": {}}
        database = Database(conf)
        with database.writer() as session:
            session.connection().exec_driver_sql("DROP TABLE agent_flows_agents")
        database.close()
        with pytest.raises(oslo_messaging.RemoteError):
            ServerClient(bus, "host-a", LONGEST).heartbeat({})
        answer = wait_until(lambda: failing(url), LONGEST, "the next sweep fails")
        assert set(answer) == {"sweeper"}
        assert "agents" in answer["sweeper"]
    finally:
        service.stop()


def failing(url: str) -> dict[str, str] | None:
    answer = requests.get(url, timeout=LONGEST)
    return dict(answer.json()["failures"]) if answer.status_code == 503 else None


def test_failed_start_stops_the_parts_already_started(
    conf: cfg.ConfigOpts, bus: oslo_messaging.Transport, rest: str
) -> None:
    conf.set_override("bind_port", int(rest.rpartition(":")[2]), options.API)

    def running_parts() -> list[str]:
        # The bus has threads of its own, which come and go with the other server's calls.
        parts = ("api", "bus", "casts", "sweeper", "waitress")
        return sorted(t.name for t in threading.enumerate() if t.name.startswith(parts))

    before = running_parts()
    with pytest.raises(OSError, match="in use"):
        ServerService(conf, bus).start()
    assert running_parts() == before


def test_public_api_without_authentication_is_not_started(
    conf: cfg.ConfigOpts, bus: oslo_messaging.Transport
) -> None:
    conf.set_override("bind_host", "0.0.0.0", options.API)
    with pytest.raises(Exception, match="loopback only"):
        ServerService(conf, bus).start()


def test_a_database_in_memory_serves_many_threads() -> None:
    with running("sqlite://") as server:
        made = [new_id() for _ in range(8)]

        def work(network: str) -> None:
            server.put("networks", network, network_type="local")
            server.show("networks", network)

        together(*(lambda network=network: work(network) for network in made))
        assert len(server.find("networks")) == 8
