"""Makes a port of Neutron ACTIVE or DOWN, as the gate decided.

The gate's verdict is committed first; then the port gets the status of the
verdict. What is done follows from the verdict and the port's status at that
moment, so doing it twice is doing it once. A port is ``unsettled`` until it was
seen with the status of its verdict: after a worker that died, an error or a
race with another worker, the next sweep of any worker goes on.
"""

import datetime
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from neutron.db import models_v2, provisioning_blocks
from neutron.db.models.provisioning_block import ProvisioningBlock
from neutron_lib import constants, context
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.plugins import directory
from oslo_log import log
from sqlalchemy.orm import Session

from agent_flows.neutron.server import blocks, gated_ports, live_migration
from agent_flows.neutron.server.block_policy import ENTITY
from agent_flows.neutron.server.live_migration import Move
from agent_flows.neutron.server.models import GatedPort
from agent_flows.neutron.server.pending_status import PendingStatus
from agent_flows.report import PortStatus
from agent_flows.server.core import clock
from agent_flows.server.core.database import Transactions, retried

LOG = log.getLogger(__name__)
_ACTIVE, _DOWN = constants.PORT_STATUS_ACTIVE, constants.PORT_STATUS_DOWN
_BATCH = 500
# Neutron takes up to 0.1 s to make a port ACTIVE, and a batch has many.
_PATIENCE = datetime.timedelta(seconds=30)


def apply_verdicts(database: Transactions, port_ids: Collection[str]) -> set[str]:
    """Give these ports the status of their verdict.

    Answers those that do not have it yet: they are blocked by others, or something failed.
    """
    ordered = sorted(port_ids)
    left: set[str] = set()
    for start in range(0, len(ordered), _BATCH):
        left |= _apply_batch(database, ordered[start : start + _BATCH])
    return left


def _apply_batch(database: Transactions, port_ids: Collection[str]) -> set[str]:
    ports = _correct_blocks(database, port_ids)
    due = [port_id for port_id, port in ports.items() if _is_due(port)]
    for port_id in due:
        _apply(database, port_id)
    if due:
        # Verdicts may have changed since, and may have been applied before this one.
        ports |= _correct_blocks(database, due)
        for port_id in due:
            if port_id in ports and ports[port_id].to_deactivate:
                _apply(database, port_id)
    _note_settled(database, [port for port in ports.values() if port.settled])
    return {port.port_id for port in ports.values() if not port.settled}


def _is_due(port: PendingStatus) -> bool:
    return port.to_activate or port.to_deactivate


def _apply(database: Transactions, port_id: str) -> None:
    """Unless it was done since: Neutron takes some 50 ms for a port, and its own agent may have
    reported the same ports."""
    port = _read(database, port_id)
    if port is None or not _is_due(port):
        return
    try:
        if port.to_activate:
            _activate(port.port_id)
        else:
            # Through ML2, so that the mechanism driver adds the block again.
            core = directory.get_plugin()
            core.update_port_status(context.get_admin_context(), port.port_id, _DOWN)
    except Exception:
        # Other ports go on; this one stays unsettled and is tried again.
        LOG.exception(
            "Could not make port %s %s",
            port.port_id,
            port.verdict,
            extra={"port": port.port_id},
        )


@retried
def _read(database: Transactions, port_id: str) -> PendingStatus | None:
    with database.reader() as session:
        return _pending(session, [port_id]).get(port_id)


def lift_block(port_id: str) -> None:
    """Remove our block; without any other block the port becomes ACTIVE."""
    # A context for each port: Neutron's contexts keep what they have read.
    admin: Any = context.get_admin_context()
    provisioning_blocks.provisioning_complete(admin, port_id, resources.PORT, ENTITY)


def _activate(port_id: str) -> None:
    """The port becomes ACTIVE, and Nova is notified.

    Not before the end of a live migration on its source, where Neutron itself leaves the
    port DOWN from the beginning of the migration on. If it were ACTIVE there, its way to the
    destination would send Nova ``network-vif-unplugged`` a second time.

    During a live migration ML2 notifies Nova only when the OVS agent's own
    block is the last one (neutron/plugins/ml2/plugin.py, ``_port_provisioned``).
    That is right on the source. On the destination our block is the last one.
    """
    move = live_migration.move_of(port_id)
    if move is Move.LEAVES:
        return
    if move is None:
        lift_block(port_id)
        return
    registry.publish(
        resources.PORT,
        provisioning_blocks.PROVISIONING_COMPLETE,
        provisioning_blocks.L2_AGENT_ENTITY,
        payload=events.DBEventPayload(context.get_admin_context(), resource_id=port_id),
    )


@retried
def unsettled_ports(database: Transactions) -> list[str]:
    """Ports that are unsettled for longer than a running worker needs."""
    since = clock.now() - _PATIENCE
    with database.reader() as session:
        query = sa.select(GatedPort.port_id).where(
            GatedPort.unsettled.is_(True), GatedPort.updated_at < since
        )
        return list(session.scalars(query))


@retried
def _correct_blocks(database: Transactions, port_ids: Collection[str]) -> dict[str, PendingStatus]:
    """Add and remove our blocks as the verdicts demand; answers the gated ones of these ports.

    Their verdicts are locked for the transaction. Neutron is called afterwards:
    two transactions that remove the last two blocks of a port at the same time
    each still see the other's block, so neither would make the port ACTIVE.
    """
    with database.writer() as session:
        locked = sa.select(GatedPort.port_id).where(
            GatedPort.port_id.in_(port_ids), GatedPort.gated.is_(True)
        )
        ids = list(session.scalars(locked.order_by(GatedPort.port_id).with_for_update()))
        ports = _pending(session, ids)
        lift = [port.attached_to for port in ports.values() if port.to_lift]
        block = [port.attached_to for port in ports.values() if port.to_block]
        if not (lift or block):
            return ports
        blocks.lift(session, lift)
        blocks.add(session, block)
        return _pending(session, ids)


def _pending(session: Session, port_ids: Collection[str]) -> dict[str, PendingStatus]:
    row, port, block = GatedPort, models_v2.Port, ProvisioningBlock
    query = (
        sa.select(
            row.port_id,
            port.standard_attr_id,
            row.status,
            port.status,
            block.entity,
            row.ungated,
            gated_ports.IS_UP,
        )
        .join(port, port.id == row.port_id)
        .outerjoin(block, block.standard_attr_id == port.standard_attr_id)
        .where(row.port_id.in_(port_ids))
    )
    found: dict[str, PendingStatus] = {}
    for port_id, attached_to, verdict, status, entity, ungated, up in session.execute(query):
        by = found[port_id].blocked_by if port_id in found else frozenset()
        by |= {entity} if entity else frozenset()
        active = status == _ACTIVE
        found[port_id] = PendingStatus(
            port_id, attached_to, PortStatus(verdict), active, by, ungated, bool(up)
        )
    return found


@retried
def _note_settled(database: Transactions, ports: Collection[PendingStatus]) -> None:
    """Unless the verdict has changed since."""
    with database.writer() as session:
        for verdict in PortStatus:
            mine = [port.port_id for port in ports if port.verdict is verdict]
            if mine:
                session.execute(
                    sa.update(GatedPort)
                    .where(
                        GatedPort.port_id.in_(mine),
                        GatedPort.status == verdict.value,
                        GatedPort.unsettled.is_(True),
                    )
                    .values(unsettled=False)
                    .execution_options(synchronize_session=False)
                )
