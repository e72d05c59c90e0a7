"""What is known of the agents: signs of life, and what their return sets going."""

import dataclasses
import datetime
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import SyncState
from agent_flows.server.casts import Casts, to_hosts
from agent_flows.server.directory import PortDirectory
from agent_flows.server.models import Agent
from agent_flows.validation import Invalid


def as_text(state: Mapping[str, Any]) -> str:
    """A heartbeat's state as it is stored; raises :class:`Invalid` if it is no JSON."""
    try:
        return json.dumps(state, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise Invalid("state", type(exc).__name__, "must be JSON") from None


def lives(
    session: Session,
    directory: PortDirectory,
    host: str,
    now: datetime.datetime,
    *,
    sequence: int = 0,
    state: str | None = None,
) -> tuple[int, Casts]:
    """The agent of ``host`` gave a sign of life.

    Answers the highest sequence held for the host. The ports of an agent that
    was taken for dead are SYNCING again, and it is asked to wire them anew.
    """
    agent = session.get(Agent, host, with_for_update=True)
    if agent is None:
        session.add(
            Agent(
                host=host,
                sequence=sequence,
                heartbeat_at=now,
                declared_dead=False,
                state=state or "{}",
            )
        )
        session.flush()
        return sequence, Casts()
    casts = _returned(session, directory, host, now) if agent.declared_dead else Casts()
    agent.declared_dead = False
    agent.heartbeat_at = max(agent.heartbeat_at, now)
    agent.sequence = max(agent.sequence, sequence)
    if state is not None:
        agent.state = state
    session.flush()
    return agent.sequence, casts


def _returned(
    session: Session, directory: PortDirectory, host: str, now: datetime.datetime
) -> Casts:
    waiting = [
        dataclasses.replace(
            port,
            state=dataclasses.replace(port.state, sync_state=SyncState.SYNCING),
            syncing_since=now,
            updated_at=now,
        )
        for port in directory.in_states(session, [host], [SyncState.UNKNOWN])
    ]
    directory.move(session, waiting)
    return Casts(resyncs=to_hosts([host], {port.state.id for port in waiting}))


def declare_dead(session: Session, silent_since: datetime.datetime) -> list[Agent]:
    """Agents, locked, without a sign of life since ``silent_since``."""
    silent = sa.select(Agent).where(Agent.heartbeat_at < silent_since).order_by(Agent.host)
    agents = list(session.scalars(silent.with_for_update()))
    for agent in agents:
        agent.declared_dead = True
    session.flush()
    return agents
