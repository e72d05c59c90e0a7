"""A host, what its security groups allow, and a packet: plain values, nothing of OpenFlow.

The words are Neutron's API's. Only what decides about packets is here.
"""

import enum
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network
Claim = tuple[str, Prefix]
"""A MAC together with the addresses it may be used with."""

UPLINK = 0
"""As a packet's source: a machine outside of the host."""

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
WITH_PORTS = frozenset({TCP, UDP, SCTP})
IPV4, ARP, RARP, IPV6 = 0x0800, 0x0806, 0x8035, 0x86DD


class Guard(enum.Enum):
    """How a port is guarded."""

    GROUPS = "security groups"
    OFF = "port security off"
    TRUSTED = "a port of the network's own services"


class State(enum.Enum):
    """The state that connection tracking gives a packet."""

    NEW = "new"
    ESTABLISHED = "established"
    REPLY = "reply"
    RELATED = "related"
    RELATED_REPLY = "related reply"
    INVALID = "invalid"


@dataclass(frozen=True)
class Rule:
    """One allow rule.

    ``ports`` and ``source_ports`` are ranges with both ends, ``icmp`` a type
    and a code or None; ``remote`` is a prefix, or the name of a security or
    address group.
    """

    egress: bool
    version: int = 4
    protocol: int | None = None
    ports: tuple[int, int] | None = None
    source_ports: tuple[int, int] | None = None
    icmp: tuple[int, int | None] | None = None
    remote: Prefix | str | None = None


@dataclass(frozen=True)
class Group:
    """``outside`` are the addresses of members on other hosts."""

    rules: tuple[Rule, ...] = ()
    outside: tuple[Claim, ...] = ()
    stateful: bool = True


@dataclass(frozen=True)
class Network:
    """``kind`` is Neutron's network_type; ``segment`` the tag or key outside."""

    kind: str = "vlan"
    segment: int | None = 1001


@dataclass(frozen=True)
class Port:
    """``vlan`` is the local VLAN of the port's network."""

    vlan: int
    mac: str
    addresses: tuple[Address, ...] = ()
    pairs: tuple[Claim, ...] = ()
    groups: tuple[str, ...] = ()
    guard: Guard = Guard.GROUPS

    @property
    def claims(self) -> frozenset[Claim]:
        """The addresses the port may send from, and what counts as a member of its groups."""
        own = {(self.mac, ipaddress.ip_network(each)) for each in self.addresses}
        return frozenset(own.union(self.pairs))

    @property
    def macs(self) -> frozenset[str]:
        return frozenset({self.mac, *(mac for mac, _ in self.pairs)})

    @property
    def filtered(self) -> bool:
        return self.guard is Guard.GROUPS


@dataclass(frozen=True)
class World:
    """One host. Ports by their number in the switch, networks by their local VLAN."""

    networks: dict[int, Network]
    ports: dict[int, Port]
    groups: dict[str, Group] = field(default_factory=dict)
    address_groups: dict[str, tuple[Prefix, ...]] = field(default_factory=dict)
    permitted_ethertypes: frozenset[int] = frozenset()

    def on(self, vlan: int) -> dict[int, Port]:
        """The ports of one network."""
        return {number: port for number, port in self.ports.items() if port.vlan == vlan}

    def members(self, group: str) -> frozenset[Claim]:
        """Everybody in a security group: with fixed addresses and address pairs."""
        local = (port.claims for port in self.ports.values() if group in port.groups)
        return frozenset(self.groups[group].outside).union(*local)

    def rules_of(self, port: Port) -> Iterator[Rule]:
        for group in port.groups:
            yield from self.groups[group].rules

    def stateless(self, port: Port) -> bool:
        """Whether connections of the port are not tracked: all its groups are stateless."""
        return bool(port.groups) and not any(self.groups[each].stateful for each in port.groups)


@dataclass(frozen=True)
class Packet:
    """A frame on its way, and the connection it belongs to.

    ``source`` is a port's number or :data:`UPLINK`; ``vlan`` the local VLAN of
    its network; ``tag`` an 802.1Q tag that a VM itself has put on. The fields
    below ``tag`` are None where the frame has no such thing. ``state`` is what
    conntrack would say if it were asked; ``cut`` marks a connection that was
    allowed once and was cut when no rule allowed it any more.
    """

    source: int
    vlan: int
    eth_src: str
    eth_dst: str
    ethertype: int
    tag: int | None = None
    src: Address | None = None
    dst: Address | None = None
    protocol: int | None = None
    ports: tuple[int, int] | None = None
    icmp: tuple[int, int] | None = None
    nd_target: ipaddress.IPv6Address | None = None
    arp_mac: str | None = None
    state: State = State.NEW
    cut: bool = False

    @property
    def to_many(self) -> bool:
        """Broadcast or multicast (IEEE 802: the lowest bit of the first octet)."""
        return bool(int(self.eth_dst[:2], 16) & 1)

    @property
    def version(self) -> int | None:
        return {IPV4: 4, IPV6: 6}.get(self.ethertype)


class Change(enum.Enum):
    """What a packet does to the entry of its connection."""

    COMMIT = "commit"
    CUT = "cut"
    MEND = "mend"


@dataclass(frozen=True)
class Verdict:
    """Where a packet ends: in which ports, and whether it is forwarded to the network.

    Nowhere at all means it was dropped.
    """

    ports: frozenset[int] = frozenset()
    network: bool = False
    changes: frozenset[Change] = frozenset()

    def __str__(self) -> str:
        ends = [f"port {number}" for number in sorted(self.ports)]
        ends += ["the network"] if self.network else []
        done = [change.value for change in sorted(self.changes, key=lambda c: c.value)]
        return " and ".join(ends or ["dropped"]) + (f" ({', '.join(done)})" if done else "")


DROPPED = Verdict()
