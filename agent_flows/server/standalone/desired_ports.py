"""Desired state of ports: PUT and DELETE, each the body of one transaction."""

import datetime
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import PortStatus, SyncState, TaskError
from agent_flows.server.core import agents, silence, unknown
from agent_flows.server.core.casts import Casts, by_host
from agent_flows.server.core.directory import CLAIMED
from agent_flows.server.core.errors import Conflict, NotFound
from agent_flows.server.core.gate import PortState
from agent_flows.server.core.models import table_of
from agent_flows.server.standalone import (
    bodies,
    deleted,
    dependents,
    groups_at_hosts,
    models,
    port_rows,
)
from agent_flows.server.standalone.bounded_queries import in_chunks
from agent_flows.server.standalone.desired import Placed, Written, missing
from agent_flows.server.standalone.directory import OwnDirectory
from agent_flows.server.standalone.port_rows import PortRows
from agent_flows.validation import Invalid

_PORTS, _FIXED_IPS = table_of(models.Port).c, table_of(models.FixedIp).c

_NETWORKS_OF: sa.BindParameter[Any] = sa.bindparam("networks", expanding=True)
_VALUES: sa.BindParameter[Any] = sa.bindparam("values", expanding=True)
_BY_MAC = sa.select(_PORTS.network_id, _PORTS.mac_address, _PORTS.id).where(
    _PORTS.network_id.in_(_NETWORKS_OF), _PORTS.mac_address.in_(_VALUES)
)
_BY_ADDRESS = sa.select(_FIXED_IPS.network_id, _FIXED_IPS.ip_address, _FIXED_IPS.port_id).where(
    _FIXED_IPS.network_id.in_(_NETWORKS_OF), _FIXED_IPS.ip_address.in_(_VALUES)
)


@dataclass(frozen=True)
class _Change:
    """``before`` is None for a new port. If ``awaited`` its agent is to report it again."""

    before: PortRows | None
    after: PortRows
    awaited: bool

    @property
    def rewired(self) -> bool:
        return self.before is None or self.before.wiring != self.after.wiring

    @property
    def hosts(self) -> set[str | None]:
        """Whose agents are to look at the port."""
        old_host = None if self.before is None else self.before.host
        return {old_host, self.after.host} if self.rewired else set()


def put_ports(session: Session, placed: Placed[bodies.Port], now: datetime.datetime) -> Written:
    """Create or replace ports.

    A port's revision rises if something its wiring depends on changed. Bound to
    another host it starts there as DOWN: SYNCING if that host has a live agent,
    which is to look for its interface, else UNKNOWN.

    Ports may take addresses from each other.
    """
    wanted = {body.id: port_rows.wanted(body) for _, body in placed}
    present = port_rows.lock(session, list(wanted))
    differing = [
        (path, body)
        for path, body in placed
        if body.id not in present or present[body.id].wishes != wanted[body.id].wishes
    ]
    if not differing:
        return Written()
    ids = [body.id for _, body in differing]
    before = {port_id: present[port_id] for port_id in ids if port_id in present}
    _check_references(session, differing, before.values())
    _check_unique(session, placed, differing)
    past = deleted.revive(session, [port_id for port_id in ids if port_id not in before])
    hosts = {host for port_id in ids if (host := wanted[port_id].host)}
    held, silent = agents.held(session, hosts, now), silence.absence(session, hosts)
    changes = [
        _change(before.get(port_id), wanted[port_id], past.get(port_id, 0), held, now)
        for port_id in ids
    ]
    changes = [each if each.after.host in silent else _syncing(each, now) for each in changes]
    port_rows.write(session, [(each.before, each.after) for each in changes])
    _note_groups(session, [(each.before, each.after) for each in changes])
    _give_up(session, changes, silent, now)
    casts = Casts(ports=by_host((host, each.after.id) for each in changes for host in each.hosts))
    members = {each.after.id: _groups_with_new_members(each.before, each.after) for each in changes}
    return Written(
        created=frozenset(ids) - before.keys(),
        changed=frozenset(before),
        casts=casts | dependents.members_changed(session, members, now),
    )


def delete_port(session: Session, port_id: str, now: datetime.datetime) -> Casts:
    """Delete a port; casts go to its agent and to those whose rules refer to its groups."""
    port = port_rows.lock(session, [port_id]).get(port_id)
    if port is None:
        raise NotFound("port", port_id)
    revision = port.row["revision_number"]
    deleted.note(session, port_id, revision, now)
    session.connection().execute(sa.delete(table_of(models.Port)).where(_PORTS.id == port_id))
    _note_groups(session, [(port, None)])
    changed = {port_id: _groups_with_new_members(port, None)}
    casts = Casts(ports=by_host([(port.host, port_id)]))
    return casts | dependents.members_changed(session, changed, now)


def _change(
    before: PortRows | None,
    wanted: PortRows,
    past_revision: int,
    held: Mapping[str, int],
    now: datetime.datetime,
) -> _Change:
    old = {"revision_number": past_revision} if before is None else dict(before.row)
    rewired = before is None or before.wiring != wanted.wiring
    rebound = before is None or before.host != wanted.host
    if rebound:
        old |= {
            "status": PortStatus.DOWN.value,
            "sync_state": SyncState.ABSENT.value,
            # Sequences are compared for one host. What this host has reported so far is
            # older than this binding.
            "sequence": held.get(wanted.host or "", 0),
            "proven_revision": None,
            "sync_since": now,
        }
    row = {
        **old,
        **wanted.row,
        "revision_number": old["revision_number"] + rewired,
        "updated_at": now,
    }
    awaited = rebound or (rewired and row["sync_state"] in dependents.REPORTED)
    after = PortRows(row, wanted.addresses, wanted.groups)
    return _Change(before, after, awaited and wanted.host is not None)


def _syncing(change: _Change, now: datetime.datetime) -> _Change:
    """The change of a port on a host with a live agent."""
    if not change.awaited:
        return change
    row = {**change.after.row, "sync_state": SyncState.SYNCING.value, "sync_since": now}
    after = PortRows(row, change.after.addresses, change.after.groups)
    return _Change(change.before, after, change.awaited)


def _give_up(
    session: Session,
    changes: Sequence[_Change],
    silent: Mapping[str, TaskError],
    now: datetime.datetime,
) -> None:
    """Ports that await a report of a host without a live agent are UNKNOWN."""
    waiting = [_state(each.after.row) for each in changes if each.awaited]
    claimed = [
        (port, why)
        for port in waiting
        if (why := silent.get(port.host or "")) and port.sync_state in CLAIMED
    ]
    unknown.give_up(session, OwnDirectory(), claimed, now)


def _state(row: Mapping[str, Any]) -> PortState:
    return PortState(
        id=row["id"],
        host=row["host"],
        revision=row["revision_number"],
        status=PortStatus(row["status"]),
        sync_state=SyncState(row["sync_state"]),
        admin_state_up=row["admin_state_up"],
        sequence=row["sequence"],
        proven_revision=row["proven_revision"],
        sync_since=row["sync_since"],
        updated_at=row["updated_at"],
    )


def _note_groups(
    session: Session, changes: Sequence[tuple[PortRows | None, PortRows | None]]
) -> None:
    before: set[tuple[str, str]] = set()
    after: set[tuple[str, str]] = set()
    for old, new in changes:
        has = new.dependence if new else frozenset()
        had = old.dependence if old else frozenset()
        after |= has - had
        before |= had - has
    groups_at_hosts.note(session, after)
    groups_at_hosts.forget(session, before)


def _groups_with_new_members(
    before: PortRows | None, after: PortRows | None
) -> dependents.Contribution:
    """What the port adds to the members of groups to which it added something else before."""
    old = before.contribution if before else {}
    new = after.contribution if after else {}
    none: frozenset[tuple[str, str]] = frozenset()
    return {
        group: new.get(group, none) for group in {*old, *new} if old.get(group) != new.get(group)
    }


def _check_references(
    session: Session, placed: Placed[bodies.Port], before: Collection[PortRows]
) -> None:
    absent = missing(session, models.Network, {body.network_id for _, body in placed})
    for path, body in placed:
        if body.network_id in absent:
            raise Invalid(f"{path}network_id", body.network_id, "no such network")
    # Locked with the groups they leave, so that no other transaction raises their
    # revisions for the old members.
    named = {group for _, body in placed for group in body.security_groups}
    left = {group for port in before for group in port.groups}
    groups = dependents.lock_groups(session, named | left)
    for path, body in placed:
        for place, group in enumerate(body.security_groups):
            if group not in groups:
                field = f"{path}security_groups.{place}"
                raise Invalid(field, group, "no such security group")
        kinds = {groups[group].stateful: group for group in body.security_groups}
        if len(kinds) > 1:
            raise Conflict(
                f"{path}security_groups",
                f"security group {kinds[False]} is stateless and {kinds[True]} is stateful; a "
                "port can have only one kind",
            )


def _check_unique(
    session: Session, placed: Placed[bodies.Port], differing: Placed[bodies.Port]
) -> None:
    """No two ports have the same MAC address or fixed IP address on a network.

    Of ``placed`` counts what they want, of other ports what they have.
    """
    macs = _holders(session, _BY_MAC, placed, differing, _mac_address)
    addresses = _holders(session, _BY_ADDRESS, placed, differing, _addresses)
    for path, body in placed:
        network = body.network_id
        if (holder := macs[network, body.mac_address]) != body.id:
            message = f"port {holder} has {body.mac_address} on network {network}"
            raise Conflict(f"{path}mac_address", message)
        for place, address in enumerate(_addresses(body)):
            if (holder := addresses[network, address]) != body.id:
                message = f"port {holder} has {address} on network {network}"
                raise Conflict(f"{path}fixed_ips.{place}.ip_address", message)


def _holders(
    session: Session,
    query: sa.Select[Any],
    placed: Placed[bodies.Port],
    differing: Placed[bodies.Port],
    values_of: Callable[[bodies.Port], Sequence[str]],
) -> Mapping[tuple[str, str], str]:
    """Who has each value on each network: a port that is not of ``placed``, or their first."""
    ids = {body.id for _, body in placed}
    networks = sorted({body.network_id for _, body in differing})
    others: dict[tuple[str, str], str] = {}
    for values in in_chunks(sorted({each for _, body in differing for each in values_of(body)})):
        rows = session.connection().execute(query, {"networks": networks, "values": values})
        others |= {(network, value): id_ for network, value, id_ in rows if id_ not in ids}
    holders: dict[tuple[str, str], str] = {}
    for _, body in placed:
        for value in values_of(body):
            key = body.network_id, value
            holders.setdefault(key, others.get(key, body.id))
    return holders


def _mac_address(body: bodies.Port) -> list[str]:
    return [body.mac_address]


def _addresses(body: bodies.Port) -> list[str]:
    return [str(each.ip_address) for each in body.fixed_ips]
