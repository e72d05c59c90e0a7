"""Desired state as operators and orchestrators write it: networks and groups.

A PUT creates or replaces; one that changes nothing does nothing. Every
function is the body of one transaction and answers the casts to send
once it committed.
"""

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from agent_flows import spec
from agent_flows.server.core.casts import Casts, by_host
from agent_flows.server.core.errors import Conflict, NotFound
from agent_flows.server.standalone import bodies, deleted, dependents, models
from agent_flows.server.standalone.bounded_queries import in_chunks
from agent_flows.validation import Invalid

RULE_FIELDS = (
    "direction", "ethertype", "protocol", "port_range_min", "port_range_max",
    "source_port_range_min", "source_port_range_max",
    "remote_ip_prefix", "remote_group_id", "remote_address_group_id",
)  # fmt: skip


T = TypeVar("T")
M = TypeVar("M", models.Network, models.AddressGroup, models.SecurityGroup)
Placed = Sequence[tuple[str, T]]
"""Objects of one request, each id once, and before each the prefix of its fields in errors."""


@dataclass(frozen=True)
class Written:
    """The ids of what is new and of what changed, and the casts to agents."""

    created: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()
    casts: Casts = field(default_factory=Casts)


def put_networks(
    session: Session, placed: Placed[bodies.Network], now: datetime.datetime
) -> Written:
    """Create or replace networks; the ports of those that differ on the wire are wired again.

    Networks may take segments from each other.
    """
    _check_segments(session, placed)
    rows = _locked(session, models.Network, placed)
    wire = {body.id: _on_the_wire(body) for _, body in placed}
    rewired = [id_ for id_, row in rows.items() if _differs(row, wire[id_])]
    for id_ in rewired:
        rows[id_].segment = None
    session.flush()
    new = {body.id: models.Network(id=body.id) for _, body in placed if body.id not in rows}
    changed = set(rewired)
    for _, body in placed:
        row = rows.get(body.id) or new[body.id]
        if _assign(row, name=body.name, **wire[body.id]) and body.id in rows:
            changed.add(body.id)
    session.add_all(new.values())
    session.flush()
    port = models.Port
    casts = _rewire(session, port.network_id.in_(rewired), now) if rewired else Casts()
    return Written(frozenset(new), frozenset(changed), casts)


def _on_the_wire(body: bodies.Network) -> dict[str, object]:
    return {
        "network_type": body.network_type.value,
        "segmentation_id": body.segmentation_id,
        "physical_network": body.physical_network,
        "mtu": body.mtu,
        "segment": body.segment,
    }


def _check_segments(session: Session, placed: Placed[bodies.Network]) -> None:
    network, ids = models.Network, {body.id for _, body in placed}
    named = [body.segment for _, body in placed if body.segment]
    holders: dict[str | None, str] = {}
    for segments in in_chunks(named):
        query = sa.select(network.segment, network.id).where(network.segment.in_(segments))
        holders |= {row.segment: row.id for row in session.execute(query) if row.id not in ids}
    for path, body in placed:
        holder = holders.setdefault(body.segment, body.id) if body.segment else body.id
        if holder != body.id:
            field = "segmentation_id" if body.segmentation_id else "physical_network"
            raise Conflict(f"{path}{field}", f"network {holder} already has {body.segment}")


def delete_network(session: Session, network_id: str) -> None:
    row = _existing(session, models.Network, "network", network_id)
    ports = sa.select(models.Port.id).where(models.Port.network_id == network_id)
    _check_unused(session, f"network {network_id}", ports, "port")
    session.delete(row)
    session.flush()


def put_address_groups(
    session: Session, placed: Placed[bodies.AddressGroup], now: datetime.datetime
) -> Written:
    """Create or replace address groups."""
    rows = _locked(session, models.AddressGroup, placed)
    new = {
        body.id: models.AddressGroup(id=body.id, revision=0)
        for _, body in placed
        if body.id not in rows
    }
    changed, moved = set(), set()
    for _, body in placed:
        row = rows.get(body.id) or new[body.id]
        renamed = _assign(row, name=body.name)
        if _assign(row, addresses=sorted(str(each) for each in body.addresses)):
            row.revision += 1
            moved.add(body.id)
            changed.add(body.id)
        elif renamed:
            changed.add(body.id)
    session.add_all(new.values())
    session.flush()
    casts = dependents.addresses_changed(
        session, [rows[id_] for id_ in sorted(moved - new.keys())], now
    )
    return Written(frozenset(new), frozenset(changed - new.keys()), casts)


def delete_address_group(session: Session, group_id: str) -> None:
    row = _existing(session, models.AddressGroup, "address group", group_id)
    rule = models.SecurityGroupRule
    groups = sa.select(rule.security_group_id).where(rule.remote_address_group_id == group_id)
    _check_unused(session, f"address group {group_id}", groups, "security group")
    session.delete(row)
    session.flush()


def put_security_groups(
    session: Session, placed: Placed[bodies.SecurityGroup], now: datetime.datetime
) -> Written:
    """Create or replace security groups with all their rules, which may refer to each other."""
    _check_remotes(session, placed)
    wanted = {body.id: body.security_group_rules for _, body in placed}
    dependents.lock_referred(session, wanted)
    rows = _locked(session, models.SecurityGroup, placed)
    past = deleted.revive(session, [body.id for _, body in placed if body.id not in rows])
    new = {
        body.id: _new_group(body.id, past.get(body.id, 0) + 1)
        for _, body in placed
        if body.id not in rows
    }
    changed, revised, other_kind, rewritten = set(), set(), [], []
    for path, body in placed:
        row = rows.get(body.id) or new[body.id]
        rules = [_rule(rule) for rule in body.security_group_rules]
        renamed = _assign(row, name=body.name)
        if _assign(row, stateful=body.stateful):
            revised.add(body.id)
            other_kind.append((path, body))
        if [{name: getattr(rule, name) for name in RULE_FIELDS} for rule in row.rules] != rules:
            revised.add(body.id)
            rewritten.append((row, rules))
        if renamed or body.id in revised:
            changed.add(body.id)
    session.add_all(new.values())
    session.flush()
    _check_kind(session, [(path, body) for path, body in other_kind if body.id in rows])
    _replace_rules(session, rewritten)
    known = sorted(revised - new.keys())
    casts = dependents.rules_changed(session, {id_: wanted[id_] for id_ in known}, now)
    return Written(frozenset(new), frozenset(changed - new.keys()), casts)


def _new_group(group_id: str, revision: int) -> models.SecurityGroup:
    return models.SecurityGroup(
        id=group_id,
        revision=revision,
        rules_revision=revision,
        members_revision=revision,
        rules=[],
    )


def delete_security_group(session: Session, group_id: str, now: datetime.datetime) -> Casts:
    row = _existing(session, models.SecurityGroup, "security group", group_id)
    membership, rule = models.Membership, models.SecurityGroupRule
    ports = sa.select(membership.port_id).where(membership.security_group_id == group_id)
    groups = sa.select(rule.security_group_id).where(
        rule.remote_group_id == group_id, rule.security_group_id != group_id
    )
    what = f"security group {group_id}"
    _check_unused(session, what, ports, "port")
    _check_unused(session, what, groups, "a rule of security group")
    _replace_rules(session, [(row, [])])
    deleted.note(session, group_id, max(row.revision, row.members_revision), now)
    session.delete(row)
    session.flush()
    return Casts()


def missing(session: Session, model: type[models.Base], ids: Collection[str]) -> set[str]:
    """Those of ``ids`` that do not exist."""
    key = sa.inspect(model).local_table.c.id
    found: set[str] = set()
    for some in in_chunks(sorted(ids)):
        found |= set(session.connection().scalars(sa.select(key).where(key.in_(some))))
    return set(ids) - found


def _check_remotes(session: Session, placed: Placed[bodies.SecurityGroup]) -> None:
    groups = {body.id for _, body in placed}
    for remote, model, what, known in (
        ("remote_group_id", models.SecurityGroup, "security group", groups),
        ("remote_address_group_id", models.AddressGroup, "address group", set[str]()),
    ):
        named = {getattr(rule, remote) for _, body in placed for rule in body.security_group_rules}
        absent = missing(session, model, named - known - {None})
        for path, body in placed if absent else ():
            for place, rule in enumerate(body.security_group_rules):
                if (value := getattr(rule, remote)) in absent:
                    field = f"{path}security_group_rules.{place}.{remote}"
                    raise Invalid(field, value, f"no such {what}")


def _check_kind(session: Session, placed: Placed[bodies.SecurityGroup]) -> None:
    """No port may have stateful and stateless groups at once."""
    if not placed:
        return
    here, there = aliased(models.Membership), aliased(models.Membership)
    group, changed = models.SecurityGroup, aliased(models.SecurityGroup)
    other = session.execute(
        sa.select(there.port_id, group.id, group.stateful, changed.id.label("changed"))
        .join(here, here.port_id == there.port_id)
        .join(group, group.id == there.security_group_id)
        .join(changed, changed.id == here.security_group_id)
        .where(changed.id.in_([body.id for _, body in placed]), group.stateful != changed.stateful)
        .limit(1)
    ).first()
    if other is not None:
        path = next(path for path, body in placed if body.id == other.changed)
        raise Conflict(
            f"{path}stateful",
            f"port {other.port_id} also has security group {other.id}, which is "
            f"{'stateful' if other.stateful else 'stateless'}",
        )


def _rule(rule: spec.SecurityGroupRule) -> dict[str, Any]:
    values = {name: getattr(rule, name) for name in RULE_FIELDS}
    prefix = rule.remote_ip_prefix
    return {
        **values,
        "direction": rule.direction.value,
        "ethertype": rule.ethertype.value,
        "remote_ip_prefix": None if prefix is None else str(prefix),
    }


def _replace_rules(
    session: Session, groups: Sequence[tuple[models.SecurityGroup, Sequence[dict[str, Any]]]]
) -> None:
    for row, _ in groups:
        row.rules.clear()
    session.flush()
    for row, rules in groups:
        row.rules.extend(
            models.SecurityGroupRule(position=place, **rule) for place, rule in enumerate(rules)
        )
    session.flush()


def _rewire(session: Session, which: sa.ColumnElement[bool], now: datetime.datetime) -> Casts:
    """Something the wiring of these ports depends on changed."""
    port = models.Port
    rows = session.execute(
        sa.select(port.id, port.host, port.sync_state)
        .where(which)
        .order_by(port.id)
        .with_for_update()
    ).all()
    session.execute(
        sa.update(port)
        .where(port.id.in_([row.id for row in rows]))
        .values(revision_number=port.revision_number + 1, updated_at=now)
        .execution_options(synchronize_session=False)
    )
    dependents.await_reports(
        session, [row.id for row in rows if row.sync_state in dependents.REPORTED], now
    )
    return Casts(ports=by_host((row.host, row.id) for row in rows))


def _locked(session: Session, model: type[M], placed: Placed[Any]) -> dict[str, M]:
    """Those that exist, by id; they do not change until the transaction ends."""
    key = sa.inspect(model).local_table.c.id
    found: dict[str, M] = {}
    for ids in in_chunks(sorted(body.id for _, body in placed)):
        query = sa.select(model).where(key.in_(ids)).order_by(key).with_for_update()
        found |= {row.id: row for row in session.scalars(query)}
    return found


def _differs(row: models.Base, values: Mapping[str, object]) -> bool:
    return any(getattr(row, name) != value for name, value in values.items())


def _assign(row: models.Base, **values: object) -> bool:
    """Set what differs; whether anything did."""
    differing = {name: value for name, value in values.items() if getattr(row, name) != value}
    for name, value in differing.items():
        setattr(row, name, value)
    return bool(differing)


def _check_unused(session: Session, what: str, users: sa.Select[str], user: str) -> None:
    found = session.scalar(users.limit(1))
    if found is not None:
        raise Conflict(None, f"{what} is in use by {user} {found}")


def _existing(session: Session, model: type[Any], what: str, resource_id: str) -> Any:
    row = session.get(model, resource_id, with_for_update=True)
    if row is None:
        raise NotFound(what, resource_id)
    return row
