"""What ports show: decided when they are read, from what they and their hosts have reported.

A port whose own last report proved it (IN_SYNC in its row) claims that only as long as its host has
realised the current revision of each of its groups. What a host has realised for a port is what was
reported last of both: the port, which names the revisions of its groups, or the group
(:mod:`.groups_at_hosts`). So a change of a group writes a row for each host, and none of a port.
"""

import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import ResourceType, SyncState
from agent_flows.server.core.models import Attempt
from agent_flows.server.standalone import models

_Port, _Group = models.Port, models.SecurityGroup
_Membership, _AtHost = models.Membership, models.SecurityGroupHost

# For a query of ports, their memberships, the groups, and these at the ports' hosts.
REPORTED = _AtHost.sequence > _Port.sequence
"""Whether the host reported the group after the port."""
_revision = sa.case(
    (REPORTED, _AtHost.revision), else_=sa.func.coalesce(_Membership.proven_revision, 0)
)
REALISED: sa.ColumnElement[int] = sa.func.nullif(_revision, 0)
"""The revision of a group that a port has, NULL for none."""
BEHIND = sa.and_(_AtHost.behind_since.is_not(None), _Group.revision > _revision)
"""Whether an older revision of the group was proven than the current one."""
FAILED = sa.and_(_AtHost.failed, REPORTED)
"""Whether the group failed after the port was proven."""


def of_proven_ports(*columns: Any) -> sa.Select[Any]:
    """A query of the groups that each proven port depends on, with each group on its host."""
    return (
        sa.select(*columns)
        .join_from(_Port, _Membership, _Membership.port_id == _Port.id)
        .join(_Group, _Group.id == _Membership.security_group_id)
        .join(
            _AtHost,
            sa.and_(
                _AtHost.security_group_id == _Membership.security_group_id,
                _AtHost.host == _Port.host,
            ),
        )
        .where(_Port.sync_state == SyncState.IN_SYNC.value, _Port.port_security_enabled)
    )


def _of_its_groups(condition: sa.ColumnElement[bool]) -> Sequence[sa.ColumnElement[bool]]:
    """The groups that the port of the query depends on, on its host, which meet the condition."""
    return (
        _Membership.port_id == _Port.id,
        _Group.id == _Membership.security_group_id,
        _AtHost.security_group_id == _Membership.security_group_id,
        _AtHost.host == _Port.host,
        condition,
    )


def _depends(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether the condition is met by one of the groups that the port of the query depends on."""
    return sa.and_(
        _Port.sync_state == SyncState.IN_SYNC.value,
        _Port.port_security_enabled,
        sa.exists().where(*_of_its_groups(condition)).correlate(_Port),
    )


IS_BEHIND = _depends(BEHIND)
"""Whether a port was proven at an older revision of a group; for a query of ports."""

HAS_FAILED = _depends(FAILED)
"""Whether a group of the port failed on its host after the port was proven."""

LACKS_RULES = _depends(
    sa.or_(FAILED, _Group.rules_revision > _revision),
)
"""Whether a port has older rules of a group than the newest, or a group of it failed."""


def shown_state(
    failed: sa.ColumnElement[bool], behind: sa.ColumnElement[bool]
) -> sa.ColumnElement[str]:
    """The sync_state of a port of which a group failed, or is behind, on its host."""
    return sa.case(
        (failed, SyncState.OUT_OF_SYNC.value),
        (behind, SyncState.SYNCING.value),
        else_=_Port.sync_state,
    )


SYNC_STATE: sa.ColumnElement[str] = shown_state(HAS_FAILED, IS_BEHIND)
"""The sync_state of a port as it is shown; for a query of few ports: it looks for the groups of
each. For many there are :data:`SHOWN` and :func:`shows`."""


def _changed_by_groups() -> sa.Select[str, str]:
    """The ports that show another ``state`` than their own row has.

    Driven by the groups that failed or are behind on a host, which are few: to look for the groups
    of each of 10,000 ports takes PostgreSQL 150 ms.
    """
    failed = sa.func.max(sa.case((FAILED, 1), else_=0)) == 1
    return (
        of_proven_ports(
            _Port.id,
            sa.case((failed, SyncState.OUT_OF_SYNC.value), else_=SyncState.SYNCING.value).label(
                "state"
            ),
        )
        .where(
            sa.or_(_AtHost.failed, _AtHost.behind_since.is_not(None)),
            sa.or_(FAILED, BEHIND),
        )
        .group_by(_Port.id)
        # It is a part of queries of ports.
        .correlate(None)
    )


_changed = _changed_by_groups().subquery("changed_by_groups")
_of_groups = frozenset({SyncState.OUT_OF_SYNC.value, SyncState.SYNCING.value})

SHOWN = (
    sa.select(
        _Port.host,
        _Port.status,
        sa.func.coalesce(_changed.c.state, _Port.sync_state).label("state"),
    )
    .outerjoin_from(_Port, _changed, _changed.c.id == _Port.id)
    .subquery("shown_ports")
)
"""All ports with ``host``, ``status`` and the sync_state that they show, ``state``."""


def shows(state: str) -> sa.ColumnElement[bool]:
    """Whether a port shows this sync_state; for a query of ports."""
    own = _Port.sync_state == state
    changed = sa.select(_changed.c.id).correlate(None)
    if state == SyncState.IN_SYNC.value:
        return sa.and_(own, _Port.id.not_in(changed))
    if state in _of_groups:
        return sa.or_(own, _Port.id.in_(changed.where(_changed.c.state == state)))
    return own


def later(
    one: sa.ColumnElement[Any], other: sa.ColumnElement[Any]
) -> sa.ColumnElement[datetime.datetime]:
    """The later of two times, of which ``one`` may be NULL."""
    return sa.case((one > other, one), else_=other)


def _time_of_groups(
    time: sa.ColumnElement[Any], condition: sa.ColumnElement[bool]
) -> sa.ColumnElement[datetime.datetime]:
    query = sa.select(time).where(*_of_its_groups(condition))
    return query.correlate(_Port).scalar_subquery()


OWN_SINCE = sa.func.coalesce(_Port.sync_since, _Port.updated_at)
"""Since when a port has the sync_state in its row."""

_OUTCOME, _BEHIND = _AtHost.outcome_since, _AtHost.behind_since

SYNC_SINCE: sa.ColumnElement[datetime.datetime] = sa.case(
    (_Port.sync_state != SyncState.IN_SYNC.value, OWN_SINCE),
    (sa.not_(_Port.port_security_enabled), OWN_SINCE),
    (HAS_FAILED, later(_time_of_groups(sa.func.min(_OUTCOME), FAILED), OWN_SINCE)),
    (IS_BEHIND, _time_of_groups(sa.func.min(_BEHIND), BEHIND)),
    else_=later(_time_of_groups(sa.func.max(_OUTCOME), REPORTED), OWN_SINCE),
)
"""Since when a port has the sync_state that it shows; for a query of ports."""


def shown(
    session: Session, port_ids: Collection[str]
) -> Mapping[str, tuple[str, datetime.datetime]]:
    """The sync_state of each of these ports as it is shown, and since when."""
    if not port_ids:
        return {}
    query = sa.select(_Port.id, SYNC_STATE.label("state"), SYNC_SINCE.label("since"))
    rows = session.execute(query.where(_Port.id.in_(list(port_ids))))
    return {row.id: (row.state, row.since) for row in rows}


def tasks_of(port_id: str) -> sa.ColumnElement[bool]:
    """The attempts that are about the port: its own, and those of its groups on its host."""
    groups = sa.select(_Membership.security_group_id).where(_Membership.port_id == port_id)
    host = sa.select(_Port.host).where(_Port.id == port_id).scalar_subquery()
    of_groups = sa.and_(
        Attempt.resource_type == ResourceType.SECURITY_GROUP.value, Attempt.host == host
    )
    # One condition on the id, so that its index finds them; it depends on no row of the history.
    about = sa.union_all(sa.select(sa.literal(port_id)), groups)
    return sa.and_(
        Attempt.resource_id.in_(about), sa.or_(Attempt.resource_id == port_id, of_groups)
    )
