"""The ports of security groups and of networks, with the state that each shows: for the roll-up.

Of thousands of ports: the groups that each depends on are read in one join. With the expressions
of :mod:`.port_state`, which look them up for one port after the other, 10,000 ports take
several times as long.
"""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from agent_flows.server.standalone import models
from agent_flows.server.standalone.port_state import (
    BEHIND,
    FAILED,
    OWN_SINCE,
    REALISED,
    REPORTED,
    later,
    of_proven_ports,
    shown_state,
)

_Port, _Group = models.Port, models.SecurityGroup
_Membership, _AtHost = models.Membership, models.SecurityGroupHost


def of_groups(groups: Collection[str]) -> sa.Subquery:
    """The ports that depend on these groups, with the columns of
    :func:`agent_flows.server.core.rollup.of`."""
    ids = list(groups)
    members = sa.select(_Membership.port_id).where(_Membership.security_group_id.in_(ids))
    claims = _claims(_Port.id.in_(members))
    at_host = sa.and_(
        _AtHost.security_group_id == _Membership.security_group_id, _AtHost.host == _Port.host
    )
    return (
        _ports(_Membership.security_group_id, claims, REALISED)
        .join_from(_Membership, _Port, _Port.id == _Membership.port_id)
        .outerjoin(_AtHost, at_host)
        .outerjoin(claims, claims.c.port_id == _Port.id)
        .where(_Membership.security_group_id.in_(ids), _Port.port_security_enabled)
        .subquery("ports_of_groups")
    )


def of_networks(networks: Collection[str]) -> sa.Subquery:
    """As :func:`of_groups`; a network has no revision."""
    mine = _Port.network_id.in_(list(networks))
    claims = _claims(mine)
    return (
        _ports(_Port.network_id, claims, sa.cast(sa.null(), sa.BigInteger()))
        .select_from(_Port)
        .outerjoin(claims, claims.c.port_id == _Port.id)
        .where(mine)
        .subquery("ports_of_networks")
    )


def _ports(
    key: Any, claims: sa.Subquery, revision: sa.ColumnElement[Any]
) -> sa.Select[*tuple[Any, ...]]:
    failed, behind = claims.c.failed == 1, claims.c.behind == 1
    return sa.select(
        key.label("key"),
        _Port.host,
        shown_state(failed, behind).label("sync_state"),
        sa.case(
            (failed, later(claims.c.failed_since, OWN_SINCE)),
            (behind, claims.c.behind_since),
            else_=later(claims.c.outcome_since, OWN_SINCE),
        ).label("since"),
        revision.label("revision"),
    )


def _claims(where: sa.ColumnElement[bool]) -> sa.Subquery:
    """What the groups of each proven port on its host make of what it claims."""

    def of_some(condition: sa.ColumnElement[bool], value: Any) -> sa.ColumnElement[Any]:
        return sa.case((condition, value))

    return (
        of_proven_ports(
            _Port.id.label("port_id"),
            sa.func.max(of_some(FAILED, 1)).label("failed"),
            sa.func.max(of_some(BEHIND, 1)).label("behind"),
            sa.func.min(of_some(FAILED, _AtHost.outcome_since)).label("failed_since"),
            sa.func.min(of_some(BEHIND, _AtHost.behind_since)).label("behind_since"),
            sa.func.max(of_some(REPORTED, _AtHost.outcome_since)).label("outcome_since"),
        )
        .where(
            # Otherwise the port is as its own row has it.
            sa.or_(
                _AtHost.behind_since.is_not(None),
                _AtHost.outcome_since.is_not(None),
                _AtHost.failed,
            ),
            where,
        )
        .group_by(_Port.id)
        .subquery("claims")
    )
