"""The flows that one port needs on the integration bridge, and what differs from them. Pure.

They are compiled as the agent compiles them. What only the agent knows is taken from the
switch: the other ports that share a delivery flow, the numbers of conjunctions, the
generations in cookies.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType

from agent_flows.l2 import network_flows
from agent_flows.l2.bridges import Uplink
from agent_flows.openflow import cookie, flow
from agent_flows.openflow.attachment import Attachment
from agent_flows.openflow.cookie import Kind
from agent_flows.openflow.dump import Differences, FlowEntry
from agent_flows.openflow.pipeline import Home, Pipeline
from agent_flows.openflow.priorities import CONJUNCTIONS
from agent_flows.report import TaskError
from agent_flows.secgroups import difference, installed, takeover
from agent_flows.secgroups.base import base_flows
from agent_flows.secgroups.conjunction import Conjunctions, Remote, members_in
from agent_flows.secgroups.installed import Installed
from agent_flows.secgroups.plan import plan
from agent_flows.secgroups.port_flows import compile_ports
from agent_flows.secgroups.strangers import OwnBridge
from agent_flows.spec import DesiredState, PortSpec

_CONJUNCTION = re.compile(r"conjunction\((\d+),([12])/2\)")


class CannotCompile(Exception):
    """What is desired of the port cannot be compiled; the agent reports the same ``error``."""

    def __init__(self, error: TaskError) -> None:
        self.error = error
        super().__init__(error.message)


@dataclass(frozen=True)
class Subject:
    """A port, where it is, and what is desired of it.

    ``dump`` is every flow of ours on the bridge.
    """

    port: PortSpec
    desired: DesiredState
    attachment: Attachment
    uplink: Uplink | None
    pipeline: Pipeline
    dump: Sequence[FlowEntry]


@dataclass(frozen=True)
class Expected:
    """The flows that the port needs, each with its cookie; ``own`` of them are its alone.

    ``numbers`` are those of the conjunctions of its remote groups.
    """

    lines: tuple[str, ...]
    own: int
    numbers: Mapping[Remote, int]


def expected(subject: Subject, numbers: Mapping[Remote, int] = MappingProxyType({})) -> Expected:
    """With these numbers of conjunctions; other remote groups get unused ones.

    Raises :class:`CannotCompile`.
    """
    taken = takeover.read(subject.dump, Home.OWN)
    next_id = max([taken.next_conjunction_id, *(number + 1 for number in numbers.values())])
    conjunctions = Conjunctions(_priority(subject), next_id, dict(numbers))
    port, attachment = subject.port, subject.attachment
    compiled = compile_ports(subject.desired, {port.id: attachment}, conjunctions, subject.pipeline)
    if error := compiled.errors.get(port.id):
        raise CannotCompile(error)
    members = {remote: members_in(subject.desired, remote) for remote in compiled.remotes}
    before = Installed(receivers=taken.installed.receivers)
    after = plan(before, compiled.ports, members, conjunctions).after
    network = network_flows.on_integration_bridge(port.network, attachment.vlan, subject.uplink)
    lines = [
        *(flow.with_cookie(text, each) for each, text in base_flows(subject.pipeline).items()),
        *installed.flows(after, conjunctions),
        *(flow.with_cookie(str(each), cookie.network(attachment.vlan)) for each in network),
    ]
    used = {remote: conjunctions.id_of(remote) for remote in compiled.remotes}
    return Expected(tuple(lines), compiled.ports[port.id].count, used)


def _priority(subject: Subject) -> int:
    """Of the conjunctions of the process that wrote the port's flows."""
    found = Counter(
        entry.priority
        for entry in subject.dump
        if _is_own(entry, subject.attachment.ofport) and _conjunctions(entry)
    )
    return found.most_common(1)[0][0] if found else CONJUNCTIONS[0]


def _is_own(entry: FlowEntry, ofport: int) -> bool:
    return cookie.kind(entry.cookie) == Kind.PORT and cookie.serial(entry.cookie) == ofport


def _conjunctions(entry: FlowEntry) -> set[tuple[int, int]]:
    """Number and dimension of each that the flow is a part of."""
    return {(int(number), int(side)) for number, side in _CONJUNCTION.findall(entry.actions)}


def numbers(wanted: Expected, found: Differences) -> dict[Remote, int]:
    """The numbers that the switch has for the port's remote groups.

    ``found`` is the difference to ``wanted``, which has numbers that the switch does not have: so
    every flow of a conjunction is in it. Those whose flows agree most belong together.
    """
    present = {entry.key: entry for entry in found.present}
    ours: defaultdict[int, set[tuple[str, int]]] = defaultdict(set)
    theirs: defaultdict[int, set[tuple[str, int]]] = defaultdict(set)
    for entry in found.expected:
        for number, side in _conjunctions(entry):
            ours[number].add((entry.key, side))
        if entry.key in present:
            for number, side in _conjunctions(present[entry.key]):
                theirs[number].add((entry.key, side))
    agreeing = sorted(
        (-len(mine & yours) / len(mine | yours), number, other)
        for number, mine in ours.items()
        for other, yours in theirs.items()
        if mine & yours
    )
    chosen: dict[int, int] = {}
    for _, number, other in agreeing:
        if number not in chosen and other not in chosen.values():
            chosen[number] = other
    return {remote: chosen[number] for remote, number in wanted.numbers.items() if number in chosen}


def concerning(
    subject: Subject, wanted: Expected, found: Differences, uplinks: Set[int]
) -> list[difference.Line]:
    """What of the difference to the whole bridge concerns the port, its network, or all ports.
    ``uplinks`` are the ofports that lead to physical networks."""
    ofport, vlan = subject.attachment.ofport, subject.attachment.vlan
    mine = frozenset(wanted.numbers.values())
    present = {entry.key: entry for entry in found.present}
    missing = [entry for entry in found.expected if not _holds(present.get(entry.key), entry, mine)]
    settled = {entry.key for entry in found.expected} - {entry.key for entry in missing}
    left = [
        entry for entry in found.present if entry.key not in settled and _may_concern(entry, mine)
    ]
    differing = difference.of(Differences(left, missing))
    strange = OwnBridge(lambda: uplinks)
    return differing.of_port(ofport, vlan) + [
        ("of another program", entry)
        for entry in differing.strange
        if strange.decides(entry, ofport, frozenset({ofport}))
    ]


def _holds(now: FlowEntry | None, wanted: FlowEntry, mine: Set[int]) -> bool:
    """Whether an installed flow does for this port what the ``wanted`` one does."""
    if now is None or not cookie.is_ours(now.cookie):
        return False
    if cookie.kind(wanted.cookie) == Kind.MEMBER:
        # It has the conjunctions of other ports, too.
        return {each for each in _conjunctions(now) if each[0] in mine} == _conjunctions(wanted)
    ofport = cookie.serial(wanted.cookie)
    return _is_own(wanted, ofport) and _is_own(now, ofport) and now.actions == wanted.actions


def _may_concern(entry: FlowEntry, mine: Set[int]) -> bool:
    if not cookie.is_ours(entry.cookie):
        return True
    if cookie.kind(entry.cookie) not in (Kind.MEMBER, Kind.CONJUNCTION):
        return True
    found = {number for number, _ in _conjunctions(entry)} | {entry.number("conj_id")}
    return not mine.isdisjoint(found)


def outside(subject: Subject, uplink: Uplink) -> list[str]:
    """What the physical network's bridge needs for the port's network."""
    vlan = subject.attachment.vlan
    own = network_flows.on_physical_bridge(subject.port.network, vlan, uplink)
    base = network_flows.base_of_physical_bridge(uplink)
    return [
        *(flow.with_cookie(str(each), cookie.network(vlan)) for each in own),
        *(flow.with_cookie(str(each), cookie.network(0)) for each in base),
    ]


def concerning_outside(subject: Subject, found: Differences) -> Iterable[difference.Line]:
    """What of the difference to that bridge concerns the port's network."""
    differing = difference.of(found)
    return [*differing.of_vlan(subject.attachment.vlan), *differing.of_vlan(0)]
