"""What rules allow and what they do not: protocols, ports, types, prefixes, groups."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.bridges import Bridges
from tests.conformance.cases import (
    ALL,
    ALL_IN,
    ALL_OUT,
    ELSEWHERE,
    FOUR,
    ONE,
    OUTSIDE,
    THREE,
    TWO,
    Case,
    Machine,
    check,
    claim,
    egress,
    frame,
    icmp,
    icmpv6,
    ingress,
    net,
    packet,
    port,
    sctp,
    tcp,
    udp,
    world,
)
from tests.conformance.world import ICMP, ICMPV6, SCTP, TCP, UDP, Group, Packet, Rule, State, World

LLDP = 0x88CC


def server(*rules: Rule, **more: Any) -> World:
    """TWO has ``rules``; ONE may send and receive everything."""
    return world({ONE: ALL, TWO: rules}, **more)


def both(protocol: int, to: int) -> list[Packet]:
    """The first packet of a connection of each family from ONE to TWO."""
    kind = {TCP: tcp, UDP: udp}[protocol]
    return [kind(ONE, TWO, to, version=version) for version in (4, 6)]


def to_ports(
    kind: Callable[[Machine, Machine, int], Packet], source: Machine, target: Machine, *numbers: int
) -> list[Packet]:
    return [kind(source, target, number) for number in numbers]


GROUPS = {"web": Group(outside=(claim(OUTSIDE), claim(OUTSIDE, 6)))}
OTHER = OUTSIDE.but(ip="192.0.2.2", ip6="2001:db8:ffff::2")

CASES = {
    "a port without groups sends and receives nothing": Case(
        world({ONE: ALL, TWO: port(TWO)}),
        dropped=[
            *both(TCP, 80), udp(OUTSIDE, TWO, 53), udp(OUTSIDE, TWO, 53, version=6),
            udp(TWO, OUTSIDE, 53), udp(TWO, ONE, 53, version=6), icmp(ONE, TWO, 8),
        ],
    ),
    "groups without rules allow nothing": Case(
        world({ONE: ALL, TWO: port(TWO, "a", "b")}, {"a": Group(), "b": Group()}),
        dropped=[*both(TCP, 80), *both(UDP, 53), udp(TWO, OUTSIDE, 53), tcp(TWO, ONE, 80)],
    ),
    "the rules of a port's groups add up": Case(
        world({ONE: ALL, TWO: port(TWO, "a", "b", "c")},
              {"a": Group((ingress(TCP, 80),)), "b": Group((ingress(ICMP),)),
               "c": Group((ingress(TCP, 80), ingress(TCP, 80)))}),
        passes=[tcp(ONE, TWO, 80), icmp(ONE, TWO, 8)],
        dropped=[tcp(ONE, TWO, 81), udp(ONE, TWO, 80)],
    ),
    "a rule without a protocol is for every protocol of its family": Case(
        server(ingress()),
        passes=[tcp(ONE, TWO, 80), udp(ONE, TWO, 53), icmp(ONE, TWO, 8), packet(ONE, TWO, 47)],
        dropped=[tcp(ONE, TWO, 80, version=6), icmpv6(ONE, TWO, 128)],
    ),
    "a rule without a protocol is for every protocol of IPv6": Case(
        server(ingress(version=6)),
        passes=[tcp(ONE, TWO, 80, version=6), icmpv6(ONE, TWO, 128),
                packet(ONE, TWO, 47, version=6)],
        dropped=[tcp(ONE, TWO, 80), icmp(ONE, TWO, 8)],
    ),
    "a packet needs a rule of its sender and one of its receiver": Case(
        world({ONE: ALL_OUT, TWO: ALL_IN}),
        passes=[*both(UDP, 53), udp(OUTSIDE, TWO, 53)],
        dropped=[udp(TWO, ONE, 53), udp(TWO, OUTSIDE, 53), udp(OUTSIDE, ONE, 53)],
    ),
    "a range is exact": Case(
        server(ingress(UDP, (1000, 2001))),
        # The masks a range falls into meet at 1008, 1024 and 2000.
        passes=to_ports(udp, ONE, TWO, 1000, 1007, 1008, 1023, 1024, 1500, 1999, 2000, 2001),
        dropped=[*to_ports(udp, ONE, TWO, 0, 999, 2002, 65535), tcp(ONE, TWO, 1500)],
    ),
    "the full range is every port of its protocol": Case(
        server(ingress(UDP, (1, 65535))),
        passes=to_ports(udp, ONE, TWO, 1, 2, 80, 32768, 65535),
        dropped=[tcp(ONE, TWO, 80)],
    ),
    "sctp has ports": Case(
        server(ingress(SCTP, (5000, 5003))),
        passes=to_ports(sctp, ONE, TWO, 5000, 5003),
        dropped=[*to_ports(sctp, ONE, TWO, 4999, 5004), udp(ONE, TWO, 5000)],
    ),
    "overlapping ranges of several groups add up": Case(
        world({ONE: ALL, TWO: port(TWO, "low", "high")},
              {"low": Group((ingress(TCP, (80, 90)),)),
               "high": Group((ingress(TCP, (85, 99)),))}),
        passes=to_ports(tcp, ONE, TWO, 80, 85, 87, 90, 91, 99),
        dropped=to_ports(tcp, ONE, TWO, 79, 100),
    ),
    "source ports alone": Case(
        server(ingress(TCP, source_ports=(1000, 1010)), ingress(SCTP, source_ports=(5000, 5003))),
        passes=[tcp(OUTSIDE, TWO, 80, 1000), tcp(ONE, TWO, 443, 1010), sctp(ONE, TWO, 9, 5003)],
        dropped=[tcp(OUTSIDE, TWO, 80, 999), tcp(ONE, TWO, 80, 1011), sctp(ONE, TWO, 9, 5004)],
    ),
    "source and destination ports": Case(
        server(ingress(UDP, (80, 90), source_ports=(1024, 2047))),
        passes=[udp(ONE, TWO, 80, 1024), udp(ONE, TWO, 90, 2047)],
        dropped=[udp(ONE, TWO, 80, 1023), udp(ONE, TWO, 80, 2048), udp(ONE, TWO, 91, 1024)],
    ),
    "source ports of what is sent": Case(
        world({ONE: (egress(UDP, source_ports=(500, 500)),)}),
        passes=[udp(ONE, OUTSIDE, 4500, 500)],
        dropped=[udp(ONE, OUTSIDE, 4500, 501), tcp(ONE, OUTSIDE, 4500, 500)],
    ),
    "overlapping ranges of source ports": Case(
        server(ingress(TCP, 80, source_ports=(1000, 1002)),
               ingress(TCP, (80, 81), source_ports=(1000, 1001))),
        passes=[tcp(ONE, TWO, 80, 1001), tcp(ONE, TWO, 80, 1002), tcp(ONE, TWO, 81, 1001)],
        dropped=[tcp(ONE, TWO, 81, 1002)],
    ),
    "source ports with a remote group": Case(
        server(ingress(TCP, (80, 90), source_ports=(1000, 1010), remote="web"), groups=GROUPS),
        passes=[tcp(OUTSIDE, TWO, 85, 1005)],
        dropped=[tcp(OUTSIDE, TWO, 85, 999), tcp(OTHER, TWO, 85, 1005)],
    ),
    "ICMP type and code": Case(
        server(ingress(ICMP, icmp=(8, 0)), ingress(ICMP, icmp=(13, None))),
        passes=[icmp(ONE, TWO, 8), icmp(ONE, TWO, 13), icmp(ONE, TWO, 13, 5)],
        dropped=[icmp(ONE, TWO, 8, 1), icmp(ONE, TWO, 15), icmp(ONE, TWO, 0)],
    ),
    "ICMP type 0 is a type and not every type": Case(
        server(ingress(ICMP, icmp=(0, None))),
        passes=[icmp(ONE, TWO, 0)], dropped=[icmp(ONE, TWO, 8)],
    ),
    "a type of ICMPv6": Case(
        server(ingress(ICMPV6, version=6, icmp=(128, None))),
        passes=[icmpv6(ONE, TWO, 128), icmpv6(ONE, TWO, 128, 1)],
        dropped=[icmpv6(ONE, TWO, 129), icmp(ONE, TWO, 8)],
    ),
    "a prefix narrows who may come in": Case(
        server(ingress(remote="198.51.100.64/27"), ingress(version=6, remote="2001:db8::1/128")),
        passes=[udp(OUTSIDE.but(ip=f"198.51.100.{n}"), TWO, 53) for n in (64, 95)]
        + [udp(ONE, TWO, 53, version=6)],
        dropped=[udp(OUTSIDE.but(ip=f"198.51.100.{n}"), TWO, 53) for n in (63, 96)]
        + [udp(ONE, TWO, 53), udp(OUTSIDE, TWO, 53, version=6)],
    ),
    "a prefix narrows who may be reached": Case(
        world({ONE: ALL, TWO: (egress(remote="192.0.2.1/32"),
                               egress(version=6, remote="2001:db8:ffff::/48"))}),
        passes=[udp(TWO, OUTSIDE, 53), udp(TWO, OUTSIDE, 53, version=6)],
        dropped=[udp(TWO, OTHER, 53), udp(TWO, ONE, 53), udp(TWO, ONE, 53, version=6),
                 udp(TWO, OUTSIDE.but(ip6="2001:db8:fffe::1"), 53, version=6)],
    ),
    "a prefix of length 0 is everybody of its family": Case(
        server(ingress(UDP, remote="0.0.0.0/0"), ingress(TCP, version=6, remote="::/0")),
        passes=[udp(OUTSIDE, TWO, 53), udp(ONE, TWO, 53), tcp(OUTSIDE, TWO, 80, version=6)],
        dropped=[udp(ONE, TWO, 53, version=6), tcp(ONE, TWO, 80)],
    ),
    "members of a remote group only": Case(
        world({ONE: port(ONE, "web"), TWO: (ingress(TCP, 5432, remote="web"),), THREE: ALL},
              {"web": Group(ALL_OUT)}),
        passes=[tcp(ONE, TWO, 5432)],
        dropped=[tcp(ONE, TWO, 5433), tcp(THREE, TWO, 5432), tcp(ONE, TWO, 5432, version=6)],
    ),
    "members of the port's own group": Case(
        world({ONE: port(ONE, "mine"), TWO: port(TWO, "mine")},
              {"mine": Group(tuple(kind(version=version, remote="mine")
                                   for kind in (ingress, egress) for version in (4, 6)))}),
        passes=[*both(UDP, 53), tcp(TWO, ONE, 80, version=6)],
        dropped=[udp(OUTSIDE, ONE, 53), udp(ONE, OUTSIDE, 53), udp(OUTSIDE, ONE, 53, version=6)],
    ),
    "a remote group without members admits no one": Case(
        server(ingress(remote="empty"), ingress(version=6, remote="empty"),
               groups={"empty": Group()}),
        dropped=[*both(UDP, 53), udp(OUTSIDE, TWO, 53)],
    ),
    "a member on another host counts in both directions": Case(
        server(ingress(remote="web"), egress(remote="web"), ingress(version=6, remote="web"),
               egress(version=6, remote="web"), groups=GROUPS),
        passes=[udp(OUTSIDE, TWO, 53), udp(TWO, OUTSIDE, 53), udp(OUTSIDE, TWO, 53, version=6),
                udp(TWO, OUTSIDE, 53, version=6)],
        dropped=[udp(OTHER, TWO, 53), udp(TWO, OTHER, 53), udp(ONE, TWO, 53), udp(TWO, ONE, 53)],
    ),
    "a routed member keeps its address but not its MAC": Case(
        server(ingress(remote="web"), groups=GROUPS),
        passes=[udp(OUTSIDE.but(mac="fa:16:3e:01:00:02"), TWO, 53)],
    ),
    "address pairs of a member are members": Case(
        server(ingress(remote="web"), ingress(version=6, remote="web"),
               groups={"web": Group(outside=((OUTSIDE.mac, net("192.168.7.0/28")),
                                             (OUTSIDE.mac, net("2001:db8:7::/64"))))}),
        passes=[udp(OUTSIDE.but(ip="192.168.7.15"), TWO, 53),
                udp(OUTSIDE.but(ip6="2001:db8:7::1:2"), TWO, 53, version=6)],
        dropped=[udp(OUTSIDE.but(ip="192.168.7.16"), TWO, 53),
                 udp(OUTSIDE.but(ip6="2001:db8:8::1"), TWO, 53, version=6)],
    ),
    "a member that may have every address is known by its MAC": Case(
        server(ingress(remote="web"),
               groups={"web": Group(outside=((OUTSIDE.mac, net("0.0.0.0/0")),))}),
        passes=[udp(OUTSIDE.but(ip="198.51.100.7"), TWO, 53)],
        dropped=[udp(OUTSIDE.but(mac="fa:16:3e:01:00:02"), TWO, 53)],
    ),
    "an address in several remote groups has the rules of each": Case(
        world({ONE: port(ONE, "red", "blue"), TWO: (ingress(UDP, remote="red"),),
               THREE: (ingress(TCP, remote="blue"),)},
              {"red": Group(ALL_OUT), "blue": Group()}),
        passes=[udp(ONE, TWO, 53), tcp(ONE, THREE, 53)],
        dropped=[tcp(ONE, TWO, 53), udp(ONE, THREE, 53)],
    ),
    "an address group in both directions": Case(
        server(*(kind(version=version, remote="offices")
                 for kind in (ingress, egress) for version in (4, 6)),
               address_groups={"offices": ("192.0.2.1/32", "2001:db8:ffff::1/128",
                                           "10.9.0.0/16")}),
        passes=[udp(OUTSIDE, TWO, 53), udp(TWO, OUTSIDE, 53), udp(OUTSIDE, TWO, 53, version=6),
                udp(TWO, OUTSIDE, 53, version=6), udp(OUTSIDE.but(ip="10.9.1.1"), TWO, 53)],
        dropped=[*both(UDP, 53), udp(OTHER, TWO, 53)],
    ),
    "an address group that overlaps a remote group": Case(
        world({ONE: port(ONE, "web"), TWO: (ingress(TCP, remote="web"),
                                            ingress(UDP, (1000, 2000), remote="offices")),
               THREE: ALL}, {"web": Group(ALL_OUT)},
              # ONE as a host of its own and inside a prefix; THREE is in the prefix only.
              {"offices": ("10.0.0.1/32", "10.0.0.0/24")}),
        passes=[tcp(ONE, TWO, 80), udp(ONE, TWO, 1500), udp(THREE, TWO, 1500)],
        dropped=[udp(ONE, TWO, 53), tcp(THREE, TWO, 80)],
    ),
    "permitted ethertypes pass without a rule, and no others do": Case(
        world({ONE: (), TWO: (), THREE: ALL}, permitted_ethertypes=[LLDP]),
        passes=[frame(ONE, OUTSIDE, LLDP), frame(OUTSIDE, ONE, LLDP), frame(ONE, TWO, LLDP)],
        dropped=[frame(THREE, OUTSIDE, 0x88CD), frame(OUTSIDE, THREE, 0x88CD)],
    ),
    "rules that allow everything allow IP only": Case(
        world({ONE: ALL}), dropped=[frame(ONE, OUTSIDE, LLDP), frame(OUTSIDE, ONE, LLDP)]
    ),
    "replies and related packets need no rule, new ones that look alike do": Case(
        world({ONE: ALL_OUT, TWO: (ingress(TCP, 80),)}),
        passes=[tcp(TWO, ONE, 40000, 80, state=State.REPLY),
                tcp(TWO, OUTSIDE, 40000, 80, state=State.REPLY),
                tcp(OUTSIDE, ONE, 40000, 443, state=State.REPLY),
                packet(OUTSIDE, ONE, ICMP, icmp=(3, 3), state=State.RELATED_REPLY)],
        dropped=[tcp(TWO, ONE, 40000, 80), tcp(TWO, OUTSIDE, 40000, 80), icmp(OUTSIDE, ONE, 3, 3),
                 tcp(TWO, ONE, 40000, 80, state=State.REPLY, cut=True)],
    ),
    "an established connection needs a rule that still allows it": Case(
        server(ingress(TCP, 80)),
        passes=[tcp(ONE, TWO, 80, state=State.ESTABLISHED),
                tcp(ONE, TWO, 80, state=State.ESTABLISHED, cut=True)],
        dropped=[tcp(ONE, TWO, 81, state=State.ESTABLISHED)],
    ),
    "invalid packets are dropped with any rules": Case(
        server(*ALL), dropped=[tcp(ONE, TWO, 80, state=State.INVALID),
                               tcp(OUTSIDE, TWO, 80, state=State.INVALID)],
    ),
    "networks do not meet": Case(
        world({ONE: ALL, ELSEWHERE: ALL}),
        passes=[udp(OUTSIDE, ONE, 53), udp(OUTSIDE.but(vlan=2), ELSEWHERE, 53)],
    ),
    "one MAC and address on two networks": Case(
        world({ONE: (ingress(UDP),), ELSEWHERE: port(ONE.but(vlan=2), "tcp")},
              {"tcp": Group((ingress(TCP),))}),
        passes=[udp(OUTSIDE, ONE, 53), tcp(OUTSIDE.but(vlan=2), ONE, 80)],
        dropped=[tcp(OUTSIDE, ONE, 80), udp(OUTSIDE.but(vlan=2), ONE, 53)],
    ),
}  # fmt: skip

for _version in (4, 6):
    for _name, _protocol in (("tcp", TCP), ("udp", UDP)):
        _right, _other = both(_protocol, 443)[:: 1 if _version == 4 else -1]
        _wrong = both(UDP if _protocol == TCP else TCP, 443) + both(_protocol, 444)
        CASES[f"an ingress rule opens one port of {_name} over IPv{_version}"] = Case(
            server(ingress(_protocol, 443, version=_version)), [_right], [_other, *_wrong]
        )
        CASES[f"an egress rule opens one port of {_name} over IPv{_version}"] = Case(
            world({ONE: (egress(_protocol, 443, version=_version),), TWO: ALL}),
            [_right],
            [_other, *_wrong],
        )
    _odd, _even = (0, 33, 47, 89, 136), (4, 50, 112, 255)
    for _numbers, _others in ((_odd, _even), (_even, _odd)):
        CASES[f"protocols {_numbers} over IPv{_version}"] = Case(
            server(*(ingress(number, version=_version) for number in _numbers)),
            [packet(ONE, TWO, number, version=_version) for number in _numbers],
            [packet(ONE, TWO, number, version=_version) for number in (*_others, 51, UDP)],
        )

# Conntrack calls these invalid; a router is looked for without a rule.
_TYPES = (131, 132, 133, 137, 143)
for _types in (_TYPES[::2], _TYPES[1::2]):
    _rules = [
        kind(ICMPV6, version=6, icmp=(type_, None))
        for type_ in _types
        for kind in (ingress, egress)
    ]
    _others = set(_TYPES) - set(_types)
    CASES[f"rules for ICMPv6 types {_types}"] = Case(
        world({ONE: tuple(_rules)}),
        [icmpv6(*ends, type_) for type_ in _types for ends in ((OUTSIDE, ONE), (ONE, OUTSIDE))],
        [
            *(icmpv6(ONE.but(ip6="2001:db8::66"), OUTSIDE, type_) for type_ in _types),
            *(icmpv6(OUTSIDE, ONE, type_) for type_ in _others),
            *(icmpv6(ONE, OUTSIDE, type_) for type_ in _others - {133}),
        ],
    )
CASES["no rules for ICMPv6 without answers"] = Case(
    world({ONE: ()}),
    [icmpv6(ONE, OUTSIDE, 133)],
    [icmpv6(OUTSIDE, ONE, type_) for type_ in _TYPES]
    + [icmpv6(ONE, OUTSIDE, type_) for type_ in _TYPES if type_ != 133],
)

for _kind in ("vlan", "flat", "vxlan", "geneve"):
    CASES[f"rules decide about what comes from and goes to a network of kind {_kind}"] = Case(
        world({ONE: (ingress(UDP, 53), egress(TCP, 80))}, kind=_kind),
        [udp(OUTSIDE, ONE, 53), tcp(ONE, OUTSIDE, 80)],
        [udp(OUTSIDE, ONE, 54), tcp(ONE, OUTSIDE, 81)],
    )

_REMOTES = {"red": (80, 95), "blue": (80, 99), "green": (64, 127), "grey": (1, 65535)}
_MEMBERS = {name: OUTSIDE.but(ip=f"192.0.2.{n}") for n, name in enumerate(_REMOTES, 11)}
CASES["overlapping ranges of remote groups are each for their own members"] = Case(
    world(
        {TWO: port(TWO, *(f"for {name}" for name in _REMOTES))},
        {name: Group(outside=(claim(member),)) for name, member in _MEMBERS.items()}
        | {f"for {n}": Group((ingress(TCP, ends, remote=n),)) for n, ends in _REMOTES.items()},
    ),
    *(
        [
            tcp(member, TWO, number)
            for name, member in _MEMBERS.items()
            for number in (1, 63, 64, 79, 80, 95, 96, 99, 100, 127, 128)
            if (_REMOTES[name][0] <= number <= _REMOTES[name][1]) is passes
        ]
        for passes in (True, False)
    ),
)
CASES["overlapping ranges of a group, an address group and a prefix"] = Case(
    world(
        {FOUR: port(FOUR, "a", "b", "c")},
        {
            **GROUPS,
            "a": Group((ingress(TCP, (80, 89), remote="web"),)),
            "b": Group((ingress(TCP, (85, 95), remote="offices"),)),
            "c": Group((ingress(TCP, 89, remote="192.0.2.4/30"),)),
        },
        {"offices": ("192.0.2.0/24", "192.0.2.1/32")},
    ),
    [
        *to_ports(tcp, OUTSIDE, FOUR, 80, 84, 85, 89, 95),
        *to_ports(tcp, OUTSIDE.but(ip="192.0.2.5"), FOUR, 85, 89, 95),
    ],
    [tcp(OUTSIDE, FOUR, 96), *to_ports(tcp, OUTSIDE.but(ip="192.0.2.5"), FOUR, 80, 84, 96)],
)


@pytest.mark.parametrize("name", CASES)
def test_rules_decide(bridges: Bridges, name: str) -> None:
    check(bridges, CASES[name])
