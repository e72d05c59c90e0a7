"""The flows that Neutron's openvswitch driver must have left for a port.

Its own generators write them (neutron/agent/linux/openvswitch_firewall), into
a list in place of the switch.
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
from agent_flows.neutron.verify.compare import Demand, Members

Ids = Mapping[tuple[str, str, str, str], int]
"""Conjunction ids that the agent's driver has given: by group, remote group, direction and
ethertype (firewall.py, ConjIdMap)."""

# A block of ids that is nobody's: flows with it are in no switch. They come in eights.
_NOT_GIVEN = -8

_REMOTE = ("remote_group_id", "remote_address_group_id")


def conjunction_ids() -> Ids:
    """Those of this process' driver: it keeps one map for good."""
    kept = getattr(driver.ConjIdMap, "_instance", None)
    # A copy: the agent's thread goes on giving ids.
    return {} if kept is None else dict(kept.id_map)


class Groups:
    """The rules and members of what ports of one batch refer to, as
    ``security_group_info_for_ports`` tells them (neutron/db/securitygroups_rpc_base.py)."""

    def __init__(self, known: Known) -> None:
        self._rules, self._addresses = known.security_groups, known.members
        self._members: dict[object, Members] = {}
        self._groups: dict[str, driver.SecurityGroup] = {}

    def of(self, device: Mapping[str, Any]) -> list[driver.SecurityGroup]:
        return [self._group(group_id) for group_id in device["security_groups"]]

    def _group(self, group_id: str) -> driver.SecurityGroup:
        if group_id not in self._groups:
            made = driver.SecurityGroup(group_id)
            made.update_rules(self._rules[group_id])
            self._groups[group_id] = made
        return self._groups[group_id]

    def basis(self, device: Mapping[str, Any], ids: Ids) -> object:
        """What the port's flows follow from: equal for equal flows."""
        told = [self._rules[group_id] for group_id in device["security_groups"]]
        remotes = {rule.get(kind) for each in told for rule in each for kind in _REMOTE}
        return (
            [device[name] for name in ("security_groups", "fixed_ips", "allowed_address_pairs")],
            told,
            {remote: self._addresses.get(remote) for remote in remotes if remote is not None},
            {of: given for of, given in ids.items() if of[0] in device["security_groups"]},
        )

    def members(
        self, remote_id: str, direction: str, ethertype: str, vlan: int, ids: frozenset[int]
    ) -> Members:
        """Of a remote group, as the conjunctions ``ids`` know them."""
        asked = remote_id, direction, ethertype, vlan, ids
        if asked not in self._members:
            flows: defaultdict[Key, Effect] = defaultdict(frozenset)
            for address, mac in self._addresses.get(remote_id, {}).get(ethertype, ()):
                for flow in rules.create_flows_for_ip_address_and_mac(
                    address, mac, direction, ethertype, vlan, sorted(ids)
                ):
                    flows[canonical_flow.key_of(flow)] |= canonical_flow.effect(flow["actions"])
            self._members[asked] = Members(flows)
        return self._members[asked]


def is_filtered(device: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Whether a port has security groups: neither trusted nor without port security."""
    return device is not None and bool(device["port_security_enabled"])


class Writer(driver.OVSFirewallDriver):  # type: ignore[misc]  # untyped
    """Neutron's driver without a switch, without a state and deaf to events.

    ``bridge`` is only asked (its patch ports, whether it offloads).
    """

    def __init__(
        self, bridge: Any, permitted_ethertypes: Collection[str], groups: Groups, ids: Ids
    ) -> None:
        # Not the parent's: it writes to the switch, and subscribes for good.
        self.int_br = SimpleNamespace(br=bridge)
        self.permitted_ethertypes = permitted_ethertypes
        self.sg_port_map = driver.SGPortMap()
        self._groups, self._ids = groups, ids

    def basis(self, device: Mapping[str, Any] | None, interface: Interface) -> object:
        """What :meth:`demand` follows from: equal for equal demands."""
        if not is_filtered(device):
            return interface
        return interface, self._groups.basis(device, self._ids)

    def demand(
        self, port_id: str, device: Mapping[str, Any] | None, interface: Interface
    ) -> Demand:
        """``device`` as the agent's cache tells it, None for a trusted port."""
        self._written: list[dict[str, Any]] = []
        self._interface = interface
        self.conj_ip_manager = _Conjunctions(self._ids, self._groups)
        if is_filtered(device):
            port = self._port(device)
            self.initialize_port_flows(port)
            self.add_flows_from_rules(port)
        else:
            self._initialize_egress_no_port_security(port_id, {port_id: _vif(interface)})
        return Demand(self._own(), self.conj_ip_manager.members)

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

    # What the driver does beside generating.

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
    """In place of the driver's ConjIPFlowManager: gives no ids, looks them up."""

    def __init__(self, ids: Ids, groups: Groups) -> None:
        self._ids, self._groups = ids, groups
        self._used: defaultdict[tuple[str, str, str], set[int]] = defaultdict(set)
        self.members: list[Members] = []

    def add(self, vlan: int, *of: Any) -> int:
        """``of``: group, remote group, direction and ethertype, and how far the priority is from
        the lowest, which the id tells."""
        group_id, remote_id, direction, ethertype, offset = of
        given = self._ids.get((group_id, remote_id, direction, ethertype), _NOT_GIVEN)
        conjunction_id: int = given + offset * 2
        self._used[remote_id, direction, ethertype].add(conjunction_id)
        return conjunction_id

    def update_flows_for_vlan(self, vlan: int, ofport: int) -> None:
        self.members = [
            self._groups.members(*remote, vlan, frozenset(used))
            for remote, used in self._used.items()
        ]
