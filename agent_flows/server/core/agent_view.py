"""Agents as the APIs show them, as ``/healthz`` names them, and as Prometheus counts them."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.server.core import clock, condition
from agent_flows.server.core.listing import View
from agent_flows.server.core.liveness import Conflict, Liveness
from agent_flows.server.core.metrics import AGENT_NUMBERS, AgentGauges
from agent_flows.server.core.models import Agent, PortRow


def shown(
    session: Session,
    rows: Sequence[Agent],
    liveness: Liveness,
    port: type[PortRow],
    sync_state: sa.SQLColumnExpression[str],
) -> list[View]:
    """Agents with the number of their ports (rows of ``port``) in each ``sync_state``."""
    theirs = (
        sa.select(port.host, sync_state.label("state"))
        .where(port.host.in_([row.host for row in rows]))
        .subquery()
    )
    query = sa.select(theirs.c.host, theirs.c.state, sa.func.count())
    query = query.group_by(theirs.c.host, theirs.c.state)
    ports: dict[str, dict[str, int]] = {}
    for host, state, number in session.execute(query):
        ports.setdefault(str(host), {})[state] = number
    return [
        {
            "id": row.host,
            "host": row.host,
            "alive": liveness.alive(row),
            "heartbeat_at": clock.shown(row.heartbeat_at),
            "sequence": row.sequence,
            "state": condition.of_text(row.state).shown(),
            "conflict": _conflict(liveness.conflict(row)),
            "desired": _desired(row),
            "ports": ports.get(row.host, {}),
        }
        for row in rows
    ]


def _conflict(conflict: Conflict | None) -> View | None:
    if conflict is None:
        return None
    return {"boot_id": conflict.boot_id, "heard_at": clock.shown(conflict.heard_at)}


def _desired(row: Agent) -> View | None:
    """Whether the agent has the current desired state, as of its last heartbeat; None if that is
    not compared."""
    if row.desired is None:
        return None
    since = row.differs_since
    return {
        "in_step": since is None,
        "differs_since": None if since is None else clock.shown(since),
    }


def _behind(row: Agent, liveness: Liveness) -> float | None:
    """For how many seconds the agent has had another desired state than the server."""
    if row.desired is None:
        return None
    since = row.differs_since
    return 0.0 if since is None else max((liveness.now - since).total_seconds(), 0.0)


def troubled(session: Session, liveness: Liveness) -> dict[str, str]:
    """Hosts whose agent is silent, in trouble, not the only one or behind, each with one line."""
    found: dict[str, str] = {}
    for row in session.scalars(sa.select(Agent).order_by(Agent.host)):
        last = row.heartbeat_at.isoformat(timespec="seconds")
        lines = [] if liveness.alive(row) else [f"no heartbeat since {last}"]
        troubles = condition.of_text(row.state).troubles
        lines += [f"{source.value}: {line}" for source, line in troubles.items()]
        if liveness.conflict(row) is not None:
            lines.append("another agent reports as this host")
        if (_behind(row, liveness) or 0.0) > liveness.rules.down_time:
            lines.append(
                f"its agent has another desired state than the server since "
                f"{clock.shown(row.differs_since)}"
            )
        if lines:
            found[row.host] = "; ".join(lines)
    return found


def gauges(session: Session, liveness: Liveness) -> list[AgentGauges]:
    """Of every agent that is known."""
    found = []
    for row in session.scalars(sa.select(Agent).order_by(Agent.host)):
        state = condition.of_text(row.state)
        found.append(
            AgentGauges(
                host=row.host,
                alive=liveness.alive(row),
                age=max((liveness.now - row.heartbeat_at).total_seconds(), 0.0),
                conflict=liveness.conflict(row) is not None,
                troubles=frozenset(state.troubles),
                behind=_behind(row, liveness),
                numbers={name: state.facts[name] for name in AGENT_NUMBERS if name in state.facts},
            )
        )
    return found
