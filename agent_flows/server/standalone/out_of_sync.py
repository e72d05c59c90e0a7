"""The ports that are out of sync, each with the attempt that shows why: its own last one, or that
of a security group which failed on its host."""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from agent_flows.report import ResourceType, SyncState
from agent_flows.server.core import failures
from agent_flows.server.core.models import Attempt, table_of
from agent_flows.server.standalone import models, port_state

_ports, _memberships = table_of(models.Port).c, table_of(models.Membership).c
_at_host, _attempts = table_of(models.SecurityGroupHost).c, table_of(Attempt).c


def affected(*where: sa.ColumnElement[bool]) -> sa.Subquery:
    """The ports that meet ``where`` and are out of sync.

    Columns: ``port_id``, ``host``, ``sync_state``, ``since``, the ``resource_type`` and
    ``resource_id`` of what failed, and the ``ordinal`` of the attempt.
    """
    return sa.union_all(_by_themselves(*where), _by_a_group(*where)).subquery("affected")


def affected_by(resource_ids: Collection[str]) -> sa.Subquery:
    """As :func:`affected`: these ports, and the ports of these groups where the group failed."""
    ids = list(resource_ids)
    port, group = _ports.id.in_(ids), _at_host.security_group_id.in_(ids)
    found = sa.union_all(_by_themselves(port), _by_a_group(sa.or_(port, group)))
    return found.subquery("affected")


def _by_themselves(*where: sa.ColumnElement[bool]) -> sa.Select[*tuple[Any]]:
    states = [state.value for state in failures.OUT_OF_SYNC]
    return sa.select(
        _ports.id.label("port_id"),
        _ports.host,
        _ports.sync_state,
        port_state.OWN_SINCE.label("since"),
        sa.literal(ResourceType.PORT.value).label("resource_type"),
        _ports.id.label("resource_id"),
        failures.last_attempt(_ports.id, _ports.host).label("ordinal"),
    ).where(_ports.sync_state.in_(states), *where)


def _by_a_group(*where: sa.ColumnElement[bool]) -> sa.Select[*tuple[Any]]:
    """Driven by the groups that failed, which are few; of several the port's first one counts."""
    failed = sa.select(_at_host.security_group_id).where(_at_host.failed)
    # Once for each group and host: a group may have thousands of ports there.
    newest = (
        sa.select(
            _attempts.resource_id, _attempts.host, sa.func.max(_attempts.ordinal).label("ordinal")
        )
        .where(_attempts.resource_id.in_(failed))
        .group_by(_attempts.resource_id, _attempts.host)
        .subquery("newest")
    )
    tables = (
        table_of(models.SecurityGroupHost)
        .join(
            table_of(models.Membership),
            _memberships.security_group_id == _at_host.security_group_id,
        )
        .join(
            table_of(models.Port),
            sa.and_(_ports.id == _memberships.port_id, _ports.host == _at_host.host),
        )
        .outerjoin(
            newest,
            sa.and_(
                newest.c.resource_id == _at_host.security_group_id, newest.c.host == _at_host.host
            ),
        )
    )
    place = sa.func.row_number().over(partition_by=_ports.id, order_by=_memberships.position)
    found = (
        sa.select(
            _ports.id.label("port_id"),
            _ports.host,
            port_state.later(_at_host.outcome_since, port_state.OWN_SINCE).label("since"),
            _at_host.security_group_id.label("resource_id"),
            newest.c.ordinal,
            place.label("place"),
        )
        .select_from(tables)
        .where(
            _at_host.failed,
            _at_host.sequence > _ports.sequence,
            _ports.sync_state == SyncState.IN_SYNC.value,
            _ports.port_security_enabled,
            *where,
        )
        .subquery("of_groups")
    )
    return sa.select(
        found.c.port_id,
        found.c.host,
        sa.literal(SyncState.OUT_OF_SYNC.value).label("sync_state"),
        found.c.since,
        sa.literal(ResourceType.SECURITY_GROUP.value).label("resource_type"),
        found.c.resource_id,
        found.c.ordinal,
    ).where(found.c.place == 1)
