"""A handful of packets from and to a port, each with whether what is desired lets it pass. Pure.

What is desired is asked here, not the compiled flows, so that an error of the compiler shows.
"""

import ipaddress
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from agent_flows.openflow import flow
from agent_flows.openflow.pipeline import (
    ICMPV6_OUT_WITHOUT_RULE,
    ICMPV6_UNTRACKABLE,
    NEIGHBOUR_ADVERTISEMENT,
)
from agent_flows.secgroups.antispoofing import pairs_of
from agent_flows.secgroups.base import DHCP_PORTS
from agent_flows.spec import (
    ICMP,
    ICMPV6,
    PROTOCOLS,
    SCTP,
    TCP,
    UDP,
    DesiredState,
    Direction,
    Ethertype,
    PortSpec,
    SecurityGroupRule,
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Addresses for documentation (RFC 5737, 3849, 7042), which no port has.
_STRANGERS: dict[int, tuple[Address, ...]] = {
    4: tuple(map(ipaddress.ip_address, ("192.0.2.1", "198.51.100.1", "203.0.113.1"))),
    6: tuple(map(ipaddress.ip_address, ("2001:db8::5301", "3fff::5301"))),
}
STRANGERS_MAC = "00:00:5e:00:53:01"
_BROADCAST = "ff:ff:ff:ff:ff:ff"

_CLIENTS_PORT = 50000
_SERVICE = 80
_ECHO_REQUEST = {ICMP: 8, ICMPV6: 128}
# Which a rule may leave out: two services, and a protocol for experiments (RFC 3692).
_TRIED = ((TCP, 9), (UDP, 9), (TCP, 65000), (UDP, 65000), (253, None))
_SPECIAL_TYPES = frozenset(
    {*ICMPV6_OUT_WITHOUT_RULE, *ICMPV6_UNTRACKABLE, NEIGHBOUR_ADVERTISEMENT, 134}
)
_SPECIAL_PORTS = frozenset(itertools.chain.from_iterable(DHCP_PORTS.values()))
_NAMES = {number: name for name, number in PROTOCOLS.items()} | {ICMPV6: "icmpv6"}
_WITH_PORTS = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}
_FIELDS = {number: (f"{name}_src", f"{name}_dst") for number, name in _WITH_PORTS.items()} | {
    ICMP: ("icmp_type", "icmp_code"),
    ICMPV6: ("icmpv6_type", "icmpv6_code"),
}


@dataclass(frozen=True)
class Packet:
    """``fields`` as ovs-fields(7) writes them, without an in_port. ``passes``: out of the port into
    its network, or into the port."""

    direction: Direction
    what: str
    fields: str
    passes: bool


class _Ip(NamedTuple):
    """A packet of IP; ``remote`` is the address that is not the port's. ``numbers`` are source and
    destination port, or type and code of ICMP."""

    direction: Direction
    ethertype: Ethertype
    protocol: int
    remote: Address
    numbers: tuple[int, int] | None


def of_port(port: PortSpec, desired: DesiredState) -> list[Packet]:
    """What to try with a port. Raises KeyError if ``desired`` lacks one of its groups."""
    filtered = port.port_security_enabled and not port.trusted
    rules = [
        rule for group in sorted(set(port.security_groups_in_force))
        for rule in desired.security_groups[group].rules
    ]  # fmt: skip
    own: dict[int, Address] = {each.version: each for each in reversed(port.fixed_ips)}
    found: list[Packet] = []

    def add(direction: Direction, what: str, fields: str, *, allowed: bool) -> None:
        passes = port.admin_state_up and (allowed or not filtered)
        found.append(Packet(direction, what, fields, passes))

    for ethertype in Ethertype:
        address = own.get(ethertype.version)
        if address is None:
            continue
        foreign = _foreign(port, ethertype)
        if ethertype is Ethertype.IPV4:
            text = _arp(port.mac_address, address)
            add(Direction.EGRESS, f"ARP as {address}, its own address", text, allowed=True)
            if foreign is not None:
                text = _arp(port.mac_address, foreign)
                add(Direction.EGRESS, f"ARP as {foreign}, not its address", text, allowed=False)
            text = _arp(STRANGERS_MAC, _STRANGERS[4][0], address)
            add(Direction.INGRESS, f"ARP request for {address}", text, allowed=True)
        for direction in Direction:
            of_rule = next(_examples(rules, direction, ethertype, address, desired), None)
            if of_rule is not None:
                what = f"{_described(of_rule)}, which a rule allows"
                add(direction, what, _fields(of_rule, port.mac_address, address), allowed=True)
            refused = _refused(rules, direction, ethertype, desired)
            if refused is not None:
                what = f"{_described(refused)}, which no rule allows"
                add(direction, what, _fields(refused, port.mac_address, address), allowed=False)
            tried = of_rule or refused
            if direction is Direction.EGRESS and foreign is not None and tried is not None:
                what = f"{_described(tried)} as {foreign}, not its address"
                add(direction, what, _fields(tried, port.mac_address, foreign), allowed=False)
    return found


def _foreign(port: PortSpec, ethertype: Ethertype) -> Address | None:
    """An address that the port may not use; None if it may use any."""
    networks = [network for _, network in pairs_of(port) if network.version == ethertype.version]
    return next(
        (each for each in reversed(_STRANGERS[ethertype.version])
         if not any(each in network for network in networks)),
        None,
    )  # fmt: skip


def _examples(
    rules: Iterable[SecurityGroupRule],
    direction: Direction,
    ethertype: Ethertype,
    own: Address,
    desired: DesiredState,
) -> Iterator[_Ip]:
    """A packet for each rule. Left out are those that a pipeline decides about before rules, and
    rules whose remote group is empty."""
    for rule in rules:
        if (rule.direction, rule.ethertype) != (direction, ethertype):
            continue
        protocol = TCP if rule.protocol_number is None else rule.protocol_number
        remote = _remote(rule, own, desired)
        numbers = _numbers(rule, protocol)
        if remote is None or (numbers is not None and _is_special(protocol, numbers)):
            continue
        yield _Ip(direction, ethertype, protocol, remote, numbers)


def _remote(rule: SecurityGroupRule, own: Address, desired: DesiredState) -> Address | None:
    networks = _remotes(rule, desired)
    if networks is None:
        return _STRANGERS[own.version][0]
    hosts = (network.network_address + (network.num_addresses > 2) for network in networks)
    return next((host for host in hosts if host != own), None)


def _remotes(rule: SecurityGroupRule, desired: DesiredState) -> list[flow.IPNetwork] | None:
    """The addresses that a rule is narrowed to; None for all."""
    networks: Iterable[flow.IPNetwork]
    if rule.remote_ip_prefix is not None:
        networks = [rule.remote_ip_prefix]
    elif rule.remote_group_id is not None:
        members = desired.security_groups[rule.remote_group_id].members
        # With a prefix of length 0 the MAC decides, and which that is says nothing about rules.
        networks = [member.address for member in members if member.address.prefixlen]
    elif rule.remote_address_group_id is not None:
        networks = desired.address_groups[rule.remote_address_group_id].addresses
    else:
        return None
    return [each for each in networks if each.version == rule.ethertype.version]


def _numbers(rule: SecurityGroupRule, protocol: int) -> tuple[int, int] | None:
    if protocol in _ECHO_REQUEST:
        if rule.port_range_min is None:
            return _ECHO_REQUEST[protocol], 0
        return rule.port_range_min, rule.port_range_max or 0
    if protocol in _WITH_PORTS:
        source = rule.source_port_range_min or _CLIENTS_PORT
        return source, rule.port_range_min or _SERVICE
    return None


def _is_special(protocol: int, numbers: tuple[int, int]) -> bool:
    """Whether not only rules decide about it: neighbour discovery, DHCP."""
    if protocol == ICMPV6:
        return numbers[0] in _SPECIAL_TYPES
    return protocol == UDP and not _SPECIAL_PORTS.isdisjoint(numbers)


def _refused(
    rules: Iterable[SecurityGroupRule],
    direction: Direction,
    ethertype: Ethertype,
    desired: DesiredState,
) -> _Ip | None:
    given = list(rules)
    for remote, (protocol, service) in itertools.product(_STRANGERS[ethertype.version], _TRIED):
        numbers = None if service is None else (_CLIENTS_PORT, service)
        packet = _Ip(direction, ethertype, protocol, remote, numbers)
        if not any(_allows(rule, packet, desired) for rule in given):
            return packet
    return None


def _allows(rule: SecurityGroupRule, packet: _Ip, desired: DesiredState) -> bool:
    """Whether a rule allows a packet that is not ICMP."""
    if (rule.direction, rule.ethertype) != (packet.direction, packet.ethertype):
        return False
    if rule.protocol_number not in (None, packet.protocol):
        return False
    if packet.numbers is not None:
        source, destination = packet.numbers
        spans = (
            (rule.source_port_range_min, rule.source_port_range_max, source),
            (rule.port_range_min, rule.port_range_max, destination),
        )
        if not all(low is None or high is None or low <= at <= high for low, high, at in spans):
            return False
    if rule.remote_group_id is not None and any(
        not member.address.prefixlen
        for member in desired.security_groups[rule.remote_group_id].members
    ):
        return True
    networks = _remotes(rule, desired)
    return networks is None or any(packet.remote in network for network in networks)


def _described(packet: _Ip) -> str:
    word = _NAMES.get(packet.protocol, f"protocol {packet.protocol}")
    way = "from" if packet.direction is Direction.INGRESS else "to"
    text = f"{word} {way} {packet.remote}"
    if packet.numbers is None:
        return text
    if packet.protocol in _ECHO_REQUEST:
        return f"{text}, type {packet.numbers[0]} code {packet.numbers[1]}"
    return f"{text}, port {packet.numbers[1]}"


def _fields(packet: _Ip, mac: str, own: Address) -> str:
    """The port sends it with the address ``own``, or receives it there."""
    ends = ((mac, own), (STRANGERS_MAC, packet.remote))
    if packet.direction is Direction.INGRESS:
        ends = ends[::-1]
    (source_mac, source), (destination_mac, destination) = ends
    version = packet.ethertype.version
    fields = [
        flow.dl_src(source_mac),
        flow.dl_dst(destination_mac),
        flow.protocol(packet.ethertype, packet.protocol),
        f"{flow.IP_SOURCE[version]}={source}",
        f"{flow.IP_DESTINATION[version]}={destination}",
        "nw_ttl=64",
    ]
    if packet.numbers is not None:
        # ofproto/trace takes these fields by their protocol's name only.
        first, second = _FIELDS[packet.protocol]
        fields += [f"{first}={packet.numbers[0]}", f"{second}={packet.numbers[1]}"]
    return ",".join(fields)


def _arp(mac: str, sender: Address, target: Address = _STRANGERS[4][0]) -> str:
    """A request."""
    return (
        f"arp,arp_op=1,dl_src={mac},dl_dst={_BROADCAST},"
        f"arp_sha={mac},arp_spa={sender},arp_tpa={target}"
    )
