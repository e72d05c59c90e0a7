"""Ports as they are shown: with why one is not as it should be, read for a whole page at once."""

from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import SyncState
from agent_flows.server.core import clock, condition, failures
from agent_flows.server.core.failures import Failure
from agent_flows.server.core.listing import View
from agent_flows.server.core.liveness import Liveness
from agent_flows.server.core.models import Agent
from agent_flows.server.standalone import diagnosis, models, out_of_sync, port_state
from agent_flows.server.standalone.api import views

_OF_GROUPS = frozenset({"sync_state", "sync_since", "sync_reason", "reason"})
_OF_FAILURES = frozenset({"sync_reason", "reason"})


def ports(
    session: Session, rows: Sequence[models.Port], liveness: Liveness, fields: frozenset[str]
) -> list[View]:
    """Ports with at least these fields; what the others need is not read."""
    found = {row.id: views.port(row) for row in rows}
    if fields & _OF_GROUPS:
        # Only what its own last report proved may be untrue because of a group.
        proven = [row.id for row in rows if row.sync_state == SyncState.IN_SYNC]
        for port_id, (state, since) in port_state.shown(session, proven).items():
            found[port_id] |= {"sync_state": state, "sync_since": clock.shown(since)}
    open_failures: Mapping[str, Failure] = {}
    if fields & _OF_FAILURES:
        ids = [id_ for id_, view in found.items() if view["sync_state"] in failures.OUT_OF_SYNC]
        open_failures = _failures(session, ids)
        for port_id, failure in open_failures.items():
            found[port_id]["sync_reason"] = failure.shown
    if "reason" in fields:
        agents = _agents(session, {row.host for row in rows if row.host}, liveness)
        for row in rows:
            view = found[row.id]
            port, agent = _port(row, view["sync_state"]), agents.get(row.host or "")
            view["reason"] = diagnosis.reason(port, agent, open_failures.get(row.id))
    return list(found.values())


def _failures(session: Session, port_ids: Collection[str]) -> Mapping[str, Failure]:
    if not port_ids:
        return {}
    return failures.of_ports(session, out_of_sync.affected(models.Port.id.in_(list(port_ids))))


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
