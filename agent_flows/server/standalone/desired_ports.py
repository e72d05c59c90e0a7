"""Desired state of ports: PUT and DELETE, each the body of one transaction."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import PortStatus, SyncState
from agent_flows.server.core import agents
from agent_flows.server.core.casts import Casts, to_hosts
from agent_flows.server.core.errors import Conflict, NotFound
from agent_flows.server.core.models import DeletedPort
from agent_flows.server.standalone import bodies, dependents, groups_at_hosts, models
from agent_flows.server.standalone.desired import Written, missing
from agent_flows.validation import Invalid

_FIELDS = (
    "name", "network_id", "mac_address", "port_security_enabled", "admin_state_up",
    "device_owner", "host",
)  # fmt: skip


def put_port(session: Session, body: bodies.Port, now: datetime.datetime) -> Written:
    """Create or replace a port.

    Its revision rises if something its wiring depends on changed. Bound to
    another host it starts there as DOWN: SYNCING if that host has a live agent,
    which is to look for its interface, else UNKNOWN.
    """
    port = session.get(models.Port, body.id, with_for_update=True)
    before = None if port is None else _values(port)
    wanted = _wanted(body)
    if port is not None and before == wanted:
        return Written(False)
    _check_references(session, body, set() if port is None else set(port.security_groups))
    _check_unique(session, body)
    member_before = {} if port is None else dependents.contribution(port)
    old_host = None if port is None else port.host
    depended = (None, frozenset[str]()) if port is None else _dependence(port)
    # A new name does not change the desired state of the wiring.
    rewired = before is None or {**before, "name": body.name} != wanted
    if port is None:
        port = _new(session, body, now)
    elif rewired:
        port.revision_number += 1
    port.updated_at = now
    _write(session, port, body)
    rebound = old_host != port.host
    if rebound:
        _start_again(session, port, now)
    session.add(port)
    session.flush()
    _note_groups(session, depended, _dependence(port))
    if rebound or (rewired and port.sync_state in dependents.REPORTED):
        dependents.await_reports(session, [port.id], now)
        session.refresh(port)
    casts = Casts(ports=to_hosts({old_host, port.host}, [port.id] if rewired else []))
    member_after = dependents.contribution(port)
    return Written(
        before is None,
        casts | dependents.members_changed(session, port.id, member_before, member_after, now),
    )


def delete_port(session: Session, port_id: str, now: datetime.datetime) -> Casts:
    """Delete a port; casts go to its agent and to those whose rules refer to its groups."""
    port = session.get(models.Port, port_id, with_for_update=True)
    if port is None:
        raise NotFound("port", port_id)
    host, member, depended = port.host, dependents.contribution(port), _dependence(port)
    session.merge(DeletedPort(id=port_id, revision_number=port.revision_number, deleted_at=now))
    session.delete(port)
    session.flush()
    _note_groups(session, depended, (None, frozenset()))
    casts = Casts(ports=to_hosts([host], [port_id]))
    return casts | dependents.members_changed(session, port_id, member, {}, now)


def _new(session: Session, body: bodies.Port, now: datetime.datetime) -> models.Port:
    past = session.get(DeletedPort, body.id)
    port = models.Port(
        id=body.id,
        revision_number=1 if past is None else past.revision_number + 1,
        status=PortStatus.DOWN.value,
        sync_state=SyncState.ABSENT.value,
        sequence=0,
        proven_revision=None,
        syncing_since=None,
        updated_at=now,
        fixed_ips=[],
        memberships=[],
    )
    if past is not None:
        session.delete(past)
    return port


def _dependence(port: models.Port) -> tuple[str | None, frozenset[str]]:
    """The port's host, and the groups that its security depends on there."""
    return port.host, frozenset(port.security_groups if port.port_security_enabled else ())


def _note_groups(
    session: Session,
    before: tuple[str | None, frozenset[str]],
    after: tuple[str | None, frozenset[str]],
) -> None:
    host, groups = after
    if host is not None:
        groups_at_hosts.note(session, host, sorted(groups))
    old_host, old_groups = before
    left = old_groups - groups if old_host == host else old_groups
    if old_host is not None and left:
        groups_at_hosts.forget(session, old_host, left)


def _start_again(session: Session, port: models.Port, now: datetime.datetime) -> None:
    port.status, port.sync_state = PortStatus.DOWN.value, SyncState.ABSENT.value
    port.syncing_since = port.proven_revision = None
    # Sequences are compared for one host. What this host has reported so far is
    # older than this binding.
    port.sequence = agents.held(session, port.host, now) if port.host else 0


def _write(session: Session, port: models.Port, body: bodies.Port) -> None:
    addresses, groups = _addresses(body), list(body.security_groups)
    moved = port.network_id is not None and port.network_id != body.network_id
    if moved or port.addresses != addresses:
        port.fixed_ips.clear()
        session.flush()
    if port.security_groups != groups:
        port.memberships.clear()
        session.flush()
    for name, value in _wanted(body).items():
        if name not in ("fixed_ips", "security_groups"):
            setattr(port, name, value)
    if not port.fixed_ips:
        port.fixed_ips.extend(
            models.FixedIp(network_id=body.network_id, ip_address=address, position=place)
            for place, address in enumerate(addresses)
        )
    if not port.memberships:
        port.memberships.extend(
            models.Membership(security_group_id=group, position=place)
            for place, group in enumerate(groups)
        )


def _addresses(body: bodies.Port) -> list[str]:
    return [str(each.ip_address) for each in body.fixed_ips]


def _wanted(body: bodies.Port) -> dict[str, object]:
    return {
        **{name: getattr(body, name) for name in _FIELDS},
        "fixed_ips": _addresses(body),
        "allowed_address_pairs": [
            {
                "ip_address": str(pair.ip_address),
                "mac_address": None if pair.mac_address == body.mac_address else pair.mac_address,
            }
            for pair in body.allowed_address_pairs
        ],
        "security_groups": list(body.security_groups),
    }


def _values(port: models.Port) -> dict[str, object]:
    return {
        **{name: getattr(port, name) for name in _FIELDS},
        "fixed_ips": port.addresses,
        "allowed_address_pairs": port.allowed_address_pairs,
        "security_groups": port.security_groups,
    }


def _check_references(session: Session, body: bodies.Port, present: set[str]) -> None:
    if missing(session, models.Network, [body.network_id]):
        raise Invalid("network_id", body.network_id, "no such network")
    # Locked with the groups it leaves, so that no other transaction raises their
    # revisions for the old members.
    found = dependents.lock_groups(session, {*body.security_groups, *present})
    for place, group in enumerate(body.security_groups):
        if group not in found:
            raise Invalid(f"security_groups.{place}", group, "no such security group")
    kinds = {
        stateful: group
        for group, stateful in session.execute(
            sa.select(models.SecurityGroup.id, models.SecurityGroup.stateful).where(
                models.SecurityGroup.id.in_(body.security_groups)
            )
        )
    }
    if len(kinds) > 1:
        raise Conflict(
            "security_groups",
            f"security group {kinds[False]} is stateless and {kinds[True]} is stateful; a port "
            "can have only one kind",
        )


def _check_unique(session: Session, body: bodies.Port) -> None:
    port, fixed = models.Port, models.FixedIp
    holder = session.scalar(
        sa.select(port.id).where(
            port.network_id == body.network_id,
            port.mac_address == body.mac_address,
            port.id != body.id,
        )
    )
    if holder is not None:
        raise Conflict(
            "mac_address",
            f"port {holder} has {body.mac_address} on network {body.network_id}",
        )
    wanted = _addresses(body)
    taken = session.execute(
        sa.select(fixed.ip_address, fixed.port_id).where(
            fixed.network_id == body.network_id,
            fixed.ip_address.in_(wanted),
            fixed.port_id != body.id,
        )
    ).first()
    if taken is not None:
        raise Conflict(
            f"fixed_ips.{wanted.index(taken.ip_address)}.ip_address",
            f"port {taken.port_id} has {taken.ip_address} on network {body.network_id}",
        )
