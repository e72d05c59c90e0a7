"""Each listed difference to Neutron's firewall: a packet that shows it, and a row in the doc."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.conformance import differences as listed
from tests.conformance.bridges import OURS, THEIRS, Bridges
from tests.conformance.cases import (
    ALL_OUT,
    ELSEWHERE,
    ONE,
    OUTSIDE,
    THREE,
    TWO,
    arp,
    claim,
    icmpv6,
    ingress,
    net,
    port,
    tcp,
    world,
)
from tests.conformance.differences import DIFFERENCES, Difference, neutrons, reasons
from tests.conformance.judges import settled
from tests.conformance.model import Forwarding, verdict
from tests.conformance.world import DROPPED, TCP, Group, Guard, Network, Packet, State, World

DOC = Path(__file__).resolve().parents[2] / "doc/contributor/pipeline.md"

SENDER = world({ONE: ALL_OUT})
SHARED = THREE.but(mac="00:00:5e:00:01:01", ip="10.0.0.100")
PAIR = [claim(SHARED)]
MEMBERS = Group(outside=(claim(OUTSIDE),))
EVERY = net("0.0.0.0/0")
FROM_OUTSIDE = tcp(OUTSIDE, TWO, 22)

SHOWN: dict[type[Difference], tuple[World, Packet]] = {
    listed.StatelessIgnored: (
        world({TWO: port(TWO, "out")}, {"out": Group(ALL_OUT, stateful=False)}),
        replace(FROM_OUTSIDE, state=State.REPLY),
    ),
    listed.InvalidWithoutAnswer: (SENDER, icmpv6(ONE, OUTSIDE, 143)),
    listed.ArpForAnother: (SENDER, arp(ONE, TWO.mac)),
    listed.AdvertisementFromAnyMac: (
        SENDER, icmpv6(ONE.but(mac=TWO.mac), OUTSIDE, 136, nd_target=ONE.ip6)
    ),
    listed.TaggedFrames: (SENDER, tcp(ONE, OUTSIDE, 22, tag=0)),
    listed.LastHolderOnly: (
        world({TWO: port(TWO, "in", pairs=PAIR), THREE: port(THREE, "in", pairs=PAIR)},
              {"in": Group((ingress(),))}),
        tcp(OUTSIDE, SHARED, 22),
    ),
    listed.EveryAddressMember: (
        world({TWO: (ingress(TCP, remote="one"), ingress(47, remote="two"))},
              {"one": Group(outside=((ONE.mac, EVERY),)),
               "two": Group(outside=((OUTSIDE.mac, EVERY),))}),
        FROM_OUTSIDE,
    ),
    listed.PortZero: (
        world({TWO: port(TWO, "in")},
              {"in": Group((ingress(TCP, remote="members"), ingress(TCP, 22, remote="in"))),
               "members": MEMBERS}),
        tcp(OUTSIDE, TWO, 0),
    ),
    listed.NeverMended: (SENDER, tcp(ONE, OUTSIDE, 22, state=State.ESTABLISHED, cut=True)),
    listed.AnswersGoAround: (
        world({ONE: ALL_OUT, TWO: port(TWO, pairs=PAIR),
               THREE: port(THREE, pairs=PAIR, guard=Guard.OFF)}),
        tcp(ONE, SHARED, 22, state=State.REPLY),
    ),
    listed.SegmentsTakenForVlans: (
        replace(world({ELSEWHERE: (ingress(),)}), networks={1: Network(), 2: Network("vlan", 1)}),
        tcp(OUTSIDE, ELSEWHERE, 22),
    ),
}  # fmt: skip


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda each: each.__name__)
def test_difference_is_shown_by_a_packet(bridges: Bridges, difference: type[Difference]) -> None:
    given, packet = SHOWN[difference]
    bridges.install(given, OURS, THEIRS)
    ours = settled(given, packet, bridges.verdict(given, packet, OURS))
    theirs = settled(given, packet, bridges.verdict(given, packet, THEIRS))
    assert ours == verdict(given, packet, Forwarding.NORMAL)
    assert theirs == neutrons(given, packet)
    assert ours != theirs
    assert reasons(given, packet) == {difference}


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda each: each.__name__)
def test_difference_is_in_the_table_with_its_reason(difference: type[Difference]) -> None:
    row = f"| {difference.neutrons} | {difference.ours} | {difference.because} |"
    assert row in DOC.read_text().splitlines()


def test_overlapping_ranges_of_all_ports_let_port_zero_in(bridges: Bridges) -> None:
    halves = [ingress(TCP, ends, remote="members") for ends in ((1, 40000), (40000, 65535))]
    given = world({TWO: tuple(halves)}, {"members": MEMBERS})
    packet = tcp(OUTSIDE, TWO, 0)
    bridges.install(given, OURS, THEIRS)
    assert bridges.verdict(given, packet, OURS) == DROPPED
    assert bridges.verdict(given, packet, THEIRS) == neutrons(given, packet)
    assert reasons(given, packet) == {listed.PortZero}


def test_neutron_opens_all_of_a_protocol_whose_ports_the_switch_cannot_match(
    bridges: Bridges,
) -> None:
    given = world({TWO: (ingress(33, (5000, 5001)),)})
    packet = replace(FROM_OUTSIDE, protocol=33, ports=None)
    bridges.install(given, THEIRS)
    assert bridges.verdict(given, packet, THEIRS).ports == {2}
    assert verdict(given, packet, Forwarding.NORMAL) == DROPPED
    bridges.install(given, OURS)
    assert bridges.verdict(given, packet, OURS) == DROPPED
