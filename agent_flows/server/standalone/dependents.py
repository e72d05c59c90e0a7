"""What a change of one object means for the ports that depend on it.

A port depends on the rules of its security groups and on the members and
addresses of the groups these rules refer to. When any of it changes, the
revision of the port's security group rises, and a report must name that
revision to prove the port.
"""

import dataclasses
import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import SyncState
from agent_flows.rpc.desired import (
    AddressesChange,
    Entry,
    GroupChange,
    MembersChange,
    Update,
    change_of,
)
from agent_flows.server.core import silence, unknown
from agent_flows.server.core.casts import Casts, to_hosts
from agent_flows.server.core.directory import CLAIMED
from agent_flows.server.core.models import table_of
from agent_flows.server.standalone import models
from agent_flows.server.standalone.bounded_queries import in_chunks
from agent_flows.server.standalone.directory import OwnDirectory
from agent_flows.spec import SecurityGroupRule

# Ports with a report: their switch holds what was right until now.
REPORTED = (SyncState.IN_SYNC, SyncState.OUT_OF_SYNC, SyncState.UNKNOWN)

_GROUPS = table_of(models.SecurityGroup).c
_LOCK_GROUPS = (
    sa.select(_GROUPS.id, _GROUPS.stateful, _GROUPS.revision, _GROUPS.members_revision)
    .where(_GROUPS.id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(_GROUPS.id)
    .with_for_update()
)

_ADDRESS_GROUPS = table_of(models.AddressGroup).c
_LOCK_ADDRESS_GROUPS = (
    sa.select(_ADDRESS_GROUPS.id, _ADDRESS_GROUPS.revision, _ADDRESS_GROUPS.addresses)
    .where(_ADDRESS_GROUPS.id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(_ADDRESS_GROUPS.id)
    .with_for_update()
)
# Members, rules or addresses that change at once; of more, agents get only the ids of the groups.
_MOST_CARRIED = 100

Row = sa.Row[*tuple[Any, ...]]
Contribution = Mapping[str, frozenset[tuple[str, str]]]


def contribution(
    groups: Sequence[str],
    mac_address: str,
    addresses: Sequence[str],
    pairs: Sequence[Mapping[str, str | None]],
) -> Contribution:
    """What a port adds to the members of each of its groups: addresses with their MAC."""
    added = {(address, mac_address) for address in addresses}
    added |= {(str(pair["ip_address"]), pair["mac_address"] or mac_address) for pair in pairs}
    return dict.fromkeys(groups, frozenset(added)) if added else {}


def members_changed(
    session: Session, ports: Mapping[str, Contribution], now: datetime.datetime
) -> Casts:
    """Each of these ports adds this from now on to the members of these groups, to which it added
    something else before."""
    by_group: dict[str, dict[str, frozenset[tuple[str, str]]]] = {}
    for port_id, groups in ports.items():
        for group, added in groups.items():
            by_group.setdefault(group, {})[port_id] = added
    if not by_group:
        return Casts()
    since = _note_members(session, {id_: list(members) for id_, members in by_group.items()})
    content = None
    if sum(map(len, by_group.values())) <= _MOST_CARRIED:
        content = Update(
            members=[
                MembersChange(
                    id_,
                    since[id_] + len(members),
                    since[id_],
                    {port_id: _entries(added) for port_id, added in members.items()},
                )
                for id_, members in by_group.items()
            ]
        )
    column = models.SecurityGroupRule.remote_group_id
    return _content_changed(session, by_group, column, now, content)


def _entries(added: Iterable[tuple[str, str]]) -> tuple[Entry, ...]:
    return tuple((ip_network(address), mac) for address, mac in sorted(added))


def _note_members(session: Session, changed: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The newest of what agents may ask for: who changed since the members they have.

    Answers the revision of each group's members before; it rises by one for each that changed.
    """
    group, change = table_of(models.SecurityGroup), table_of(models.MemberChange)
    connection = session.connection()
    revisions = connection.execute(
        sa.select(group.c.id, group.c.members_revision)
        .where(group.c.id.in_(list(changed)))
        .order_by(group.c.id)
        .with_for_update()
    ).all()
    newest = {row.id: row.members_revision + len(changed[row.id]) for row in revisions}
    connection.execute(
        sa.update(group).where(group.c.id == sa.bindparam("its_id")),
        [{"its_id": id_, "members_revision": revision} for id_, revision in newest.items()],
    )
    kept = {id_: changed[id_][-models.MEMBER_CHANGES_KEPT :] for id_ in newest}
    connection.execute(
        sa.insert(change),
        [
            {"security_group_id": id_, "revision": revision, "port_id": port_id}
            for id_, port_ids in kept.items()
            for revision, port_id in enumerate(port_ids, newest[id_] - len(port_ids) + 1)
        ],
    )
    connection.execute(
        sa.delete(change).where(
            change.c.security_group_id == sa.bindparam("its_id"),
            change.c.revision <= sa.bindparam("oldest"),
        ),
        [
            {"its_id": id_, "oldest": revision - models.MEMBER_CHANGES_KEPT}
            for id_, revision in newest.items()
        ],
    )
    return {row.id: row.members_revision for row in revisions}


def addresses_changed(
    session: Session, address_groups: Collection[models.AddressGroup], now: datetime.datetime
) -> Casts:
    """The addresses of these address groups changed; their rows are locked."""
    ids = [row.id for row in address_groups]
    column = models.SecurityGroupRule.remote_address_group_id
    content = None
    if sum(len(row.addresses) for row in address_groups) <= _MOST_CARRIED:
        content = Update(address_groups=[_addresses(row) for row in address_groups])
    return _content_changed(session, ids, column, now, content)


def _addresses(row: Any) -> AddressesChange:
    return AddressesChange(row.id, row.revision, tuple(map(ip_network, row.addresses)))


def rules_changed(
    session: Session, groups: Mapping[str, Sequence[SecurityGroupRule]], now: datetime.datetime
) -> Casts:
    """The rules of these security groups changed, to these; their rows are locked, and those of
    the groups that the rules refer to (:func:`lock_referred`)."""
    if not groups:
        return Casts()
    remotes, addressed = _referred(rule for rules in groups.values() for rule in rules)
    address_groups = _lock_address_groups(session, addressed)
    number = sum(map(len, groups.values())) + sum(len(row.addresses) for row in address_groups)
    content = None
    if number <= _MOST_CARRIED:
        # An agent with other members than the newest must not take the rules alone.
        content = Update(
            members=[
                MembersChange(row.id, row.members_revision, row.members_revision)
                for row in lock_groups(session, remotes).values()
            ],
            address_groups=[_addresses(row) for row in address_groups],
        )
    casts = _revise(session, groups, groups, now, content=content, rules=groups)
    group = models.SecurityGroup
    session.execute(
        sa.update(group)
        .where(group.id.in_(list(groups)))
        .values(rules_revision=group.revision)
        .execution_options(synchronize_session=False)
    )
    return casts


def lock_referred(session: Session, groups: Mapping[str, Sequence[SecurityGroupRule]]) -> None:
    """These groups are about to get these rules. A change of what the rules refer to comes before
    that, or finds the rules: otherwise these groups would not get the change."""
    remotes, addressed = _referred(rule for rules in groups.values() for rule in rules)
    if remotes:
        lock_groups(session, remotes | groups.keys())
    _lock_address_groups(session, addressed)


def _referred(rules: Iterable[SecurityGroupRule]) -> tuple[set[str], set[str]]:
    """The security groups and the address groups that the rules refer to."""
    remotes: set[str] = set()
    addressed: set[str] = set()
    for rule in rules:
        if rule.remote_group_id:
            remotes.add(rule.remote_group_id)
        if rule.remote_address_group_id:
            addressed.add(rule.remote_address_group_id)
    return remotes, addressed


def _lock_address_groups(session: Session, ids: Collection[str]) -> list[Row]:
    return [
        row
        for some in in_chunks(sorted(ids))
        for row in session.connection().execute(_LOCK_ADDRESS_GROUPS, {"ids": some})
    ]


def _content_changed(
    session: Session,
    changed: Collection[str],
    column: sa.orm.InstrumentedAttribute[str | None],
    now: datetime.datetime,
    content: Update | None,
) -> Casts:
    if not changed:
        return Casts()
    query = sa.select(models.SecurityGroupRule.security_group_id).where(column.in_(list(changed)))
    dependent = set(session.scalars(query.distinct()))
    return _revise(session, dependent, {*changed, *dependent}, now, content=content)


def _revise(
    session: Session,
    groups: Collection[str],
    changed: Collection[str],
    now: datetime.datetime,
    *,
    content: Update | None,
    rules: Mapping[str, Sequence[SecurityGroupRule]] | None = None,
) -> Casts:
    """Raise the revision of ``groups``; the agents of their ports get the ids ``changed``, and
    what changed if it is given and not too large: the ``content`` and the new ``rules``.

    The hosts are behind from now on: no row of a port is read or written, for a group may have
    thousands. What a port claims follows from its host (:mod:`.port_state`).
    """
    if not groups:
        return Casts()
    group, at_host = models.SecurityGroup, models.SecurityGroupHost
    before = lock_groups(session, groups)
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
    hosts = session.scalars(sa.select(at_host.host).where(theirs).distinct()).all()
    if content is None or not hosts:
        return Casts(groups=to_hosts(hosts, changed))
    revised = [
        GroupChange(
            row.id,
            row.revision + 1,
            row.stateful,
            None if rules is None else tuple(rules[row.id]),
            since=row.revision,
        )
        for row in before.values()
    ]
    change = change_of(changed, dataclasses.replace(content, security_groups=revised))
    if change is None:
        return Casts(groups=to_hosts(hosts, changed))
    return Casts(changes=dict.fromkeys(hosts, (change,)))


def lock_groups(session: Session, groups: Collection[str]) -> dict[str, Row]:
    """The rows of those of ``groups`` that exist: id, ``stateful``, ``revision`` and
    ``members_revision``; they do not change until the transaction ends."""
    return {
        row.id: row
        for ids in in_chunks(sorted(groups))
        for row in session.connection().execute(_LOCK_GROUPS, {"ids": ids})
    }


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
        .values(sync_state=SyncState.SYNCING, sync_since=now, updated_at=now)
        .execution_options(synchronize_session=False)
    )
    directory = OwnDirectory()
    for host, why in missing.items():
        locked = directory.lock(session, port_ids, host).values()
        theirs = (port for port in locked if port.host == host)
        claimed = [(port, why) for port in theirs if port.sync_state in CLAIMED]
        unknown.give_up(session, directory, claimed, now)
