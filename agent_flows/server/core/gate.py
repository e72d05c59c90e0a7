"""The gate: what a report makes of a port's status and sync_state.

Pure. ``decide`` is the design's table, one row after the other; the first that
fits decides.
"""

import dataclasses
import datetime
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent_flows.report import (
    SKIPPABLE_TASKS,
    FlowName,
    FlowReport,
    PortStatus,
    Step,
    SyncState,
    TaskState,
)
from agent_flows.rpc.answers import NO_BINDING

NEVER = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Settings:
    """What the operator chose: ``required_steps``, and ``on_refresh_failure = keep``.

    Raises ValueError without a required step: then any report would be proof.
    """

    required_steps: frozenset[Step] = frozenset({Step.L2, Step.SECURITY_GROUPS})
    keep_active_on_refresh_failure: bool = False

    def __post_init__(self) -> None:
        if not self.required_steps:
            raise ValueError("required_steps must name at least one step")


@dataclass(frozen=True)
class PortState:
    """What the gate knows of a port.

    ``security_group_revisions`` are those its security depends on now (none
    if port security is off). A report may name older ones of a group in ``rules_revisions``:
    whether the host has realised the current one is decided when the port is read. The port
    becomes ACTIVE if the report names at least these, at which the group's own rules last
    changed. ``proven_groups`` are the revisions that the report just taken has proven.
    ``proven_revision`` is the revision at which the last complete wiring was proven, None if the
    last one was not.

    Neutron's number also rises for what no wiring depends on, as a name or a
    status. There ``revision`` is the one at which the wiring's desired state
    last changed, and ``latest_revision`` the current one: a report of any
    revision between them is about the current desired state.

    ``sync_since`` is since when the port has its ``sync_state``; while it is
    SYNCING, when the clock of ``report_timeout`` started. None if that is not
    known. ``updated_at`` is when the port as it is shown last changed.
    """

    id: str
    host: str | None
    revision: int
    status: PortStatus
    sync_state: SyncState
    admin_state_up: bool = True
    sequence: int = 0
    proven_revision: int | None = None
    security_group_revisions: Mapping[str, int] = field(default_factory=dict)
    rules_revisions: Mapping[str, int] = field(default_factory=dict)
    proven_groups: Mapping[str, int] = field(default_factory=dict)
    latest_revision: int | None = None
    sync_since: datetime.datetime | None = None
    updated_at: datetime.datetime = NEVER

    def is_current(self, revision: int) -> bool:
        """Whether ``revision`` is of the current desired state.

        A higher one than the newest (the database was restored from a backup) is not.
        """
        return self.revision <= revision <= self.newest_revision

    @property
    def newest_revision(self) -> int:
        return self.revision if self.latest_revision is None else self.latest_revision


@dataclass(frozen=True)
class GroupAtHost:
    """What is known of a security group on a host whose ports depend on it.

    ``revision`` is the group's now; ``realised`` the one of the host's last report of it, which
    had this ``sequence``; 0 without one.
    """

    security_group: str
    host: str
    revision: int
    realised: int = 0
    sequence: int = 0
    failed: bool = False


class Ruling(enum.Enum):
    """How a report is taken."""

    REFUSED = "refused"  # rejected with a reason, never to be sent again
    STALE = "stale"  # acknowledged; it changes nothing
    OUTDATED = "outdated"  # about an older desired state
    PROVEN = "proven"
    BEHIND = "behind"  # proven, but with older rules of a security group
    FAILED = "failed"
    DRIFTED = "drifted"  # found by an audit; the repair is reported by itself
    UNWIRED = "unwired"


@dataclass(frozen=True)
class Decision:
    """``port`` is the state after the report; ``reason`` is why one was refused."""

    ruling: Ruling
    port: PortState
    reason: str = ""


def decide(
    port: PortState, report: FlowReport, settings: Settings, highest_sequence: int = 2**62
) -> Decision:
    """What ``report`` makes of ``port``.

    No report may have a sequence above ``highest_sequence``, which follows from
    the server's clock. A port that has one (from a wrong clock or a false
    report) is taken as if it had none, so that the next report is newer.
    """
    if port.sequence > highest_sequence:
        port = dataclasses.replace(port, sequence=0)
    if reason := _refusal(port, report, highest_sequence):
        return Decision(Ruling.REFUSED, port, reason)
    if report.sequence <= port.sequence:
        return Decision(Ruling.STALE, port)

    taken = dataclasses.replace(
        port, sequence=report.sequence, proven_revision=_proven_revision(port, report)
    )
    # An interface that is gone is gone at every revision, so this row comes
    # before the one about older revisions: the status can only fall by it.
    if report.flow is FlowName.UNWIRE and _complete(report):
        return Decision(
            Ruling.UNWIRED,
            dataclasses.replace(taken, status=PortStatus.DOWN, sync_state=SyncState.ABSENT),
        )
    if not _current(port, report):
        return Decision(Ruling.OUTDATED, dataclasses.replace(taken, sync_state=SyncState.SYNCING))
    return _ruled(port, taken, report, settings)


class StatusFrom(enum.Enum):
    """What makes a port ACTIVE or DOWN while gating is off on its host."""

    REPORTS = "reports"  # any report of it: that it failed does not matter, that it is gone does
    NEUTRON = "neutron"  # Neutron alone, as without agent_flows; a proof still counts


def without_gating(before: PortState, decision: Decision, status_from: StatusFrom) -> Decision:
    """What becomes of the ``decision`` about ``before`` while gating is off on the port's host.

    Its ``sync_state`` and all else stay true; the status needs no proof.
    """
    if decision.ruling in (Ruling.REFUSED, Ruling.STALE):
        return decision
    after = decision.port
    if status_from is StatusFrom.NEUTRON:
        status = PortStatus.ACTIVE if after.status is PortStatus.ACTIVE else before.status
    elif decision.ruling is Ruling.UNWIRED or not before.admin_state_up:
        status = PortStatus.DOWN
    else:
        status = PortStatus.ACTIVE
    return dataclasses.replace(decision, port=dataclasses.replace(after, status=status))


@dataclass(frozen=True)
class GroupDecision:
    """``group`` is the state after the report."""

    ruling: Ruling
    group: GroupAtHost
    reason: str = ""


def decide_group(
    group: GroupAtHost, report: FlowReport, highest_sequence: int = 2**62
) -> GroupDecision:
    """What the ``report`` of a security group makes of the group on the reporting host.

    It is about all ports that depend on the group there and were reported before it.
    """
    if group.sequence > highest_sequence:
        group = dataclasses.replace(group, sequence=0)
    if report.sequence > highest_sequence:
        return GroupDecision(Ruling.REFUSED, group, _ahead(report, highest_sequence))
    if report.sequence <= group.sequence:
        return GroupDecision(Ruling.STALE, group)
    if report.revision > group.revision:
        # Of a database that was restored since: nothing of now is realised.
        unknown = dataclasses.replace(group, realised=0, sequence=report.sequence, failed=False)
        return GroupDecision(Ruling.OUTDATED, unknown)
    proven = report.proves(Step.SECURITY_GROUPS) and _complete(report)
    taken = dataclasses.replace(
        group, realised=report.revision, sequence=report.sequence, failed=not proven
    )
    if not proven:
        return GroupDecision(Ruling.FAILED, taken)
    behind = report.revision < group.revision
    return GroupDecision(Ruling.BEHIND if behind else Ruling.PROVEN, taken)


def _ahead(report: FlowReport, highest_sequence: int) -> str:
    return (
        f"sequence {report.sequence} is more than a day ahead of the server's clock "
        f"(at most {highest_sequence} now)"
    )


def _ruled(port: PortState, taken: PortState, report: FlowReport, settings: Settings) -> Decision:
    """Of a report about the current desired state."""
    if report.flow is FlowName.AUDIT:
        # The status falls only if the repair fails: a repaired drift is no news for users.
        if report.failed is None:
            return Decision(Ruling.STALE, taken)
        return Decision(
            Ruling.DRIFTED, dataclasses.replace(taken, sync_state=SyncState.OUT_OF_SYNC)
        )
    if report.flow is not FlowName.UNWIRE and all(
        _proves(port, report, step) for step in settings.required_steps
    ):
        behind = any(
            report.security_group_revisions[group] < revision
            for group, revision in port.rules_revisions.items()
        )
        active = PortStatus.ACTIVE if port.admin_state_up else PortStatus.DOWN
        return Decision(
            Ruling.BEHIND if behind else Ruling.PROVEN,
            dataclasses.replace(
                taken,
                status=port.status if behind else active,
                # A step that is not required does not keep a port from being
                # ACTIVE, but without it the switch does not hold what it should.
                sync_state=SyncState.IN_SYNC if _complete(report) else SyncState.OUT_OF_SYNC,
                proven_groups={
                    group: report.security_group_revisions[group]
                    for group in port.security_group_revisions
                },
            ),
        )
    keep = report.flow is FlowName.REFRESH and settings.keep_active_on_refresh_failure
    return Decision(
        Ruling.FAILED,
        dataclasses.replace(
            taken,
            status=port.status if keep else PortStatus.DOWN,
            sync_state=SyncState.OUT_OF_SYNC,
        ),
    )


def _refusal(port: PortState, report: FlowReport, highest_sequence: int) -> str:
    if not port.host:
        return f"{NO_BINDING} {port.id}, which {report.host} reported"
    if report.host != port.host:
        return f"port {port.id} is bound to {port.host}, not to {report.host}"
    if report.sequence > highest_sequence:
        return _ahead(report, highest_sequence)
    return ""


def _current(port: PortState, report: FlowReport) -> bool:
    """Whether the report is about the current desired state, the port's and its groups'; of those
    whose hosts are compared when the port is read, an older one will do."""
    named = report.security_group_revisions
    return port.is_current(report.revision) and all(
        named.get(group) == revision
        or (group in port.rules_revisions and group in named and named[group] < revision)
        for group, revision in port.security_group_revisions.items()
    )


def _complete(report: FlowReport) -> bool:
    """Whether every task succeeded, except those that need not apply."""
    return all(
        task.state is TaskState.SUCCEEDED
        or (task.state is TaskState.SKIPPED and task.name in SKIPPABLE_TASKS)
        for task in report.tasks
    ) and any(task.state is TaskState.SUCCEEDED for task in report.tasks)


def _proves(port: PortState, report: FlowReport, step: Step) -> bool:
    if step is Step.L2 and report.flow is FlowName.REFRESH:
        # A refresh does not touch the wiring: it is as last proven.
        touched = any(task.step is Step.L2 for task in report.tasks)
        proven = port.proven_revision is not None and port.is_current(port.proven_revision)
        return proven and (not touched or report.proves(step))
    return report.proves(step)


def _proven_revision(port: PortState, report: FlowReport) -> int | None:
    if report.flow in (FlowName.REFRESH, FlowName.AUDIT):
        return port.proven_revision
    if report.flow is FlowName.UNWIRE or not report.proves(Step.L2):
        return None
    # No agent can have wired a desired state that is newer than the server's.
    return report.revision if report.revision <= port.newest_revision else None
