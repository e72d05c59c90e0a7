"""``GET /v2.0/agent-flows-agents``: how the hosts fare, as their agents' extension says."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.neutron.server.models import GatedPort
from agent_flows.server import condition
from agent_flows.server.agents import Rules
from agent_flows.server.api import views
from agent_flows.server.api.agent_view import Seen
from agent_flows.server.models import Agent
from agent_flows.validation import Invalid

View = dict[str, Any]


def hosts(
    session: Session,
    rules: Rules,
    now: datetime.datetime,
    filters: Mapping[str, Sequence[str]],
    *,
    limit: int | None = None,
    marker: str | None = None,
) -> list[View]:
    """The agents of our extension, by host: at most ``limit`` of those behind ``marker``.

    Raises :class:`agent_flows.validation.Invalid` for a filter that is none.
    """
    unknown = next((name for name in filters if name not in ("id", "host")), None)
    if unknown is not None:
        raise Invalid(unknown, filters[unknown], "agents are filtered by host only")
    query = sa.select(Agent).order_by(Agent.host).limit(limit)
    for wanted in filters.values():
        query = query.where(Agent.host.in_(list(wanted)))
    if marker is not None:
        query = query.where(Agent.host > marker)
    return _shown(session, session.scalars(query).all(), rules, now)


def _shown(
    session: Session, rows: Sequence[Agent], rules: Rules, now: datetime.datetime
) -> list[View]:
    named = GatedPort.host.in_([row.host for row in rows])
    query = sa.select(GatedPort.host, GatedPort.sync_state, sa.func.count()).where(named)
    ports: dict[str, dict[str, int]] = {}
    for host, state, number in session.execute(
        query.group_by(GatedPort.host, GatedPort.sync_state)
    ):
        ports.setdefault(host, {})[state] = number
    seen = Seen(rules, now)
    return [
        {
            "id": row.host,
            "host": row.host,
            "alive": seen.alive(row),
            "heartbeat_at": views.moment(row.heartbeat_at),
            "state": condition.of_text(row.state).shown(),
            "conflict": seen.conflict(row),
            "ports": ports.get(row.host, {}),
        }
        for row in rows
    ]
