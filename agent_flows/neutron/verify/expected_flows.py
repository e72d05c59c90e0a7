"""The flows that Neutron's openvswitch driver must have installed for a port.

The driver's own generators (neutron/agent/linux/openvswitch_firewall) make
them; they are kept in a list instead of being sent to the switch.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any, TypeGuard

from neutron.agent.linux.openvswitch_firewall import firewall as driver
from neutron.agent.linux.openvswitch_firewall import rules
from neutron_lib import constants

from agent_flows.neutron.interfaces import Interface
from agent_flows.neutron.resource_cache import Known
from agent_flows.neutron.verify import canonical_flow
from agent_flows.neutron.verify.canonical_flow import Effect, Key
from agent_flows.neutron.verify.compare import ExpectedFlows, SharedFlows

Ids = Mapping[tuple[str, str, str, str], int]
"""Conjunction ids that the agent's driver has assigned: by group, remote group, direction and
ethertype (firewall.py, ConjIdMap)."""

# A block of 8 ids that the driver never assigns: no switch has flows with them.
_UNASSIGNED = -8

_REMOTE = ("remote_group_id", "remote_address_group_id")


def conjunction_ids() -> Ids:
    """Those of the driver in this process, which keeps one map as long as it runs."""
    instance = getattr(driver.ConjIdMap, "_instance", None)
    # A copy: the agent's thread goes on assigning ids.
    return {} if instance is None else dict(instance.id_map)


class Groups:
    """The rules and members of the groups that ports of one batch refer to, in the form of
    ``security_group_info_for_ports`` (neutron/db/securitygroups_rpc_base.py)."""

    def __init__(self, known: Known) -> None:
        self._rules, self._addresses = known.security_groups, known.members
        self._members: dict[object, SharedFlows] = {}
        self._groups: dict[str, driver.SecurityGroup] = {}

    def of(self, device: Mapping[str, Any]) -> list[driver.SecurityGroup]:
        return [self._group(group_id) for group_id in device["security_groups"]]

    def _group(self, group_id: str) -> driver.SecurityGroup:
        if group_id not in self._groups:
            group = driver.SecurityGroup(group_id)
            group.update_rules(self._rules[group_id])
            self._groups[group_id] = group
        return self._groups[group_id]

    def basis(self, device: Mapping[str, Any], ids: Ids) -> object:
        """What the port's flows depend on: equal for equal flows."""
        rules = [self._rules[group_id] for group_id in device["security_groups"]]
        remotes = {rule.get(kind) for group in rules for rule in group for kind in _REMOTE}
        return (
            [device[name] for name in ("security_groups", "fixed_ips", "allowed_address_pairs")],
            rules,
            {remote: self._addresses.get(remote) for remote in remotes if remote is not None},
            {key: number for key, number in ids.items() if key[0] in device["security_groups"]},
        )

    def members(
        self, remote_id: str, direction: str, ethertype: str, vlan: int, ids: frozenset[int]
    ) -> SharedFlows:
        """The flows of a remote group's addresses for the conjunctions ``ids``."""
        key = remote_id, direction, ethertype, vlan, ids
        if key not in self._members:
            flows: defaultdict[Key, Effect] = defaultdict(frozenset)
            for address, mac in self._addresses.get(remote_id, {}).get(ethertype, ()):
                for flow in rules.create_flows_for_ip_address_and_mac(
                    address, mac, direction, ethertype, vlan, sorted(ids)
                ):
                    flows[canonical_flow.key_of(flow)] |= canonical_flow.effect(flow["actions"])
            self._members[key] = SharedFlows(flows)
        return self._members[key]


def is_filtered(device: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Whether a port's security groups apply: it is not trusted and has port security."""
    return device is not None and bool(device["port_security_enabled"])


class Generator(driver.OVSFirewallDriver):  # type: ignore[misc]  # untyped
    """Neutron's driver without a switch, without state, without subscriptions to events.

    ``bridge`` is only read (its patch ports, whether it offloads).
    """

    def __init__(
        self, bridge: Any, permitted_ethertypes: Collection[str], groups: Groups, ids: Ids
    ) -> None:
        # The parent's __init__ is not called: it writes to the switch and subscribes to events.
        self.int_br = SimpleNamespace(br=bridge)
        self.permitted_ethertypes = permitted_ethertypes
        self.sg_port_map = driver.SGPortMap()
        self._groups, self._ids = groups, ids

    def basis(self, device: Mapping[str, Any] | None, interface: Interface) -> object:
        """What :meth:`expected` depends on: equal for equal flows."""
        if not is_filtered(device):
            return interface
        return interface, self._groups.basis(device, self._ids)

    def expected(
        self, port_id: str, device: Mapping[str, Any] | None, interface: Interface
    ) -> ExpectedFlows:
        """``device`` as in the agent's cache, None for a trusted port."""
        self._written: list[dict[str, Any]] = []
        self._interface = interface
        self.conj_ip_manager = _Conjunctions(self._ids, self._groups)
        if is_filtered(device):
            port = self._port(device)
            self.initialize_port_flows(port)
            self.add_flows_from_rules(port)
        else:
            self._initialize_egress_no_port_security(port_id, {port_id: _vif(interface)})
        return ExpectedFlows(self._own(), self.conj_ip_manager.members)

    def _port(self, device: Mapping[str, Any]) -> driver.OFPort:
        interface, network = self._interface, self._interface.network
        is_vlan = network.network_type == constants.TYPE_VLAN
        port = driver.OFPort(
            device,
            _vif(interface),
            interface.vlan,
            network.segmentation_id if is_vlan else None,
            network.network_type.value,
            network.physical_network,
        )
        port.update(device)
        port.sec_groups = self._groups.of(device)
        return port

    def _own(self) -> dict[Key, frozenset[Effect]]:
        own: defaultdict[Key, frozenset[Effect]] = defaultdict(frozenset)
        for flow in self._written:
            own[canonical_flow.key_of(flow)] |= {canonical_flow.effect(flow["actions"])}
        return own

    # What the driver's generators call.

    def _add_flow(self, flow_group_id: object = None, **flow: Any) -> None:
        self._written.append(flow)

    def _get_port_vlan_tag(self, port_name: str) -> int:
        return self._interface.vlan

    def _get_port_network_type(self, port_name: str) -> str:
        return self._interface.network.network_type.value

    def _get_port_physical_network(self, port_name: str) -> str | None:
        return self._interface.network.physical_network


def _vif(interface: Interface) -> SimpleNamespace:
    return SimpleNamespace(port_name=interface.name, ofport=interface.ofport, vif_mac=interface.mac)


class _Conjunctions:
    """Replaces the driver's ConjIPFlowManager: looks ids up, assigns none."""

    def __init__(self, ids: Ids, groups: Groups) -> None:
        self._ids, self._groups = ids, groups
        self._used: defaultdict[tuple[str, str, str], set[int]] = defaultdict(set)
        self.members: list[SharedFlows] = []

    def add(self, vlan: int, *args: Any) -> int:
        """``args``: group, remote group, direction, ethertype, and how far the rule's priority is
        above the lowest, which the id contains."""
        group_id, remote_id, direction, ethertype, offset = args
        assigned = self._ids.get((group_id, remote_id, direction, ethertype), _UNASSIGNED)
        conjunction_id: int = assigned + offset * 2
        self._used[remote_id, direction, ethertype].add(conjunction_id)
        return conjunction_id

    def update_flows_for_vlan(self, vlan: int, ofport: int) -> None:
        self.members = [
            self._groups.members(*remote, vlan, frozenset(used))
            for remote, used in self._used.items()
        ]
