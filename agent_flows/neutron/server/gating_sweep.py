"""Lets ports without a proof be ACTIVE on hosts where gating is off, and gates them again after it.

Ports that are bound meanwhile get no block in the first place (``mechanism.py``). Here are those
that had one, and those that are still DOWN when gating is on again.
"""

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from neutron.db import models_v2
from neutron_lib import constants
from oslo_log import log
from sqlalchemy.orm import Session

from agent_flows.neutron.server import blocks
from agent_flows.neutron.server.models import GatedPort
from agent_flows.report import PortStatus
from agent_flows.server.core import clock
from agent_flows.server.core.database import Transactions, retried
from agent_flows.server.core.gating import RecentGating

LOG = log.getLogger(__name__)

_Row = GatedPort
_BATCH = 500


def follow(database: Transactions, recent: RecentGating) -> set[str]:
    """Lift and add blocks as gating demands; answers the ports whose status may follow."""
    released: set[str] = set()
    while ports := _release(database, recent):
        LOG.warning("%d ports need no proof to be ACTIVE: gating is off", len(ports))
        released |= set(ports)
    while ports := _take_back(database, recent):
        LOG.info("%d ports are gated again", len(ports))
    return released


@retried
def _release(database: Transactions, recent: RecentGating) -> Sequence[str]:
    """Lift the blocks of ports that wait for a proof."""
    now = clock.now()
    with database.writer() as session:
        current = recent.current(session, now)
        if not current.suspensions:
            return ()
        off = current.hosts_off(session.scalars(sa.select(_Row.host).distinct()), now)
        if not off:
            return ()
        waiting = _locked(
            session,
            _Row.gated.is_(True),
            _Row.ungated.is_(False),
            _Row.status == PortStatus.DOWN.value,
            _Row.host.in_(off),
        )
        blocks.lift(session, list(_attributes(session, waiting)))
        _write(session, waiting, ungated=True)
        return waiting


@retried
def _take_back(database: Transactions, recent: RecentGating) -> Sequence[str]:
    """Block the ports that are not ACTIVE; those that are stay so until a report fails."""
    now = clock.now()
    with database.writer() as session:
        current = recent.current(session, now)
        theirs = sa.select(_Row.host).where(_Row.ungated.is_(True)).distinct()
        hosts = set(session.scalars(theirs))
        on = hosts - current.hosts_off(hosts, now)
        if not on:
            return ()
        ports = _locked(session, _Row.ungated.is_(True), _Row.host.in_(on))
        down = sa.and_(
            _Row.status == PortStatus.DOWN.value,
            models_v2.Port.status != constants.PORT_STATUS_ACTIVE,
        )
        blocks.add(session, list(_attributes(session, ports, down)))
        _write(session, ports, ungated=False)
        return ports


def _locked(session: Session, *where: sa.ColumnElement[bool]) -> Sequence[str]:
    query = sa.select(_Row.port_id).where(*where).order_by(_Row.port_id).limit(_BATCH)
    return session.scalars(query.with_for_update()).all()


def _attributes(
    session: Session, port_ids: Collection[str], *where: sa.ColumnElement[bool]
) -> Sequence[int]:
    port = models_v2.Port
    query = (
        sa.select(port.standard_attr_id)
        .join(_Row, _Row.port_id == port.id)
        .where(port.id.in_(port_ids), *where)
    )
    return session.scalars(query).all()


def _write(session: Session, port_ids: Collection[str], *, ungated: bool) -> None:
    session.execute(
        sa.update(_Row)
        .where(_Row.port_id.in_(port_ids))
        .values(ungated=ungated)
        .execution_options(synchronize_session=False)
    )
