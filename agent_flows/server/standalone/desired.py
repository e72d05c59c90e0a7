"""Desired state as operators and orchestrators write it: networks and groups.

A PUT creates or replaces; one that changes nothing does nothing. Every
function is the body of one transaction and answers the casts to send
once it committed.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from agent_flows import spec
from agent_flows.server.core.casts import Casts, by_host
from agent_flows.server.core.errors import Conflict, NotFound
from agent_flows.server.standalone import bodies, dependents, models
from agent_flows.validation import Invalid

RULE_FIELDS = (
    "direction", "ethertype", "protocol", "port_range_min", "port_range_max",
    "source_port_range_min", "source_port_range_max",
    "remote_ip_prefix", "remote_group_id", "remote_address_group_id",
)  # fmt: skip


@dataclass(frozen=True)
class Written:
    """Whether the object is new, and the casts to agents."""

    created: bool
    casts: Casts = field(default_factory=Casts)


def put_network(session: Session, body: bodies.Network, now: datetime.datetime) -> Written:
    """Create or replace a network; its ports are wired again if it differs on the wire."""
    network = models.Network
    holders = sa.select(network.id).where(network.segment == body.segment, network.id != body.id)
    if body.segment and (occupied := session.scalar(holders.limit(1))):
        field = "segmentation_id" if body.segmentation_id else "physical_network"
        raise Conflict(field, f"network {occupied} already has {body.segment}")
    row = session.get(models.Network, body.id, with_for_update=True)
    created = row is None
    if row is None:
        row = models.Network(id=body.id)
        session.add(row)
    changed = _assign(
        row,
        network_type=body.network_type.value,
        segmentation_id=body.segmentation_id,
        physical_network=body.physical_network,
        mtu=body.mtu,
        segment=body.segment,
    )
    row.name = body.name
    session.flush()
    if created or not changed:
        return Written(created)
    return Written(False, _rewire(session, models.Port.network_id == body.id, now))


def delete_network(session: Session, network_id: str) -> None:
    row = _existing(session, models.Network, "network", network_id)
    ports = sa.select(models.Port.id).where(models.Port.network_id == network_id)
    _check_unused(session, f"network {network_id}", ports, "port")
    session.delete(row)
    session.flush()


def put_address_group(
    session: Session, body: bodies.AddressGroup, now: datetime.datetime
) -> Written:
    """Create or replace an address group."""
    row = session.get(models.AddressGroup, body.id, with_for_update=True)
    created = row is None
    if row is None:
        row = models.AddressGroup(id=body.id)
        session.add(row)
    changed = _assign(row, addresses=sorted(str(each) for each in body.addresses))
    row.revision = (row.revision or 0) + changed
    row.name = body.name
    session.flush()
    if created or not changed:
        return Written(created)
    return Written(False, dependents.addresses_changed(session, body.id, now))


def delete_address_group(session: Session, group_id: str) -> None:
    row = _existing(session, models.AddressGroup, "address group", group_id)
    rule = models.SecurityGroupRule
    groups = sa.select(rule.security_group_id).where(rule.remote_address_group_id == group_id)
    _check_unused(session, f"address group {group_id}", groups, "security group")
    session.delete(row)
    session.flush()


def put_security_group(
    session: Session, body: bodies.SecurityGroup, now: datetime.datetime
) -> Written:
    """Create or replace a security group with all its rules."""
    _check_remotes(session, body)
    row = session.get(models.SecurityGroup, body.id, with_for_update=True)
    rules = [_rule(rule) for rule in body.security_group_rules]
    if row is None:
        row = models.SecurityGroup(
            id=body.id,
            name=body.name,
            stateful=body.stateful,
            revision=1,
            rules_revision=1,
            members_revision=1,
            rules=[],
        )
        session.add(row)
        session.flush()
        _replace_rules(session, row, rules)
        return Written(True)
    if row.stateful != body.stateful:
        _check_kind(session, body)
    row.name = body.name
    present = [{name: getattr(rule, name) for name in RULE_FIELDS} for rule in row.rules]
    rewritten = present != rules
    if rewritten:
        _replace_rules(session, row, rules)
    if not (_assign(row, stateful=body.stateful) or rewritten):
        return Written(False)
    session.flush()
    return Written(False, dependents.rules_changed(session, body.id, now))


def delete_security_group(session: Session, group_id: str) -> None:
    row = _existing(session, models.SecurityGroup, "security group", group_id)
    membership, rule = models.Membership, models.SecurityGroupRule
    ports = sa.select(membership.port_id).where(membership.security_group_id == group_id)
    groups = sa.select(rule.security_group_id).where(
        rule.remote_group_id == group_id, rule.security_group_id != group_id
    )
    what = f"security group {group_id}"
    _check_unused(session, what, ports, "port")
    _check_unused(session, what, groups, "a rule of security group")
    _replace_rules(session, row, [])
    session.delete(row)
    session.flush()


def missing(session: Session, model: type[models.Base], ids: Sequence[str]) -> str | None:
    """The first of ``ids`` that does not exist."""
    key = sa.inspect(model).primary_key[0]
    found = set(session.scalars(sa.select(key).where(key.in_(ids)))) if ids else set()
    return next((each for each in ids if each not in found), None)


def _check_remotes(session: Session, body: bodies.SecurityGroup) -> None:
    for remote, model, what in (
        ("remote_group_id", models.SecurityGroup, "security group"),
        ("remote_address_group_id", models.AddressGroup, "address group"),
    ):
        named = [(i, getattr(rule, remote)) for i, rule in enumerate(body.security_group_rules)]
        ids = [each for _, each in named if each not in (None, body.id)]
        absent = missing(session, model, ids)
        if absent is not None:
            place = next(i for i, each in named if each == absent)
            raise Invalid(f"security_group_rules.{place}.{remote}", absent, f"no such {what}")


def _check_kind(session: Session, body: bodies.SecurityGroup) -> None:
    """No port may have stateful and stateless groups at once."""
    here, there = aliased(models.Membership), aliased(models.Membership)
    group = models.SecurityGroup
    other = session.execute(
        sa.select(there.port_id, group.id)
        .join(here, here.port_id == there.port_id)
        .join(group, group.id == there.security_group_id)
        .where(
            here.security_group_id == body.id,
            group.id != body.id,
            group.stateful != body.stateful,
        )
        .limit(1)
    ).first()
    if other is not None:
        raise Conflict(
            "stateful",
            f"port {other.port_id} also has security group {other.id}, which is "
            f"{'stateless' if body.stateful else 'stateful'}",
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
    session: Session, row: models.SecurityGroup, rules: Sequence[dict[str, Any]]
) -> None:
    row.rules.clear()
    session.flush()
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
