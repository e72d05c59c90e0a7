"""The flows that Neutron's openvswitch driver must have left for a port.

Its own generators write them (neutron/agent/linux/openvswitch_firewall), into
a list in place of the switch.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

from neutron.agent.linux.openvswitch_firewall import firewall as driver
from neutron.agent.linux.openvswitch_firewall import rules
from neutron_lib import constants

from agent_flows.neutron.interfaces import Interface
from agent_flows.neutron.others import match
from agent_flows.neutron.others.match import Effect, Key
from agent_flows.neutron.others.standing import Demand

Ids = Mapping[tuple[str, str, str, str], int]
"""Conjunction ids that the agent's driver has given: by group, remote group, direction and
ethertype (firewall.py, ConjIdMap)."""

# A block of ids that is nobody's: flows with it are in no switch. They come in eights.
_NOT_GIVEN = -8


def conjunction_ids() -> Ids:
    """Those of this process' driver: it keeps one map for good."""
    kept = getattr(driver.ConjIdMap, "_instance", None)
    ids: Ids = {} if kept is None else kept.id_map
    return ids


class Groups:
    """The rules and members of what ports of one batch refer to, as
    ``security_group_info_for_ports`` tells them (neutron/db/securitygroups_rpc_base.py)."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        self.members: Mapping[str, Mapping[str, Collection[tuple[str, str | None]]]] = info[
            "sg_member_ips"
        ]
        self._groups = {}
        for group_id, told in info["security_groups"].items():
            group = self._groups[group_id] = driver.SecurityGroup(group_id)
            group.update_rules(told)

    def of(self, device: Mapping[str, Any]) -> list[driver.SecurityGroup]:
        return [self._groups[group_id] for group_id in device["security_groups"]]


class Writer(driver.OVSFirewallDriver):  # type: ignore[misc]  # untyped
    """Neutron's driver without a switch, without a state and deaf to events.

    ``bridge`` is only asked (its patch ports, whether it offloads).
    """

    def __init__(self, bridge: Any, permitted_ethertypes: Collection[str], ids: Ids) -> None:
        # Not the parent's: it writes to the switch, and subscribes for good.
        self.int_br = SimpleNamespace(br=bridge)
        self.permitted_ethertypes = permitted_ethertypes
        self.sg_port_map = driver.SGPortMap()
        self._ids = ids

    def filtered(self, device: Mapping[str, Any], interface: Interface, groups: Groups) -> Demand:
        """For a port with security groups. Raises ValueError without a MAC address."""
        if interface.mac is None:
            raise ValueError(f"interface {interface.name} has no attached-mac")
        self._written: list[dict[str, Any]] = []
        self.conj_ip_manager = _Conjunctions(self._ids, groups)
        network = interface.network
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
        port.sec_groups = groups.of(device)
        self.initialize_port_flows(port)
        self.add_flows_from_rules(port)
        members = ((match.key_of(each), each) for each in self.conj_ip_manager.flows)
        found: defaultdict[Key, Effect] = defaultdict(frozenset)
        for key, flow in members:
            found[key] |= match.effect(flow["actions"])
        return Demand(self._own(), found)

    def unfiltered(self, port_id: str, interface: Interface) -> Demand:
        """For a port without port security, and for a trusted one."""
        self._written = []
        self._interface = interface
        self._initialize_egress_no_port_security(port_id, {port_id: _vif(interface)})
        return Demand(self._own(), {})

    def _own(self) -> dict[Key, frozenset[Effect]]:
        own: defaultdict[Key, frozenset[Effect]] = defaultdict(frozenset)
        for flow in self._written:
            own[match.key_of(flow)] |= {match.effect(flow["actions"])}
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
        self.flows: list[dict[str, Any]] = []

    def add(self, vlan: int, *of: Any) -> int:
        """``of``: group, remote group, direction and ethertype, and how far the priority is from
        the lowest, which the id tells."""
        group_id, remote_id, direction, ethertype, offset = of
        given = self._ids.get((group_id, remote_id, direction, ethertype), _NOT_GIVEN)
        conjunction_id: int = given + offset * 2
        self._used[remote_id, direction, ethertype].add(conjunction_id)
        return conjunction_id

    def update_flows_for_vlan(self, vlan: int, ofport: int) -> None:
        for (remote_id, direction, ethertype), used in self._used.items():
            for address, mac in self._groups.members.get(remote_id, {}).get(ethertype, ()):
                self.flows += rules.create_flows_for_ip_address_and_mac(
                    address, mac, direction, ethertype, vlan, sorted(used)
                )
