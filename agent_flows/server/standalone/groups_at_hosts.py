"""Security groups as hosts have realised them, and what follows for each port.

A port whose own last report proved it (IN_SYNC in its row) claims that only as
long as its host has realised the current revision of each of its groups. That is decided when
the port is read: a change of a group writes a row for each host, none for a port.

What a host has realised for a port is what was reported last of both: the port, which names the
revisions of its groups, or the group.
"""

import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import SyncState
from agent_flows.server.standalone import models

_Port, _Group = models.Port, models.SecurityGroup
_Membership, _AtHost = models.Membership, models.SecurityGroupHost

_reported = _AtHost.sequence > _Port.sequence
_realised = sa.case(
    (_reported, _AtHost.revision), else_=sa.func.coalesce(_Membership.proven_revision, 0)
)
_behind = sa.and_(_AtHost.behind_since.is_not(None), _Group.revision > _realised)
_failed = sa.and_(_AtHost.failed, _reported)


def _depends(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether the condition is met by one of the groups that the port of the query depends on."""
    return sa.and_(
        _Port.sync_state == SyncState.IN_SYNC.value,
        _Port.port_security_enabled,
        sa.exists()
        .where(
            _Membership.port_id == _Port.id,
            _Group.id == _Membership.security_group_id,
            _AtHost.security_group_id == _Membership.security_group_id,
            _AtHost.host == _Port.host,
            condition,
        )
        .correlate(_Port),
    )


IS_BEHIND = _depends(_behind)
"""Whether a port was proven at an older revision of a group; for a query of ports."""

HAS_FAILED = _depends(_failed)
"""Whether a group of the port failed on its host after the port was proven."""

SYNC_STATE: sa.ColumnElement[str] = sa.case(
    (HAS_FAILED, SyncState.OUT_OF_SYNC.value),
    (IS_BEHIND, SyncState.SYNCING.value),
    else_=_Port.sync_state,
)
"""The sync_state of a port as it is shown; for a query of ports."""


def sync_states(session: Session, port_ids: Collection[str]) -> Mapping[str, str]:
    """The sync_state of each of these ports, as it is shown."""
    query = sa.select(_Port.id, SYNC_STATE.label("state")).where(_Port.id.in_(list(port_ids)))
    return {row.id: row.state for row in session.execute(query)} if port_ids else {}


def note(session: Session, host: str, groups: Collection[str]) -> None:
    """Ports on ``host`` depend on these locked groups from now on."""
    if not groups:
        return
    at_host = _AtHost.security_group_id
    known = set(
        session.scalars(
            sa.select(at_host)
            .where(_AtHost.host == host, at_host.in_(list(groups)))
            .order_by(at_host)
            .with_for_update()
        )
    )
    new = [
        {"security_group_id": group, "host": host, "revision": 0, "sequence": 0, "failed": False}
        for group in groups
        if group not in known
    ]
    if new:
        session.execute(sa.insert(_AtHost), new)


def forget(session: Session, host: str, groups: Collection[str]) -> None:
    """A port on ``host`` does not depend on these groups any more; perhaps no other one does."""
    # By the host's ports, for a group may have thousands of members.
    depends = (
        sa.exists()
        .where(_Membership.port_id == _Port.id)
        .where(_Membership.security_group_id == _AtHost.security_group_id)
        .correlate(_Port, _AtHost)
    )
    others = sa.exists().where(_Port.host == host, _Port.port_security_enabled, depends)
    session.execute(
        sa.delete(_AtHost)
        .where(_AtHost.host == host, _AtHost.security_group_id.in_(list(groups)))
        .where(~others.correlate(_AtHost))
        .execution_options(synchronize_session=False)
    )


def prove(
    session: Session, ports: Iterable[tuple[str, str, Mapping[str, int]]], now: datetime.datetime
) -> None:
    """Ports, each with its host, were proven at these revisions of their groups.

    A host that is behind has made progress: its time starts again.
    """
    proven: dict[tuple[str, str, int], list[str]] = {}
    for port_id, host, revisions in ports:
        for group, revision in revisions.items():
            proven.setdefault((host, group, revision), []).append(port_id)
    for (host, group, revision), port_ids in sorted(proven.items()):
        session.execute(
            sa.update(_Membership)
            .where(_Membership.security_group_id == group, _Membership.port_id.in_(port_ids))
            .values(proven_revision=revision)
            .execution_options(synchronize_session=False)
        )
        newest = sa.select(_Group.revision).where(_Group.id == group).scalar_subquery()
        session.execute(
            sa.update(_AtHost)
            .where(
                _AtHost.security_group_id == group,
                _AtHost.host == host,
                sa.or_(_AtHost.behind_since.is_not(None), newest > revision),
            )
            .values(behind_since=now)
            .execution_options(synchronize_session=False)
        )


def overdue(
    session: Session, before: datetime.datetime, ahead: datetime.datetime, limit: int
) -> dict[str, datetime.datetime]:
    """At most ``limit`` ports that are behind, and since when, on hosts that made no progress
    since ``before``; or since after ``ahead``, a time in the future: the clock was set back.

    A host that is found not to be behind any more is noted as such.
    """
    since = _AtHost.behind_since
    late = session.scalars(
        sa.select(_AtHost)
        .where(sa.or_(since < before, since > ahead))
        .order_by(_AtHost.host, _AtHost.security_group_id)
        .limit(limit)
        .with_for_update()
    ).all()
    found: dict[str, datetime.datetime] = {}
    for row in late:
        behind = _ports_behind(session, row, limit - len(found))
        found |= dict.fromkeys(behind, row.behind_since or before)
        if len(found) >= limit:
            break
        if not behind:
            row.behind_since = None
    return found


def _ports_behind(session: Session, row: models.SecurityGroupHost, limit: int) -> Sequence[str]:
    query = sa.select(_Port.id).where(_Port.host == row.host, IS_BEHIND)
    inside = sa.select(_Membership.port_id).where(
        _Membership.security_group_id == row.security_group_id
    )
    return session.scalars(query.where(_Port.id.in_(inside)).limit(limit)).all()
