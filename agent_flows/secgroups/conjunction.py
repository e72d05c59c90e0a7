"""Remote groups as conjunctions: their members are installed once for all ports of the host.

A rule with a remote group has two sides. The addresses of the group's members
(dimension 1) are flows shared by every port; the port and the rule's protocol
and ports (dimension 2) are the port's own. So m members and n ports cost
O(m + n) flows. One id stands for one remote group: dimension 2 matches the
port, so ports and rules with the same remote cannot be mixed up, and an
address that several groups hold is one flow with several conjunction actions:
of two flows with one match the later would replace the earlier.
(ovs-fields(7), "Conjunctive Match Fields".)
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from agent_flows.openflow import flow
from agent_flows.openflow.flow import Flow, Term
from agent_flows.openflow.pipeline import Register, Table
from agent_flows.spec import (
    AddressGroupSpec,
    DesiredState,
    Direction,
    Ethertype,
    Member,
    SecurityGroupSpec,
)

RULES = {Direction.EGRESS: Table.RULES_EGRESS, Direction.INGRESS: Table.RULES_INGRESS}
ACCEPT = {Direction.EGRESS: Table.ACCEPT_OR_INGRESS, Direction.INGRESS: Table.ACCEPT_INGRESS}
"""The next table of a packet that a rule of this direction allows."""


class RemoteKind(enum.StrEnum):
    SECURITY_GROUP = "security group"
    ADDRESS_GROUP = "address group"


class Remote(NamedTuple):
    kind: RemoteKind
    id: str


class Use(NamedTuple):
    """A remote group as some port's rules use it: only these of its addresses are installed."""

    remote: Remote
    direction: Direction
    ethertype: Ethertype


class Address(NamedTuple):
    """A member's address as text ("" for every address) and the MAC it is narrowed to, or ""."""

    network: str
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Members:
    ipv4: frozenset[Address] = frozenset()
    ipv6: frozenset[Address] = frozenset()

    def of(self, ethertype: Ethertype) -> frozenset[Address]:
        return self.ipv4 if ethertype is Ethertype.IPV4 else self.ipv6


def members_of(group: SecurityGroupSpec | AddressGroupSpec) -> Members:
    if isinstance(group, AddressGroupSpec):
        members = tuple(Member(network) for network in group.addresses)
    else:
        members = group.members
    families: dict[int, set[Address]] = {4: set(), 6: set()}
    for member in members:
        network = flow.address(member.address)
        # Only if any address matches; otherwise routed packets, which come with a
        # router's MAC, would not match.
        mac = flow.mac(member.mac_address) if member.mac_address and not network else ""
        families[member.address.version].add(Address(network, mac))
    return Members(frozenset(families[4]), frozenset(families[6]))


def members_in(desired: DesiredState, remote: Remote) -> Members:
    """The members of a remote group; raises KeyError if ``desired`` does not have it."""
    if remote.kind is RemoteKind.SECURITY_GROUP:
        return members_of(desired.security_groups[remote.id])
    return members_of(desired.address_groups[remote.id])


@dataclass(slots=True)
class Conjunctions:
    """Gives every remote group an id of its own.

    ``next_id`` is above every id in the switch when it starts, ``priority`` one
    that no flow of an older process has.
    """

    priority: int
    next_id: int
    _ids: dict[Remote, int] = field(default_factory=dict)

    def id_of(self, remote: Remote) -> int:
        if remote not in self._ids:
            self._ids[remote] = self.next_id
            self.next_id += 1
        return self._ids[remote]

    def address_key(self, use: Use, address: Address) -> str:
        """Table, priority and match of the flow of one member's address."""
        incoming = use.direction is Direction.INGRESS
        match = [flow.protocol(use.ethertype)]
        if address.network:
            names = flow.IP_SOURCE if incoming else flow.IP_DESTINATION
            match.append(Term(f"{names[use.ethertype.version]}={address.network}"))
        if address.mac:
            match.append(flow.dl_src(address.mac) if incoming else flow.dl_dst(address.mac))
        return Flow(RULES[use.direction], self.priority, tuple(match)).key

    def accept(self, remote: Remote, direction: Direction) -> Flow:
        """What happens when both dimensions match."""
        number = self.id_of(remote)
        return Flow(
            RULES[direction],
            self.priority,
            (flow.conjunction_id(number),),
            (flow.load(Register.REMOTE_GROUP, number), flow.to(ACCEPT[direction])),
        )


def address_flow(key: str, ids: Iterable[int]) -> str:
    """The flow of ``key`` for the remote groups that hold its address."""
    return f"{key} actions={','.join(flow.conjunction(number, 1) for number in sorted(ids))}"
