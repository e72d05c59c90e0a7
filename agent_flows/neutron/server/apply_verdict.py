"""Bringing about in Neutron what the gate decided of a port.

The gate's verdict is committed first; then the port is made what the verdict
says. What is done follows from the verdict and from how the port stands at
that moment, never from who asked, so doing it twice is doing it once. A port
is ``unsettled`` until it was seen to be what was decided, so whatever comes
in between (a worker that dies, an error, somebody else's step at the same
time) the next sweep of any worker goes on.
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

from agent_flows.neutron.server import blocks, live_migration
from agent_flows.neutron.server.block_policy import ENTITY
from agent_flows.neutron.server.models import GatedPort
from agent_flows.neutron.server.pending_status import Standing
from agent_flows.report import PortStatus
from agent_flows.server.core import clock
from agent_flows.server.core.database import Transactions, retried

LOG = log.getLogger(__name__)
_ACTIVE, _DOWN = constants.PORT_STATUS_ACTIVE, constants.PORT_STATUS_DOWN
_BATCH = 500
# Neutron takes up to 0.1 s to make a port ACTIVE, and several are settled at once.
_PATIENCE = datetime.timedelta(seconds=30)


def settle(database: Transactions, port_ids: Collection[str]) -> set[str]:
    """Make these ports what was decided of them.

    Answers those that are not yet: they wait for others, or something failed.
    """
    ordered = sorted(port_ids)
    left: set[str] = set()
    for start in range(0, len(ordered), _BATCH):
        left |= _settle_batch(database, ordered[start : start + _BATCH])
    return left


def _settle_batch(database: Transactions, port_ids: Collection[str]) -> set[str]:
    ports = _put_blocks_right(database, port_ids)
    due = [port_id for port_id, port in ports.items() if _to_do(port)]
    for port_id in due:
        _act(database, port_id)
    if due:
        # What was decided meanwhile counts, and may have been settled before this was.
        ports |= _put_blocks_right(database, due)
        for port_id in due:
            if port_id in ports and ports[port_id].to_fall:
                _act(database, port_id)
    _note_settled(database, [port for port in ports.values() if port.settled])
    return {port.port_id for port in ports.values() if not port.settled}


def _to_do(port: Standing) -> bool:
    return port.to_raise or port.to_fall


def _act(database: Transactions, port_id: str) -> None:
    """Unless it was done meanwhile: Neutron may be at the same ports just now, upon its agent's
    own word, and one takes it some 50 ms."""
    port = _now(database, port_id)
    if port is None or not _to_do(port):
        return
    try:
        if port.to_raise:
            _raise(port.port_id)
        else:
            # Through ML2, so that the mechanism driver adds the block again.
            core = directory.get_plugin()
            core.update_port_status(context.get_admin_context(), port.port_id, _DOWN)
    except Exception:
        # One port's trouble is its own: it stays unsettled, and is looked at again.
        LOG.exception("Could not make port %s %s", port.port_id, port.verdict)


@retried
def _now(database: Transactions, port_id: str) -> Standing | None:
    with database.reader() as session:
        return _standing(session, [port_id]).get(port_id)


def proclaim(port_id: str) -> None:
    """Neutron waits for us no longer; if for nobody else either, the port becomes ACTIVE."""
    # A context of its own for each port: Neutron's hold what they have read.
    admin: Any = context.get_admin_context()
    provisioning_blocks.provisioning_complete(admin, port_id, resources.PORT, ENTITY)


def _raise(port_id: str) -> None:
    """The port becomes ACTIVE, and Nova hears of it.

    While a port is being moved, ML2 tells Nova only of what the OVS agent's
    own block gave way to (neutron/plugins/ml2/plugin.py, ``_port_provisioned``).
    That is right on the source. On the destination our block is the last one.
    """
    if not live_migration.has_arrived(port_id):
        proclaim(port_id)
        return
    registry.publish(
        resources.PORT,
        provisioning_blocks.PROVISIONING_COMPLETE,
        provisioning_blocks.L2_AGENT_ENTITY,
        payload=events.DBEventPayload(context.get_admin_context(), resource_id=port_id),
    )


@retried
def forgotten(database: Transactions) -> list[str]:
    """Ports that are unsettled for longer than a worker that lives takes."""
    since = clock.now() - _PATIENCE
    with database.reader() as session:
        query = sa.select(GatedPort.port_id).where(
            GatedPort.unsettled.is_(True), GatedPort.updated_at < since
        )
        return list(session.scalars(query))


@retried
def _put_blocks_right(database: Transactions, port_ids: Collection[str]) -> dict[str, Standing]:
    """Our blocks as the verdicts want them; how the gated ones of these ports stand then.

    Verdicts stand still meanwhile. To tell Neutron is another step: two who
    lift the last blocks of a port at one time each see the other's, which is
    not gone before its transaction ends, and then nobody tells.
    """
    with database.writer() as session:
        locked = sa.select(GatedPort.port_id).where(
            GatedPort.port_id.in_(port_ids), GatedPort.gated.is_(True)
        )
        ids = list(session.scalars(locked.order_by(GatedPort.port_id).with_for_update()))
        ports = _standing(session, ids)
        lift = [port.attached_to for port in ports.values() if port.to_lift]
        block = [port.attached_to for port in ports.values() if port.to_block]
        if not (lift or block):
            return ports
        blocks.lift(session, lift)
        blocks.add(session, block)
        return _standing(session, ids)


def _standing(session: Session, port_ids: Collection[str]) -> dict[str, Standing]:
    row, port, block = GatedPort, models_v2.Port, ProvisioningBlock
    query = (
        sa.select(row.port_id, port.standard_attr_id, row.status, port.status, block.entity)
        .join(port, port.id == row.port_id)
        .outerjoin(block, block.standard_attr_id == port.standard_attr_id)
        .where(row.port_id.in_(port_ids))
    )
    found: dict[str, Standing] = {}
    for port_id, attached_to, verdict, status, entity in session.execute(query):
        by = found[port_id].blocked_by if port_id in found else frozenset()
        by |= {entity} if entity else frozenset()
        active = status == _ACTIVE
        found[port_id] = Standing(port_id, attached_to, PortStatus(verdict), active, by)
    return found


@retried
def _note_settled(database: Transactions, ports: Collection[Standing]) -> None:
    """Of those whose verdict is still the same."""
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
