"""The gate: what a report makes of a port's status and sync_state.

Pure. ``decide`` is the design's table, one row after the other; the first that
fits decides.
"""

import dataclasses
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


@dataclass(frozen=True)
class Settings:
    """What the operator chose: ``required_steps``, and ``on_refresh_failure = keep``.

    Raises ValueError without a required step: then anything would be proof.
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
    if port security is off). ``proven_revision`` is the revision at which the
    last complete wiring was proven, None if the last one was not.

    Where a number also rises for what no wiring depends on, as Neutron's does
    for a name or a status, ``revision`` is the one at which something of
    account last changed, and ``latest_revision`` the number of now: a report
    of any revision between them is about the desired state of now.
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
    latest_revision: int | None = None

    def is_current(self, revision: int) -> bool:
        """Whether ``revision`` is of the desired state of now.

        One that is not known yet (a database restored from a backup) is no
        more so than an older one.
        """
        return self.revision <= revision <= self.newest_revision

    @property
    def newest_revision(self) -> int:
        return self.revision if self.latest_revision is None else self.latest_revision


class Ruling(enum.Enum):
    """How a report is taken."""

    REFUSED = "refused"  # rejected with a reason, never to be sent again
    STALE = "stale"  # acknowledged; it changes nothing
    OUTDATED = "outdated"  # about a desired state that is no longer
    PROVEN = "proven"
    FAILED = "failed"
    UNWIRED = "unwired"


@dataclass(frozen=True)
class Decision:
    """The port's state after the report; ``reason`` says why one was refused."""

    ruling: Ruling
    status: PortStatus
    sync_state: SyncState
    sequence: int
    proven_revision: int | None
    reason: str = ""

    def applied_to(self, port: PortState) -> PortState:
        return dataclasses.replace(
            port,
            status=self.status,
            sync_state=self.sync_state,
            sequence=self.sequence,
            proven_revision=self.proven_revision,
        )


def decide(
    port: PortState, report: FlowReport, settings: Settings, highest_sequence: int = 2**62
) -> Decision:
    """What ``report`` makes of ``port``.

    No report may have a sequence above ``highest_sequence``, which follows from
    the server's clock. A port that has one (a lie was taken, or a clock was
    wrong) is known as if it had none, so that the next report is newer.
    """
    if port.sequence > highest_sequence:
        port = dataclasses.replace(port, sequence=0)
    same = Decision(Ruling.STALE, port.status, port.sync_state, port.sequence, port.proven_revision)
    if reason := _refusal(port, report, highest_sequence):
        return dataclasses.replace(same, ruling=Ruling.REFUSED, reason=reason)
    if report.sequence <= port.sequence:
        return same

    taken = dataclasses.replace(
        same, sequence=report.sequence, proven_revision=_proven_revision(port, report)
    )
    # An interface that is gone is gone at every revision, so this row stands
    # before the one about older revisions: the status can only fall by it.
    if report.flow is FlowName.UNWIRE and _complete(report):
        return dataclasses.replace(
            taken,
            ruling=Ruling.UNWIRED,
            status=PortStatus.DOWN,
            sync_state=SyncState.ABSENT,
        )
    if not _current(port, report):
        return dataclasses.replace(taken, ruling=Ruling.OUTDATED, sync_state=SyncState.SYNCING)
    if report.flow is not FlowName.UNWIRE and all(
        _proves(port, report, step) for step in settings.required_steps
    ):
        return dataclasses.replace(
            taken,
            ruling=Ruling.PROVEN,
            status=PortStatus.ACTIVE if port.admin_state_up else PortStatus.DOWN,
            # A step that is not required does not keep a port from being
            # ACTIVE, yet a switch without it does not hold what it should.
            sync_state=SyncState.IN_SYNC if _complete(report) else SyncState.OUT_OF_SYNC,
        )
    keep = report.flow is FlowName.REFRESH and settings.keep_active_on_refresh_failure
    return dataclasses.replace(
        taken,
        ruling=Ruling.FAILED,
        status=port.status if keep else PortStatus.DOWN,
        sync_state=SyncState.OUT_OF_SYNC,
    )


def _refusal(port: PortState, report: FlowReport, highest_sequence: int) -> str:
    if report.host != port.host:
        return f"port {port.id} is bound to {port.host or 'no host'}, not to {report.host}"
    if report.sequence > highest_sequence:
        return (
            f"sequence {report.sequence} is more than a day ahead of the server's clock "
            f"(at most {highest_sequence} now)"
        )
    return ""


def _current(port: PortState, report: FlowReport) -> bool:
    """Whether the report is about the desired state of now, the port's and its groups'."""
    return port.is_current(report.revision) and all(
        report.security_group_revisions.get(group) == revision
        for group, revision in port.security_group_revisions.items()
    )


def _complete(report: FlowReport) -> bool:
    """Whether every task succeeded, but for those that need not apply."""
    return all(
        task.state is TaskState.SUCCEEDED
        or (task.state is TaskState.SKIPPED and task.name in SKIPPABLE_TASKS)
        for task in report.tasks
    ) and any(task.state is TaskState.SUCCEEDED for task in report.tasks)


def _proves(port: PortState, report: FlowReport, step: Step) -> bool:
    if step is Step.L2 and report.flow is FlowName.REFRESH:
        # A refresh does not touch the wiring: it stands as last proven.
        touched = any(task.step is Step.L2 for task in report.tasks)
        proven = port.proven_revision is not None and port.is_current(port.proven_revision)
        return proven and (not touched or report.proves(step))
    return report.proves(step)


def _proven_revision(port: PortState, report: FlowReport) -> int | None:
    if report.flow is FlowName.REFRESH:
        return port.proven_revision
    if report.flow is FlowName.UNWIRE or not report.proves(Step.L2):
        return None
    # Nobody can have wired what was not wanted yet.
    return report.revision if report.revision <= port.newest_revision else None
