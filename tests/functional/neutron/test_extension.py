"""The extension beside our driver, and a server: troubles of the host are reported, and an event
that fails delays no other."""

import dataclasses
import sqlite3
import threading
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import oslo_messaging
import pytest
from neutron_lib import rpc
from neutron_lib.callbacks import events, registry
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.neutron.agent import extension as agent_extension
from agent_flows.neutron.agent.catch_up import Desired
from agent_flows.neutron.agent.extension import AgentFlowsAgentExtension
from agent_flows.neutron.agent.firewall_driver import FIREWALL
from agent_flows.report import FlowReport, Trouble
from agent_flows.rpc import transport
from agent_flows.rpc.answers import Held, Receipt
from agent_flows.rpc.identity import Identity
from agent_flows.rpc.revisions import Revisions
from agent_flows.rpc.server import ServerEndpoint
from agent_flows.spec import Spec
from lab import model
from lab.process import wait_until
from lab.switch import Switch
from tests.functional.neutron.cloud import SSH, WEB, Cloud
from tests.functional.secgroups.host import BRIDGE, Vm, outsider

SECONDS = 20


class Server:
    """Takes everything that is reported, and notes it."""

    def __init__(self) -> None:
        self.reports: list[FlowReport] = []
        self.states: list[Mapping[str, Any]] = []
        self.agents: set[Identity] = set()
        self.keys: set[str | None] = set()
        # What is desired of the host: nothing is compared without it.
        self.desired: Desired | None = None
        self.awaited: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def take_reports(
        self, host: str, reports: Sequence[FlowReport], agent: Identity | None = None
    ) -> Receipt:
        with self._lock:
            self.reports += reports
            self._note(agent)
        return Receipt(1, accepted=[each.id for each in reports])

    def _note(self, agent: Identity | None) -> None:
        assert agent is not None
        self.agents.add(dataclasses.replace(agent, proof=None))
        self.keys.add(agent.proof.key if agent.proof is not None else None)

    def get_ports(
        self, host: str, port_ids: Collection[str] | None, agent: Identity | None = None
    ) -> Sequence[Spec]:
        return []

    def take_heartbeat(
        self, host: str, state: Mapping[str, Any], agent: Identity | None = None
    ) -> Held:
        with self._lock:
            self.states.append(state)
            self._note(agent)
        if self.desired is None:
            return Held(1)
        return Held(1, desired=self.get_revisions(host).digest())

    def get_revisions(self, host: str, agent: Identity | None = None) -> Revisions:
        assert self.desired is not None
        return dataclasses.replace(self.desired.get_revisions(), awaited=self.awaited)

    def get_members(
        self, host: str, security_group: str, agent: Identity | None = None
    ) -> Mapping[str, int]:
        assert self.desired is not None
        return self.desired.get_members(security_group)

    def trouble(self, source: Trouble) -> str:
        """Its line in the last heartbeat."""
        return str(self.states[-1]["troubles"].get(source, "")) if self.states else ""


@pytest.fixture
def server(cloud: Cloud) -> Iterator[Server]:
    server = Server()
    listening = oslo_messaging.get_rpc_server(
        rpc.TRANSPORT, transport.server_target("server"), [ServerEndpoint(server)]
    )
    listening.start()
    yield server
    listening.stop()
    listening.wait()


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    cfg.CONF.set_override("state_dir", str(tmp_path / "state"), options.AGENT)
    cfg.CONF.set_override("heartbeat_interval", 1.0, options.AGENT)
    yield tmp_path / "state"
    cfg.CONF.clear_override("heartbeat_interval", options.AGENT)
    cfg.CONF.clear_override("state_dir", options.AGENT)


@pytest.fixture
def extension(
    cloud: Cloud, server: Server, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AgentFlowsAgentExtension]:
    monkeypatch.setattr(agent_extension, "ResourcesPullRpcApi", lambda: cloud.server)
    made = extension_of(cloud)
    registry.publish(FIREWALL, events.AFTER_INIT, cloud.driver)
    yield made
    made.stop(10)


def extension_of(cloud: Cloud) -> AgentFlowsAgentExtension:
    extension = AgentFlowsAgentExtension()
    plugin = types.SimpleNamespace(remote_resource_cache=cloud._cache)
    extension.consume_api(types.SimpleNamespace(br_int=cloud.bridge, plugin_rpc=plugin))
    extension.initialize(None, "ovs")
    return extension


@pytest.mark.usefixtures("server", "state_dir")
def test_a_host_on_which_packets_may_pass_is_in_trouble_until_they_cannot(
    cloud: Cloud, dummy_switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_extension, "ResourcesPullRpcApi", lambda: cloud.server)
    dummy_switch.stop_vswitchd()
    try:
        made = extension_of(cloud)
        line = made.state()["troubles"][Trouble.FLOOR]
    finally:
        dummy_switch.start_vswitchd()
    try:
        assert f"packets may pass {BRIDGE} without security groups" in line
        gone = f"no trouble {Trouble.FLOOR}"
        wait_until(lambda: Trouble.FLOOR not in made.state()["troubles"], SECONDS, gone)
        flows = dummy_switch.ofctl("dump-flows", dummy_switch.management(BRIDGE), "table=60")
        assert "priority=2 actions=drop" in flows
    finally:
        made.stop(10)


def details(cloud: Cloud, vm: Vm, **fields: Any) -> dict[str, Any]:
    return {
        "port_id": vm.id,
        "mac_address": vm.mac,
        "local_vlan": vm.vlan,
        "physical_network": None,
        "status": "DOWN",
        "vif_port": cloud.bridge.get_vif_port_by_id(vm.id),
        **fields,
    }


@pytest.fixture
def vm(cloud: Cloud, extension: AgentFlowsAgentExtension, server: Server, group: str) -> Vm:
    """A machine whose port was reported."""
    booted = cloud.boot(1)
    cloud.neutron_port(booted, group)
    cloud.bind(booted)
    extension.handle_port(None, details(cloud, booted))
    cloud.sg_agent.setup_port_filters({booted.id}, set())
    reported(server, booted)
    return booted


def reported(server: Server, vm: Vm, after: int = 0) -> FlowReport:
    def last() -> FlowReport | None:
        of_vm = [each for each in server.reports if each.resource_id == vm.id][after:]
        return of_vm[-1] if of_vm else None

    return wait_until(last, SECONDS, f"a report of {vm.name}")


def test_heartbeats_contain_the_hosts_state_and_the_agents_identity(
    extension: AgentFlowsAgentExtension, server: Server, vm: Vm
) -> None:
    wait_until(lambda: server.states, SECONDS, "a heartbeat")
    state = server.states[-1]
    assert (state["bridge"], state["troubles"], state["trouble"]) == ("br-int", {}, None)
    [agent] = server.agents
    assert agent.boot_id == state["boot_id"]
    assert reported(server, vm).failed is None


def test_a_restarted_agent_names_its_predecessor(
    cloud: Cloud, extension: AgentFlowsAgentExtension, server: Server
) -> None:
    wait_until(lambda: server.states, SECONDS, "a heartbeat")
    extension.stop(10)
    [first] = server.agents
    again = extension_of(cloud)
    try:
        wait_until(lambda: len(server.agents) == 2, SECONDS, "the next agent")
        [second] = server.agents - {first}
        assert second.predecessors[0] == first.boot_id
        [key] = server.keys
        assert key is not None
    finally:
        again.stop(10)
        extension.initialize(None, "ovs")


def test_a_second_agent_is_refused_the_state_directory(
    cloud: Cloud, extension: AgentFlowsAgentExtension
) -> None:
    with pytest.raises(ValueError, match=r"state_dir .* is used by another agent"):
        extension_of(cloud)


def test_the_state_directory_is_below_neutrons(cloud: Cloud, tmp_path: Path) -> None:
    """The file where the directory would be made also makes it unusable."""
    (tmp_path / "agent-flows").write_text("no directory")
    cfg.CONF.set_override("state_path", str(tmp_path))
    try:
        with pytest.raises(ValueError, match=rf"state_dir {tmp_path}/agent-flows cannot be used"):
            extension_of(cloud)
    finally:
        cfg.CONF.clear_override("state_path")


def test_a_stopped_switch_is_reported_at_once(
    cloud: Cloud, extension: AgentFlowsAgentExtension, server: Server, vm: Vm
) -> None:
    with cloud.switch_stopped():
        wait_until(lambda: server.trouble(Trouble.SWITCH), SECONDS, "the trouble")
        assert "ovs-vswitchd cannot be reached" in server.trouble(Trouble.SWITCH)
        assert server.states[-1]["trouble"]
    cloud.recover()
    wait_until(lambda: not server.states[-1]["troubles"], SECONDS, "no trouble")


def test_a_report_that_cannot_be_kept_is_a_trouble_and_made_again(
    cloud: Cloud, extension: AgentFlowsAgentExtension, server: Server, vm: Vm, state_dir: Path
) -> None:
    wait_until(lambda: len(extension._outbox) == 0, SECONDS, "all is reported")
    number = len(server.reports)
    with sqlite3.connect(state_dir / "outbox.sqlite") as outbox:
        outbox.execute("CREATE TRIGGER full BEFORE INSERT ON unsent "
                       "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END")  # fmt: skip
    cloud.remove(vm)
    wait_until(lambda: "disk is full" in server.trouble(Trouble.OUTBOX), SECONDS, "the trouble")
    assert len(server.reports) == number
    with sqlite3.connect(state_dir / "outbox.sqlite") as outbox:
        outbox.execute("DROP TRIGGER full")
    outbox.close()
    assert reported(server, vm, after=number).flow == "unwire"
    wait_until(lambda: not server.states[-1]["troubles"], SECONDS, "no trouble")


def test_a_new_port_is_closed_although_a_group_is_gone_from_the_cache(
    cloud: Cloud, extension: AgentFlowsAgentExtension, server: Server, vm: Vm, group: str
) -> None:
    gone = cloud.security_group()
    cloud.rule(gone, **WEB)
    odd = cloud.boot(2)
    cloud.neutron_port(odd, gone)
    cloud.wire_ports(odd)
    cloud.lose_group(gone)
    before = len(cloud.ofctl.dump())
    cloud.rule(gone, protocol="udp")
    cloud.rule(group, protocol="sctp")
    wait_until(lambda: len(cloud.ofctl.dump()) > before, SECONDS, "the other group's rule")
    new = cloud.boot(3)
    cloud.neutron_port(new, group)
    cloud.bind(new)
    assert cloud.bridge.get_vif_port_by_id(new.id) is not None
    extension.handle_port(None, details(cloud, new))
    door = f"in_port={cloud.switch.ofport(new.name)}"
    quarantine = "table=60,cookie=0xaf11000000000000/0xffff000000000000"
    wait_until(
        lambda: any(door in each for each in cloud.switch.flows(BRIDGE, quarantine)),
        SECONDS,
        "the new port is closed",
    )


def test_unreadable_details_fail_their_port_only(
    cloud: Cloud, extension: AgentFlowsAgentExtension, server: Server, vm: Vm, group: str
) -> None:
    odd = cloud.boot(2)
    cloud.neutron_port(odd, group)
    extension.handle_port(None, details(cloud, odd, vif_port=None))
    failed = reported(server, odd).failed
    assert failed is not None
    wait_until(lambda: odd.id in server.trouble(Trouble.PORTS), SECONDS, "the trouble")
    extension.delete_port(None, {"port_id": odd.id})
    wait_until(lambda: not server.states[-1]["troubles"], SECONDS, "no trouble")
    assert cloud.tcp(outsider(), vm, 80)


def test_members_that_changed_while_the_message_bus_was_away_are_applied(
    cloud: Cloud, extension: AgentFlowsAgentExtension, server: Server, vm: Vm, group: str
) -> None:
    friends = cloud.security_group()
    cloud.rule(group, remote_group_id=friends, **SSH)
    coming, leaving = (
        outsider().but(ip="10.0.1.1"),
        outsider().but(ip="10.0.1.2", id=model.new_id()),
    )
    cloud.neutron_port(leaving, friends, host="compute-2")
    cloud.loop()
    assert cloud.tcp(leaving, vm, 22)
    server.desired = cloud.server
    with cloud.bus_away():
        cloud.neutron_port(coming, friends, host="compute-2")
        cloud.delete_port(leaving)

    def applied() -> bool:
        cloud.loop()
        return (cloud.tcp(coming, vm, 22), cloud.tcp(leaving, vm, 22)) == (True, False)

    wait_until(applied, SECONDS, "the members are as they are", poll=0.5)
    desired = cloud.server.get_revisions().digest()
    wait_until(lambda: server.states[-1]["desired"] == desired, SECONDS, "the digests are equal")


def test_heartbeats_go_on_if_what_the_agent_has_cannot_be_read(
    cloud: Cloud, extension: AgentFlowsAgentExtension, server: Server, vm: Vm
) -> None:
    ports = cloud._cache._type_cache("Port")
    ports["odd"] = object()
    wait_until(lambda: server.trouble(Trouble.RESYNC), SECONDS, "the trouble")
    assert "could not be compared" in server.trouble(Trouble.RESYNC)
    del ports["odd"]
    wait_until(lambda: not server.states[-1]["troubles"], SECONDS, "no trouble")


def test_a_port_of_which_the_server_knows_nothing_is_reported_again(
    cloud: Cloud, extension: AgentFlowsAgentExtension, server: Server, vm: Vm
) -> None:
    number = len(server.reports)
    server.awaited = (vm.id,)
    server.desired = cloud.server
    assert reported(server, vm, after=number).failed is None


@pytest.mark.parametrize(
    ("driver", "flows"),
    [("agent_flows", ["table=60, priority=2 actions=drop"]), ("openvswitch", [])],
)
def test_with_our_driver_the_bridge_is_closed_before_neutrons_agent_sets_it_up(
    dummy_switch: Switch, driver: str, flows: list[str]
) -> None:
    """The agent makes the extension before that; the bridge has no flow after a boot."""
    ours = cfg.CONF.SECURITYGROUP.firewall_driver
    cfg.CONF.set_override("firewall_driver", driver, "SECURITYGROUP")
    dummy_switch.add_bridge(BRIDGE)
    try:
        AgentFlowsAgentExtension()
        found = dummy_switch.flows(BRIDGE)
    finally:
        dummy_switch.vsctl("del-br", BRIDGE)
        cfg.CONF.set_override("firewall_driver", ours, "SECURITYGROUP")
    assert [flow.partition(", ")[2] for flow in found] == flows


@pytest.mark.usefixtures("dummy_switch")
def test_without_a_bridge_the_extension_says_what_may_pass() -> None:
    line = AgentFlowsAgentExtension().troubles.current()[Trouble.FLOOR]
    assert f"packets may pass {BRIDGE} without security groups" in line
