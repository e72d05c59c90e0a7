"""``GET /v2.0/agent-flows-agents``: how the hosts fare, as their agents' extension says."""

import datetime
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.neutron.server.models import GatedPort
from agent_flows.server.core import agent_view
from agent_flows.server.core.agent_view import Seen
from agent_flows.server.core.agents import Rules
from agent_flows.server.core.listing import View
from agent_flows.server.core.models import Agent
from agent_flows.validation import Invalid


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
    rows = session.scalars(query).all()
    return agent_view.shown(session, rows, Seen(rules, now), GatedPort)
