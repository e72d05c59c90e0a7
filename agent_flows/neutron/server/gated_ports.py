"""Changes of our rows in Neutron's own transactions, with their session.

Values that reports write (``sync_state``, ``status``) are compared by the
database: under MariaDB's REPEATABLE READ a transaction may have begun to read
before a report wrote them.
"""

import datetime
from typing import Any

import sqlalchemy as sa
from neutron.db import models_v2
from neutron.db.models import securitygroup
from sqlalchemy import orm
from sqlalchemy.orm import Session

from agent_flows.neutron.server.block_policy import PortFacts, desired_revision, is_gated
from agent_flows.neutron.server.models import GatedPort
from agent_flows.report import PortStatus, SyncState
from agent_flows.server.core import clock
from agent_flows.server.core.models import DeletedPort, UtcDateTime

_Row = GatedPort


IS_UP = sa.and_(
    _Row.admin_state_up.is_(True),
    _Row.sync_state != SyncState.ABSENT.value,
    sa.or_(_Row.fell_at.is_(None), _Row.sequence > _Row.fell_at),
)
"""Whether a port without any block is wired as far as Neutron's own agent can see: a column.

After Neutron took it DOWN, that its agent reported it up again cannot be seen while our block is
there, so only a report of ours counts then.
"""


def host_of(session: Session, port_id: str) -> str | None:
    """The host our row for the port names, None without a row."""
    found: str | None = session.scalar(sa.select(_Row.host).where(_Row.port_id == port_id))
    return found


def take(
    session: Session, port_id: str, before: PortFacts, after: PortFacts, now: datetime.datetime
) -> None:
    """Insert the port's row: SYNCING, since not even its absence from the host is reported yet."""
    values = {
        "port_id": port_id,
        "host": after.host,
        "gated": is_gated(after.wiring.device_owner),
        "revision": desired_revision(before),
        "admin_state_up": after.wiring.admin_state_up,
        "status": PortStatus.DOWN.value,
        "unsettled": True,
        "sync_state": SyncState.SYNCING.value,
        "sequence": 0,
        "proven_revision": None,
        "sync_since": now,
        "updated_at": now,
        "ungated": False,
        "fell_at": None,
    }
    session.execute(sa.insert(_Row).values(values))
    _show(session, port_id, _Row(**values))


def drop(session: Session, port_id: str) -> None:
    session.execute(
        sa.delete(_Row).where(_Row.port_id == port_id).execution_options(synchronize_session=False)
    )
    _show(session, port_id, None)


def _show(session: Session, port_id: str, row: GatedPort | None) -> None:
    """Neutron answers a change with the port in its session: give that one the current row."""
    port = session.identity_map.get(orm.util.identity_key(models_v2.Port, port_id))
    if port is not None:
        orm.attributes.set_committed_value(port, "agent_flows", row)


def deleted(session: Session, port_id: str, revision: int, now: datetime.datetime) -> None:
    """Delete the row; the history is kept for ``history_after_delete``."""
    drop(session, port_id)
    session.execute(
        sa.insert(DeletedPort).values(id=port_id, revision_number=revision, deleted_at=now)
    )


def revise(
    session: Session, port_id: str, before: PortFacts, after: PortFacts, now: datetime.datetime
) -> None:
    """The desired state is newer than any report."""
    _syncing(
        session,
        _Row.port_id == port_id,
        now,
        revision=desired_revision(before),
        admin_state_up=after.wiring.admin_state_up,
        gated=is_gated(after.wiring.device_owner),
    )


def fall(session: Session, port_id: str, now: datetime.datetime) -> None:
    """The port went from ACTIVE to DOWN: what was proven of it holds no longer.

    If that was our own doing after a failed report, the row is DOWN already and stays.
    """
    _syncing(
        session,
        sa.and_(_Row.port_id == port_id, _Row.status == PortStatus.ACTIVE.value),
        now,
        status=PortStatus.DOWN.value,
        unsettled=True,
        proven_revision=None,
        fell_at=_Row.sequence,
    )


def ungate(session: Session, port_id: str) -> None:
    """The port has no block of ours: gating is off."""
    session.execute(
        sa.update(_Row)
        .where(_Row.port_id == port_id)
        .values(ungated=True)
        .execution_options(synchronize_session=False)
    )


def rise(session: Session, port_id: str, now: datetime.datetime) -> None:
    """The port became ACTIVE without a proof, if it needed none: from now on that is the verdict,
    so that it is not taken DOWN when gating is on again."""
    session.execute(
        sa.update(_Row)
        .where(
            _Row.port_id == port_id,
            _Row.ungated.is_(True),
            _Row.status == PortStatus.DOWN.value,
        )
        .values(status=PortStatus.ACTIVE.value, unsettled=False, updated_at=now)
        .execution_options(synchronize_session=False)
    )


def rules_flushed(session: Session, flush_context: object) -> None:
    """Called at each flush of Neutron's sessions: ports whose groups' rules changed are SYNCING.

    Their switches hold old rules from the commit on. Here that is recorded in
    the same transaction and retried with it; a deadlock in a callback of
    Neutron's registry would become a conflict for the user.
    """
    rule = securitygroup.SecurityGroupRule
    changed = (*session.new, *session.deleted)
    written = (row for row in changed if isinstance(row, rule))
    groups = {row.security_group_id for row in written}
    if not groups:
        return
    binding = securitygroup.SecurityGroupPortBinding
    query = sa.select(binding.port_id).where(binding.security_group_id.in_(groups))
    # In the order in which reports lock them, against deadlocks.
    ports = sorted(set(session.scalars(query)))
    if ports:
        _syncing(session, _Row.port_id.in_(ports), clock.now())


def _syncing(
    session: Session, condition: sa.ColumnElement[bool], now: datetime.datetime, **values: Any
) -> None:
    """Write ``values``; a port with an interface waits for a report from ``now`` on."""
    absent = _Row.sync_state == SyncState.ABSENT.value
    session.execute(
        sa.update(_Row)
        .where(condition)
        .values(
            sync_state=sa.case((absent, SyncState.ABSENT.value), else_=SyncState.SYNCING.value),
            sync_since=sa.case(
                (absent, _Row.sync_since), else_=sa.bindparam("now", now, UtcDateTime())
            ),
            updated_at=now,
            **values,
        )
        .execution_options(synchronize_session=False)
    )
