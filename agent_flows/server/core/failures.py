"""Why ports are out of sync now: the task that failed, in the attempt that shows it.

Which ports are out of sync, and by which attempt each, is the directory's; the rest is the same on
every server. History that was purged leaves a port without a reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.errors import ErrorType
from agent_flows.report import SyncState, TaskState
from agent_flows.server.core.models import Attempt, Task, table_of

OUT_OF_SYNC = frozenset({SyncState.OUT_OF_SYNC, SyncState.UNKNOWN})
"""The states of a port that have a reason."""

# Rows, not objects of the ORM: these take less time.
_attempts, _tasks = table_of(Attempt).c, table_of(Task).c


@dataclass(frozen=True)
class Failure:
    """The task that failed, and the type and message of its error."""

    task: str
    type: str
    message: str

    @property
    def shown(self) -> dict[str, str]:
        """``sync_reason`` of a port."""
        return {"type": self.type, "message": self.message}


def last_attempt(
    resource_id: sa.ColumnElement[str], host: sa.ColumnElement[Any]
) -> sa.ScalarSelect[int]:
    """The ordinal of the newest attempt for the resource on the host.

    Not of another host: during a live migration two hosts report the same port.
    """
    return (
        sa.select(_attempts.ordinal)
        .where(_attempts.resource_id == resource_id, _attempts.host == host)
        .order_by(_attempts.ordinal.desc())
        .limit(1)
        .scalar_subquery()
    )


def with_cause(affected: sa.Subquery, *columns: sa.ColumnElement[Any]) -> sa.Select[*tuple[Any]]:
    """``columns``, of ``affected`` and of the task that failed in the attempt with its ``ordinal``.

    The cause, not a revert that failed after it. NULL if there is none.
    """
    # Of the failed tasks only, by their index: a subquery that finds the position of the cause
    # would be asked for every task of every attempt.
    failed, other = table_of(Task), table_of(Task).alias("other")
    before = sa.exists().where(
        other.c.ordinal == _tasks.ordinal,
        other.c.task_state == TaskState.FAILED.value,
        sa.or_(
            _is_revert(other) < _is_revert(failed),
            sa.and_(_is_revert(other) == _is_revert(failed), other.c.position < _tasks.position),
        ),
    )
    return sa.select(*columns).select_from(
        affected.outerjoin(
            failed,
            sa.and_(
                _tasks.ordinal == affected.c.ordinal,
                _tasks.task_state == TaskState.FAILED.value,
                ~before.correlate(failed),
            ),
        )
    )


def _is_revert(task: sa.FromClause) -> sa.ColumnElement[int]:
    """1 for a revert that failed, else 0."""
    return sa.case((task.c.error_type == ErrorType.REVERT_FAILED.value, 1), else_=0)


def of_ports(session: Session, affected: sa.Subquery) -> Mapping[str, Failure]:
    """The open failure of each port of ``affected``, by ``port_id``; in one statement."""
    query = with_cause(
        affected, affected.c.port_id, _tasks.name, _tasks.error_type, _tasks.error_message
    )
    return {
        row.port_id: Failure(row.name, row.error_type or "", row.error_message or "")
        for row in session.execute(query)
        if row.name is not None
    }
