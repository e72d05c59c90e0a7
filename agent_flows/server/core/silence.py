"""Hosts without a live agent: finding them, and why nothing is known of their ports."""

import datetime
from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import TaskError
from agent_flows.server.core import unknown
from agent_flows.server.core.liveness import Rules
from agent_flows.server.core.models import Agent


def absence(session: Session, hosts: Collection[str]) -> dict[str, TaskError]:
    """The hosts without a live agent, each with the error that its ports get."""
    if not hosts:
        return {}
    found = session.scalars(sa.select(Agent).where(Agent.host.in_(list(hosts))))
    rows = {row.host: row for row in found}
    missing = {host: unknown.never_seen(host) for host in hosts if host not in rows}
    dead = (row for row in rows.values() if row.declared_dead)
    return missing | {row.host: unknown.silent(row.host, row.heartbeat_at) for row in dead}


def lock_silent(
    session: Session, hosts: Collection[str], now: datetime.datetime, rules: Rules
) -> dict[str, TaskError]:
    """As :func:`absence`, after declaring dead, under a lock, the agents that are silent by now."""
    rows = session.scalars(
        sa.select(Agent).where(Agent.host.in_(list(hosts))).order_by(Agent.host).with_for_update()
    ).all()
    for row in rows:
        if row.heartbeat_at > now + rules.down:
            # The server's clock was set back: silence is measured from now.
            row.heartbeat_at = now
            row.spoke_at = now
        row.declared_dead = row.declared_dead or row.heartbeat_at < now - rules.down
    session.flush()
    return absence(session, hosts)


def newly_silent(session: Session, now: datetime.datetime, rules: Rules) -> set[str]:
    """Hosts to look at: silent and not yet declared dead, or with a heartbeat in the future."""
    last = Agent.heartbeat_at
    silent = sa.or_(
        sa.and_(last < now - rules.down, sa.not_(Agent.declared_dead)), last > now + rules.down
    )
    return set(session.scalars(sa.select(Agent.host).where(silent)))


def with_agent(session: Session) -> set[str]:
    """The hosts whose agent was seen and is not declared dead."""
    return set(session.scalars(sa.select(Agent.host).where(sa.not_(Agent.declared_dead))))


def without_agent(session: Session, hosts: Collection[str]) -> set[str]:
    """The hosts whose agent was never seen or is declared dead."""
    return set(hosts) - with_agent(session)
