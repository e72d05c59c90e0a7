"""Which sender addresses a port may use; what needs no rule: ARP, neighbour discovery, DHCP; ports
that are not filtered."""

from dataclasses import replace

import pytest

from tests.conformance.bridges import Bridges
from tests.conformance.cases import (
    ALL,
    ALL_OUT,
    EVERYBODY,
    FOREIGN_MAC,
    ONE,
    OUTSIDE,
    THREE,
    TWO,
    Case,
    Machine,
    arp,
    check,
    egress,
    frame,
    icmp,
    icmpv6,
    ingress,
    net,
    port,
    rarp,
    tcp,
    udp,
    world,
)
from tests.conformance.world import ICMPV6, UDP, Group, Guard, Packet, State

STRANGER = ONE.but(mac=FOREIGN_MAC)
AS_LINK_LOCAL = ONE.but(ip6=ONE.link_local)
FORGED = ["2001:db8::66", "fe80::66"]
VIRTUAL = ONE.but(mac="00:00:5e:00:01:07", ip="10.0.0.77", ip6="2001:db8:77::77")
DHCP_SERVERS = EVERYBODY.but(mac="33:33:00:01:00:02", ip6="ff02::1:2")
ALL_NODES = EVERYBODY.but(mac="33:33:00:00:00:01")
OPEN, CLOSED = world({ONE: ALL, TWO: ALL}), world({ONE: (), TWO: ALL})


def solicitation(source: Machine) -> Packet:
    return icmpv6(source, OUTSIDE, 135, nd_target=OUTSIDE.ip6)


def advertisement(target: str, source: Machine = ONE) -> Packet:
    return icmpv6(source, OUTSIDE, 136, nd_target=target)


def nd(source: Machine, target: Machine, type_: int) -> Packet:
    """Of any type; with the sender's own address where one is named."""
    named = source.ip6 if type_ in (135, 136) else None
    return icmpv6(source, target, type_, nd_target=named)


def paired(*pairs: tuple[str, str]) -> Case:
    """ONE may send and receive everything as itself and as these."""
    return Case(
        world(
            {ONE: port(ONE, "all", pairs=[(mac, net(address)) for mac, address in pairs])},
            {"all": Group(ALL)},
        )
    )


CASES = {
    "a port sends from its own addresses only": Case(
        OPEN,
        passes=[udp(ONE, OUTSIDE, 53), udp(ONE, OUTSIDE, 53, version=6),
                udp(AS_LINK_LOCAL, OUTSIDE, 53, version=6)],
        dropped=[
            udp(STRANGER, OUTSIDE, 53), udp(STRANGER, OUTSIDE, 53, version=6),
            *(udp(ONE.but(ip=each), OUTSIDE, 53)
              for each in ("10.0.0.66", "0.0.0.0", "127.0.0.1", TWO.ip)),
            *(udp(ONE.but(ip6=each), OUTSIDE, 53, version=6) for each in FORGED),
            udp(STRANGER.but(ip="10.0.0.66"), OUTSIDE, 53),
            udp(TWO.but(number=1), OUTSIDE, 53),
        ],
    ),
    "a frame with a VLAN tag is dropped": Case(
        OPEN, dropped=[replace(udp(ONE, OUTSIDE, 53), tag=tag) for tag in (0, 1, 7, 100, 4095)]
        + [replace(udp(ONE, TWO, 53), tag=1)],
    ),
    "ARP is about the port's own MAC and address": Case(
        OPEN, passes=[arp(ONE)],
        dropped=[arp(ONE.but(ip="10.0.0.66")), arp(ONE, FOREIGN_MAC), arp(STRANGER),
                 arp(STRANGER, ONE.mac)],
    ),
    "RARP announces the port's own MAC": Case(OPEN, [rarp(ONE)], [rarp(STRANGER)]),
    "a neighbour advertisement is about the port's own addresses": Case(
        OPEN, passes=[advertisement(ONE.ip6), advertisement(ONE.link_local)],
        dropped=[*map(advertisement, FORGED), advertisement(ONE.ip6, STRANGER)],
    ),
    "a neighbour solicitation comes from the port's own address": Case(
        OPEN, passes=[solicitation(ONE), solicitation(AS_LINK_LOCAL)],
        dropped=[solicitation(ONE.but(ip6="2001:db8::66")), solicitation(STRANGER)],
    ),
    "a DHCP client needs no rule and asks as itself": Case(
        CLOSED,
        passes=[udp(ONE, EVERYBODY, 67, 68), udp(ONE.but(ip="0.0.0.0"), EVERYBODY, 67, 68),
                udp(AS_LINK_LOCAL, DHCP_SERVERS, 547, 546, version=6)],
        dropped=[udp(ONE.but(ip="10.0.0.66"), EVERYBODY, 67, 68),
                 udp(STRANGER.but(ip="0.0.0.0"), EVERYBODY, 67, 68),
                 udp(ONE.but(ip6="fe80::66"), DHCP_SERVERS, 547, 546, version=6)],
    ),
    "the answer of a DHCP server needs no rule": Case(
        CLOSED,
        passes=[udp(OUTSIDE, ONE, 68, 67), udp(OUTSIDE, ONE, 546, 547, version=6)],
        dropped=[udp(OUTSIDE, ONE, 69, 67), udp(OUTSIDE, ONE, 556, 547, version=6)],
    ),
    "a VM is no DHCP server with any rules": Case(
        OPEN,
        passes=[udp(ONE, OUTSIDE, 1068, 67), udp(ONE, OUTSIDE, 1546, 547, version=6)],
        dropped=[udp(ONE, OUTSIDE, 68, 67), udp(ONE, OUTSIDE, 546, 547, version=6),
                 udp(ONE, TWO, 68, 67)],
    ),
    "a VM is no router with any rules": Case(
        OPEN, dropped=[icmpv6(source, target, 134) for source in (ONE, AS_LINK_LOCAL)
                       for target in (OUTSIDE, TWO, ALL_NODES)],
    ),
    "a rule for all of ICMPv6 opens no router advertisement": Case(
        world({ONE: (egress(ICMPV6, version=6),)}),
        [icmpv6(ONE, OUTSIDE, 128)], [icmpv6(ONE, OUTSIDE, 134)],
    ),
    "what a port without rules receives": Case(
        CLOSED,
        passes=[arp(OUTSIDE), *(nd(OUTSIDE, ONE, each) for each in (130, 134, 135, 136))],
        dropped=[*(nd(OUTSIDE, ONE, each) for each in (128, 131, 133, 137)),
                 icmp(OUTSIDE, ONE, 8), frame(OUTSIDE, ONE, 0x88CC)],
    ),
    "what a port without rules sends": Case(
        CLOSED,
        passes=[arp(ONE), *(nd(ONE, OUTSIDE, each) for each in (130, 133, 135, 136))],
        dropped=[*(nd(ONE, OUTSIDE, each) for each in (128, 131, 134, 137)),
                 *(nd(ONE.but(ip6="2001:db8::66"), OUTSIDE, each) for each in (130, 133, 135)),
                 icmp(ONE, OUTSIDE, 8), frame(ONE, OUTSIDE, 0x88CC)],
    ),
    "address pairs with the port's own MAC": paired(
        (ONE.mac, "192.168.7.0/28"), (ONE.mac, "2001:db8:7::/64")
    )._replace(
        passes=[udp(ONE.but(ip="192.168.7.15"), OUTSIDE, 53), arp(ONE.but(ip="192.168.7.9")),
                udp(ONE.but(ip6="2001:db8:7::9"), OUTSIDE, 53, version=6),
                udp(OUTSIDE, ONE.but(ip="192.168.7.15"), 53), advertisement("2001:db8:7::9")],
        dropped=[udp(ONE.but(ip="192.168.7.16"), OUTSIDE, 53), arp(ONE.but(ip="192.168.8.9")),
                 udp(ONE.but(ip6="2001:db8:8::9"), OUTSIDE, 53, version=6),
                 advertisement("2001:db8:8::9")],
    ),
    "an address pair with a MAC sends and receives its own addresses only": paired(
        (VIRTUAL.mac, "10.0.0.77/32"), (VIRTUAL.mac, "2001:db8:77::/64")
    )._replace(
        passes=[packet for version in (4, 6)
                for packet in (udp(VIRTUAL, OUTSIDE, 53, version=version),
                               udp(OUTSIDE, VIRTUAL, 53, version=version))],
        dropped=[udp(VIRTUAL.but(mac=ONE.mac), OUTSIDE, 53),
                 udp(VIRTUAL.but(mac=ONE.mac), OUTSIDE, 53, version=6),
                 udp(ONE.but(mac=VIRTUAL.mac), OUTSIDE, 53)],
    ),
    "address pairs for every address": paired(
        (ONE.mac, "0.0.0.0/0"), (ONE.mac, "::/0")
    )._replace(
        passes=[udp(ONE.but(ip="198.51.100.7"), OUTSIDE, 53),
                udp(ONE.but(ip6="2001:db8:5::5"), OUTSIDE, 53, version=6)],
        dropped=[udp(STRANGER.but(ip="198.51.100.7"), OUTSIDE, 53),
                 udp(STRANGER.but(ip6="2001:db8:5::5"), OUTSIDE, 53, version=6)],
    ),
    "a port of stateless groups sends from its own addresses only": Case(
        world({ONE: port(ONE, "all")}, {"all": Group(ALL, stateful=False)}),
        passes=[udp(ONE, OUTSIDE, 53)],
        dropped=[udp(STRANGER, OUTSIDE, 53), udp(ONE.but(ip="10.0.0.66"), OUTSIDE, 53)],
    ),
    "stateless groups need no rule for what needs none": Case(
        world({ONE: port(ONE, "none")}, {"none": Group((ingress(UDP, 9),), stateful=False)}),
        passes=[udp(OUTSIDE, ONE, 68, 67), nd(OUTSIDE, ONE, 135), arp(ONE)],
    ),
    "a port without port security sends and receives everything": Case(
        world({ONE: port(ONE, guard=Guard.OFF), TWO: ALL, THREE: ()}),
        passes=[
            udp(STRANGER.but(ip="10.0.0.66"), OUTSIDE, 53), udp(STRANGER, TWO, 53),
            icmpv6(ONE, OUTSIDE, 134), udp(OUTSIDE, ONE, 53), udp(TWO, ONE, 53),
            frame(OUTSIDE, ONE, 0x88CC), frame(ONE, OUTSIDE, 0x88CC),
            tcp(ONE, TWO, 40000, 80, state=State.REPLY),
        ],
        # Its peers' rules still decide.
        dropped=[udp(ONE, THREE, 53), udp(ONE.but(ip="10.0.0.66"), THREE, 53),
                 replace(udp(ONE, TWO, 53), tag=1)],
    ),
    "a port of the network's own services is not filtered": Case(
        world({ONE: port(ONE, guard=Guard.TRUSTED), TWO: ALL_OUT, THREE: (ingress(UDP, 53),)}),
        passes=[
            udp(ONE, TWO, 68, 67), icmpv6(ONE, TWO, 134), icmpv6(ONE, OUTSIDE, 134),
            udp(STRANGER.but(ip="10.0.0.66"), OUTSIDE, 53), udp(OUTSIDE, ONE, 53),
            udp(TWO, ONE, 53), tcp(TWO, ONE, 80), udp(ONE, THREE, 53),
        ],
        dropped=[udp(ONE, TWO, 53), udp(ONE, THREE, 54)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_addresses_decide(bridges: Bridges, name: str) -> None:
    check(bridges, CASES[name])
