"""Both sides of the wire over the embedded bus."""

import datetime
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import oslo_messaging
import pytest
from oslo_config import cfg

from agent_flows.report import FlowName, FlowReport, Step, TaskError, TaskOutcome, TaskState
from agent_flows.rpc import transport
from agent_flows.rpc.agent import AgentEndpoint, ServerClient
from agent_flows.rpc.answers import Receipt
from agent_flows.rpc.dispatch import Endpoint, listener
from agent_flows.rpc.identity import HostTaken, Identity
from agent_flows.rpc.server import AgentClient, ServerEndpoint
from agent_flows.spec import (
    Direction,
    NetworkSpec,
    NetworkType,
    PortSpec,
    SecurityGroupRule,
    SecurityGroupSpec,
    Spec,
)

MOMENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
PORT, GROUP, NETWORK = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
LONGEST = 20  # seconds until a test gives up; it waits only as long as it must


class Server:
    def __init__(self) -> None:
        self.reports: list[FlowReport] = []
        self.broken = False
        self.taken = False

    def take_reports(
        self, host: str, reports: Sequence[FlowReport], agent: Identity | None = None
    ) -> Receipt:
        if self.broken:
            raise RuntimeError("the database is away")
        self.reports += reports
        return Receipt(reports[-1].sequence, accepted=[item.id for item in reports])

    def get_ports(
        self, host: str, port_ids: Collection[str] | None, agent: Identity | None = None
    ) -> Sequence[Spec]:
        network = NetworkSpec(NETWORK, NetworkType.VLAN, segmentation_id=7, physical_network="p1")
        return [
            PortSpec(PORT, 3, host, network, "fa:16:3e:00:00:01", security_groups=(GROUP,)),
            SecurityGroupSpec(GROUP, 4, rules=(SecurityGroupRule(Direction.INGRESS, protocol=6),)),
        ]

    def take_heartbeat(
        self, host: str, state: Mapping[str, Any], agent: Identity | None = None
    ) -> int:
        if self.taken:
            raise HostTaken(host, "the agent with boot id 7 speaks for it")
        return 9


class Agent:
    def __init__(self) -> None:
        self.told: list[tuple[str, Collection[str] | None]] = []
        self.arrived = threading.Semaphore(0)

    def _note(self, what: str, ids: Collection[str] | None) -> None:
        self.told.append((what, ids))
        self.arrived.release()

    def ports_changed(self, port_ids: Collection[str]) -> None:
        self._note("ports_changed", port_ids)

    def security_groups_changed(self, ids: Collection[str]) -> None:
        self._note("security_groups_changed", ids)

    def resync(self, port_ids: Collection[str] | None) -> None:
        self._note("resync", port_ids)


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
def server(bus: oslo_messaging.Transport) -> Iterator[Server]:
    consumer = Server()
    for _ in listening(bus, transport.server_target("one"), ServerEndpoint(consumer)):
        yield consumer


@pytest.fixture(scope="module")
def agent(bus: oslo_messaging.Transport) -> Iterator[Agent]:
    changes = Agent()
    for _ in listening(bus, transport.agent_target("compute-1"), AgentEndpoint(changes)):
        yield changes


@pytest.fixture
def client(bus: oslo_messaging.Transport) -> ServerClient:
    return ServerClient(bus, "compute-1", timeout=LONGEST)


def a_report() -> FlowReport:
    error = TaskError("SwitchError", "the switch refused a flow", "OFPFMFC_TABLE_FULL")
    return FlowReport(
        id=str(uuid.uuid4()),
        host="compute-1",
        resource_id=PORT,
        flow=FlowName.WIRE,
        revision=3,
        attempt=1,
        sequence=11,
        started_at=MOMENT,
        finished_at=MOMENT,
        tasks=(
            TaskOutcome(
                "apply-security-groups", Step.SECURITY_GROUPS, TaskState.FAILED, error=error
            ),
            TaskOutcome("bind-vlan", Step.L2, TaskState.PENDING),
        ),
        security_group_revisions={GROUP: 4},
    )


def test_a_report_arrives_as_it_was_sent(server: Server, client: ServerClient) -> None:
    sent = a_report()
    answer = client.report([sent])
    assert (answer.accepted, answer.rejected, answer.sequence) == ([sent.id], {}, 11)
    assert server.reports[-1] == sent


def test_an_agent_gets_its_ports_and_their_groups(server: Server, client: ServerClient) -> None:
    state = client.get_ports()
    assert state.ports[PORT].host == "compute-1"
    assert state.ports[PORT].network.segmentation_id == 7
    assert state.security_groups[GROUP].rules[0].protocol == 6


def test_a_heartbeat_brings_back_the_highest_sequence(server: Server, client: ServerClient) -> None:
    assert client.heartbeat({"version": "1.0"}).sequence == 9


def test_a_servers_failure_is_an_error_to_try_again_after(
    server: Server, client: ServerClient
) -> None:
    server.broken = True
    try:
        with pytest.raises(oslo_messaging.MessagingException):
            client.report([a_report()])
    finally:
        server.broken = False
    assert client.report([a_report()]).rejected == {}


def test_a_malformed_question_is_refused_and_the_server_goes_on(
    server: Server, client: ServerClient
) -> None:
    with pytest.raises(oslo_messaging.MessagingException):
        client.get_ports(["not-a-uuid"])
    assert client.heartbeat({}).sequence == 9


def test_the_server_tells_an_agent_what_changed(
    bus: oslo_messaging.Transport, agent: Agent
) -> None:
    caster = AgentClient(bus)
    caster.ports_changed("compute-1", [PORT])
    caster.security_groups_changed("compute-1", [GROUP])
    caster.resync("compute-1")
    caster.resync("compute-1", [PORT])
    for _ in range(4):
        assert agent.arrived.acquire(timeout=LONGEST)
    assert sorted(agent.told, key=str) == sorted(
        [
            ("ports_changed", [PORT]),
            ("security_groups_changed", [GROUP]),
            ("resync", None),
            ("resync", [PORT]),
        ],
        key=str,
    )


def test_a_malformed_cast_does_not_stop_the_agent(
    bus: oslo_messaging.Transport, agent: Agent
) -> None:
    caster = AgentClient(bus)
    agent.told.clear()
    caster.ports_changed("compute-1", ["../../etc/passwd"])
    caster.ports_changed("compute-1", [PORT])
    assert agent.arrived.acquire(timeout=LONGEST)
    assert agent.told == [("ports_changed", [PORT])]


@pytest.fixture
def raw(bus: oslo_messaging.Transport) -> oslo_messaging.RPCClient:
    """Calls whatever it likes, as anybody may who reaches the bus."""
    target = oslo_messaging.Target(topic=transport.SERVER_TOPIC)
    return oslo_messaging.get_rpc_client(bus, target, timeout=LONGEST)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (("nonsense", {}), "must be one of get_ports, heartbeat, ping, report"),
        (("_host", {"host": "compute-1"}), "must be one of"),
        (("refusals", {}), "must be one of"),
        (("report", {"hots": "compute-1", "reports": []}), "wrong arguments"),
        (("report", {}), "wrong arguments"),
        (("heartbeat", {"host": "compute-1", "state": {}, "more": 1}), "wrong arguments"),
        (("heartbeat", {"host": "../../etc", "state": {}}), "host"),
        (("get_ports", {"host": "compute-1", "port_ids": [["x"]]}), "lower-case UUIDs"),
    ],
)
def test_what_is_no_call_is_refused_in_one_line_without_a_traceback(
    client: ServerClient,
    raw: oslo_messaging.RPCClient,
    caplog: pytest.LogCaptureFixture,
    call: tuple[str, dict[str, Any]],
    reason: str,
) -> None:
    with pytest.raises(oslo_messaging.RemoteError) as refusal:
        raw.call({}, call[0], **call[1])
    said = str(refusal.value)
    assert reason in said
    assert "Traceback" not in said
    assert ".py" not in said
    lines = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert len(lines) <= 1
    assert not any(record.exc_info for record in caplog.records)
    assert client.heartbeat({}).sequence == 9


def test_a_call_of_a_version_that_is_not_spoken_is_refused(
    server: Server, raw: oslo_messaging.RPCClient
) -> None:
    with pytest.raises(oslo_messaging.RemoteError, match=r"must be version 1.0"):
        raw.prepare(version="2.0").call({}, "heartbeat", host="compute-1", state={})


def test_an_agent_hears_who_has_its_host(
    server: Server, client: ServerClient, caplog: pytest.LogCaptureFixture
) -> None:
    server.taken = True
    try:
        with pytest.raises(oslo_messaging.RemoteError) as refusal:
            client.heartbeat({})
    finally:
        server.taken = False
    assert refusal.value.exc_type == "HostTaken"
    assert "host compute-1 is taken: the agent with boot id 7" in str(refusal.value)
    assert not any(record.exc_info for record in caplog.records)


def test_a_failure_of_the_server_says_its_kind_and_nothing_of_its_insides(
    server: Server, client: ServerClient
) -> None:
    server.broken = True
    try:
        with pytest.raises(oslo_messaging.RemoteError) as failure:
            client.report([a_report()])
    finally:
        server.broken = False
    assert "RuntimeError in report" in str(failure.value)
    assert "the database is away" not in str(failure.value)
    assert ".py" not in str(failure.value)


def test_a_server_answers_whether_it_hears(server: Server, raw: oslo_messaging.RPCClient) -> None:
    assert raw.call({}, "ping")["clock"] > 0
