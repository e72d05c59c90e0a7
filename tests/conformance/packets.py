"""Packets at random for a given world: to the point, and then a little beside it."""

import dataclasses
import ipaddress
import random
from collections.abc import Iterable, Iterator
from typing import Any

from tests.conformance.mutations import MULTICAST, UNSPECIFIED, mutated
from tests.conformance.protocols import DHCP, link_local
from tests.conformance.world import (
    ARP,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    RARP,
    SCTP,
    TCP,
    UDP,
    UPLINK,
    WITH_PORTS,
    Address,
    Claim,
    Packet,
    Prefix,
    Rule,
    State,
    World,
)
from tests.conformance.worlds import ETHERTYPES, HOSTS, OUTSIDE, OUTSIDE_MACS

# Conntrack takes neighbour discovery and MLD for invalid in every state
# (OVS lib/conntrack.c, extract_l4_icmp6).
UNTRACKABLE = frozenset({130, 131, 132, 133, 134, 135, 136, 137, 143})


class _Peer:
    """Somebody a packet comes from or goes to, and the MACs and addresses of his."""

    def __init__(self, number: int, vlan: int, claims: Iterable[Claim]) -> None:
        self.number, self.vlan = number, vlan
        self.claims = sorted(set(claims), key=str)


class _Places:
    """What of a world is worth hitting; found once for all packets."""

    def __init__(self, world: World) -> None:
        self.world = world
        outside: list[Claim] = [
            (mac, ipaddress.ip_network(address))
            for version in (4, 6)
            for mac, address in zip(OUTSIDE_MACS, OUTSIDE[version], strict=False)
        ]
        for group in world.groups.values():
            outside += group.outside
        self.peers = [_Peer(UPLINK, vlan, outside) for vlan in world.networks]
        self.ports = {
            number: _Peer(
                number,
                port.vlan,
                [*port.claims, (port.mac, ipaddress.ip_network(link_local(port.mac)))],
            )
            for number, port in world.ports.items()
        }
        self.peers += self.ports.values()
        self.rules = [
            (self.ports[number], rule)
            for number, port in world.ports.items()
            if port.filtered
            for rule in world.rules_of(port)
        ]
        self.addresses = {
            version: sorted(set(self._addresses(version)), key=int) for version in (4, 6)
        }

    def beside(self, peer: _Peer) -> list[_Peer]:
        """Everybody else on the same network, and for once the same."""
        there = [each for each in self.peers if each.vlan == peer.vlan and each.number]
        if peer.number == UPLINK:
            return there or self.peers
        return [*there, *self.peers[: len(self.world.networks)][peer.vlan - 1 : peer.vlan]]

    def remotes(self, port: _Peer, rule: Rule) -> list[_Peer]:
        """Who a rule of ``port`` may mean, and for once anybody."""
        beside = self.beside(port)
        if rule.remote is None:
            return beside
        claims: list[Claim]
        if not isinstance(rule.remote, str):
            claims = [(OUTSIDE_MACS[0], ipaddress.ip_network(each)) for each in edges(rule.remote)]
        elif rule.remote in self.world.address_groups:
            claims = [
                (OUTSIDE_MACS[0], ipaddress.ip_network(address))
                for prefix in self.world.address_groups[rule.remote]
                for address in edges(prefix)
            ]
        else:
            claims = list(self.world.members(rule.remote))
        fitting = [claim for claim in claims if claim[1].version == rule.version]
        meant = []
        for each in beside:
            own = [own for own in each.claims if any(_meet(own, claim) for claim in fitting)]
            if own and each.number:
                meant.append(_Peer(each.number, each.vlan, own))
        if fitting:
            meant.append(_Peer(UPLINK, port.vlan, fitting))
        return [*meant, *meant, *beside]

    def _addresses(self, version: int) -> Iterator[Address]:
        yield from HOSTS[version] + OUTSIDE[version]
        prefixes = [
            prefix for group in self.world.groups for _, prefix in self.world.members(group)
        ]
        for group in self.world.groups.values():
            prefixes += [r.remote for r in group.rules if not isinstance(r.remote, str | None)]
        for addresses in self.world.address_groups.values():
            prefixes += addresses
        for prefix in prefixes:
            if prefix.version == version:
                yield from edges(prefix)


def _meet(one: Claim, other: Claim) -> bool:
    return one[1].version == other[1].version and one[1].overlaps(other[1])


def edges(prefix: Prefix) -> Iterator[Address]:
    """The first and last address of a network, and those beside it."""
    kind = type(prefix.network_address)
    first, last = int(prefix.network_address), int(prefix.broadcast_address)
    for value in (first - 1, first, last, last + 1):
        if 0 <= value < 1 << prefix.max_prefixlen:
            yield kind(value)


def packets(world: World, rng: random.Random) -> Iterator[Packet]:
    """Without end."""
    places = _Places(world)
    while True:
        yield _packet(places, rng)


_KINDS = ["rule"] * 7 + ["any", "neighbour", "dhcp", "l2"]
_STATES = [*State, State.NEW, State.NEW, State.NEW, State.NEW, State.ESTABLISHED]


def _packet(places: _Places, rng: random.Random) -> Packet:
    sender = rng.choice(places.peers)
    receiver = rng.choice(places.beside(sender))
    kind = rng.choice(_KINDS)
    packet: Packet = getattr(_Maker(rng, places, sender, receiver), kind)()
    if rng.random() < (_MUTATED if kind == "rule" else 2 * _MUTATED):
        packet = mutated(rng, packet, places.addresses)
    state = rng.choice(_STATES)
    if packet.ethertype == IPV6 and packet.icmp is not None and packet.icmp[0] in UNTRACKABLE:
        state = State.INVALID
    cut = state not in (State.NEW, State.INVALID) and rng.random() < _CUT
    return dataclasses.replace(packet, state=state, cut=cut)


_MUTATED, _CUT = 0.3, 0.4


class _Maker:
    """Packets from one peer to another."""

    def __init__(self, rng: random.Random, places: _Places, sender: _Peer, receiver: _Peer) -> None:
        self._rng, self._places = rng, places
        self._sender, self._receiver = sender, receiver

    def rule(self) -> Packet:
        """One that a rule is about, or just not."""
        places = self._places
        if not places.rules:
            return self.any()
        port, rule = self._rng.choice(places.rules)
        other = self._rng.choice(places.remotes(port, rule))
        self._sender, self._receiver = (port, other) if rule.egress else (other, port)
        protocol = rule.protocol
        if protocol is None:
            protocol = self._rng.choice([TCP, UDP, SCTP])
        fields: dict[str, Any] = {}
        if protocol in WITH_PORTS:
            fields["ports"] = (_near(self._rng, rule.source_ports), _near(self._rng, rule.ports))
        elif protocol in (ICMP, ICMPV6):
            type_, code = rule.icmp or (8, None)
            near = [(type_, code or 0), (type_, (code or 0) + 1), (type_ ^ 1, code or 0), (0, 0)]
            fields["icmp"] = self._rng.choice([(t, c & 0xFF) for t, c in near])
            if protocol == ICMPV6 and fields["icmp"][0] in (135, 136):
                return self.neighbour()
        return self._ip(rule.version, protocol, **fields)

    def any(self) -> Packet:
        version = self._rng.choice([4, 6])
        icmp = ICMP if version == 4 else ICMPV6
        protocol = self._rng.choice([TCP, UDP, SCTP, icmp, 47, 112])
        if protocol in WITH_PORTS:
            return self._ip(version, protocol, ports=(40000, self._rng.randrange(65536)))
        if protocol == icmp:
            return self._ip(version, protocol, icmp=(self._rng.choice([0, 3, 8, 128]), 0))
        return self._ip(version, protocol)

    def neighbour(self) -> Packet:
        if self._rng.random() < 0.5:
            mac, address = self._address(self._sender, 4)
            return self._frame(
                mac, ARP, src=address, dst=self._address(self._receiver, 4)[1], arp_mac=mac
            )
        type_ = self._rng.choice([130, 133, 134, 135, 135, 136, 136, 136, 143])
        fields: dict[str, Any] = {}
        if type_ in (135, 136):
            whom = self._sender if type_ == 136 else self._receiver
            fields["nd_target"] = self._address(whom, 6)[1]
        return self._ip(6, ICMPV6, icmp=(type_, 0), **fields)

    def dhcp(self) -> Packet:
        version = self._rng.choice([4, 6])
        client, server = DHCP[version]
        answer = self._rng.random() < 0.5
        packet = self._ip(version, UDP, ports=(server, client) if answer else (client, server))
        if version == 4 and self._rng.random() < 0.5:
            packet = dataclasses.replace(packet, src=UNSPECIFIED[4], dst=MULTICAST[4][1])
        return packet

    def l2(self) -> Packet:
        mac, address = self._address(self._sender, 4)
        ethertype = self._rng.choice([RARP, *ETHERTYPES])
        if ethertype == RARP:
            return self._frame(mac, RARP, src=address, dst=address, arp_mac=mac)
        return self._frame(mac, ethertype)

    def _address(self, peer: _Peer, version: int) -> tuple[str, Address]:
        """A MAC of ``peer`` and an address it may have with it."""
        fitting = [claim for claim in peer.claims if claim[1].version == version]
        if not fitting:
            mac = peer.claims[0][0]
            return mac, self._rng.choice(self._places.addresses[version])
        mac, prefix = self._rng.choice(fitting)
        if prefix.prefixlen == prefix.max_prefixlen:
            return mac, prefix.network_address
        inside = [each for each in self._places.addresses[version] if each in prefix]
        return mac, self._rng.choice(inside or [prefix.network_address])

    def _ip(self, version: int, protocol: int, **fields: Any) -> Packet:
        mac, source = self._address(self._sender, version)
        _, destination = self._address(self._receiver, version)
        ethertype = IPV4 if version == 4 else IPV6
        return self._frame(mac, ethertype, src=source, dst=destination, protocol=protocol, **fields)

    def _frame(self, eth_src: str, ethertype: int, **fields: Any) -> Packet:
        to = self._rng.choice([mac for mac, _ in self._receiver.claims])
        return Packet(self._sender.number, self._sender.vlan, eth_src, to, ethertype, **fields)


def _near(rng: random.Random, ends: tuple[int, int] | None) -> int:
    if ends is None:
        return rng.choice([0, 1, 80, 40000, 65535])
    low, high = ends
    values = [low, high, low - 1, high + 1, (low + high) // 2]
    return min(max(rng.choice(values), 0), 65535)
