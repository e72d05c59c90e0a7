"""Rules of security groups compiled to flows, for any port that has the same groups.

Pure. All rules are allow rules, so what several of them say the same way is
said once: ranges are united, and a rule with a wider twin needs no flow.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent_flows.report import TaskError
from agent_flows.secgroups import flow, ranges
from agent_flows.secgroups.conjunction import ACCEPT, RULES, Conjunctions, Remote, RemoteKind, Use
from agent_flows.secgroups.flow import Action, Flow, IPNetwork, Term
from agent_flows.secgroups.pipeline import Priority, Register
from agent_flows.spec import (
    ICMP,
    ICMPV6,
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

_PORT = Term(f"reg{Register.PORT:d}=*")


class Uncompilable(Exception):
    """A port cannot be programmed as its spec says; nothing is installed for it."""

    def __init__(self, type_: str, message: str) -> None:
        self.error = TaskError(type_, message)
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class RuleFlows:
    """The flows of a set of groups.

    ``template`` is one flow a line with the port left open; ``uses`` are the
    remote groups' addresses it needs, ``remotes`` which group refers to them.
    """

    template: str
    uses: frozenset[Use]
    remotes: Mapping[Remote, frozenset[str]]

    def of_port(self, ofport: int) -> str:
        return self.template.replace(_PORT, flow.register(Register.PORT, ofport))


def compile_groups(
    group_ids: Iterable[str], desired: DesiredState, conjunctions: Conjunctions
) -> RuleFlows:
    """Flows for ports that have exactly these security groups.

    Raises :class:`Uncompilable`.
    """
    allowed: defaultdict[_Subject, set[_Layer4]] = defaultdict(set)
    remotes: defaultdict[Remote, set[str]] = defaultdict(set)
    for group in _groups(group_ids, desired):
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
        {remote: frozenset(groups) for remote, groups in remotes.items()},
    )


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a rule is about, but for ports or ICMP type; ``prefix`` is never of length 0."""

    direction: Direction
    ethertype: Ethertype
    protocol: int | None
    prefix: IPNetwork | None
    remote: Remote | None

    @property
    def terms(self) -> tuple[Term, ...]:
        match: tuple[Term, ...] = (flow.protocol(self.ethertype, self.protocol), _PORT)
        if self.prefix is None:
            return match
        if self.direction is Direction.INGRESS:
            return (*match, *flow.ip_source(self.prefix))
        return (*match, *flow.ip_destination(self.prefix))


_Layer4 = tuple[int, int | None] | None
"""A port range, an ICMP type with a code or None, or None for all of the protocol."""


def _groups(group_ids: Iterable[str], desired: DesiredState) -> Iterator[SecurityGroupSpec]:
    for group_id in group_ids:
        group = desired.security_groups.get(group_id)
        if group is None:
            raise Uncompilable("MissingSpec", f"security group {group_id} is not known here")
        if not group.stateful:
            raise Uncompilable(
                "Unsupported", f"security group {group_id} is stateless, which is not supported"
            )
        yield group


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
        raise Uncompilable(
            "MissingSpec",
            f"{remote.kind} {remote.id}, which a rule of security group {group.id} refers to, "
            "is not known here",
        )
    return remote


def _subject(rule: SecurityGroupRule, remote: Remote | None) -> _Subject:
    prefix = rule.remote_ip_prefix
    if prefix is not None and not prefix.prefixlen:
        prefix = None
    return _Subject(rule.direction, rule.ethertype, rule.protocol_number, prefix, remote)


def _layer4(group: SecurityGroupSpec, rule: SecurityGroupRule) -> _Layer4:
    low, high = rule.port_range_min, rule.port_range_max
    if low is None:
        return None
    number = rule.protocol_number
    if number in (ICMP, ICMPV6) or (number in _MATCHABLE_PORTS and high is not None):
        return low, high
    raise Uncompilable(
        "Unsupported",
        f"security group {group.id} has a {rule.direction} rule for ports {low} to {high} of "
        f"protocol {number}: Open vSwitch matches ports of tcp, udp and sctp only",
    )


def _layer4_terms(protocol: int | None, allowed: set[_Layer4]) -> Iterator[tuple[Term, ...]]:
    """The fewest terms that match what any of ``allowed`` matches."""
    if None in allowed:
        yield ()
        return
    given = [each for each in allowed if each is not None]
    if protocol in (ICMP, ICMPV6):
        whole_types = {type_ for type_, code in given if code is None}
        for type_, code in sorted(given, key=str):
            if code is None or type_ not in whole_types:
                yield (flow.icmp(type_, code),)
        return
    spans = ranges.merged((low, high) for low, high in given if high is not None)
    for low, high in spans:
        for value, mask in ranges.masks(low, high):
            yield (flow.destination_port(value, mask),)


def _plain(allowed: Mapping[_Subject, set[_Layer4]]) -> Iterator[Flow]:
    for subject, layer4 in allowed.items():
        if subject.remote is None:
            for terms in _layer4_terms(subject.protocol, layer4):
                yield Flow(
                    RULES[subject.direction],
                    Priority.RULE,
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
            for terms in _layer4_terms(subject.protocol, layer4):
                ids[subject.direction, (*subject.terms, *terms)].add(number)
    for (direction, match), numbers in ids.items():
        actions: list[Action] = [flow.conjunction(number, 2) for number in sorted(numbers)]
        yield Flow(RULES[direction], conjunctions.priority, match, tuple(actions))
