"""Neutron's own agent side around our driver, on a dummy switch: what the API would send goes into
the agent's resource cache, and from there on everything is Neutron's code but the driver.

Left out are the server and the agent's loop; :meth:`Cloud.wire` and its kin do
what the loop does, in its order.
"""

import contextlib
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import netaddr
from neutron.agent import resource_cache, securitygroups_rpc
from neutron.agent.common import ovs_lib
from neutron.api.rpc.handlers.securitygroups_rpc import SecurityGroupServerAPIShim
from neutron.objects import address_group, ports, securitygroup
from neutron.objects.port.extensions import allowedaddresspairs, port_security
from neutron_lib import context
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.utils.net import AuthenticEUI

from agent_flows.neutron import rules_digest
from agent_flows.neutron.agent.cached_state import CachedState
from agent_flows.neutron.agent.catch_up import CacheUpdate
from agent_flows.neutron.agent.firewall_driver import AgentFlowsFirewallDriver
from agent_flows.neutron.reporting import Reporting
from agent_flows.neutron.resource_cache import CachedRevisions, SecurityGroupInfo
from agent_flows.openflow.dump import FlowEntry
from agent_flows.openflow.pipeline import Home, Pipeline
from agent_flows.report import FlowReport, TaskError, TaskState
from agent_flows.rpc.revisions import Revisions
from lab.process import wait_until
from lab.switch import Switch
from tests.functional.secgroups.host import BRIDGE, Host, Vm

HOST = "compute-1"
SECONDS = 30
NETWORK = "22222222-2222-2222-2222-222222222222"
WEB = {"protocol": "tcp", "port_range_min": 80, "port_range_max": 80}
SSH = {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}


class _Server:
    """What neutron-server knows, and answers when it is asked."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Any] = {}

    def save(self, kind: str, resource: Any) -> None:
        self._known[kind, resource.id] = resource

    def find(self, kind: str, identity: str) -> Any:
        return self._known[kind, identity]

    def delete(self, kind: str, identity: str) -> None:
        del self._known[kind, identity]

    def match_resources_with_func(self, kind: str, matches: Callable[[Any], bool]) -> list[Any]:
        """As the cache has it."""
        return [each for (of, _), each in self._known.items() if of == kind and matches(each)]

    def get_revisions(self) -> Revisions:
        return CachedState(self, HOST).revisions()

    def get_members(self, security_group: str) -> dict[str, int]:
        return CachedState(self, HOST).members(security_group)

    def bulk_pull(
        self, _context: Any, resource_type: str, filter_kwargs: Mapping[str, Collection[str]]
    ) -> list[Any]:
        [(field, values)] = filter_kwargs.items()
        return [
            each
            for (kind, _), each in self._known.items()
            if kind == resource_type and not {*values}.isdisjoint(_values(getattr(each, field)))
        ]


def _values(value: Any) -> Collection[Any]:
    return [value] if value is None or isinstance(value, str) else value


class Cloud(Host):
    """A compute host of Neutron's with local VLAN 1; packets as in :class:`Host`."""

    def __init__(self, switch: Switch, calls: Path) -> None:
        self._log, self._calls = calls, 0
        super().__init__(switch, pipeline=Pipeline(Home.NEUTRON))
        self.reports: list[FlowReport] = []
        self._cache = resource_cache.RemoteResourceCache(
            ["Port", "SecurityGroup", "SecurityGroupRule", "AddressGroup"]
        )
        self.server = self._cache._puller = _Server()
        self._bus_is_away = False
        self._context = context.get_admin_context()
        self._revisions: dict[str, int] = {}
        self.start_agent()

    def start_agent(self) -> None:
        """A new process of the agent: a bridge, a driver, and what connects them to the cache."""
        registry.clear()
        self.bridge = ovs_lib.OVSBridge(BRIDGE)
        shim = SecurityGroupServerAPIShim(self._cache)
        self.sg_agent = securitygroups_rpc.SecurityGroupAgentRpc(
            self._context, shim, defer_refresh_firewall=True, integration_bridge=self.bridge
        )
        shim.register_legacy_sg_notification_callbacks(self.sg_agent)
        driver = self.sg_agent.firewall
        assert isinstance(driver, AgentFlowsFirewallDriver)
        self.driver = driver
        revisions = CachedRevisions(SecurityGroupInfo(self._cache))
        driver.report_to(Reporting(self.reports.extend, revision=revisions.of_details))

    def stop_agent(self) -> None:
        self.driver.stop(10)

    # The API.

    def security_group(self, *, stateful: bool = True) -> str:
        group = securitygroup.SecurityGroup(
            None,
            id=str(uuid.uuid4()),
            name="",
            stateful=stateful,
            is_default=False,
            revision_number=0,
        )
        group.rules = []
        self._record("SecurityGroup", group)
        return str(group.id)

    def rule(self, group_id: str, direction: str = "ingress", **fields: Any) -> str:
        """Add a rule; its id."""
        if prefix := fields.get("remote_ip_prefix"):
            fields["remote_ip_prefix"] = netaddr.IPNetwork(prefix)
        whole = {
            **dict.fromkeys(rules_digest.NAMES),
            "id": str(uuid.uuid4()),
            "security_group_id": group_id,
            "revision_number": 0,
            "direction": direction,
            "ethertype": "IPv4",
        }
        added = securitygroup.SecurityGroupRule(None, **whole | fields)
        self._record("SecurityGroupRule", added)
        return str(added.id)

    def open_group(self, *rules: Mapping[str, object]) -> str:
        """A group that lets everything out and, by these ``rules``, in."""
        made = self.security_group()
        self.everything_out(made)
        for fields in rules:
            self.rule(made, **fields)
        return made

    def everything_out(self, group_id: str) -> None:
        for ethertype in ("IPv4", "IPv6"):
            self.rule(group_id, "egress", ethertype=ethertype)

    def delete_rule(self, rule_id: str) -> None:
        self._delete("SecurityGroupRule", rule_id)

    def lose_group(self, group_id: str) -> None:
        """The cache has its rules, and no longer the group itself; nor has the server."""
        self._cache._type_cache("SecurityGroup").pop(group_id)
        self._cache._satisfied_server_queries.clear()
        self.server.delete("SecurityGroup", group_id)

    def delete_port(self, vm: Vm) -> None:
        self._delete("Port", vm.id)

    def address_group(self, addresses: Iterable[str], group_id: str | None = None) -> str:
        """Make one, or change it."""
        group_id = group_id or str(uuid.uuid4())
        group = address_group.AddressGroup(
            None, id=group_id, name="", project_id="p", revision_number=self._revised(group_id)
        )
        group.addresses = [
            address_group.AddressAssociation(
                None, address=netaddr.IPNetwork(each), address_group_id=group_id
            )
            for each in addresses
        ]
        self._record("AddressGroup", group)
        return group_id

    def neutron_port(self, vm: Vm, *groups: str, **fields: Any) -> None:
        """Create or update ``vm``'s port."""
        port = ports.Port(
            None,
            id=vm.id,
            network_id=NETWORK,
            mac_address=AuthenticEUI(vm.mac),
            admin_state_up=fields.get("admin_state_up", True),
            device_id="vm",
            device_owner=fields.get("device_owner", "compute:nova"),
            status="DOWN",
            name=fields.get("name", ""),
            project_id="p",
            revision_number=self._revised(vm.id),
        )
        port.fixed_ips = [
            ports.IPAllocation(None, port_id=vm.id, subnet_id=NETWORK, network_id=NETWORK,
                               ip_address=netaddr.IPAddress(address))
            for address in (vm.ip, vm.ip6)
        ]  # fmt: skip
        port.allowed_address_pairs = [
            allowedaddresspairs.AllowedAddressPair(
                None, port_id=vm.id, mac_address=AuthenticEUI(mac),
                ip_address=netaddr.IPNetwork(address),
            )
            for mac, address in fields.get("pairs", ())
        ]  # fmt: skip
        port.security = port_security.PortSecurity(
            None, id=vm.id, port_security_enabled=fields.get("port_security_enabled", True)
        )
        port.security_group_ids = set(groups)
        port.binding_levels = []
        port.bindings = [
            ports.PortBinding(None, port_id=vm.id, host=fields.get("host", HOST), status="ACTIVE",
                              vif_type="ovs", vnic_type="normal", profile={})
        ]  # fmt: skip
        self._record("Port", port)

    def _revised(self, resource_id: str) -> int:
        self._revisions[resource_id] = self._revisions.get(resource_id, 0) + 1
        return self._revisions[resource_id]

    def _record(self, kind: str, resource: Any) -> None:
        self.server.save(kind, resource)
        if not self._bus_is_away:
            self._cache.record_resource_update(self._context, kind, resource)

    def _delete(self, kind: str, identity: str) -> None:
        self.server.delete(kind, identity)
        if not self._bus_is_away:
            self._cache.record_resource_delete(self._context, kind, identity)

    @contextlib.contextmanager
    def bus_away(self) -> Iterator[None]:
        """What the server sends to its agents is lost."""
        self._bus_is_away = True
        yield
        self._bus_is_away = False

    def catch_up(self, *vms: Vm) -> None:
        """Ask the server for these ports, or what differs."""
        ids = [vm.id for vm in vms]
        had = CachedState(self._cache, HOST)
        CacheUpdate(self._cache, self.server, had, self.server).run(ids or None)

    # The hypervisor, and the agent's loop.

    def boot(self, number: int, *, vlan: int = 1) -> Vm:
        """Plug in a VM's interface, as the hypervisor does; its port is not bound yet."""
        vm = super().boot(number, vlan=vlan)
        self.attach(vm)
        return vm

    def boot_port(self, number: int, *groups: str, **fields: Any) -> Vm:
        """A VM that is plugged in and has a port in the API; not wired yet."""
        vm = self.boot(number)
        self.neutron_port(vm, *groups, **fields)
        return vm

    def attach(self, vm: Vm) -> None:
        self.switch.vsctl(
            "set", "Interface", vm.name, f"external_ids:iface-id={vm.id}",
            f'external_ids:attached-mac="{vm.mac}"',
        )  # fmt: skip

    def bind(self, *vms: Vm) -> None:
        """The agent sees the interfaces and binds their ports to the network's local VLAN
        (port_bound)."""
        self.sees(*vms)
        for vm in vms:
            binding = {
                "tag": str(vm.vlan),
                "net_uuid": NETWORK,
                "network_type": "vlan",
                "physical_network": "physnet1",
                "segmentation_id": str(vm.vlan + 1000),
            }
            self.bridge.set_db_attribute("Port", vm.name, "tag", vm.vlan, check_error=True)
            self.bridge.set_db_attribute("Port", vm.name, "other_config", binding, check_error=True)

    def sees(self, *vms: Vm) -> None:
        """Wait until the agent's copy of the database has the interfaces as they are."""
        wait_until(lambda: all(map(self._has_ofport, vms)), 20, "the agent sees the interfaces")

    def _has_ofport(self, vm: Vm) -> bool:
        vif = self.bridge.get_vifs_by_ids([vm.id])[vm.id]
        return vif is not None and vif.ofport == self.switch.ofport(vm.name)

    def wire_ports(self, *vms: Vm) -> None:
        """New ports: bound, then their filters (process_network_ports)."""
        self.bind(*vms)
        self.sg_agent.setup_port_filters({vm.id for vm in vms}, set())

    def update_ports(self, *vms: Vm) -> None:
        """Ports that changed."""
        self.sg_agent.setup_port_filters(set(), {vm.id for vm in vms})

    def loop(self) -> None:
        """One turn of the loop, with changes of security groups only."""
        if self.sg_agent.firewall_refresh_needed():
            self.sg_agent.setup_port_filters(set(), set())

    def remove(self, *vms: Vm) -> None:
        """Unplugged (treat_devices_removed)."""
        for vm in vms:
            self.unplug(vm.name)
        self.sg_agent.remove_devices_filter({vm.id for vm in vms})

    @contextlib.contextmanager
    def switch_stopped(self) -> Iterator[None]:
        """ovs-vswitchd is down; its restart leaves no flow."""
        self.switch.stop_vswitchd()
        try:
            yield
        finally:
            self.switch.start_vswitchd()
            self.switch.appctl("dpctl/ct-disable-tcp-seq-chk")

    def recover(self) -> None:
        """After a restart of the switch (_handle_ovs_restart)."""
        self.ofctl.bundle([
            "add table=0,priority=0 actions=resubmit(,60)",
            "add table=60,priority=1 actions=NORMAL",
        ])  # fmt: skip
        self.add_network(1)
        registry.publish(resources.AGENT, events.OVS_RESTARTED, self, payload=None)

    def gone(self, vm: Vm) -> None:
        """Wait until the agent sees that the interface is no more."""
        wait_until(
            lambda: self.bridge.get_vifs_by_ids([vm.id])[vm.id] is None, 20, "the interface is gone"
        )

    def heals(self, vm: Vm) -> None:
        """Wait until a retry of the driver's own has succeeded."""
        wait_until(lambda: self.succeeded(vm), 20, f"{vm.name} has healed")

    # What the test can see.

    def report(self, vm: Vm) -> FlowReport:
        assert self.reports_of(vm), f"no report of {vm.name}"
        return self.reports_of(vm)[-1]

    def reports_of(self, vm: Vm) -> list[FlowReport]:
        return [each for each in self.reports if each.resource_id == vm.id]

    def reported(
        self, vm: Vm, holds: Callable[[FlowReport], bool] = lambda _: True, after: int = 0
    ) -> FlowReport:
        """Wait for a report of ``vm`` that ``holds``, but for the first ``after``."""

        def found() -> FlowReport | None:
            return next(filter(holds, self.reports_of(vm)[after:]), None)

        return wait_until(found, SECONDS, f"such a report of {vm.name}")

    def group_revision(self, group: str) -> int:
        """Of the rules that the agent's cache has now."""
        return CachedRevisions(SecurityGroupInfo(self._cache)).group(group)

    def succeeded(self, vm: Vm) -> bool:
        return all(task.state is TaskState.SUCCEEDED for task in self.report(vm).tasks)

    def error(self, vm: Vm) -> TaskError:
        failed = self.report(vm).failed
        assert failed is not None, f"{vm.name} did not fail"
        assert failed.error is not None
        return failed.error

    def calls(self) -> list[str]:
        """The command lines of ovs-ofctl since it was last asked, but for those of the drift watch,
        which looks at the switch when it wants to."""
        lines = self._log.read_text().splitlines()
        before, self._calls = self._calls, len(lines)
        return [line for line in lines[before:] if " diff-flows " not in line]

    def bundles(self) -> int:
        """How many bundles were sent since it was last asked."""
        return sum("--bundle" in each for each in self.calls())

    @staticmethod
    def without_cookies(flows: Iterable[FlowEntry]) -> list[FlowEntry]:
        return [FlowEntry(0, *flow[1:]) for flow in flows]
