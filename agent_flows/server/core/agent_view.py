"""Agents as they are shown, and what is said of a host in trouble."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.server.core import agents, clock, condition
from agent_flows.server.core.agents import Rules
from agent_flows.server.core.listing import View
from agent_flows.server.core.models import Agent, PortRow


@dataclass(frozen=True)
class Seen:
    """What the agents' rows mean at ``now``."""

    rules: Rules
    now: datetime.datetime

    def alive(self, row: Agent) -> bool:
        return agents.is_alive(row, self.now, self.rules)

    def troubles(self, row: Agent) -> dict[str, str]:
        """What keeps the host from its work, a line by source."""
        found = condition.of_text(row.state).troubles
        return {source.value: line for source, line in found.items()}

    def conflict(self, row: Agent) -> View | None:
        """Another agent that wants to speak for the host, and when it was last heard."""
        found = agents.conflict(row, self.now, self.rules)
        if found is None:
            return None
        return {"boot_id": found.boot_id, "heard_at": clock.shown(found.heard_at)}

    def silence(self, row: Agent) -> str:
        return f"no sign of life since {row.heartbeat_at.isoformat(timespec='seconds')}"


def shown(session: Session, rows: Sequence[Agent], seen: Seen, port: type[PortRow]) -> list[View]:
    """Agents with the number of their ports (rows of ``port``) in each sync_state."""
    query = (
        sa.select(port.host, port.sync_state, sa.func.count())
        .where(port.host.in_([row.host for row in rows]))
        .group_by(port.host, port.sync_state)
    )
    ports: dict[str, dict[str, int]] = {}
    for host, state, number in session.execute(query):
        ports.setdefault(str(host), {})[state] = number
    return [
        {
            "id": row.host,
            "host": row.host,
            "alive": seen.alive(row),
            "heartbeat_at": clock.shown(row.heartbeat_at),
            "sequence": row.sequence,
            "state": condition.of_text(row.state).shown(),
            "conflict": seen.conflict(row),
            "ports": ports.get(row.host, {}),
        }
        for row in rows
    ]


def troubled(session: Session, seen: Seen) -> dict[str, str]:
    """Hosts whose agent is silent, in trouble or not alone, each with a line that says so."""
    found: dict[str, str] = {}
    for row in session.scalars(sa.select(Agent).order_by(Agent.host)):
        lines = [] if seen.alive(row) else [seen.silence(row)]
        lines += [f"{source}: {line}" for source, line in seen.troubles(row).items()]
        if seen.conflict(row) is not None:
            lines.append("another agent reports as this host")
        if lines:
            found[row.host] = "; ".join(lines)
    return found
