"""Which agent may report for a host, the host's state, and what follows for its ports."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from agent_flows.cli.osc import NeutronClient
from agent_flows.rpc.identity import Identity
from tests.functional.neutron_server.stage import PROJECT, Body, Host, Neutron, Raised, Refused

MakePort = Callable[..., Body]
SWITCH_GONE = {"switch": "ovs-vswitchd does not answer"}
DISK_FULL = {"outbox": "the disk is full"}


class Agent:
    """The extension in one process of a host's agent."""

    def __init__(self, host: Host, *predecessors: "Agent") -> None:
        self.host = host
        earlier = tuple(agent.identity.boot_id for agent in predecessors)
        self.identity = Identity(str(uuid.uuid4()), earlier)

    def beats(self, troubles: dict[str, str] | None = None) -> None:
        state = {"bridge": "br-int", "troubles": troubles or {}}
        self.host.neutron.do(
            "heartbeat", host=self.host.name, state=state, agent=self.identity.to_context()
        )
        self.host.neutron.do("settle")

    def reports(self, port: str, **fields: Any) -> Body:
        raw = [self.host.wire_form(self.host.report(port, **fields))]
        answer: Body = self.host.neutron.do(
            "report", host=self.host.name, reports=raw, agent=self.identity.to_context()
        )
        self.host.neutron.do("settle")
        return answer


def agent_of(neutron: Neutron, host: Host) -> Body:
    found: Body = neutron.rest("GET", f"/agent-flows-agents/{host.name}")["agent_flows_agent"]
    return found


def failed(neutron: Neutron, port: str) -> list[Body]:
    return neutron.tasks(f"?resource_id={port}&task_state=FAILED")


@pytest.mark.parametrize(
    ("troubles", "error_type"),
    [
        (SWITCH_GONE, "SwitchUnreachable"),
        ({"bridge": "br-int does not exist"}, "BridgeMissing"),
        ({**DISK_FULL, **SWITCH_GONE}, "SwitchUnreachable"),
    ],
)
def test_a_host_whose_switch_is_gone_makes_its_ports_unknown_until_it_is_back(
    neutron: Neutron, ours: Host, active: str, troubles: dict[str, str], error_type: str
) -> None:
    agent = Agent(ours)
    agent.beats()
    agent.beats(troubles)
    assert neutron.state(active) == ("ACTIVE", "UNKNOWN")
    (task,) = failed(neutron, active)
    assert (task["name"], task["error"]["type"]) == ("await-report", error_type)
    (mine,) = neutron.tasks(f"?resource_id={active}&task_state=FAILED", project=PROJECT)
    assert ours.name not in str(mine)
    assert "br-int" not in str(mine)
    neutron.do("casts")
    ours.sends_state("agent_flows", "qos")
    assert neutron.state(active) == ("ACTIVE", "UNKNOWN"), (
        "Neutron's own agent does not know the switch"
    )
    agent.beats()
    neutron.do("settle")
    assert neutron.state(active) == ("ACTIVE", "SYNCING")
    assert ["resync", ours.name, [active]] in neutron.do("casts")
    agent.reports(active)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")


def test_a_trouble_that_leaves_ports_as_they_are_is_readable_at_the_host(
    neutron: Neutron, ours: Host, active: str
) -> None:
    agent = Agent(ours)
    agent.beats(DISK_FULL)
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")
    shown = agent_of(neutron, ours)
    assert shown["state"]["troubles"] == DISK_FULL
    assert shown["state"]["bridge"] == "br-int"
    assert (shown["alive"], shown["conflict"]) == (True, None)
    assert shown["ports"] == {"IN_SYNC": 1}
    ours.sends_state("agent_flows")
    assert agent_of(neutron, ours)["state"]["troubles"] == DISK_FULL, "not Neutron's agent to clear"
    agent.beats()
    assert agent_of(neutron, ours)["state"]["troubles"] == {}


def test_a_second_agent_of_the_same_host_takes_nothing_from_the_first(
    neutron: Neutron, ours: Host, active: str
) -> None:
    first, second = Agent(ours), Agent(ours)
    first.beats()
    for attempt in (second.beats, lambda: second.reports(active, fails="bind-vlan")):
        with pytest.raises(Raised, match="HostTaken"):
            attempt()
    assert neutron.state(active) == ("ACTIVE", "IN_SYNC")
    assert failed(neutron, active) == []
    assert agent_of(neutron, ours)["conflict"]["boot_id"] == second.identity.boot_id
    assert first.reports(active)["rejected"] == {}


def test_an_agent_that_was_started_again_goes_on_at_once(
    neutron: Neutron, ours: Host, active: str
) -> None:
    first = Agent(ours)
    first.beats()
    second = Agent(ours, first)
    second.beats()
    assert second.reports(active)["rejected"] == {}
    assert agent_of(neutron, ours)["conflict"] is None
    with pytest.raises(Raised, match="HostTaken"):
        first.beats()


def test_a_state_report_of_neutrons_agent_leaves_the_host_to_the_extension(
    neutron: Neutron, ours: Host, active: str
) -> None:
    agent = Agent(ours)
    agent.beats()
    ours.sends_state("agent_flows")
    assert agent.reports(active)["rejected"] == {}
    assert agent_of(neutron, ours)["conflict"] is None


def test_a_report_dated_ahead_of_the_clock_does_not_block_later_reports(
    neutron: Neutron, ours: Host, active: str
) -> None:
    poisoned = ours.report(active, sequence=2**62 - 1)
    answer = ours.send(poisoned)
    assert "ahead of the server's clock" in answer["rejected"][poisoned.id]
    assert answer["sequence"] < 2**61
    ours.reports(active, fails="apply-security-groups")
    assert neutron.state(active) == ("DOWN", "OUT_OF_SYNC")


def test_a_poisoned_sequence_that_is_stored_already_does_not_block_later_reports(
    neutron: Neutron, ours: Host, active: str
) -> None:
    neutron.do("poison", host=ours.name, port=active, sequence=2**61)
    report = ours.report(active, fails="apply-security-groups")
    answer = ours.send(report)
    assert (answer["accepted"], answer["sequence"]) == ([report.id], report.sequence)
    assert neutron.state(active) == ("DOWN", "OUT_OF_SYNC")


def test_a_port_of_a_host_whose_agent_is_silent_is_unknown_plugged_in_or_not(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    absent, waiting = make_port(ours)["id"], make_port(ours)["id"]
    ours.reports(absent, flow="unwire")
    neutron.do("later", seconds=100)
    neutron.do("sweep")
    for port in (absent, waiting):
        assert neutron.state(port) == ("DOWN", "UNKNOWN")
        assert failed(neutron, port)[0]["error"]["type"] == "AgentSilent"


def test_an_agent_that_an_administrator_deletes_in_neutron_is_forgotten(
    neutron: Neutron, ours: Host, active: str
) -> None:
    (agent,) = neutron.rest("GET", f"/agents?host={ours.name}")["agents"]
    neutron.rest("DELETE", f"/agents/{agent['id']}")
    with pytest.raises(Refused) as refused:
        agent_of(neutron, ours)
    assert refused.value.status == 404
    neutron.do("sweep")
    assert neutron.state(active) == ("ACTIVE", "UNKNOWN")
    assert failed(neutron, active)[0]["error"]["type"] == "AgentNeverSeen"


def test_only_admins_read_the_state_of_hosts(neutron: Neutron, ours: Host) -> None:
    Agent(ours).beats()
    listed = neutron.rest("GET", f"/agent-flows-agents?host={ours.name}")["agent_flows_agents"]
    assert listed == [agent_of(neutron, ours)]
    assert neutron.rest("GET", "/agent-flows-agents", project=PROJECT) == {"agent_flows_agents": []}
    with pytest.raises(Refused) as refused:
        neutron.rest("GET", f"/agent-flows-agents/{ours.name}", project=PROJECT)
    assert refused.value.status in (403, 404)


def test_the_openstack_commands_read_the_state_of_hosts(neutron: Neutron, ours: Host) -> None:
    Agent(ours).beats(DISK_FULL)

    class Answer:
        def __init__(self, body: Body) -> None:
            self.status_code, self.content, self._body = 200, b"{}", body

        def json(self) -> Body:
            return self._body

    class Network:
        """openstacksdk's proxy, as far as the client uses it."""

        def request(self, path: str, method: str, **_: Any) -> Answer:
            return Answer(neutron.rest(method, path))

    client = NeutronClient(Network())
    assert client.show("agents", ours.name) == agent_of(neutron, ours)
    assert agent_of(neutron, ours) in client.find("agents", {})
