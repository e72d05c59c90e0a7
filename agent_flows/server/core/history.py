"""The history of attempts and their tasks: written in bulk, bounded, purged in small batches."""

import dataclasses
import datetime
import uuid
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import (
    FlowName,
    FlowReport,
    ResourceType,
    Step,
    SyncState,
    TaskError,
    TaskOutcome,
    TaskState,
)
from agent_flows.server.core import clock, records
from agent_flows.server.core.gate import PortState
from agent_flows.server.core.models import Attempt, DeletedPort, Task, table_of

_PER_MICROSECOND = 64
_ATTEMPTS = table_of(Attempt).c
_KNOWN = sa.select(_ATTEMPTS.id).where(_ATTEMPTS.id.in_(sa.bindparam("ids", expanding=True)))
_NEWEST = sa.select(sa.func.max(_ATTEMPTS.ordinal))
AWAIT_REPORT = "await-report"
_LONGEST = datetime.timedelta(days=6)


def silence(port: PortState, error: TaskError, now: datetime.datetime) -> FlowReport:
    """The record in place of a missing report: one FAILED task with the reason."""
    asked = port.sync_since if port.sync_state is SyncState.SYNCING else None
    # A clock that was wrong may have left any time there.
    started = max(min(asked or now, now), now - _LONGEST)
    # A report like an agent's, so that it is stored and read alike; its sequence
    # does not matter.
    return FlowReport(
        id=str(uuid.uuid4()),
        host=port.host or "",
        resource_id=port.id,
        flow=FlowName.WIRE,
        revision=port.revision,
        attempt=1,
        sequence=max(port.sequence, 1),
        started_at=started,
        finished_at=now,
        tasks=(
            TaskOutcome(
                name=AWAIT_REPORT,
                step=Step.L2,
                state=TaskState.FAILED,
                started_at=started,
                duration=(now - started).total_seconds(),
                error=error,
            ),
        ),
    )


def not_of_the_future(report: FlowReport, now: datetime.datetime) -> FlowReport:
    """``report`` as it is kept: if its clock was days ahead, it ended when it was received."""
    times = [report.finished_at, *(task.started_at for task in report.tasks if task.started_at)]
    if not clock.is_ahead(max(times), now):
        return report
    ended = report.finished_at
    wrong = ended - now if clock.is_ahead(ended, now) else datetime.timedelta()

    def right(moment: datetime.datetime) -> datetime.datetime:
        return max(min(moment - wrong, now), now - _LONGEST)

    return dataclasses.replace(
        report,
        started_at=right(report.started_at),
        finished_at=now,
        tasks=tuple(
            dataclasses.replace(task, started_at=task.started_at and right(task.started_at))
            for task in report.tasks
        ),
    )


def known(session: Session, report_ids: Collection[str]) -> set[str]:
    """Those of ``report_ids`` that are in the history."""
    return set(session.connection().scalars(_KNOWN, {"ids": list(report_ids)}))


def reported_by(session: Session, host: str, port_ids: Collection[str]) -> set[str]:
    """Those of ``port_ids`` of which the history has an attempt on ``host``: they were bound to
    it, or on their way to it."""
    if not port_ids:
        return set()
    port_id = _ATTEMPTS.resource_id
    query = sa.select(port_id).where(port_id.in_(port_ids), _ATTEMPTS.host == host).distinct()
    return set(session.scalars(query))


def add(session: Session, reports: Sequence[FlowReport], now: datetime.datetime) -> None:
    """Store attempts with their tasks, in two statements however many they are.

    Their ordinals begin at ``now``, or above all there are if a clock was ahead.
    Two workers may choose the same ones: the insert then fails as a duplicate and
    the transaction runs again, later.
    """
    if not reports:
        return
    connection = session.connection()
    newest = connection.scalar(_NEWEST) or 0
    first = max(newest, int(now.timestamp() * 1_000_000) * _PER_MICROSECOND) + 1
    attempts = list(enumerate(reports, first))
    records.insert(connection, table_of(Attempt), [_attempt(*attempt) for attempt in attempts])
    records.insert(
        connection,
        table_of(Task),
        [
            _task(ordinal, position, task)
            for ordinal, report in attempts
            for position, task in enumerate(report.tasks)
        ],
    )


def _attempt(ordinal: int, report: FlowReport) -> dict[str, Any]:
    return {
        "ordinal": ordinal,
        "id": report.id,
        "resource_type": report.resource_type.value,
        "resource_id": report.resource_id,
        "host": report.host,
        "flow": report.flow.value,
        "attempt": report.attempt,
        "revision": report.revision,
        "sequence": report.sequence,
        "failed": report.failed is not None,
        "started_at": report.started_at,
        "finished_at": report.finished_at,
    }


def _task(ordinal: int, position: int, task: TaskOutcome) -> dict[str, Any]:
    error = task.error
    return {
        "ordinal": ordinal,
        "position": position,
        "name": task.name,
        "step": task.step.value,
        "task_state": task.state.value,
        "started_at": task.started_at,
        "duration": task.duration,
        "error_type": error.type if error else None,
        "error_message": _storable(error.message) if error else None,
        "error_detail": _storable(error.detail) if error else None,
    }


def _storable(text: str) -> str:
    """PostgreSQL's text holds no NUL, and no encoding a lone surrogate."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")


def purgeable(
    session: Session, after: str, resources: int, attempts: int, failures: int
) -> tuple[list[int], str]:
    """Ordinals that may go, among the next ``resources`` ports and groups after the id ``after``.

    Each port, and each security group on each host, keeps its last ``attempts`` attempts and its
    last ``failures`` failed ones. Answers the id to go on from, "" when the round is complete.
    """
    ids = session.scalars(
        sa.select(Attempt.resource_id)
        .where(Attempt.resource_id > after)
        .distinct()
        .order_by(Attempt.resource_id)
        .limit(resources)
    ).all()
    newest = Attempt.ordinal.desc()
    of_group = Attempt.resource_type == ResourceType.SECURITY_GROUP.value
    of_one = Attempt.resource_id, sa.case((of_group, Attempt.host), else_="")
    ranked = (
        sa.select(
            Attempt.ordinal,
            Attempt.failed,
            sa.func.row_number().over(partition_by=of_one, order_by=newest).label("n"),
            sa.func.row_number()
            .over(partition_by=(*of_one, Attempt.failed), order_by=newest)
            .label("same"),
        )
        .where(Attempt.resource_id.in_(ids))
        .subquery()
    )
    old = sa.select(ranked.c.ordinal).where(
        ranked.c.n > attempts, sa.not_(ranked.c.failed) | (ranked.c.same > failures)
    )
    return list(session.scalars(old)), ids[-1] if len(ids) == resources else ""


def of_deleted_ports(session: Session, before: datetime.datetime, limit: int) -> list[int]:
    """At most ``limit`` ordinals of attempts for ports deleted before ``before``."""
    query = (
        sa.select(Attempt.ordinal)
        .join(DeletedPort, DeletedPort.id == Attempt.resource_id)
        .where(DeletedPort.deleted_at < before)
        .limit(limit)
    )
    return list(session.scalars(query))


def remove(session: Session, ordinals: Sequence[int]) -> None:
    """Remove attempts and, by the foreign key, their tasks."""
    session.execute(
        sa.delete(Attempt)
        .where(Attempt.ordinal.in_(ordinals))
        .execution_options(synchronize_session=False)
    )


def forget_deleted(session: Session, before: datetime.datetime) -> None:
    """Remove the traces of ports deleted before ``before`` that have no history left."""
    left = sa.exists().where(Attempt.resource_id == DeletedPort.id)
    session.execute(
        sa.delete(DeletedPort)
        .where(DeletedPort.deleted_at < before, ~left)
        .execution_options(synchronize_session=False)
    )
