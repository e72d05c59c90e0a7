"""The semantics of security groups in plain Python: a world and a packet in, a verdict out.

Written from Neutron's API reference and its contributor guide ("Open vSwitch
firewall driver"), not from our flows, so that the two can be held against each
other. It is what we intend; where that is not what Neutron's own driver
does, :mod:`.differences` has the reason.
"""

import dataclasses
import enum
import ipaddress
from collections.abc import Iterable

from tests.conformance.protocols import (
    MLD_QUERY,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
    WITHOUT_ANSWER,
    icmpv6_type,
    is_dhcp,
    link_local,
)
from tests.conformance.world import (
    ARP,
    DROPPED,
    RARP,
    Address,
    Change,
    Claim,
    Packet,
    Port,
    Rule,
    State,
    Verdict,
    World,
)


class Forwarding(enum.Enum):
    """What the bridge does with a packet that may leave its sender."""

    OWN = "own"
    """Ours: to local ports by the MACs they hold, each through its ingress rules; broadcast to
    all of them and out; what is for no local port, out."""
    NORMAL = "normal"
    """Neutron's: to the filtered ports that hold the MAC through their ingress rules; all else
    by NORMAL, a learning switch."""


class Leave(enum.Enum):
    """How a packet gets away from its sender."""

    UNGUARDED = enum.auto()
    """No filter checks it."""
    REFUSED = enum.auto()
    FREE = enum.auto()
    """It needs no rule."""
    DHCP = enum.auto()
    """It needs no rule to leave; to get into a local port it does."""
    RULES = enum.auto()
    """The sender's rules decide."""


class Model:
    """Methods are small so that a difference of another firewall is one of them."""

    def __init__(self, world: World, forwarding: Forwarding) -> None:
        self.world = world
        self.forwarding = forwarding

    def verdict(self, packet: Packet) -> Verdict:
        """What becomes of ``packet``."""
        sender = self.world.ports.get(packet.source)
        if sender is None:
            return self.onward(packet, tracked=False)
        if packet.tag is not None:
            return self.tagged(packet, sender)
        return self.sent(packet, sender)

    def tagged(self, packet: Packet, sender: Port) -> Verdict:
        """An access port takes no tagged frames."""
        del packet, sender
        return DROPPED

    def sent(self, packet: Packet, sender: Port) -> Verdict:
        leave = self.leave(packet, sender) if sender.filtered else Leave.UNGUARDED
        match leave:
            case Leave.REFUSED:
                return DROPPED
            case Leave.FREE if self.forwarding is Forwarding.NORMAL:
                return self.normal(packet)
            case Leave.RULES:
                passes, changes = self.asked(packet, sender, egress=True)
                if not passes:
                    return Verdict(changes=frozenset(changes))
                tracked = not self.stateless(sender) and not _untrackable(packet)
                return self.let_out(packet, tracked)
        return self.onward(packet, tracked=False)

    def let_out(self, packet: Packet, tracked: bool) -> Verdict:
        """The sender's rules allow it."""
        return self.onward(packet, tracked)

    # Sender addresses, and what needs no rule.

    def claims(self, port: Port) -> frozenset[Claim]:
        """A port may also send IPv6 from its link-local address (RFC 4291, appendix A)."""
        return port.claims | {(port.mac, ipaddress.ip_network(link_local(port.mac)))}

    def speaks_as(self, port: Port, mac: str, address: Address | None) -> bool:
        return address is not None and any(
            mac == own and address in network for own, network in self.claims(port)
        )

    def leave(self, packet: Packet, port: Port) -> Leave:
        if self.finds_neighbours(packet, port):
            return Leave.FREE
        if packet.version is None:
            return Leave.REFUSED
        own = self.speaks_as(port, packet.eth_src, packet.src)
        if is_dhcp(packet, from_server=False):
            unconfigured = packet.version == 4 and packet.src == ipaddress.ip_address("0.0.0.0")
            if own or (unconfigured and packet.eth_src == port.mac):
                return Leave.DHCP
        if is_dhcp(packet, from_server=True) or icmpv6_type(packet) == ROUTER_ADVERTISEMENT:
            return Leave.REFUSED
        return Leave.RULES if own else Leave.REFUSED

    def finds_neighbours(self, packet: Packet, port: Port) -> bool:
        if packet.ethertype in self.world.permitted_ethertypes:
            return True
        if packet.ethertype == ARP:
            return self.own_arp(packet, port)
        if packet.ethertype == RARP:
            return any(
                packet.eth_src == mac and network.version == 4 for mac, network in port.claims
            )
        type_ = icmpv6_type(packet)
        if type_ == NEIGHBOUR_ADVERTISEMENT:
            return self.own_advertisement(packet, port)
        if type_ in (MLD_QUERY, ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION):
            return self.speaks_as(port, packet.eth_src, packet.src)
        return False

    def own_arp(self, packet: Packet, port: Port) -> bool:
        own = self.speaks_as(port, packet.eth_src, packet.src)
        return own and packet.arp_mac == packet.eth_src

    def own_advertisement(self, packet: Packet, port: Port) -> bool:
        return self.speaks_as(port, packet.eth_src, packet.nd_target)

    # The rules.

    def stateless(self, port: Port) -> bool:
        return self.world.stateless(port)

    def asked(self, packet: Packet, port: Port, *, egress: bool) -> tuple[bool, Iterable[Change]]:
        """Whether rules and connection let the packet through; and what is done to the
        connection if they do not."""
        allowed = any(
            self.matches(rule, packet, port)
            for rule in self.world.rules_of(port)
            if rule.egress is egress
        )
        if self.stateless(port):
            return allowed, ()
        match packet.state:
            case State.NEW:
                return allowed, ()
            case State.ESTABLISHED:
                return allowed, () if allowed or packet.cut else (Change.CUT,)
            case State.INVALID:
                return self.invalid(packet, allowed), ()
            case _:
                return not packet.cut, ()

    def invalid(self, packet: Packet, allowed: bool) -> bool:
        return allowed and _untrackable(packet)

    def matches(self, rule: Rule, packet: Packet, port: Port) -> bool:
        if rule.version != packet.version or rule.protocol not in (None, packet.protocol):
            return False
        if rule.ports or rule.source_ports:
            if packet.ports is None:
                return False
            source, destination = packet.ports
            if not _within(destination, rule.ports) or not _within(source, rule.source_ports):
                return False
        if rule.icmp is not None:
            type_, code = rule.icmp
            if packet.icmp is None or packet.icmp[0] != type_:
                return False
            if code not in (None, packet.icmp[1]):
                return False
        return self.is_remote(rule, packet, port)

    def is_remote(self, rule: Rule, packet: Packet, port: Port) -> bool:
        """Whether the other end of the packet is whom the rule means."""
        del port
        if rule.remote is None:
            return True
        mac, address = (packet.eth_dst, packet.dst) if rule.egress else (packet.eth_src, packet.src)
        if not isinstance(rule.remote, str):
            return address in rule.remote
        if rule.remote in self.world.address_groups:
            return any(address in network for network in self.world.address_groups[rule.remote])
        return any(
            address in network
            # An address pair for every address matches everything; then the MAC decides.
            and (network.prefixlen > 0 or member == mac)
            for member, network in self.world.members(rule.remote)
        )

    # Arriving.

    def enter(self, packet: Packet, number: int, *, tracked: bool) -> Verdict:
        """Into one port, as if it were the only one the packet is for."""
        port = self.world.ports[number]
        reached = Verdict(ports=frozenset({number}))
        if not port.filtered:
            return self.through(reached, packet, tracked)
        if self.needs_no_rule_to_enter(packet):
            return self.through(reached, packet, tracked)
        if packet.version is None:
            return DROPPED
        passes, changes = self.asked(packet, port, egress=False)
        if not passes:
            return Verdict(changes=frozenset(changes))
        return self.through(reached, packet, tracked or not self.stateless(port))

    def needs_no_rule_to_enter(self, packet: Packet) -> bool:
        return (
            packet.ethertype == ARP
            or packet.ethertype in self.world.permitted_ethertypes
            or is_dhcp(packet, from_server=True)
            or icmpv6_type(packet)
            in (MLD_QUERY, ROUTER_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT)
        )

    def through(self, reached: Verdict, packet: Packet, tracked: bool) -> Verdict:
        """A tracked packet has got through: a new connection is remembered, a cut one mended."""
        if tracked and packet.state is State.NEW:
            return dataclasses.replace(reached, changes=frozenset({Change.COMMIT}))
        if tracked and packet.state is State.ESTABLISHED and packet.cut:
            return dataclasses.replace(reached, changes=self.mended())
        return reached

    def mended(self) -> frozenset[Change]:
        return frozenset({Change.MEND})

    # Forwarding.

    def onward(self, packet: Packet, tracked: bool) -> Verdict:
        if self.forwarding is Forwarding.OWN:
            return self.deliver(packet, tracked)
        return self.switch(packet, tracked)

    def deliver(self, packet: Packet, tracked: bool) -> Verdict:
        """By our own bridge."""
        here = self.world.on(packet.vlan)
        outside = packet.source in self.world.ports
        receivers = list(here)
        if not packet.to_many:
            receivers = [n for n, port in here.items() if packet.eth_dst in port.macs]
            if any(here[n].mac == packet.eth_dst for n in receivers):
                outside = False
            if not receivers:
                receivers = [n for n, port in here.items() if not port.filtered]
        ends = [self.enter(packet, n, tracked=tracked) for n in receivers]
        if outside:
            ends.append(self.through(Verdict(network=True), packet, tracked))
        changes = {change for end in ends for change in end.changes}
        if len(receivers) > 1:
            # One port's refusal must not cut a connection that others may take.
            changes.discard(Change.CUT)
        return _together(ends, packet, changes)

    def switch(self, packet: Packet, tracked: bool) -> Verdict:
        """By Neutron's bridge."""
        receivers = self.receivers(packet)
        if not receivers:
            return self.through(self.normal(packet), packet, tracked)
        ends = [self.enter(packet, n, tracked=tracked) for n in receivers]
        changes = {change for end in ends for change in end.changes}
        if len(receivers) > 1:
            changes.discard(Change.CUT)
        return _together(ends, packet, changes)

    def normal(self, packet: Packet) -> Verdict:
        return forwarded(self.world, packet)

    def receivers(self, packet: Packet) -> list[int]:
        """The filtered ports whose ingress rules NORMAL must not go around."""
        if packet.to_many:
            return []
        here = self.world.on(packet.vlan)
        return [n for n, port in here.items() if port.filtered and packet.eth_dst in port.macs]


def verdict(world: World, packet: Packet, forwarding: Forwarding) -> Verdict:
    return Model(world, forwarding).verdict(packet)


def forwarded(world: World, packet: Packet) -> Verdict:
    """Where NORMAL leads: to the local ports with the destination's MAC, once it is learned,
    otherwise to the network."""
    if not packet.to_many:
        here = world.on(packet.vlan)
        holders = frozenset(n for n, port in here.items() if packet.eth_dst in port.macs)
        if holders:
            return Verdict(ports=holders - {packet.source})
    return Verdict(network=True)


def _untrackable(packet: Packet) -> bool:
    return icmpv6_type(packet) in WITHOUT_ANSWER


def _within(value: int, ends: tuple[int, int] | None) -> bool:
    return ends is None or ends[0] <= value <= ends[1]


def _together(ends: Iterable[Verdict], packet: Packet, changes: Iterable[Change]) -> Verdict:
    ends = list(ends)
    ports = frozenset(n for end in ends for n in end.ports if n != packet.source)
    return Verdict(ports, any(end.network for end in ends), frozenset(changes))
