"""What a host reports when its groups change: one report for each group, instead of one a port."""

import dataclasses
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent_flows.report import FlowName, FlowReport, ResourceType

Revisions = Mapping[str, int]
_WIRINGS = frozenset({FlowName.WIRE, FlowName.RESYNC, FlowName.REFRESH})


@dataclass(frozen=True)
class _Proof:
    """A port is proven, at this revision and these of its groups."""

    revision: int
    groups: Revisions

    def differing(self, report: FlowReport) -> frozenset[str]:
        """The groups that the report proves at another revision, if nothing else differs."""
        now = report.security_group_revisions
        if report.revision != self.revision or now.keys() != self.groups.keys():
            return frozenset()
        return frozenset(id_ for id_, number in now.items() if self.groups[id_] != number)


@dataclass(frozen=True)
class _State:
    """``proven`` are the ports that this process has reported as such, and has not reported
    otherwise since. ``waiting`` are groups that other ports of the host do not have yet, each with
    a report of a port that has. ``owed`` are ports of which an earlier process may have reported,
    and this one has not; None until they are known."""

    proven: Mapping[str, _Proof] = field(default_factory=dict)
    waiting: Mapping[str, FlowReport] = field(default_factory=dict)
    owed: frozenset[str] | None = None


@dataclass(frozen=True)
class Shortened:
    """``reports`` are to be stored; ``state`` is then what the server knows."""

    reports: Sequence[FlowReport]
    state: _State


class GroupReports:
    """Knows of each port that was reported as proven at which revisions of its groups it is.

    A port that a refresh brought to newer revisions of its groups is not reported by itself: when
    all proven ports of the host have the newest revision of a group, the group is reported, once.
    The server takes that for each port in the group which it has as proven: so no group is
    reported before every port of the host was reported by this process. The report of a group has
    a later sequence than those of the ports it is about.

    The caller lets one method run at a time.
    """

    def __init__(self) -> None:
        self._state = _State()

    def expect(self, bound: Collection[str]) -> None:
        """These ports are bound to the host, and each will be reported; counts once."""
        if self._state.owed is None:
            self._state = dataclasses.replace(self._state, owed=frozenset(bound))

    def shorten(
        self,
        reports: Sequence[FlowReport],
        *,
        asked: Collection[str] = (),
        gone: Collection[str] = (),
        by_group: bool = True,
    ) -> Shortened:
        """The reports of a batch as they are to be stored.

        Ports in ``asked`` are reported by themselves, and all are if the server does not take
        reports ``by_group``. Those in ``gone`` are not bound to the host any more.
        """
        before = self._state
        by_group = by_group and before.owed is not None and not before.owed
        failed_groups, covered = (
            _failed_groups(reports, before.proven) if by_group else ((), frozenset())
        )
        own: list[FlowReport] = []
        proven, waiting = dict(before.proven), dict(before.waiting)
        for port_id in gone:
            proven.pop(port_id, None)
        for report in reports:
            port_id = report.resource_id
            if port_id in covered:
                continue
            proof = proven.pop(port_id, None)
            if report.failed is not None or report.flow not in _WIRINGS:
                own.append(report)
                continue
            proven[port_id] = _Proof(report.revision, report.security_group_revisions)
            changed = proof.differing(report) if proof is not None else frozenset()
            if changed and by_group and report.flow is FlowName.REFRESH and port_id not in asked:
                waiting |= dict.fromkeys(changed, report)
            else:
                own.append(report)
        realised, waiting = _realised(proven, waiting)
        owed = before.owed
        if owed:
            owed = owed.difference((report.resource_id for report in reports), gone)
        return Shortened([*own, *failed_groups, *realised], _State(proven, waiting, owed))

    def note(self, shortened: Shortened) -> None:
        """The reports were stored."""
        self._state = shortened.state


def _failed_groups(
    reports: Sequence[FlowReport], proven: Mapping[str, _Proof]
) -> tuple[Sequence[FlowReport], frozenset[str]]:
    """Groups whose newer revision failed in the same way for every proven port of this host, and
    these ports: to the server they stay proven at the older one."""
    alike: defaultdict[tuple[str, object], dict[str, FlowReport]] = defaultdict(dict)
    for report in reports:
        proof = proven.get(report.resource_id)
        if report.flow is FlowName.REFRESH and proof is not None:
            for group, failure in _failures(report, proof):
                alike[group, failure][report.resource_id] = report
    if not alike:
        return (), frozenset()
    members: defaultdict[str, set[str]] = defaultdict(set)
    for port_id, proof in proven.items():
        for group in proof.groups:
            members[group].add(port_id)
    found: dict[str, FlowReport] = {}
    covered: set[str] = set()
    for (group, _), failed in alike.items():
        if len(failed) > 1 and failed.keys() == members[group]:
            found[group] = next(iter(failed.values()))
            covered |= failed.keys()
    return [of_group(group, report) for group, report in found.items()], frozenset(covered)


def _failures(report: FlowReport, proof: _Proof) -> Iterable[tuple[str, object]]:
    """The groups that have changed since the port was proven, and how that failed."""
    failed = report.failed
    if failed is None or failed.error is None:
        return
    failure = failed.name, failed.error.type, failed.error.message
    for group in proof.differing(report):
        yield group, failure


def _realised(
    proven: Mapping[str, _Proof], waiting: Mapping[str, FlowReport]
) -> tuple[Sequence[FlowReport], dict[str, FlowReport]]:
    """Reports of the waiting groups that every proven port has, and what still waits."""
    if not waiting:
        return (), {}
    revisions: dict[str, set[int]] = {group: set() for group in waiting}
    for proof in proven.values():
        for group in proof.groups.keys() & revisions.keys():
            revisions[group].add(proof.groups[group])
    reports, left = [], {}
    for group, report in waiting.items():
        if revisions[group] == {report.security_group_revisions[group]}:
            reports.append(of_group(group, report))
        elif revisions[group]:
            left[group] = report
    return reports, left


def of_group(group: str, report: FlowReport) -> FlowReport:
    """The report of a port, as that of one of its groups on this host."""
    return dataclasses.replace(
        report,
        id=str(uuid.uuid4()),
        resource_type=ResourceType.SECURITY_GROUP,
        resource_id=group,
        revision=report.security_group_revisions[group],
        security_group_revisions={},
    )
