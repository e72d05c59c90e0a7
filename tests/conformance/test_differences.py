"""Each listed difference to Neutron's firewall: a packet that shows it, and a row in the doc."""

import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conformance import differences as listed
from tests.conformance.bridges import OURS, THEIRS, Bridges
from tests.conformance.differences import DIFFERENCES, Difference, neutrons, reasons
from tests.conformance.judges import settled
from tests.conformance.model import Forwarding, verdict
from tests.conformance.world import (
    ARP,
    DROPPED,
    ICMPV6,
    IPV4,
    IPV6,
    TCP,
    UPLINK,
    Claim,
    Group,
    Guard,
    Network,
    Packet,
    Port,
    Prefix,
    Rule,
    State,
    World,
)

DOC = Path(__file__).resolve().parents[2] / "doc/contributor/pipeline.md"

A, B, C = "fa:16:3e:00:00:0a", "fa:16:3e:00:00:0b", "fa:16:3e:00:00:0c"
SHARED, OUTSIDE = "00:00:5e:00:01:01", "fa:16:3e:01:00:01"
EVERYTHING_OUT = (Rule(egress=True), Rule(egress=True, version=6))


def net(text: str) -> Prefix:
    return ipaddress.ip_network(text)


def port(mac: str, *groups: str, vlan: int = 1, pairs: tuple[Claim, ...] = ()) -> Port:
    number = int(mac[-2:], 16)
    addresses = (f"10.0.0.{number}", f"2001:db8::{number}")
    return Port(vlan, mac, tuple(map(ipaddress.ip_address, addresses)), pairs, groups)


def world(ports: dict[int, Port], **groups: Group) -> World:
    return World({1: Network("vxlan", 70001), 2: Network("vlan", 1)}, ports, groups)


def tcp(source: int, eth: tuple[str, str], dport: int = 22, **fields: object) -> Packet:
    plain = Packet(
        source, 1, *eth, IPV4, src=ipaddress.ip_address("10.0.0.10"),
        dst=ipaddress.ip_address("10.0.0.11"), protocol=TCP, ports=(40000, dport),
    )  # fmt: skip
    return replace(plain, **fields)  # type: ignore[arg-type]


def icmpv6(type_: int, eth_src: str, **fields: object) -> Packet:
    plain = Packet(
        1, 1, eth_src, "33:33:00:00:00:01", IPV6, src=ipaddress.ip_address("2001:db8::10"),
        dst=ipaddress.ip_address("ff02::1"), protocol=ICMPV6, icmp=(type_, 0), state=State.INVALID,
    )  # fmt: skip
    return replace(plain, **fields)  # type: ignore[arg-type]


sender = {1: port(A, "out")}
out = Group(EVERYTHING_OUT)
every: Claim = (OUTSIDE, net("0.0.0.0/0"))
members = Group(outside=((OUTSIDE, net("10.0.0.10")),))
shared: tuple[Claim, ...] = ((SHARED, net("10.0.0.100")),)
from_outside = tcp(UPLINK, (OUTSIDE, B))

SHOWN: dict[type[Difference], tuple[World, Packet]] = {
    listed.StatelessIgnored: (
        world({2: port(B, "out")}, out=Group(EVERYTHING_OUT, stateful=False)),
        replace(from_outside, state=State.REPLY),
    ),
    listed.InvalidWithoutAnswer: (world(sender, out=out), icmpv6(143, A)),
    listed.ArpForAnother: (
        world(sender, out=out),
        tcp(1, (A, B), ethertype=ARP, protocol=None, ports=None, arp_mac=B),
    ),
    listed.AdvertisementFromAnyMac: (
        world(sender, out=out),
        icmpv6(136, B, nd_target=ipaddress.ip_address("2001:db8::10")),
    ),
    listed.TaggedFrames: (world(sender, out=out), tcp(1, (A, OUTSIDE), tag=0)),
    listed.LastHolderOnly: (
        world({2: port(B, "in", pairs=shared), 3: port(C, "in", pairs=shared)},
              **{"in": Group((Rule(egress=False),))}),
        tcp(UPLINK, (OUTSIDE, SHARED)),
    ),
    listed.EveryAddressMember: (
        world({2: port(B, "in")},
              one=Group(outside=((A, net("0.0.0.0/0")),)), two=Group(outside=(every,)),
              **{"in": Group((Rule(False, protocol=TCP, remote="one"),
                              Rule(False, protocol=47, remote="two")))}),
        from_outside,
    ),
    listed.PortZero: (
        world({2: port(B, "in")}, members=members,
              **{"in": Group((Rule(False, protocol=TCP, remote="members"),
                              Rule(False, protocol=TCP, ports=(22, 22), remote="in")))}),
        tcp(UPLINK, (OUTSIDE, B), dport=0),
    ),
    listed.NeverMended: (
        world(sender, out=out), tcp(1, (A, OUTSIDE), state=State.ESTABLISHED, cut=True)
    ),
    listed.AnswersGoAround: (
        world({1: port(A, "out"), 2: port(B, pairs=shared),
               3: replace(port(C, pairs=shared), guard=Guard.OFF)}, out=out),
        tcp(1, (A, SHARED), state=State.REPLY),
    ),
    listed.SegmentsTakenForVlans: (
        world({5: port(B, "in", vlan=2)}, **{"in": Group((Rule(egress=False),))}), from_outside
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
    halves = [(1, 40000), (40000, 65535)]
    rules = tuple(Rule(False, protocol=TCP, ports=each, remote="members") for each in halves)
    given = world({2: port(B, "in")}, members=members, **{"in": Group(rules)})
    packet = tcp(UPLINK, (OUTSIDE, B), dport=0)
    bridges.install(given, OURS, THEIRS)
    assert bridges.verdict(given, packet, OURS) == DROPPED
    assert bridges.verdict(given, packet, THEIRS) == neutrons(given, packet)
    assert reasons(given, packet) == {listed.PortZero}


def test_neutron_opens_all_of_a_protocol_whose_ports_the_switch_cannot_match(
    bridges: Bridges,
) -> None:
    dccp = Group((Rule(egress=False, protocol=33, ports=(5000, 5001)),))
    given = world({2: port(B, "dccp")}, dccp=dccp)
    packet = replace(from_outside, protocol=33, ports=None)
    bridges.install(given, THEIRS)
    assert bridges.verdict(given, packet, THEIRS).ports == {2}
    assert verdict(given, packet, Forwarding.NORMAL) == DROPPED
    bridges.install(given, OURS)
    assert bridges.verdict(given, packet, OURS) == DROPPED
