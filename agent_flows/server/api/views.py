"""How rows are shown: Neutron's names, times in ISO 8601, UTC."""

import datetime
import json
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.server import models
from agent_flows.spec import PROTOCOLS

View = dict[str, Any]
# Of several names of a protocol the one Neutron's documentation uses, which is
# the last in that table's order.
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def network(row: models.Network) -> View:
    return {
        "id": row.id,
        "name": row.name,
        "network_type": row.network_type,
        "segmentation_id": row.segmentation_id,
        "physical_network": row.physical_network,
        "mtu": row.mtu,
    }


def address_group(row: models.AddressGroup) -> View:
    return {"id": row.id, "name": row.name, "addresses": row.addresses}


def security_group(row: models.SecurityGroup) -> View:
    return {
        "id": row.id,
        "name": row.name,
        "stateful": row.stateful,
        "security_group_rules": [
            {
                "direction": rule.direction,
                "ethertype": rule.ethertype,
                "protocol": _protocol(rule.protocol),
                "port_range_min": rule.port_range_min,
                "port_range_max": rule.port_range_max,
                "source_port_range_min": rule.source_port_range_min,
                "source_port_range_max": rule.source_port_range_max,
                "remote_ip_prefix": rule.remote_ip_prefix,
                "remote_group_id": rule.remote_group_id,
                "remote_address_group_id": rule.remote_address_group_id,
            }
            for rule in row.rules
        ],
        "revision_number": row.revision,
    }


def _protocol(number: int | None) -> str | int | None:
    return None if number is None else _PROTOCOL_NAMES.get(number, number)


def port(row: models.Port, reason: str | None) -> View:
    return {
        "id": row.id,
        "name": row.name,
        "network_id": row.network_id,
        "mac_address": row.mac_address,
        "fixed_ips": [{"ip_address": address} for address in row.addresses],
        "allowed_address_pairs": [
            {
                "ip_address": pair["ip_address"],
                "mac_address": pair["mac_address"] or row.mac_address,
            }
            for pair in row.allowed_address_pairs
        ],
        "security_groups": row.security_groups,
        "port_security_enabled": row.port_security_enabled,
        "admin_state_up": row.admin_state_up,
        "device_owner": row.device_owner,
        "binding:host_id": row.host,
        "status": row.status,
        "sync_state": row.sync_state,
        "reason": reason,
        "revision_number": row.revision_number,
        "updated_at": moment(row.updated_at),
    }


def task(attempt: models.Attempt, row: models.Task) -> View:
    error = None
    if row.error_type is not None:
        error = {
            "type": row.error_type,
            "message": row.error_message,
            "detail": row.error_detail,
        }
    return {
        # No dot: web frameworks take what follows one for a file's type.
        "id": f"{attempt.id}-{row.position}",
        "resource_type": attempt.resource_type,
        "resource_id": attempt.resource_id,
        "host": attempt.host,
        "flow": attempt.flow,
        "flow_id": attempt.id,
        "name": row.name,
        "step": row.step,
        "order": row.position,
        "task_state": row.task_state,
        "attempt": attempt.attempt,
        "revision": attempt.revision,
        "started_at": moment(row.started_at),
        "duration": row.duration,
        "error": error,
    }


def agents(
    session: Session, rows: Sequence[models.Agent], alive: Callable[[models.Agent], bool]
) -> list[View]:
    """Agents with the number of their ports in each sync_state."""
    ported = models.Port
    query = (
        sa.select(ported.host, ported.sync_state, sa.func.count())
        .where(ported.host.in_([row.host for row in rows]))
        .group_by(ported.host, ported.sync_state)
    )
    ports: dict[str, dict[str, int]] = {}
    for host, state, number in session.execute(query):
        ports.setdefault(str(host), {})[state] = number
    return [
        {
            "id": row.host,
            "host": row.host,
            "alive": alive(row),
            "heartbeat_at": moment(row.heartbeat_at),
            "sequence": row.sequence,
            "state": json.loads(row.state),
            "conflict": conflict(row),
            "ports": ports.get(row.host, {}),
        }
        for row in rows
    ]


def troubles(row: models.Agent) -> dict[str, str]:
    """What keeps the host from its work, one line by source."""
    state = json.loads(row.state)
    found = state.get("troubles") if isinstance(state, dict) else None
    return found if isinstance(found, dict) else {}


def troubled(session: Session, alive: Callable[[models.Agent], bool]) -> dict[str, str]:
    """Hosts whose agent is silent, in trouble or contended, each with a line that says so."""
    found: dict[str, str] = {}
    for row in session.scalars(sa.select(models.Agent).order_by(models.Agent.host)):
        lines = [f"{source}: {line}" for source, line in troubles(row).items()]
        if not alive(row):
            lines.insert(
                0, f"no sign of life since {row.heartbeat_at.isoformat(timespec='seconds')}"
            )
        if conflict(row) is not None:
            lines.append("another agent reports as this host")
        if lines:
            found[row.host] = "; ".join(lines)
    return found


def conflict(row: models.Agent) -> View | None:
    """Another agent that wants to speak for the host, and when it was last heard."""
    if row.contended_at is None:
        return None
    return {"boot_id": row.contender, "heard_at": moment(row.contended_at)}


def moment(value: datetime.datetime | None) -> str | None:
    return None if value is None else value.isoformat(timespec="microseconds")
