"""Worlds written by hand, with packets whose verdict is known: what they are built from, and how
they are judged."""

import dataclasses
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tests.conformance.bridges import OURS, OWN, THEIRS, Bridges
from tests.conformance.judges import AgainstModel, AgainstNeutron
from tests.conformance.model import Forwarding, verdict
from tests.conformance.packets import UNTRACKABLE
from tests.conformance.protocols import link_local
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
    Address,
    Claim,
    Group,
    Guard,
    Network,
    Packet,
    Port,
    Prefix,
    Rule,
    State,
    Verdict,
    World,
)

BROADCAST = "ff:ff:ff:ff:ff:ff"
Ports = int | tuple[int, int] | None


@dataclass(frozen=True)
class Machine:
    """One end of a packet; ``number`` is its port's, or UPLINK outside of the host."""

    number: int
    mac: str
    ip: str
    ip6: str
    vlan: int = 1

    def but(self, **changes: object) -> "Machine":
        """With another address, as a spoofer or a second address has it."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    @property
    def link_local(self) -> str:
        return str(link_local(self.mac))

    def address(self, version: int) -> Address:
        return ipaddress.ip_address(self.ip if version == 4 else self.ip6)


def machine(number: int, vlan: int = 1) -> Machine:
    mac = f"fa:16:3e:00:00:{number:02x}"
    return Machine(number, mac, f"10.0.0.{number}", f"2001:db8::{number}", vlan)


ONE, TWO, THREE, FOUR, ELSEWHERE = (machine(number, 1 + (number > 4)) for number in range(1, 6))
"""Ports of one host; ELSEWHERE is on another network."""
OUTSIDE = Machine(UPLINK, "fa:16:3e:01:00:01", "192.0.2.1", "2001:db8:ffff::1")
EVERYBODY = Machine(UPLINK, BROADCAST, "255.255.255.255", "ff02::1")
FOREIGN_MAC = "fa:16:3e:66:66:66"


# Rules and worlds.


def ingress(protocol: int | None = None, ports: Ports = None, **fields: object) -> Rule:
    """A rule for what a port receives; a single port is a range of one."""
    return _rule(False, protocol, ports, fields)


def egress(protocol: int | None = None, ports: Ports = None, **fields: object) -> Rule:
    """A rule for what a port sends."""
    return _rule(True, protocol, ports, fields)


def _rule(out: bool, protocol: int | None, ports: Ports, fields: Mapping[str, object]) -> Rule:
    made = dict(fields)
    if isinstance(remote := made.get("remote"), str) and "/" in remote:
        made["remote"] = net(remote)
    ranges = (ports, ports) if isinstance(ports, int) else ports
    return Rule(out, protocol=protocol, ports=ranges, **made)  # type: ignore[arg-type]


ALL_OUT = (egress(), egress(version=6))
ALL_IN = (ingress(), ingress(version=6))
ALL = (*ALL_OUT, *ALL_IN)


def net(text: str) -> Prefix:
    return ipaddress.ip_network(text)


def claim(of: Machine, version: int = 4) -> Claim:
    """An address of a machine, as a member or an address pair."""
    return of.mac, ipaddress.ip_network(of.address(version))


def port(
    of: Machine, *groups: str, pairs: Iterable[Claim] = (), guard: Guard = Guard.GROUPS
) -> Port:
    return Port(of.vlan, of.mac, (of.address(4), of.address(6)), tuple(pairs), groups, guard)


def world(
    ports: Mapping[Machine, Port | tuple[Rule, ...]],
    groups: Mapping[str, Group] | None = None,
    address_groups: Mapping[str, tuple[str, ...]] | None = None,
    kind: str = "vlan",
    permitted_ethertypes: Iterable[int] = (),
) -> World:
    """Each machine has a port, or the rules of a group that is its port's alone."""
    known = dict(groups or {})
    made: dict[int, Port] = {}
    for each, given in ports.items():
        if isinstance(given, Port):
            made[each.number] = given
        else:
            known[f"of {each.number}"] = Group(given)
            made[each.number] = port(each, f"of {each.number}")
    segment = {"vlan": 1001, "flat": None}.get(kind, 70001)
    addresses = {n: tuple(map(net, each)) for n, each in (address_groups or {}).items()}
    return World(
        {1: Network(kind, segment), 2: Network("vlan", 1002)},
        made,
        known,
        addresses,
        frozenset(permitted_ethertypes),
    )


# Packets.


def packet(
    source: Machine, target: Machine, protocol: int, *, version: int = 4, **fields: object
) -> Packet:
    """An IP packet, the first of its connection by default (``state``)."""
    plain = Packet(
        source.number,
        source.vlan,
        source.mac,
        target.mac,
        IPV4 if version == 4 else IPV6,
        src=source.address(version),
        dst=target.address(version),
        protocol=protocol,
    )
    return dataclasses.replace(plain, **fields)  # type: ignore[arg-type]


def tcp(source: Machine, target: Machine, to: int, sport: int = 40000, **fields: object) -> Packet:
    return packet(source, target, TCP, ports=(sport, to), **fields)  # type: ignore[arg-type]


def udp(source: Machine, target: Machine, to: int, sport: int = 40000, **fields: object) -> Packet:
    return packet(source, target, UDP, ports=(sport, to), **fields)  # type: ignore[arg-type]


def sctp(source: Machine, target: Machine, to: int, sport: int = 40000) -> Packet:
    return packet(source, target, SCTP, ports=(sport, to))


def icmp(source: Machine, target: Machine, type_: int, code: int = 0) -> Packet:
    return packet(source, target, ICMP, icmp=(type_, code))


def icmpv6(
    source: Machine, target: Machine, type_: int, code: int = 0, nd_target: str | None = None
) -> Packet:
    """Conntrack calls neighbour discovery and MLD invalid."""
    return packet(
        source,
        target,
        ICMPV6,
        version=6,
        icmp=(type_, code),
        nd_target=None if nd_target is None else ipaddress.ip_address(nd_target),
        state=State.INVALID if type_ in UNTRACKABLE else State.NEW,
    )


def arp(source: Machine, mac_inside: str | None = None, ethertype: int = ARP) -> Packet:
    """A question of ``source`` to everybody, with its own address and MAC inside."""
    asked = packet(source, EVERYBODY, 0)
    mac = mac_inside or source.mac
    return dataclasses.replace(asked, ethertype=ethertype, protocol=None, arp_mac=mac)


def rarp(source: Machine) -> Packet:
    return arp(source, ethertype=RARP)


def frame(source: Machine, target: Machine, ethertype: int) -> Packet:
    """Neither IP nor ARP."""
    return Packet(source.number, source.vlan, source.mac, target.mac, ethertype)


# Cases.


class Case(NamedTuple):
    """Packets that arrive, and packets that no one receives.

    A packet with a unicast destination arrives where its MAC is: in a port,
    or on the network.
    """

    world: World
    passes: Iterable[Packet] = ()
    dropped: Iterable[Packet] = ()


def agree(bridges: Bridges, given: World, packets: Iterable[Packet]) -> None:
    """Our verdicts are the model's, on our own bridge and on Neutron's, and those of Neutron's own
    driver, but for the listed differences."""
    judges: list[AgainstModel | AgainstNeutron] = []
    names = []
    if given.networks[1].kind in ("vlan", "flat"):
        judges.append(AgainstModel(bridges, OWN))
        names.append(OWN)
    # Neither Neutron's API nor its agent knows source ports.
    if not any(rule.source_ports for group in given.groups.values() for rule in group.rules):
        judges += [AgainstModel(bridges, OURS), AgainstNeutron(bridges)]
        names += [OURS, THEIRS]
    bridges.install(given, *names)
    for packet in packets:
        for judge in judges:
            found = judge.judge(given, packet)
            assert found is None, str(found)


def check(bridges: Bridges, case: Case) -> None:
    """All agree, and the verdicts are those of the case."""
    agree(bridges, case.world, [*case.passes, *case.dropped])
    for passes, packets in ((True, case.passes), (False, case.dropped)):
        for packet in packets:
            for forwarding in Forwarding:
                meant = verdict(case.world, packet, forwarding)
                assert _arrives(case.world, packet, meant) is passes, f"{packet}: {meant}"


def _arrives(world: World, packet: Packet, meant: Verdict) -> bool:
    """Whether it gets to whom it is for; of several, to any."""
    holders = {n for n, each in world.on(packet.vlan).items() if packet.eth_dst in each.macs}
    if holders:
        return bool(holders & meant.ports)
    return meant.network or bool(meant.ports)
