"""The port directory on the standalone server's own tables."""

import dataclasses
import datetime
from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import SyncState
from agent_flows.rpc.revisions import Revisions
from agent_flows.server.core.directory import PortDirectory
from agent_flows.server.core.gate import PortState
from agent_flows.server.standalone import models, specs
from agent_flows.spec import Spec

_Port = models.Port
# Rows, not objects of the ORM: these take less time.
_ports = models.Port.__table__.c
_groups = models.SecurityGroup.__table__.c
_memberships = models.Membership.__table__.c


class OwnDirectory(PortDirectory):
    def __init__(self) -> None:
        super().__init__(_Port, _Port.id, _Port.revision_number)

    def lock(self, session: Session, port_ids: Collection[str], host: str) -> dict[str, PortState]:
        ports = self._locked(session, _Port.id.in_(list(port_ids)))
        revisions = _group_revisions(session, [port.id for port in ports])
        return {
            port.id: dataclasses.replace(port, security_group_revisions=revisions.get(port.id, {}))
            for port in ports
        }

    def move(self, session: Session, ports: Sequence[PortState]) -> None:
        self._write(session, ports)

    def specs(self, session: Session, host: str, port_ids: Collection[str] | None) -> list[Spec]:
        return specs.read(session, host, port_ids)

    def desired_digest(self, session: Session, host: str) -> str:
        return self.revisions(session, host).digest()

    def revisions(self, session: Session, host: str) -> Revisions:
        connection = session.connection()
        ports: dict[str, int] = {}
        awaited = []
        query = sa.select(_ports.id, _ports.revision_number, _ports.sync_state)
        for port_id, revision, state in connection.execute(query.where(_ports.host == host)):
            ports[port_id] = revision
            if state == SyncState.UNKNOWN:
                awaited.append(port_id)
        # Without port security no flow depends on a group, and no report names one.
        inside = (
            sa.select(_memberships.security_group_id)
            .join_from(models.Membership.__table__, _Port.__table__)
            .where(_ports.host == host, _ports.port_security_enabled)
        )
        in_use = sa.select(_groups.id, _groups.revision).where(_groups.id.in_(inside))
        groups = {row.id: row.revision for row in connection.execute(in_use)}
        return Revisions(ports, groups, tuple(awaited))

    def asked_for(
        self, session: Session, host: str, port_ids: Collection[str], now: datetime.datetime
    ) -> None:
        session.execute(
            sa.update(_Port)
            .where(
                _Port.id.in_(list(port_ids)),
                _Port.host == host,
                _Port.sync_state == SyncState.ABSENT,
            )
            .values(sync_state=SyncState.SYNCING, syncing_since=now, updated_at=now)
            .execution_options(synchronize_session=False)
        )


def _group_revisions(session: Session, port_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """The revisions of each port's groups; none for a port without port security."""
    membership, group = models.Membership, models.SecurityGroup
    query = (
        sa.select(membership.port_id, group.id, group.revision)
        .join(group, group.id == membership.security_group_id)
        .join(_Port, _Port.id == membership.port_id)
        .where(membership.port_id.in_(port_ids), _Port.port_security_enabled)
    )
    revisions: dict[str, dict[str, int]] = {}
    for port, group_id, revision in session.execute(query):
        revisions.setdefault(port, {})[group_id] = revision
    return revisions
