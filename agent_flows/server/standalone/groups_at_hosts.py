"""Security groups as hosts have realised them: a row for each host that has ports in a group.

What follows for the state that each port shows is :mod:`.port_state`.
"""

import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import PortStatus, Step, SyncState
from agent_flows.server.core.gate import GroupAtHost, Settings
from agent_flows.server.core.models import UtcDateTime, table_of
from agent_flows.server.standalone import models, port_state

_Port, _Group = models.Port, models.SecurityGroup
_Membership, _AtHost = models.Membership, models.SecurityGroupHost
# Rows, not objects of the ORM: these take less time.
_ports, _groups = table_of(_Port).c, table_of(_Group).c
_memberships, _at_host = table_of(_Membership).c, table_of(_AtHost).c

_HAS_FAILED = sa.bindparam("has_failed", type_=sa.Boolean())
# Made once: composing a statement takes as long as executing it, and each report needs these.
_LOCK = (
    sa.select(_at_host.security_group_id, _at_host.revision, _at_host.sequence, _at_host.failed)
    .where(
        _at_host.host == sa.bindparam("host"),
        _at_host.security_group_id.in_(sa.bindparam("groups", expanding=True)),
    )
    .order_by(_at_host.security_group_id)
    .with_for_update()
)
_REVISIONS = sa.select(_groups.id, _groups.revision).where(
    _groups.id.in_(sa.bindparam("groups", expanding=True))
)
_MOVE = (
    sa.update(table_of(_AtHost))
    .where(
        _at_host.security_group_id == sa.bindparam("its_group"),
        _at_host.host == sa.bindparam("its_host"),
    )
    .ordered_values(
        # First, for MariaDB compares with what the statement has written already.
        (
            _at_host.outcome_since,
            sa.case(
                (_at_host.failed != _HAS_FAILED, sa.bindparam("now", type_=UtcDateTime())),
                else_=_at_host.outcome_since,
            ),
        ),
        (_at_host.revision, sa.bindparam("revision")),
        (_at_host.sequence, sa.bindparam("sequence")),
        (_at_host.failed, _HAS_FAILED),
        (_at_host.behind_since, sa.bindparam("behind_since")),
    )
)


def _concerned(moved: sa.ColumnElement[bool]) -> sa.Select[str, int]:
    """The proven ports in a group on its host that were reported before it and are to be
    ``moved``; and those that were reported later and are behind.

    It locks none of them: most reports change no port.
    """
    sequence = sa.bindparam("sequence", type_=sa.BigInteger())
    reported_later = sa.and_(
        _ports.sequence >= sequence,
        sa.func.coalesce(_memberships.proven_revision, 0)
        < sa.bindparam("revision", type_=sa.BigInteger()),
    )
    return (
        sa.select(_ports.id, _ports.sequence)
        .join_from(table_of(_Port), table_of(_Membership), _memberships.port_id == _ports.id)
        .where(
            _ports.host == sa.bindparam("host"),
            _memberships.security_group_id == sa.bindparam("group"),
            _ports.sync_state == SyncState.IN_SYNC.value,
            _ports.port_security_enabled.is_(True),
            sa.or_(reported_later, sa.and_(_ports.sequence < sequence, moved)),
        )
        .order_by(_ports.id)
    )


# By the status that follows for the ports.
_CONCERNED: Mapping[PortStatus | None, sa.Select[str, int]] = {
    PortStatus.ACTIVE: _concerned(
        sa.and_(_ports.status == PortStatus.DOWN.value, _ports.admin_state_up.is_(True))
    ),
    PortStatus.DOWN: _concerned(_ports.status == PortStatus.ACTIVE.value),
    None: _concerned(sa.false()),
}


def note(session: Session, depending: Collection[tuple[str, str]]) -> None:
    """Of each pair, ports on the host depend on the locked group from now on."""
    if not depending:
        return
    table, connection = table_of(_AtHost), session.connection()
    hosts, groups = ({pair[place] for pair in depending} for place in (0, 1))
    rows = connection.execute(
        sa.select(table.c.host, table.c.security_group_id)
        .where(table.c.host.in_(list(hosts)), table.c.security_group_id.in_(list(groups)))
        .order_by(table.c.host, table.c.security_group_id)
        .with_for_update()
    )
    known = {(host, group) for host, group in rows}
    new = [
        {"security_group_id": group, "host": host, "revision": 0, "sequence": 0, "failed": False}
        for host, group in sorted(depending)
        if (host, group) not in known
    ]
    if new:
        connection.execute(sa.insert(table), new)


def forget(session: Session, left: Collection[tuple[str, str]]) -> None:
    """Of each pair, a port on the host does not depend on the group any more; perhaps no other
    one does."""
    by_host: dict[str, set[str]] = {}
    for host, group in left:
        by_host.setdefault(host, set()).add(group)
    for host, groups in sorted(by_host.items()):
        _forget_unused(session, host, groups)


def _forget_unused(session: Session, host: str, groups: Collection[str]) -> None:
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


def lock(session: Session, groups: Collection[str], host: str) -> dict[str, GroupAtHost]:
    """See :meth:`agent_flows.server.core.directory.PortDirectory.lock_groups`."""
    connection, ids = session.connection(), list(groups)
    rows = connection.execute(_LOCK, {"host": host, "groups": ids}).all()
    # After the lock: a change of the group waits for it, and then notes that the host is behind.
    revisions = connection.execute(_REVISIONS, {"groups": ids})
    newest = {row.id: row.revision for row in revisions}
    return {
        row.security_group_id: GroupAtHost(
            row.security_group_id,
            host,
            newest[row.security_group_id],
            row.revision,
            row.sequence,
            row.failed,
        )
        for row in rows
    }


def move(session: Session, group: GroupAtHost, settings: Settings, now: datetime.datetime) -> None:
    """What a host reported of a locked group, and the status of its ports that follows.

    Their rows change only if the group failed, or if they have waited for it to become ACTIVE.
    """
    connection = session.connection()
    status = _status_that_follows(group, settings)
    concerned = connection.execute(
        _CONCERNED[status],
        {
            "host": group.host,
            "group": group.security_group,
            "sequence": group.sequence,
            "revision": group.revision,
        },
    ).all()
    about = [port.id for port in concerned if port.sequence < group.sequence]
    # Ports that were reported after the group may still be behind.
    behind = group.realised < group.revision or len(about) < len(concerned)
    connection.execute(
        _MOVE,
        {
            "its_group": group.security_group,
            "its_host": group.host,
            "now": now,
            "revision": group.realised,
            "sequence": group.sequence,
            "has_failed": group.failed,
            "behind_since": now if behind else None,
        },
    )
    if about and status is not None:
        change = sa.update(_Port).where(
            _Port.id.in_(about),
            _Port.host == group.host,
            _Port.sync_state == SyncState.IN_SYNC.value,
            _Port.sequence < group.sequence,
        )
        if status is PortStatus.ACTIVE:
            change = change.where(~port_state.LACKS_RULES)
        session.execute(
            change.values(status=status.value, updated_at=now).execution_options(
                synchronize_session=False
            )
        )


def _status_that_follows(group: GroupAtHost, settings: Settings) -> PortStatus | None:
    """The status of the group's ports on its host, if it follows from what was reported last."""
    if not group.failed:
        return PortStatus.ACTIVE
    required = Step.SECURITY_GROUPS in settings.required_steps
    return PortStatus.DOWN if required and not settings.keep_active_on_refresh_failure else None


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
        behind = _ports_behind(session, row.security_group_id, row.host, limit - len(found))
        found |= dict.fromkeys(behind, row.behind_since or before)
        if len(found) >= limit:
            break
        if not behind:
            row.behind_since = None
    return found


def _ports_behind(session: Session, group: str, host: str, limit: int) -> Sequence[str]:
    """Ports of a host that is noted as behind with this group."""
    query = sa.select(_Port.id).where(_Port.host == host, port_state.IS_BEHIND)
    inside = sa.exists().where(
        _Membership.port_id == _Port.id, _Membership.security_group_id == group
    )
    return session.scalars(query.where(inside.correlate(_Port)).limit(limit)).all()
