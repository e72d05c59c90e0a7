"""Calls and casts between server and agent over the embedded bus."""

from collections.abc import Iterator
from typing import Any

import oslo_messaging
import pytest
from oslo_config import cfg

from agent_flows.rpc import transport
from agent_flows.rpc.agent import AgentEndpoint, ServerClient
from agent_flows.rpc.desired import GroupChange, Known, Update, change_of
from agent_flows.rpc.dispatch import Endpoint, listener
from agent_flows.rpc.identity import HostTaken
from agent_flows.rpc.server import AgentClient, ServerEndpoint
from lab.process import wait_until
from tests.unit.rpc.consumer import (
    GROUP,
    LONGEST,
    MEMBERS,
    PORT,
    REVISIONS,
    Agent,
    Consumer,
    report,
)


@pytest.fixture(scope="module")
def bus() -> Iterator[oslo_messaging.Transport]:
    # The global one: oslo.messaging reads its tracing options nowhere else.
    made = transport.get_transport(cfg.CONF, transport.EMBEDDED_URL)
    yield made
    made.cleanup()


def listening(
    bus: oslo_messaging.Transport, target: oslo_messaging.Target, endpoint: Endpoint
) -> Iterator[None]:
    server = listener(bus, target, endpoint)
    server.start()
    yield
    server.stop()
    server.wait()


@pytest.fixture(scope="module")
def module_server(bus: oslo_messaging.Transport) -> Iterator[Consumer]:
    consumer = Consumer()
    for _ in listening(bus, transport.server_target("one"), ServerEndpoint(consumer)):
        yield consumer


@pytest.fixture(scope="module")
def agent(bus: oslo_messaging.Transport) -> Iterator[Agent]:
    changes = Agent()
    for _ in listening(bus, transport.agent_target("compute-1"), AgentEndpoint(changes)):
        yield changes


@pytest.fixture
def server(module_server: Consumer) -> Iterator[Consumer]:
    yield module_server
    module_server.error = None


@pytest.fixture
def client(bus: oslo_messaging.Transport) -> ServerClient:
    return ServerClient(bus, "compute-1", timeout=LONGEST)


def test_a_report_arrives_unchanged(server: Consumer, client: ServerClient) -> None:
    sent = report(11, fails="bind-vlan", security_group_revisions={GROUP.id: 4})
    answer = client.report([sent])
    assert (answer.accepted, answer.rejected, answer.sequence) == ([sent.id], {}, 11)
    assert server.accepted[-1] == sent


def test_an_agent_receives_its_ports_and_their_groups(
    server: Consumer, client: ServerClient
) -> None:
    state = client.get_ports()
    assert state.ports[PORT].host == "compute-1"
    assert state.security_groups == {GROUP.id: GROUP}


def test_an_agent_receives_what_it_lacks(server: Consumer, client: ServerClient) -> None:
    known = Known({GROUP.id: 3}, {GROUP.id: 1}, {PORT: 0})
    update = client.get_desired([PORT], known)
    assert server.known[-1] == known
    sent = server.get_desired("compute-1", [PORT], known)
    assert update.to_wire() == sent.to_wire()


def test_a_heartbeat_returns_the_highest_sequence(server: Consumer, client: ServerClient) -> None:
    assert client.heartbeat({"version": "1.0"}).sequence == 42


def test_an_agent_learns_what_the_server_desires_of_its_host(
    server: Consumer, client: ServerClient
) -> None:
    assert client.heartbeat({}).desired == REVISIONS.digest()
    assert client.get_revisions() == REVISIONS
    assert client.get_members(GROUP.id) == MEMBERS[GROUP.id]


def test_an_agent_of_the_first_release_is_answered(
    server: Consumer, raw: oslo_messaging.RPCClient
) -> None:
    answer = raw.prepare(version="1.0").call({}, "heartbeat", host="compute-1", state={})
    assert answer["sequence"] == 42


def test_an_agent_receives_what_changed_with_the_cast(
    bus: oslo_messaging.Transport, agent: Agent
) -> None:
    update = Update(security_groups=[GroupChange(GROUP.id, 5, rules=GROUP.rules, since=4)])
    change = change_of([GROUP.id], update)
    assert change is not None
    AgentClient(bus).security_groups_changed("compute-1", [GROUP.id], change.wire)
    assert agent.next() == ("security_groups_changed", [GROUP.id])
    received = agent.changes[-1]
    assert received is not None
    assert received.to_wire() == update.to_wire()
    agent.casts.clear()


def test_in_place_of_an_invalid_change_the_agent_asks_and_counts_it() -> None:
    changes = Agent()
    endpoint = AgentEndpoint(changes)
    hostile = {"security_groups": [{"id": GROUP.id, "revision": 5}]}
    endpoint.security_groups_changed({transport.CHANGE: hostile}, [GROUP.id])
    assert changes.changes == [None]
    assert endpoint.refusals.counts == {"change": 1}


def test_an_agent_receives_every_kind_of_cast(bus: oslo_messaging.Transport, agent: Agent) -> None:
    caster = AgentClient(bus)
    caster.ports_changed("compute-1", [PORT])
    caster.security_groups_changed("compute-1", [GROUP.id])
    caster.resync("compute-1")
    caster.resync("compute-1", [PORT])
    for _ in range(4):
        assert agent.arrived.acquire(timeout=LONGEST)
    assert sorted(agent.casts, key=str) == sorted(
        [
            ("ports_changed", [PORT]),
            ("security_groups_changed", [GROUP.id]),
            ("resync", None),
            ("resync", [PORT]),
        ],
        key=str,
    )


def test_an_invalid_cast_is_one_line_and_does_not_stop_the_agent(
    bus: oslo_messaging.Transport, agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    caster = AgentClient(bus)
    agent.casts.clear()
    caster.ports_changed("compute-1", ["../../etc/passwd"])
    caster.ports_changed("compute-1", [PORT])
    assert agent.arrived.acquire(timeout=LONGEST)
    assert agent.casts == [("ports_changed", [PORT])]
    # Each cast has a thread of its own: the second may have overtaken the first.
    wait_until(
        lambda: "Refused from the sender of a cast" in caplog.text, LONGEST, "the refusal is logged"
    )


@pytest.fixture
def raw(bus: oslo_messaging.Transport) -> oslo_messaging.RPCClient:
    """Sends any message, as every client of the bus can."""
    target = oslo_messaging.Target(topic=transport.SERVER_TOPIC)
    return oslo_messaging.get_rpc_client(bus, target, timeout=LONGEST)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (
            ("nonsense", {}),
            "must be one of get_desired, get_members, get_ports, get_revisions, heartbeat, ping, "
            "report",
        ),
        (("_host", {"host": "compute-1"}), "must be one of"),
        (("refusals", {}), "must be one of"),
        (("report", {"hots": "compute-1", "reports": []}), "wrong arguments"),
        (("report", {}), "wrong arguments"),
        (("heartbeat", {"host": "compute-1", "state": {}, "more": 1}), "wrong arguments"),
        (("heartbeat", {"host": "../../etc", "state": {}}), "host"),
        (("get_ports", {"host": "compute-1", "port_ids": [["x"]]}), "lower-case UUIDs"),
        (("get_desired", {"host": "compute-1", "port_ids": None, "known": {}}), "must be a list"),
        (("get_desired", {"host": "compute-1", "port_ids": [], "known": []}), "must be an object"),
        (("get_desired", {"host": "compute-1", "port_ids": []}), "wrong arguments"),
    ],
)
def test_an_invalid_message_is_refused_in_one_line_without_a_traceback(
    client: ServerClient,
    raw: oslo_messaging.RPCClient,
    caplog: pytest.LogCaptureFixture,
    call: tuple[str, dict[str, Any]],
    reason: str,
) -> None:
    with pytest.raises(oslo_messaging.RemoteError) as refusal:
        raw.call({}, call[0], **call[1])
    text = str(refusal.value)
    assert reason in text
    assert "Traceback" not in text
    assert ".py" not in text
    lines = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert len(lines) <= 1
    assert not any(record.exc_info for record in caplog.records)
    assert client.heartbeat({}).sequence == 42


def test_a_call_of_another_major_version_is_refused(
    server: Consumer, raw: oslo_messaging.RPCClient
) -> None:
    with pytest.raises(oslo_messaging.RemoteError, match=r"must be version 1.2"):
        raw.prepare(version="2.0").call({}, "heartbeat", host="compute-1", state={})


def test_an_agent_receives_the_reason_why_its_host_is_taken(
    server: Consumer, client: ServerClient, caplog: pytest.LogCaptureFixture
) -> None:
    server.error = HostTaken("compute-1", "the agent with boot id 7 reports for it")
    with pytest.raises(oslo_messaging.RemoteError) as refusal:
        client.heartbeat({})
    assert refusal.value.exc_type == "HostTaken"
    assert "host compute-1 is taken: the agent with boot id 7" in str(refusal.value)
    assert not any(record.exc_info for record in caplog.records)


def test_a_failure_of_the_server_shows_its_type_only_and_the_call_can_be_repeated(
    server: Consumer, client: ServerClient
) -> None:
    server.error = RuntimeError("the database does not answer")
    with pytest.raises(oslo_messaging.RemoteError) as failure:
        client.report([report(1)])
    assert "RuntimeError in report" in str(failure.value)
    assert "the database does not answer" not in str(failure.value)
    assert ".py" not in str(failure.value)
    server.error = None
    assert client.report([report(1)]).rejected == {}


def test_a_server_answers_a_ping(server: Consumer, raw: oslo_messaging.RPCClient) -> None:
    assert raw.call({}, "ping")["clock"] > 0
