"""Worlds at random: small, and crowded where the rules of a firewall meet."""

import ipaddress
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tests.conformance.world import (
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
    WITH_PORTS,
    Address,
    Claim,
    Group,
    Guard,
    Network,
    Port,
    Prefix,
    Rule,
    World,
)

MACS = [f"fa:16:3e:00:00:{n:02x}" for n in range(1, 7)]
SHARED_MACS = ["00:00:5e:00:01:01", "fa:16:3e:00:aa:01"]
"""Of address pairs: a VRRP address, and one of a VM in a VM."""
OUTSIDE_MACS = ["fa:16:3e:01:00:01", "fa:16:3e:01:00:02"]
HOSTS: dict[int, list[Address]] = {
    4: [ipaddress.ip_address(f"10.0.{net}.{n}") for net in (0, 1) for n in (1, 2, 3, 4, 255)],
    6: [ipaddress.ip_address(f"2001:db8:{net}::{n}") for net in (0, 1) for n in (1, 2, 3, 4)],
}
OUTSIDE: dict[int, list[Address]] = {
    4: [ipaddress.ip_address(f"192.0.2.{n}") for n in (1, 2, 129)],
    6: [ipaddress.ip_address(f"2001:db8:ffff::{n}") for n in (1, 2)],
}
EDGES = [1, 2, 22, 67, 68, 79, 80, 81, 443, 546, 547, 1023, 1024, 1025, 32768, 65534, 65535]
OTHER_PROTOCOLS = [2, 4, 41, 47, 51, 89, 112, 255]
ETHERTYPES = [0x1234, 0x88CC]
KINDS = ["vlan", "flat", "vxlan", "geneve"]


def mostly(usual: st.SearchStrategy[Any], seldom: st.SearchStrategy[Any]) -> Any:
    """One in five is ``seldom``."""
    return st.integers(0, 4).flatmap(lambda drawn: usual if drawn else seldom)


def prefixes(version: int) -> st.SearchStrategy[Prefix]:
    """A network around one of the addresses there are, of any length."""
    top = 32 if version == 4 else 128
    usual = [0, 8, 23, 24, 25, 30, 31, 32] if version == 4 else [0, 32, 48, 64, 126, 127, 128]
    return st.builds(
        lambda address, length: ipaddress.ip_network((address, length), strict=False),
        st.sampled_from(HOSTS[version] + OUTSIDE[version]),
        mostly(st.sampled_from(usual), st.integers(0, top)),
    )


EVERY_PORT = (1, 65535)


def port_ranges() -> st.SearchStrategy[tuple[int, int]]:
    ends = mostly(st.sampled_from(EDGES), st.integers(1, 65535))
    return st.one_of(
        st.just(EVERY_PORT),
        st.sampled_from(EDGES).map(lambda port: (port, port)),
        st.tuples(ends, ends).map(lambda pair: (min(pair), max(pair))),
    )


_ICMP_TYPES = {ICMP: [0, 0, 8, 255], ICMPV6: [0, 1, 128, 129, 130, 133, 134, 135, 136, 143]}


@st.composite
def rules(draw: st.DrawFn, remotes: Sequence[str], *, of_neutron: bool) -> Rule:
    version = draw(st.sampled_from([4, 4, 6]))
    icmp_protocol = ICMP if version == 4 else ICMPV6
    protocol = draw(
        mostly(
            st.sampled_from([None, TCP, TCP, UDP, SCTP, icmp_protocol]),
            st.sampled_from(OTHER_PROTOCOLS),
        )
    )
    ports = source = icmp = remote = None
    if protocol in WITH_PORTS:
        ports = draw(mostly(port_ranges(), st.none()))
        if not of_neutron:
            source = draw(mostly(st.none(), port_ranges()))
        elif ports == EVERY_PORT:
            ports = None  # securitygroups_db.py, _make_canonical_port_range
    elif protocol == icmp_protocol:
        codes = st.sampled_from([None, 0, 1, 255])
        types = st.sampled_from(_ICMP_TYPES[icmp_protocol])
        icmp = draw(mostly(st.tuples(types, codes), st.none()))
    # A rule that allows everything hides all others.
    whom = ["prefix", "group", "group", "anybody"]
    match draw(st.sampled_from(whom if protocol is not None else whom[:3])):
        case "prefix":
            remote = draw(prefixes(version))
        case "group":
            remote = draw(st.sampled_from(remotes))
    return Rule(draw(st.booleans()), version, protocol, ports, source, icmp, remote)


def claims() -> st.SearchStrategy[Claim]:
    """Addresses of a member elsewhere, or of an address pair."""
    return st.tuples(
        st.sampled_from(SHARED_MACS + OUTSIDE_MACS),
        st.sampled_from([4, 6]).flatmap(
            lambda version: st.one_of(
                st.sampled_from(HOSTS[version] + OUTSIDE[version]).map(ipaddress.ip_network),
                prefixes(version),
                st.just(ipaddress.ip_network("0.0.0.0/0" if version == 4 else "::/0")),
            )
        ),
    )


def _some(names: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), unique=True, min_size=1, max_size=3)


@st.composite
def ports(draw: st.DrawFn, number: int, vlan: int, groups: dict[str, Group]) -> Port:
    # A MAC is its port's own, but may be there again on another network.
    mac = MACS[number % 4] if vlan == 1 else draw(st.sampled_from(MACS))
    addresses = [HOSTS[version][number % 4 + 4 * (vlan - 1)] for version in (4, 6)]
    pairs = draw(st.lists(claims(), max_size=2))
    own = draw(st.booleans())
    # All of one kind: a port with both is refused.
    stateful = draw(st.sampled_from([group.stateful for group in groups.values()]))
    fitting = [name for name, group in groups.items() if group.stateful is stateful]
    return Port(
        vlan,
        mac,
        tuple(draw(mostly(st.just(addresses), st.sampled_from([[], addresses[:1]])))),
        tuple(dict.fromkeys((mac if own else other, prefix) for other, prefix in pairs)),
        tuple(draw(mostly(_some(fitting), st.just([])))),
        draw(mostly(st.just(Guard.GROUPS), st.sampled_from(list(Guard)))),
    )


@st.composite
def networks(
    draw: st.DrawFn, kinds: Sequence[str], segments_like_vlans: bool
) -> dict[int, Network]:
    """Two networks, of which at most one is flat."""
    made: dict[int, Network] = {}
    for vlan in (1, 2):
        flat = any(network.kind == "flat" for network in made.values())
        kind = draw(st.sampled_from([each for each in kinds if each != "flat" or not flat]))
        tags = [1000 + vlan, *([3 - vlan] if segments_like_vlans else [])]
        segments = {"vlan": st.sampled_from(tags), "flat": st.none()}
        made[vlan] = Network(kind, draw(segments.get(kind, st.just(70000 + vlan))))
    return made


_EVERYTHING_OUT = (Rule(egress=True, version=4), Rule(egress=True, version=6))
_DEFAULTS = [(), _EVERYTHING_OUT, _EVERYTHING_OUT]
"""A group begins its life with these rules."""


@st.composite
def worlds(
    draw: st.DrawFn,
    slots: dict[int, int],
    *,
    kinds: Sequence[str] = KINDS,
    of_neutron: bool,
    segments_like_vlans: bool = False,
) -> World:
    """``slots`` are the ports a switch has, by number, with the local VLAN of each.

    Rules ``of_neutron`` are as its API keeps them: without source ports, and a
    range of every port is none. With ``segments_like_vlans`` a segment's tag may
    be the local VLAN of another network.
    """
    names = ["sg-a", "sg-b", "sg-c"][: draw(st.integers(1, 3))]
    address_groups = {
        name: tuple(draw(st.lists(st.sampled_from([4, 6]).flatmap(prefixes), max_size=3)))
        for name in ("ag-a", "ag-b")[: draw(st.integers(0, 2))]
    }
    rule = rules([*names, *address_groups], of_neutron=of_neutron)
    groups = {
        name: Group(
            tuple(draw(st.lists(rule, min_size=1, max_size=4))) + draw(st.sampled_from(_DEFAULTS)),
            tuple(draw(st.lists(claims(), max_size=2, unique=True))),
            draw(mostly(st.just(True), st.just(False))),
        )
        for name in names
    }
    numbers = draw(st.lists(st.sampled_from(list(slots)), min_size=3, max_size=6, unique=True))
    ethertypes = draw(mostly(st.just([]), st.just(ETHERTYPES[:1])))
    made: dict[int, Port] = {}
    for number in sorted(numbers):
        port = draw(ports(number, slots[number], groups))
        # Neutron's database holds one port of a MAC on a network.
        if all(each.mac != port.mac or each.vlan != port.vlan for each in made.values()):
            made[number] = port
    return World(
        draw(networks(kinds, segments_like_vlans)),
        made,
        groups,
        address_groups,
        frozenset(ethertypes),
    )
