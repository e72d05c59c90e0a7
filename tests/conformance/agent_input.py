"""What Neutron's agent passes to its firewall driver about a world.

The conversion of the API's resources is Neutron's own code; only where it asks
the database, or the agent's cache, it is given the world.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from neutron.db import securitygroups_rpc_base

from tests.conformance.world import ICMP, ICMPV6, Guard, Port, Rule, World


@dataclass(frozen=True)
class AgentInput:
    """Rules and members by group, the ports' dicts, and the ids of trusted ports."""

    rules: Mapping[str, Any]
    members: Mapping[str, Any]
    devices: list[dict[str, Any]]
    trusted: list[str]


def agent_input(world: World) -> AgentInput:
    """As ``SecurityGroupAgentRpc._apply_port_filter`` gets it for new devices."""
    devices = {
        identity(f"port {number}"): _device(number, port)
        for number, port in world.ports.items()
        if port.guard is not Guard.TRUSTED
    }
    info = _Server(world).security_group_info_for_ports(None, devices)
    return AgentInput(
        info["security_groups"],
        info["sg_member_ips"],
        list(info["devices"].values()),
        [
            identity(f"port {number}")
            for number, port in world.ports.items()
            if port.guard is Guard.TRUSTED
        ],
    )


def identity(name: str) -> str:
    """The id of a port ("port 3") or a group, always the same."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _device(number: int, port: Port) -> dict[str, Any]:
    """As ``SecurityGroupServerAPIShim._get_devices_info`` makes it."""
    return {
        "id": identity(f"port {number}"),
        "device": identity(f"port {number}"),
        "mac_address": port.mac,
        "fixed_ips": [str(address) for address in port.addresses],
        "allowed_address_pairs": [
            {"mac_address": mac, "ip_address": str(prefix)} for mac, prefix in port.pairs
        ],
        "security_groups": list(port.groups),
        "security_group_ids": list(port.groups),
        "security_group_rules": [],
        "security_group_source_groups": [],
        "security_group_remote_address_groups": [],
        "port_security_enabled": port.guard is not Guard.OFF,
    }


class _Server(securitygroups_rpc_base.SecurityGroupInfoAPIMixin):  # type: ignore[misc]
    """Neutron's conversion, asking a world instead of a database."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _select_rules_for_ports(
        self, _context: None, ports: Mapping[str, Any]
    ) -> list[tuple[str, dict[str, Any]]]:
        return [
            (port_id, {"security_group_id": group, **_rule(self._world, rule)})
            for port_id, port in ports.items()
            for group in port["security_groups"]
            for rule in self._world.groups[group].rules
        ]

    def _select_sg_ids_for_ports(
        self, _context: None, ports: Mapping[str, Any]
    ) -> list[tuple[str]]:
        return [(group,) for port in ports.values() for group in port["security_groups"]]

    def _get_sgs_stateful_flag(self, _context: None, groups: Iterable[str]) -> dict[str, bool]:
        return {group: self._world.groups[group].stateful for group in groups}

    def _select_ips_for_remote_group(
        self, _context: None, groups: Iterable[str]
    ) -> dict[str, set[tuple[str, str]]]:
        return {
            group: {(_address(prefix), mac) for mac, prefix in self._world.members(group)}
            for group in groups
        }

    def _select_ips_for_remote_address_group(
        self, _context: None, groups: Iterable[str]
    ) -> dict[str, set[tuple[str, None]]]:
        return {
            group: {(str(prefix), None) for prefix in self._world.address_groups[group]}
            for group in groups
        }


def _address(prefix: Any) -> str:
    """A fixed address comes without a length."""
    whole = prefix.prefixlen == prefix.max_prefixlen
    return str(prefix.network_address if whole else prefix)


def _rule(world: World, rule: Rule) -> dict[str, Any]:
    """A rule as the API keeps it: ``protocol`` is text."""
    made: dict[str, Any] = {
        "direction": "egress" if rule.egress else "ingress",
        "ethertype": f"IPv{rule.version}",
    }
    if rule.protocol is not None:
        made["protocol"] = str(rule.protocol)
    if rule.protocol in (ICMP, ICMPV6) and rule.icmp is not None:
        made["port_range_min"], made["port_range_max"] = rule.icmp
    if rule.ports is not None:
        made["port_range_min"], made["port_range_max"] = rule.ports
    if isinstance(rule.remote, str):
        kind = "address_group" if rule.remote in world.address_groups else "group"
        made[f"remote_{kind}_id"] = rule.remote
    elif rule.remote is not None:
        made["remote_ip_prefix"] = str(rule.remote)
    return made
