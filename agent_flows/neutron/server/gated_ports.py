"""What Neutron's transactions do to our rows: called inside them, with their session.

Values that reports write meanwhile (``sync_state``, ``status``) are compared
by the database, not here: under MariaDB's REPEATABLE READ a transaction may
have begun to read before they were written.
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


def host_of(session: Session, port_id: str) -> str | None:
    """The host our row for the port names, None without a row."""
    found: str | None = session.scalar(sa.select(_Row.host).where(_Row.port_id == port_id))
    return found


def take(
    session: Session, port_id: str, before: PortFacts, after: PortFacts, now: datetime.datetime
) -> None:
    """A port that was not looked after is, from now on: nothing is known of it yet, not even
    that it is not plugged in, so its agent's report is waited for."""
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
        "syncing_since": now,
        "updated_at": now,
    }
    session.execute(sa.insert(_Row).values(values))
    _show(session, port_id, _Row(**values))


def drop(session: Session, port_id: str) -> None:
    session.execute(
        sa.delete(_Row).where(_Row.port_id == port_id).execution_options(synchronize_session=False)
    )
    _show(session, port_id, None)


def _show(session: Session, port_id: str, row: GatedPort | None) -> None:
    """Neutron shows the port it has at hand to whoever changed it: with the row of now."""
    port = session.identity_map.get(orm.util.identity_key(models_v2.Port, port_id))
    if port is not None:
        orm.attributes.set_committed_value(port, "agent_flows", row)


def deleted(session: Session, port_id: str, revision: int, now: datetime.datetime) -> None:
    """The port goes; its history is kept for a while (``history_after_delete``)."""
    drop(session, port_id)
    session.execute(
        sa.insert(DeletedPort).values(id=port_id, revision_number=revision, deleted_at=now)
    )


def revise(
    session: Session, port_id: str, before: PortFacts, after: PortFacts, now: datetime.datetime
) -> None:
    """Desired state is newer than any report."""
    _syncing(
        session,
        _Row.port_id == port_id,
        now,
        revision=desired_revision(before),
        admin_state_up=after.wiring.admin_state_up,
        gated=is_gated(after.wiring.device_owner),
    )


def fall(session: Session, port_id: str, now: datetime.datetime) -> None:
    """Somebody took the port from ACTIVE: what was proven of it holds no longer.

    When it was us, upon a report that failed, the row says DOWN already and
    stays: the report said what holds.
    """
    _syncing(
        session,
        sa.and_(_Row.port_id == port_id, _Row.status == PortStatus.ACTIVE.value),
        now,
        status=PortStatus.DOWN.value,
        unsettled=True,
        proven_revision=None,
    )


def rules_flushed(session: Session, flush_context: object) -> None:
    """Listens to what Neutron's sessions write: rules that come or go, whoever asked.

    The switches of these groups' ports hold old ones from the commit on. Where
    rules are written is where that can be noted in the same transaction and an
    error is retried with it: a callback of Neutron's registry that meets a
    deadlock becomes a conflict for the user.
    """
    rule = securitygroup.SecurityGroupRule
    written = (each for each in (*session.new, *session.deleted) if isinstance(each, rule))
    groups = {each.security_group_id for each in written}
    if not groups:
        return
    binding = securitygroup.SecurityGroupPortBinding
    query = sa.select(binding.port_id).where(binding.security_group_id.in_(groups))
    # In the order in which reports lock them, so that neither waits for the other.
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
            syncing_since=sa.case((absent, None), else_=sa.bindparam("now", now, UtcDateTime())),
            updated_at=now,
            **values,
        )
        .execution_options(synchronize_session=False)
    )
