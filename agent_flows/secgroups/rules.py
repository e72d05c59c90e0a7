"""Rules of security groups compiled to flows, for any port that has the same groups.

Pure. All rules allow, so what several of them allow alike is one flow: ranges
are united, and a rule within a wider one needs no flow.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from agent_flows.errors import ErrorType
from agent_flows.openflow import flow, ranges
from agent_flows.openflow.flow import Action, Flow, IPNetwork, Term
from agent_flows.openflow.priorities import Rules
from agent_flows.report import TaskError
from agent_flows.secgroups.conjunction import ACCEPT, RULES, Conjunctions, Remote, RemoteKind, Use
from agent_flows.spec import (
    ICMP,
    ICMPV6,
    PROTOCOLS,
    SCTP,
    TCP,
    UDP,
    DesiredState,
    Direction,
    Ethertype,
    SecurityGroupRule,
    SecurityGroupSpec,
)

_MATCHABLE_PORTS = frozenset({TCP, UDP, SCTP})
"""Protocols whose ports Open vSwitch can match (ovs-fields(7))."""


class Uncompilable(Exception):
    """A port's spec cannot be compiled; nothing is installed for it."""

    def __init__(self, type_: ErrorType, message: str, detail: str = "") -> None:
        self.error = TaskError(type_, message, detail)
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class RuleFlows:
    """The flows of a set of groups.

    ``template`` is one flow a line, for any port (:func:`flow.of_port`). ``uses``
    are the remote groups' addresses it needs, ``remotes`` the groups that refer
    to them. The rules of ``stateless`` groups decide about every packet, also
    replies.
    """

    template: str
    uses: frozenset[Use]
    remotes: Mapping[Remote, frozenset[str]]
    stateless: bool = False


def compile_groups(
    group_ids: Iterable[str], desired: DesiredState, conjunctions: Conjunctions
) -> RuleFlows:
    """Flows for ports that have exactly these security groups.

    Raises :class:`Uncompilable`.
    """
    allowed: defaultdict[_Subject, set[_Layer4]] = defaultdict(set)
    remotes: defaultdict[Remote, set[str]] = defaultdict(set)
    groups = _groups(group_ids, desired)
    for group in groups:
        for rule in group.rules:
            remote = _remote(group, rule, desired)
            if remote is not None:
                remotes[remote].add(group.id)
            allowed[_subject(rule, remote)].add(_layer4(group, rule))
    flows = [*_plain(allowed), *_conjunctive(allowed, conjunctions)]
    uses = {Use(s.remote, s.direction, s.ethertype) for s in allowed if s.remote is not None}
    return RuleFlows(
        "\n".join(map(str, flows)),
        frozenset(uses),
        {remote: frozenset(referring) for remote, referring in remotes.items()},
        stateless=any(not group.stateful for group in groups),
    )


@dataclass(frozen=True, slots=True)
class _Subject:
    """A rule without its ports or ICMP type; ``prefix`` is never of length 0."""

    direction: Direction
    ethertype: Ethertype
    protocol: int | None
    prefix: IPNetwork | None
    remote: Remote | None

    @property
    def terms(self) -> tuple[Term, ...]:
        match: tuple[Term, ...] = (flow.protocol(self.ethertype, self.protocol), flow.ANY_PORT)
        if self.prefix is None:
            return match
        incoming = self.direction is Direction.INGRESS
        names = flow.IP_SOURCE if incoming else flow.IP_DESTINATION
        return (*match, Term(f"{names[self.prefix.version]}={flow.address(self.prefix)}"))


_Range = tuple[int, int]


class _Icmp(NamedTuple):
    type: int
    code: int | None


class _Ports(NamedTuple):
    """None: every port."""

    destination: _Range | None
    source: _Range | None


_Layer4 = _Icmp | _Ports | None
"""None for all of the protocol."""


def _groups(group_ids: Iterable[str], desired: DesiredState) -> list[SecurityGroupSpec]:
    """All stateful or all stateless: with both it is undefined whether a reply needs a rule
    (Neutron's API refuses such a port, securitygroups_db.py)."""
    groups: list[SecurityGroupSpec] = []
    for group_id in group_ids:
        group = desired.security_groups.get(group_id)
        if group is None:
            raise _unknown(f"security group {group_id}", group_id, desired)
        if groups and groups[0].stateful != group.stateful:
            kinds = {each.stateful: each.id for each in (groups[0], group)}
            raise Uncompilable(
                ErrorType.CONFLICT,
                f"security group {kinds[False]} is stateless and {kinds[True]} is stateful; "
                "a port can have only one kind",
            )
        groups.append(group)
    return groups


def _remote(
    group: SecurityGroupSpec, rule: SecurityGroupRule, desired: DesiredState
) -> Remote | None:
    if rule.remote_group_id is not None:
        remote = Remote(RemoteKind.SECURITY_GROUP, rule.remote_group_id)
        known = rule.remote_group_id in desired.security_groups
    elif rule.remote_address_group_id is not None:
        remote = Remote(RemoteKind.ADDRESS_GROUP, rule.remote_address_group_id)
        known = rule.remote_address_group_id in desired.address_groups
    else:
        return None
    if not known:
        raise _unknown(f"{_named(group, rule)}: {remote.kind} {remote.id}", remote.id, desired)
    return remote


def _unknown(name: str, id_: str, desired: DesiredState) -> Uncompilable:
    refused = desired.refused.get(id_)
    if refused is None:
        return Uncompilable(ErrorType.MISSING_SPEC, f"{name} is not known here")
    return Uncompilable(
        ErrorType.INVALID_SPEC, f"{name} is invalid: {refused.reason}", refused.detail
    )


def _named(group: SecurityGroupSpec, rule: SecurityGroupRule) -> str:
    """The rule, for an operator to find it: "security group ..., rule ingress IPv4 ..."."""
    words: list[str] = [rule.direction, rule.ethertype]
    number = rule.protocol_number
    words.append("any protocol" if number is None else f"protocol {_NAMES.get(number, number)}")
    icmp = number in (ICMP, ICMPV6)
    for what, low, high in (
        ("type" if icmp else "ports", rule.port_range_min, rule.port_range_max),
        ("source ports", rule.source_port_range_min, rule.source_port_range_max),
    ):
        if low is not None:
            words.append(f"{what} {low}" if high is None else f"{what} {low}-{high}")
    for what, remote in (
        ("remote", rule.remote_ip_prefix),
        ("remote group", rule.remote_group_id),
        ("remote address group", rule.remote_address_group_id),
    ):
        if remote is not None:
            words.append(f"{what} {remote}")
    return f"security group {group.id}, rule {' '.join(words)}"


_NAMES = {number: name for name, number in PROTOCOLS.items()}


def _subject(rule: SecurityGroupRule, remote: Remote | None) -> _Subject:
    prefix = rule.remote_ip_prefix
    if prefix is not None and not prefix.prefixlen:
        prefix = None
    return _Subject(rule.direction, rule.ethertype, rule.protocol_number, prefix, remote)


def _layer4(group: SecurityGroupSpec, rule: SecurityGroupRule) -> _Layer4:
    number = rule.protocol_number
    if number in (ICMP, ICMPV6):
        type_ = rule.port_range_min
        return None if type_ is None else _Icmp(type_, rule.port_range_max)
    destination = _range(rule.port_range_min, rule.port_range_max)
    source = _range(rule.source_port_range_min, rule.source_port_range_max)
    if destination is None and source is None:
        return None
    if number not in _MATCHABLE_PORTS:
        raise Uncompilable(
            ErrorType.UNSUPPORTED,
            f"{_named(group, rule)}: Open vSwitch matches ports of tcp, udp and sctp only",
        )
    return _Ports(destination, source)


def _range(low: int | None, high: int | None) -> _Range | None:
    return None if low is None or high is None else (low, high)


def _layer4_terms(allowed: set[_Layer4]) -> Iterable[tuple[Term, ...]]:
    """Terms that together match what any of ``allowed`` matches, none of them twice."""
    if None in allowed:
        return [()]
    icmp = [each for each in allowed if isinstance(each, _Icmp)]
    ports = [each for each in allowed if isinstance(each, _Ports)]
    # Ranges with different bounds share some of their masks.
    return dict.fromkeys([*_icmp_terms(icmp), *_port_terms(ports)])


def _icmp_terms(allowed: Iterable[_Icmp]) -> Iterator[tuple[Term, ...]]:
    whole_types = {each.type for each in allowed if each.code is None}
    for type_, code in sorted(allowed, key=str):
        if code is None or type_ not in whole_types:
            yield (flow.icmp(type_, code),)


def _port_terms(allowed: Iterable[_Ports]) -> Iterator[tuple[Term, ...]]:
    """Destinations of rules with the same source are united; then each mask of a destination is
    combined with each of the source."""
    by_source: defaultdict[_Range | None, set[_Range | None]] = defaultdict(set)
    for ports in allowed:
        by_source[ports.source].add(ports.destination)
    for source in sorted(by_source, key=str):
        destinations = by_source[source]
        given = [each for each in destinations if each is not None]
        spans = [None] if None in destinations else ranges.merged(given)
        sources = list(_masks(flow.source_port, [source]))
        for destination in _masks(flow.destination_port, spans):
            yield from ((*each, *destination) for each in sources)


def _masks(
    word: Callable[[int, int], Term], spans: Iterable[_Range | None]
) -> Iterator[tuple[Term, ...]]:
    for span in spans:
        if span is None:
            yield ()
        else:
            yield from ((word(value, mask),) for value, mask in ranges.masks(*span))


def _plain(allowed: Mapping[_Subject, set[_Layer4]]) -> Iterator[Flow]:
    for subject, layer4 in allowed.items():
        if subject.remote is None:
            for terms in _layer4_terms(layer4):
                yield Flow(
                    RULES[subject.direction],
                    Rules.RULE,
                    (*subject.terms, *terms),
                    (flow.to(ACCEPT[subject.direction]),),
                )


def _conjunctive(
    allowed: Mapping[_Subject, set[_Layer4]], conjunctions: Conjunctions
) -> Iterator[Flow]:
    """The ports' dimension; one flow of a match carries the ids of all its remote groups."""
    ids: defaultdict[tuple[Direction, tuple[Term, ...]], set[int]] = defaultdict(set)
    for subject, layer4 in allowed.items():
        if subject.remote is not None:
            number = conjunctions.id_of(subject.remote)
            for terms in _layer4_terms(layer4):
                ids[subject.direction, (*subject.terms, *terms)].add(number)
    for (direction, match), numbers in ids.items():
        actions: list[Action] = [flow.conjunction(number, 2) for number in sorted(numbers)]
        yield Flow(RULES[direction], conjunctions.priority, match, tuple(actions))
