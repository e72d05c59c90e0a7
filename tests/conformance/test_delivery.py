"""Which ports get a packet: by its MAC, by broadcast, one port's rules beside another's; and what
it does to its connection."""

from typing import NamedTuple

import pytest

from tests.conformance.bridges import Bridges
from tests.conformance.cases import (
    ALL,
    ALL_OUT,
    ELSEWHERE,
    EVERYBODY,
    ONE,
    OUTSIDE,
    THREE,
    TWO,
    Case,
    Machine,
    agree,
    arp,
    check,
    claim,
    egress,
    icmp,
    ingress,
    port,
    tcp,
    udp,
    world,
)
from tests.conformance.model import Forwarding, verdict
from tests.conformance.world import TCP, UDP, Change, Group, Guard, Packet, Rule, State, World

NOBODY = OUTSIDE.but(mac="0e:00:00:00:00:01")
VIRTUAL = ONE.but(mac="00:00:5e:00:01:07", ip="10.0.0.77")
MULTICAST = EVERYBODY.but(mac="01:00:5e:00:00:fb", ip="224.0.0.251")
MULTICAST6 = EVERYBODY.but(mac="33:33:00:00:00:fb", ip6="ff02::fb")
OPEN = world({ONE: ALL, TWO: ALL, THREE: ALL, ELSEWHERE: ALL})
SOME = world({ONE: ALL, TWO: (ingress(UDP, 5353), ingress(UDP, 5353, version=6)), THREE: ALL_OUT})
SILENT = world({ONE: (ingress(),), TWO: ALL})


def sharing(two: Group, three: Group) -> World:
    """Two ports that may both use VIRTUAL."""
    pairs = [claim(VIRTUAL)]
    return world(
        {ONE: ALL, TWO: port(TWO, "two", pairs=pairs), THREE: port(THREE, "three", pairs=pairs)},
        {"two": two, "three": three},
    )


class Reaches(NamedTuple):
    """Ports by number, and whether it goes out to the network (0): on our own bridge, and by
    NORMAL, which floods without asking the rules of the receivers."""

    world: World
    packet: Packet
    own: set[int]
    normal: set[int]


def question(to: Machine, number: int = 5353) -> Packet:
    return udp(ONE, to, number, version=6 if to is MULTICAST6 else 4)


HTTP = Group((ingress(TCP, 80),))
STATELESS_HTTP = Group((ingress(TCP, 80),), stateful=False)
DELIVERED = {
    "unicast to its port alone": Reaches(OPEN, udp(ONE, TWO, 53), {2}, {2}),
    "unicast from outside to its port alone": Reaches(OPEN, udp(OUTSIDE, TWO, 53), {2}, {2}),
    "unknown unicast out": Reaches(OPEN, udp(ONE, NOBODY, 53), {0}, {0}),
    "a MAC of another network out": Reaches(OPEN, udp(ONE, ELSEWHERE, 53), {0}, {0}),
    "unknown unicast from outside to no port": Reaches(OPEN, udp(OUTSIDE, NOBODY, 53), set(), {0}),
    "unknown unicast to a port without port security": Reaches(
        world({ONE: ALL, TWO: port(TWO, guard=Guard.OFF), THREE: ALL}),
        udp(OUTSIDE, NOBODY, 53), {2}, {0},
    ),
    "broadcast to everybody": Reaches(OPEN, udp(ONE, EVERYBODY, 9), {0, 2, 3}, {0}),
    "broadcast from outside, not sent back": Reaches(
        OPEN, udp(OUTSIDE, EVERYBODY, 9), {1, 2, 3}, {0}
    ),
    "broadcast on another network": Reaches(OPEN, udp(ELSEWHERE, EVERYBODY, 9), {0}, {0}),
    "ARP to everybody": Reaches(SOME, arp(ONE), {0, 2, 3}, {0}),
    "ARP from outside to everybody": Reaches(SOME, arp(OUTSIDE), {1, 2, 3}, {0}),
    "nothing of what its sender has no rule for": Reaches(
        SILENT, udp(ONE, EVERYBODY, 9), set(), set()
    ),
    "a MAC of two ports to both": Reaches(
        sharing(HTTP, HTTP), tcp(ONE, VIRTUAL, 80), {0, 2, 3}, {2, 3}
    ),
    "a MAC of two ports to the one whose rules allow it": Reaches(
        sharing(HTTP, Group()), tcp(ONE, VIRTUAL, 80), {0, 2}, {2}
    ),
    "a MAC of a stateless and a stateful port to both": Reaches(
        sharing(STATELESS_HTTP, HTTP), tcp(ONE, VIRTUAL, 80), {0, 2, 3}, {2, 3}
    ),
    "an invalid packet to the stateless holder of its MAC only": Reaches(
        sharing(STATELESS_HTTP, HTTP), tcp(OUTSIDE, VIRTUAL, 80, state=State.INVALID), {2}, {2}
    ),
    "an invalid packet to the stateless holder of its MAC, the last one": Reaches(
        sharing(HTTP, STATELESS_HTTP), tcp(OUTSIDE, VIRTUAL, 80, state=State.INVALID), {3}, {3}
    ),
}  # fmt: skip
for _to in (EVERYBODY, MULTICAST, MULTICAST6):
    _name = f"{_to.mac} {_to.ip}"
    DELIVERED[f"{_name} to those whose rules allow it"] = Reaches(SOME, question(_to), {0, 2}, {0})
    DELIVERED[f"{_name} to none whose rules do not"] = Reaches(SOME, question(_to, 9), {0}, {0})


@pytest.mark.parametrize("name", DELIVERED)
def test_delivery(bridges: Bridges, name: str) -> None:
    given, packet, own, normal = DELIVERED[name]
    agree(bridges, given, [packet])
    for forwarding, expected in ((Forwarding.OWN, own), (Forwarding.NORMAL, normal)):
        meant = verdict(given, packet, forwarding)
        assert set(meant.ports) | ({0} if meant.network else set()) == expected, forwarding


# Stateless groups: nothing is remembered, so each direction needs a rule.


def stateless(*rules: Rule, peer: tuple[Rule, ...] = ALL_OUT) -> World:
    """ONE is stateless, TWO a stateful peer."""
    return world(
        {ONE: port(ONE, "stateless"), TWO: peer}, {"stateless": Group(rules, stateful=False)}
    )


SERVER = stateless(ingress(TCP, 80))
CLIENT = stateless(egress(TCP, 80), peer=(ingress(TCP, 80),))
STATELESS = {
    "a server without a rule for its answers": Case(
        SERVER,
        passes=[tcp(OUTSIDE, ONE, 80), tcp(TWO, ONE, 80),
                tcp(OUTSIDE, ONE, 80, state=State.ESTABLISHED),
                tcp(OUTSIDE, ONE, 80, state=State.INVALID)],
        dropped=[tcp(OUTSIDE, ONE, 81), tcp(TWO, ONE, 81),
                 tcp(OUTSIDE, ONE, 81, state=State.INVALID),
                 *(tcp(ONE, peer, 40000, 80, state=State.REPLY) for peer in (OUTSIDE, TWO))],
    ),
    "a client without a rule for the answers": Case(
        CLIENT,
        passes=[tcp(ONE, OUTSIDE, 80), tcp(ONE, TWO, 80)],
        dropped=[tcp(ONE, OUTSIDE, 81), tcp(ONE, TWO, 81),
                 *(tcp(peer, ONE, 40000, 80, state=State.REPLY) for peer in (OUTSIDE, TWO))],
    ),
    "a stateful peer gets answers and nothing it did not ask for": Case(
        stateless(*ALL),
        passes=[tcp(ONE, TWO, 40000, 80, state=State.REPLY)],
        dropped=[tcp(ONE, TWO, 40000, 80), udp(ONE, TWO, 53), icmp(ONE, TWO, 8)],
    ),
    "members of a remote group": Case(
        world({ONE: port(ONE, "stateless"), TWO: ALL},
              {"stateless": Group((ingress(remote="web"), egress(remote="web")), stateful=False),
               "web": Group(outside=(claim(OUTSIDE),))}),
        passes=[udp(OUTSIDE, ONE, 53), udp(ONE, OUTSIDE, 53)],
        dropped=[udp(OUTSIDE.but(ip="192.0.2.2"), ONE, 53), udp(TWO, ONE, 53), udp(ONE, TWO, 53)],
    ),
}  # fmt: skip
for _version in (4, 6):
    _rules = (
        ingress(UDP, 53, version=_version),
        egress(UDP, version=_version, source_ports=(53, 53)),
    )
    STATELESS[f"a rule for each direction over IPv{_version}"] = Case(
        stateless(*_rules),
        passes=[
            udp(TWO, ONE, 53, version=_version),
            udp(ONE, TWO, 40000, 53, version=_version, state=State.REPLY),
            udp(ONE, OUTSIDE, 40000, 53, version=_version, state=State.REPLY),
        ],
        dropped=[udp(ONE, TWO, 40001, 53, version=_version), udp(TWO, ONE, 54, version=_version)],
    )


@pytest.mark.parametrize("name", STATELESS)
def test_stateless_groups(bridges: Bridges, name: str) -> None:
    check(bridges, STATELESS[name])


REMEMBERED = {
    "of a stateful port": (world({ONE: ALL}), tcp(ONE, OUTSIDE, 80), {Change.COMMIT}),
    "not of a stateless port": (stateless(*ALL), tcp(ONE, OUTSIDE, 80), set()),
    "of a stateful port's peer": (stateless(*ALL), tcp(TWO, ONE, 80), {Change.COMMIT}),
    "not what the receiver refuses": (stateless(ingress(UDP)), tcp(TWO, ONE, 80), set()),
}


@pytest.mark.parametrize("name", REMEMBERED)
def test_connections_are_remembered(bridges: Bridges, name: str) -> None:
    given, packet, changes = REMEMBERED[name]
    agree(bridges, given, [packet])
    for forwarding in Forwarding:
        assert verdict(given, packet, forwarding).changes == changes
