"""Agents as the APIs show them, as ``/healthz`` names them, and as Prometheus counts them."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import SyncState, Trouble
from agent_flows.rpc.signing import fingerprint
from agent_flows.server.core import clock, condition, gating
from agent_flows.server.core.directory import PortDirectory
from agent_flows.server.core.gating import Suspension
from agent_flows.server.core.listing import View
from agent_flows.server.core.liveness import Conflict, Liveness, is_strange
from agent_flows.server.core.metrics import AGENT_NUMBERS, AgentGauges, Snapshot
from agent_flows.server.core.models import Agent
from agent_flows.server.core.shape import (
    BOOLEAN,
    INTEGER,
    MOMENT,
    TEXT,
    about,
    nullable,
    numbers,
    record,
)

SHAPES = {
    "id": about(TEXT, "the host"),
    "host": TEXT,
    "alive": BOOLEAN,
    "heartbeat_at": MOMENT,
    "sequence": INTEGER,
    "state": about(
        {
            "type": "object",
            "properties": {
                "trouble": nullable(TEXT),
                "troubles": {
                    "type": "object",
                    "propertyNames": {"enum": [str(source) for source in Trouble]},
                    "additionalProperties": TEXT,
                },
            },
            "required": ["trouble", "troubles"],
        },
        "as the agent reports it; `troubles` are what keeps the host from its work",
    ),
    "conflict": about(
        nullable(record({"boot_id": TEXT, "heard_at": nullable(MOMENT)})),
        "another agent that reports as the same host",
    ),
    "host_key": about(
        nullable(record({"fingerprint": TEXT, "stranger": BOOLEAN})),
        "the key that speaks for the host; `stranger`: the agent that reports now has not it",
    ),
    "desired": about(
        nullable(record({"in_step": BOOLEAN, "differs_since": nullable(MOMENT)})),
        "whether it has the server's desired state; null if it does not compare",
    ),
    "gating_off": about(
        nullable(record({"since": MOMENT, "until": MOMENT, "by": TEXT, "reason": TEXT})),
        "while gating is off there",
    ),
    "ports": about(numbers(SyncState), "number in each sync_state"),
}
"""What :func:`shown` gives of an agent."""


def shown(
    session: Session,
    rows: Sequence[Agent],
    liveness: Liveness,
    shown_ports: sa.Subquery,
) -> list[View]:
    """Agents with the number of their ports in each ``state`` of ``shown_ports``, which have a
    ``host`` as well."""
    key = shown_ports.c.host, shown_ports.c.state
    theirs = shown_ports.c.host.in_([row.host for row in rows])
    query = sa.select(*key, sa.func.count()).where(theirs).group_by(*key)
    ports: dict[str, dict[str, int]] = {}
    for host, state, number in session.execute(query):
        ports.setdefault(str(host), {})[state] = number
    current = gating.read(session, liveness.now)
    return [
        {
            "id": row.host,
            "host": row.host,
            "alive": liveness.alive(row),
            "heartbeat_at": clock.shown(row.heartbeat_at),
            "sequence": row.sequence,
            "state": condition.of_text(row.state).shown(),
            "conflict": _conflict(liveness.conflict(row)),
            "host_key": _host_key(row),
            "desired": _desired(row),
            "gating_off": _gating_off(current.off(row.host, liveness.now)),
            "ports": ports.get(row.host, {}),
        }
        for row in rows
    ]


def _conflict(conflict: Conflict | None) -> View | None:
    if conflict is None:
        return None
    return {"boot_id": conflict.boot_id, "heard_at": clock.shown(conflict.heard_at)}


def _host_key(row: Agent) -> View | None:
    """The key that speaks for the host; ``stranger``: the agent that reports now has not it."""
    if row.host_key is None:
        return None
    return {"fingerprint": fingerprint(row.host_key), "stranger": is_strange(row)}


def _gating_off(suspension: Suspension | None) -> View | None:
    if suspension is None:
        return None
    return {
        "since": clock.shown(suspension.since),
        "until": clock.shown(suspension.until),
        "by": suspension.by,
        "reason": suspension.reason,
    }


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
    """Hosts whose agent is silent, in trouble, not the only one or behind, or where
    gating is off; each with one line."""
    found: dict[str, str] = {}
    current = gating.read(session, liveness.now)
    for row in session.scalars(sa.select(Agent).order_by(Agent.host)):
        last = row.heartbeat_at.isoformat(timespec="seconds")
        lines = [] if liveness.alive(row) else [f"no heartbeat since {last}"]
        troubles = condition.of_text(row.state).troubles
        lines += [f"{source.value}: {line}" for source, line in troubles.items()]
        if liveness.conflict(row) is not None:
            lines.append("another agent reports as this host")
        if is_strange(row):
            lines.append("its agent does not have the host's key")
        if (_behind(row, liveness) or 0.0) > liveness.rules.down_time:
            lines.append(
                f"its agent has another desired state than the server since "
                f"{clock.shown(row.differs_since)}"
            )
        if off := current.off(row.host, liveness.now):
            lines.append(f"gating is off until {clock.shown(off.until)}: {off.reason}")
        if lines:
            found[row.host] = "; ".join(lines)
    return found


def snapshot(session: Session, directory: PortDirectory, liveness: Liveness) -> Snapshot:
    """What Prometheus reads of the database."""
    suspensions = gating.read(session, liveness.now).suspensions
    until = sorted((each.host or "", each.until.timestamp()) for each in suspensions)
    ports = dict(directory.counts(session))
    return Snapshot(ports, gauges(session, liveness), dict(until))


def gauges(session: Session, liveness: Liveness) -> list[AgentGauges]:
    """Of every agent that is known."""
    found = []
    current = gating.read(session, liveness.now)
    for row in session.scalars(sa.select(Agent).order_by(Agent.host)):
        state = condition.of_text(row.state)
        found.append(
            AgentGauges(
                host=row.host,
                alive=liveness.alive(row),
                age=max((liveness.now - row.heartbeat_at).total_seconds(), 0.0),
                conflict=liveness.conflict(row) is not None,
                troubles=frozenset(state.troubles),
                gated=current.off(row.host, liveness.now) is None,
                behind=_behind(row, liveness),
                numbers={name: state.facts[name] for name in AGENT_NUMBERS if name in state.facts},
            )
        )
    return found
