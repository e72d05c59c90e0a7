"""Where Neutron's OVS firewall decides otherwise than we do, each with its reason.

A difference is a class that does in the words of :mod:`.model` what Neutron
does, and nothing wider. So a verdict of Neutron's that is not ours is
accepted only if the model with these differences predicts exactly it. Its texts are
its row in the table of ``doc/contributor/pipeline.md``.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import ClassVar

from tests.conformance.model import Forwarding, Model
from tests.conformance.world import (
    DROPPED,
    WITH_PORTS,
    Change,
    Packet,
    Port,
    Prefix,
    Rule,
    State,
    Verdict,
    World,
)

_DEAD_VLAN = 4095


class Difference(Model):
    """What Neutron's firewall does, what ours does, and why: a row of the table."""

    neutrons: ClassVar[str]
    ours: ClassVar[str]
    because: ClassVar[str]


class StatelessIgnored(Difference):
    neutrons = "ignores `stateful` of a group"
    ours = "honours it"
    because = "the API promises it"

    def stateless(self, port: Port) -> bool:
        return False


class InvalidWithoutAnswer(Difference):
    neutrons = (
        "drops MLD reports, router solicitations and redirects (ICMPv6 131, 132, 133 in, 137, 143) "
        "even if a rule allows them"
    )
    ours = "a rule allows them"
    because = (
        "conntrack calls them invalid, so a rule would never be asked; they have no answers, "
        "so they need no tracking"
    )

    def invalid(self, packet: Packet, allowed: bool) -> bool:
        return False


class _SenderInside(Difference):
    neutrons = "lets ARP contain any sender's MAC, and neighbour advertisements come from any MAC"
    ours = "only from the sender's own (`arp_sha`, `dl_src`)"
    because = "both redirect packets of others"


class ArpForAnother(_SenderInside):
    def own_arp(self, packet: Packet, port: Port) -> bool:
        return self.speaks_as(port, packet.eth_src, packet.src)


class AdvertisementFromAnyMac(_SenderInside):
    def own_advertisement(self, packet: Packet, port: Port) -> bool:
        target = packet.nd_target
        return target is not None and any(target in network for _, network in self.claims(port))


class TaggedFrames(Difference):
    """NORMAL drops them at an access port, but for tag 0, the priority tag."""

    neutrons = "takes frames with a VLAN tag from a VM: to a local port they pass with the tag on"
    ours = "drops them"
    because = "a port is an access port; a VM may not choose the tag of its network"

    def tagged(self, packet: Packet, sender: Port) -> Verdict:
        return DROPPED if packet.tag == _DEAD_VLAN else self.sent(packet, sender)

    def normal(self, packet: Packet) -> Verdict:
        return DROPPED if packet.tag else super().normal(packet)


class LastHolderOnly(Difference):
    neutrons = "a MAC of several ports leads to the one programmed last"
    ours = "to all of them"
    because = "each may be the one that uses it"

    def receivers(self, packet: Packet) -> list[int]:
        return super().receivers(packet)[-1:]


class EveryAddressMember(Difference):
    """Flows of members for every address say the MAC instead, but are kept by address alone:
    each has the conjunctions of all groups that have such a member (rules.py,
    create_flows_for_ip_address_and_mac; firewall.py, _update_flows_for_vlan_subr)."""

    neutrons = (
        "mixes up the members of remote groups that have an address pair for every address: each "
        "counts as a member of all these groups; egress rules compare its MAC with the port's own"
    )
    ours = "keeps to the group, and compares its MAC with the packet's source or destination"
    because = "a rule is for the members of its group; in egress the member is the destination"

    def is_remote(self, rule: Rule, packet: Packet, port: Port) -> bool:
        if not isinstance(rule.remote, str):
            return super().is_remote(rule, packet, port)
        address = packet.dst if rule.egress else packet.src
        members = self._addresses(rule.remote, rule.version)
        if any(address in network for _, network in members if network.prefixlen):
            return True
        if all(network.prefixlen for _, network in members):
            return False
        mixed = {
            mac
            for name in self._remotes_beside(rule, port)
            for mac, network in self._addresses(name, rule.version)
            if not network.prefixlen
        }
        return None in mixed or packet.eth_src in mixed

    def _remotes_beside(self, rule: Rule, port: Port) -> set[str]:
        """The remote groups in rules of the same kind of any port of the network."""
        return {
            other.remote
            for each in self.world.on(port.vlan).values()
            if each.filtered
            for other in self.world.rules_of(each)
            if isinstance(other.remote, str)
            and (other.egress, other.version) == (rule.egress, rule.version)
        }

    def _addresses(self, name: str, version: int) -> list[tuple[str | None, Prefix]]:
        members: list[tuple[str | None, Prefix]]
        if name in self.world.address_groups:
            members = [(None, network) for network in self.world.address_groups[name]]
        else:
            members = list(self.world.members(name))
        return [(mac, network) for mac, network in members if network.version == version]


class PortZero(Difference):
    """Ranges are merged over 1 to 65535, and the whole of that becomes no range (rules.py,
    merge_port_ranges)."""

    neutrons = (
        "a rule for every port of tcp, udp or sctp and a remote group leaves out port 0 if there "
        "is another such rule for some ports; rules for overlapping ranges that cover all ports "
        "let it in"
    )
    ours = "each rule decides about it"
    because = "0 is a port, and not one from 1 to 65535"

    def matches(self, rule: Rule, packet: Packet, port: Port) -> bool:
        to_zero = packet.ports is not None and packet.ports[1] == 0
        if to_zero and isinstance(rule.remote, str) and rule.protocol in WITH_PORTS:
            every_port = dataclasses.replace(rule, ports=None)
            return super().matches(every_port, packet, port) and self._merged(rule, port)
        return super().matches(rule, packet, port)

    def _merged(self, rule: Rule, port: Port) -> bool:
        """Whether the port's rules of this kind are merged into one without ports."""
        beside = {
            (group, other.remote, other.ports)
            for group in port.groups
            for other in self.world.groups[group].rules
            if isinstance(other.remote, str)
            and (other.egress, other.version, other.protocol)
            == (rule.egress, rule.version, rule.protocol)
        }
        if len(beside) == 1:
            return rule.ports is None
        ranges: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for group, remote, ports in beside:
            ranges.setdefault((group, remote), []).append(ports or _EVERY_PORT)
        return all(_overlapping(each) == _EVERY_PORT for each in ranges.values())


_EVERY_PORT = (1, 65535)


def _overlapping(ranges: list[tuple[int, int]]) -> tuple[int, int] | None:
    """The one range they make up, if each has a port with another in common."""
    first, *rest = sorted(ranges)
    low, high = first
    for start, end in rest:
        if start > high:
            return None
        high = max(high, end)
    return low, high


class NeverMended(Difference):
    neutrons = (
        "a cut connection stays cut until its entry is deleted (`conntrack -D`), also when a rule "
        "allows it again"
    )
    ours = "its next packet removes the mark (tables 83, 91; on Neutron's bridge 83, 96)"
    because = "deleting entries from outside does not reach the userspace datapath"

    def mended(self) -> frozenset[Change]:
        return frozenset()


class AnswersGoAround(Difference):
    neutrons = "sends replies to a local port by `NORMAL`, past its ingress rules"
    ours = "through them"
    because = "a stateless port's rules are asked about replies, too"

    def let_out(self, packet: Packet, tracked: bool) -> Verdict:
        answers = (State.REPLY, State.RELATED, State.RELATED_REPLY)
        if tracked and packet.state in answers:
            return self.normal(packet)
        return super().let_out(packet, tracked)


class SegmentsTakenForVlans(Difference):
    neutrons = "matches every port by its segment's tag, too"
    ours = "only with distributed routing"
    because = "the number may be another network's local VLAN"

    def receivers(self, packet: Packet) -> list[int]:
        found = super().receivers(packet)
        if packet.source in self.world.ports or packet.to_many:
            return found
        return sorted({*found, *self._by_segment(packet)})

    def _by_segment(self, packet: Packet) -> Iterator[int]:
        for number, port in self.world.ports.items():
            network = self.world.networks[port.vlan]
            tagged = network.kind == "vlan" and network.segment == packet.vlan
            if tagged and port.filtered and packet.eth_dst in port.macs:
                yield number


DIFFERENCES: tuple[type[Difference], ...] = (
    StatelessIgnored,
    InvalidWithoutAnswer,
    ArpForAnother,
    AdvertisementFromAnyMac,
    TaggedFrames,
    LastHolderOnly,
    EveryAddressMember,
    PortZero,
    NeverMended,
    AnswersGoAround,
    SegmentsTakenForVlans,
)


def neutrons(
    world: World, packet: Packet, differences: Iterable[type[Difference]] = DIFFERENCES
) -> Verdict:
    """The verdict of Neutron's firewall, as far as it is known here."""
    kind = type("Neutrons", (*differences, Model), {})
    verdict: Verdict = kind(world, Forwarding.NORMAL).verdict(packet)
    return verdict


def reasons(world: World, packet: Packet) -> frozenset[type[Difference]]:
    """The differences that Neutron's verdict on ``packet`` is due to."""
    theirs = neutrons(world, packet)
    if theirs == neutrons(world, packet, ()):
        return frozenset()
    needed = {
        each
        for each in DIFFERENCES
        if neutrons(world, packet, [d for d in DIFFERENCES if d is not each]) != theirs
    }
    # Where either of two would do, neither is needed.
    return frozenset(needed or (d for d in DIFFERENCES if neutrons(world, packet, [d]) == theirs))
