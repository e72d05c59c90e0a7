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
from agent_flows.rpc.identity import Identity
from agent_flows.rpc.server import Accepted, AgentClient, Held, ServerEndpoint
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

    def take_reports(
        self, host: str, reports: Sequence[FlowReport], agent: Identity | None = None
    ) -> Accepted:
        if self.broken:
            raise RuntimeError("the database is away")
        self.reports += reports
        return Accepted([item.id for item in reports], {}, Held(reports[-1].sequence))

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
    bus: oslo_messaging.Transport, target: oslo_messaging.Target, endpoint: object
) -> Iterator[None]:
    server = oslo_messaging.get_rpc_server(bus, target, [endpoint])
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
    assert (answer.accepted, answer.rejected, answer.held.sequence) == ([sent.id], {}, 11)
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
