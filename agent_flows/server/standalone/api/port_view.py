"""Ports as they are shown: with why one is not as it should be, read for a whole page at once."""

from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.errors import ErrorType
from agent_flows.report import SyncState, TaskState
from agent_flows.server.core import condition
from agent_flows.server.core.listing import View
from agent_flows.server.core.liveness import Liveness
from agent_flows.server.core.models import Agent, Attempt, Task
from agent_flows.server.standalone import diagnosis, groups_at_hosts, models
from agent_flows.server.standalone.api import views

_FAILED = frozenset({SyncState.OUT_OF_SYNC, SyncState.UNKNOWN})


def ports(session: Session, rows: Sequence[models.Port], liveness: Liveness) -> list[View]:
    agents = _agents(session, {row.host for row in rows if row.host}, liveness)
    states = groups_at_hosts.sync_states(session, [row.id for row in rows])
    failures = _failures(session, [row.id for row in rows if states[row.id] in _FAILED])
    return [
        views.port(
            row,
            states[row.id],
            diagnosis.reason(
                _port(row, states[row.id]), agents.get(row.host or ""), failures.get(row.id)
            ),
        )
        for row in rows
    ]


def _port(row: models.Port, sync_state: str) -> diagnosis.Port:
    return diagnosis.Port(
        id=row.id,
        host=row.host,
        sync_state=sync_state,
        admin_state_up=row.admin_state_up,
        # As agent_flows.spec.PortSpec.trusted has it.
        filtered=row.port_security_enabled and not row.device_owner.startswith("network:"),
        grouped=bool(row.memberships),
    )


def _agents(
    session: Session, hosts: Collection[str], liveness: Liveness
) -> Mapping[str, diagnosis.Agent]:
    if not hosts:
        return {}
    rows = session.scalars(sa.select(Agent).where(Agent.host.in_(list(hosts))))
    return {
        row.host: diagnosis.Agent(liveness.alive(row), row.heartbeat_at, _troubles(row))
        for row in rows
    }


def _troubles(row: Agent) -> dict[str, str]:
    return {source.value: line for source, line in condition.of_text(row.state).troubles.items()}


def _failures(session: Session, port_ids: Collection[str]) -> Mapping[str, diagnosis.Failure]:
    """Of these ports' last attempts the task that failed; the cause, not a revert after it."""
    if not port_ids:
        return {}
    attempt, task = Attempt, Task
    newest = (
        sa.select(sa.func.max(attempt.ordinal))
        .where(attempt.resource_id.in_(list(port_ids)))
        .group_by(attempt.resource_id)
    )
    query = (
        sa.select(attempt.resource_id, task.name, task.error_type, task.error_message)
        .join(task, task.ordinal == attempt.ordinal)
        .where(attempt.ordinal.in_(newest), task.task_state == TaskState.FAILED.value)
        .order_by(task.position)
    )
    found: dict[str, diagnosis.Failure] = {}
    for port_id, name, type_, message in session.execute(query):
        before = found.get(port_id)
        if before is None or before.type == ErrorType.REVERT_FAILED:
            found[port_id] = diagnosis.Failure(name, str(type_), str(message))
    return found
