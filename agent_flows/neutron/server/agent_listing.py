"""``GET /v2.0/agent-flows-agents``: the agents with our extension, and the state of their hosts."""

import datetime
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.neutron.server.models import GatedPort
from agent_flows.server.core import agent_view
from agent_flows.server.core.listing import View
from agent_flows.server.core.liveness import Liveness, Rules
from agent_flows.server.core.models import Agent
from agent_flows.validation import Invalid

_PORTS = sa.select(GatedPort.host, GatedPort.sync_state.label("state")).subquery("shown_ports")


def hosts(
    session: Session,
    rules: Rules,
    now: datetime.datetime,
    filters: Mapping[str, Sequence[str]],
    *,
    limit: int | None = None,
    marker: str | None = None,
) -> list[View]:
    """The agents with our extension, by host: at most ``limit`` after ``marker``.

    Raises :class:`agent_flows.validation.Invalid` for an unknown filter.
    """
    unknown = next((name for name in filters if name not in ("id", "host")), None)
    if unknown is not None:
        raise Invalid(unknown, filters[unknown], "agents can be filtered by host only")
    query = sa.select(Agent).order_by(Agent.host).limit(limit)
    for names in filters.values():
        query = query.where(Agent.host.in_(list(names)))
    if marker is not None:
        query = query.where(Agent.host > marker)
    rows = session.scalars(query).all()
    return agent_view.shown(session, rows, Liveness(rules, now), _PORTS)
