"""What a change of one object means for the ports that depend on it.

A port depends on the rules of its security groups and on the members and
addresses of the groups these rules refer to. When any of it changes, the
revision of the port's security group rises, and a report must name that
revision to prove the port.
"""

import datetime
from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import SyncState
from agent_flows.server.core import silence, unknown
from agent_flows.server.core.casts import Casts, to_hosts
from agent_flows.server.core.directory import CLAIMED
from agent_flows.server.standalone import models
from agent_flows.server.standalone.directory import OwnDirectory

# Ports with a report: their switch holds what was right until now.
REPORTED = (SyncState.IN_SYNC, SyncState.OUT_OF_SYNC, SyncState.UNKNOWN)

MEMBER_CHANGES_KEPT = 1000
"""An agent that lacks more than so many changes of a group's members reads all of them."""

Contribution = dict[str, frozenset[tuple[str, str]]]


def contribution(port: models.Port) -> Contribution:
    """What ``port`` adds to the members of each of its groups: addresses with their MAC."""
    addresses = {(address, port.mac_address) for address in port.addresses}
    addresses |= {
        (pair["ip_address"], pair["mac_address"] or port.mac_address)
        for pair in port.allowed_address_pairs
    }
    return dict.fromkeys(port.security_groups, frozenset(addresses)) if addresses else {}


def members_changed(
    session: Session,
    port_id: str,
    before: Contribution,
    after: Contribution,
    now: datetime.datetime,
) -> Casts:
    """The port's part in its groups went from ``before`` to ``after``."""
    changed = {group for group in {*before, *after} if before.get(group) != after.get(group)}
    if not changed:
        return Casts()
    _note_member(session, port_id, changed)
    return _content_changed(session, changed, models.SecurityGroupRule.remote_group_id, now)


def _note_member(session: Session, port_id: str, groups: Collection[str]) -> None:
    """The newest of what agents may ask for: who changed since the members they have."""
    group, change = models.SecurityGroup, models.MemberChange
    session.execute(
        sa.update(group)
        .where(group.id.in_(list(groups)))
        .values(members_revision=group.members_revision + 1)
        .execution_options(synchronize_session=False)
    )
    newest = sa.select(group.id, group.members_revision).where(group.id.in_(list(groups)))
    rows = session.execute(newest.order_by(group.id)).all()
    session.execute(
        sa.insert(change),
        [
            {"security_group_id": row.id, "revision": row.members_revision, "port_id": port_id}
            for row in rows
        ],
    )
    for row in rows:
        session.execute(
            sa.delete(change)
            .where(
                change.security_group_id == row.id,
                change.revision <= row.members_revision - MEMBER_CHANGES_KEPT,
            )
            .execution_options(synchronize_session=False)
        )


def addresses_changed(session: Session, address_group: str, now: datetime.datetime) -> Casts:
    """The addresses of an address group changed."""
    column = models.SecurityGroupRule.remote_address_group_id
    return _content_changed(session, {address_group}, column, now)


def rules_changed(session: Session, group_id: str, now: datetime.datetime) -> Casts:
    """The rules of a security group changed."""
    casts = _revise(session, {group_id}, {group_id}, now)
    group = models.SecurityGroup
    session.execute(
        sa.update(group)
        .where(group.id == group_id)
        .values(rules_revision=group.revision)
        .execution_options(synchronize_session=False)
    )
    return casts


def _content_changed(
    session: Session,
    changed: Collection[str],
    column: sa.orm.InstrumentedAttribute[str | None],
    now: datetime.datetime,
) -> Casts:
    query = sa.select(models.SecurityGroupRule.security_group_id).where(column.in_(list(changed)))
    dependent = set(session.scalars(query.distinct()))
    return _revise(session, dependent, {*changed, *dependent}, now)


def _revise(
    session: Session, groups: Collection[str], changed: Collection[str], now: datetime.datetime
) -> Casts:
    """Raise the revision of ``groups``; the agents of their ports get the ids ``changed``.

    The hosts are behind from now on: no row of a port is read or written, for a group may have
    thousands. What a port claims follows from its host (:mod:`.groups_at_hosts`).
    """
    if not groups:
        return Casts()
    group, at_host = models.SecurityGroup, models.SecurityGroupHost
    lock_groups(session, groups)
    session.execute(
        sa.update(group)
        .where(group.id.in_(list(groups)))
        .values(revision=group.revision + 1)
        .execution_options(synchronize_session=False)
    )
    theirs = at_host.security_group_id.in_(list(groups))
    session.execute(
        sa.update(at_host)
        .where(theirs, at_host.behind_since.is_(None))
        .values(behind_since=now)
        .execution_options(synchronize_session=False)
    )
    # Agents of ABSENT ports too: if ABSENT was a mistake, no switch keeps a rule
    # that was revoked.
    hosts = session.scalars(sa.select(at_host.host).where(theirs).distinct())
    return Casts(groups=to_hosts(hosts, changed))


def lock_groups(session: Session, groups: Collection[str]) -> set[str]:
    """Those of ``groups`` that exist; locked, so that their revisions do not change."""
    group = models.SecurityGroup.id
    query = sa.select(group).where(group.in_(list(groups))).order_by(group).with_for_update()
    return set(session.scalars(query)) if groups else set()


def await_reports(session: Session, port_ids: Collection[str], now: datetime.datetime) -> None:
    """The desired state of these locked ports is newer than any report of them.

    They are SYNCING until one comes. On a host without a live agent they are
    UNKNOWN, with a task that has the reason. A port bound to no host stays as it is.
    """
    if not port_ids:
        return
    row = models.Port
    hosts = session.execute(
        sa.select(row.host).where(row.id.in_(list(port_ids)), row.host.is_not(None)).distinct()
    ).scalars()
    missing = silence.absence(session, [host for host in hosts if host])
    waiting = row.host.is_not(None), row.host.not_in(list(missing))
    session.execute(
        sa.update(row)
        .where(row.id.in_(list(port_ids)), *waiting)
        .values(sync_state=SyncState.SYNCING, syncing_since=now, updated_at=now)
        .execution_options(synchronize_session=False)
    )
    directory = OwnDirectory()
    for host, why in missing.items():
        locked = directory.lock(session, port_ids, host).values()
        theirs = (port for port in locked if port.host == host)
        claimed = [(port, why) for port in theirs if port.sync_state in CLAIMED]
        unknown.give_up(session, directory, claimed, now)
