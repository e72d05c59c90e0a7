"""The port directory on the standalone server's own tables."""

import dataclasses
import datetime
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import PortStatus, SyncState
from agent_flows.rpc.desired import Known, Update
from agent_flows.rpc.revisions import Revisions
from agent_flows.server.core import clock
from agent_flows.server.core.directory import PortDirectory
from agent_flows.server.core.gate import GroupAtHost, PortState, Settings
from agent_flows.server.standalone import groups_at_hosts, models, port_state, specs
from agent_flows.spec import Spec

_Port = models.Port
# Rows, not objects of the ORM: these take less time.
_ports = models.Port.__table__.c
_groups = models.SecurityGroup.__table__.c
_memberships = models.Membership.__table__.c
_MOST_HOSTS = 5000


class OwnDirectory(PortDirectory):
    def __init__(self) -> None:
        super().__init__(_Port, _Port.id, _Port.revision_number)
        # By host: its ports' revisions, hashed, and the groups these ports are in. A port's
        # revision rises with its groups, so this saves the costly half of a digest.
        self._groups_at: dict[str, tuple[int, Sequence[str]]] = {}

    def lock(self, session: Session, port_ids: Collection[str], host: str) -> dict[str, PortState]:
        ports = self._locked(session, _Port.id.in_(list(port_ids)))
        groups = _groups_of(session, [port.id for port in ports])
        return {
            port.id: dataclasses.replace(
                port,
                security_group_revisions={row.id: row.revision for row in groups[port.id]},
                rules_revisions={row.id: row.rules_revision for row in groups[port.id]},
            )
            for port in ports
        }

    def move(self, session: Session, ports: Sequence[PortState]) -> None:
        self._write(session, ports)
        proven = [(port.id, port.host or "", port.proven_groups) for port in ports]
        groups_at_hosts.prove(session, proven, clock.now())

    def lock_groups(
        self, session: Session, groups: Collection[str], host: str
    ) -> dict[str, GroupAtHost]:
        return groups_at_hosts.lock(session, groups, host)

    def move_groups(
        self, session: Session, groups: Sequence[GroupAtHost], settings: Settings
    ) -> None:
        for group in groups:
            groups_at_hosts.move(session, group, settings, clock.now())

    def to_activate(
        self, session: Session, hosts: Collection[str], limit: int
    ) -> Sequence[PortState]:
        """Those of which the last report was not that they have no interface."""
        return self._locked(
            session,
            _Port.host.in_(list(hosts)),
            _Port.status == PortStatus.DOWN.value,
            _Port.admin_state_up.is_(True),
            _Port.sync_state != SyncState.ABSENT.value,
            limit=limit,
        )

    def overdue(
        self,
        session: Session,
        before: datetime.datetime,
        ahead: datetime.datetime,
        limit: int,
    ) -> list[PortState]:
        silent = super().overdue(session, before, ahead, limit)
        if len(silent) == limit:
            return silent
        behind = groups_at_hosts.overdue(session, before, ahead, limit - len(silent))
        late = self._locked(session, _Port.id.in_(list(behind))) if behind else []
        # One whose report arrived meanwhile may be SYNCING by itself.
        claimed = (port for port in late if port.sync_state is SyncState.IN_SYNC)
        return silent + [
            dataclasses.replace(port, sync_state=SyncState.SYNCING, sync_since=behind[port.id])
            for port in claimed
        ]

    def _shown_ports(self) -> sa.Subquery:
        return port_state.SHOWN

    def specs(self, session: Session, host: str, port_ids: Collection[str] | None) -> list[Spec]:
        return specs.read(session, host, port_ids)

    def changes(
        self, session: Session, host: str, port_ids: Collection[str], known: Known
    ) -> Update:
        return specs.changes(session, host, port_ids, known)

    def desired(self, session: Session, host: str) -> Revisions:
        ports, awaited = _ports_at(session, host)
        key = hash(frozenset(ports.items()))
        known, groups = self._groups_at.get(host, (None, ()))
        if known != key:
            groups = _groups_at(session, host)
            if len(self._groups_at) >= _MOST_HOSTS:
                self._groups_at.clear()
            self._groups_at[host] = key, groups
        return Revisions(ports, _revisions_of(session, groups), awaited)

    def revisions(self, session: Session, host: str) -> Revisions:
        ports, awaited = _ports_at(session, host)
        return Revisions(ports, _revisions_of(session, _groups_at(session, host)), awaited)

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
            .values(sync_state=SyncState.SYNCING, sync_since=now, updated_at=now)
            .execution_options(synchronize_session=False)
        )


def _ports_at(session: Session, host: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """The revisions of the ports bound to ``host``, and those of them that are UNKNOWN."""
    query = sa.select(_ports.id, _ports.revision_number, _ports.sync_state)
    rows = session.connection().execute(query.where(_ports.host == host)).all()
    unknown = tuple(row.id for row in rows if row.sync_state == SyncState.UNKNOWN)
    return {row.id: row.revision_number for row in rows}, unknown


def _groups_at(session: Session, host: str) -> tuple[str, ...]:
    """The groups of its ports; not of those without port security, whose flows and reports do not
    depend on any."""
    query = (
        sa.select(_memberships.security_group_id)
        .join_from(models.Membership.__table__, models.Port.__table__)
        .where(_ports.host == host, _ports.port_security_enabled)
        .distinct()
    )
    return tuple(session.connection().scalars(query))


def _revisions_of(session: Session, groups: Sequence[str]) -> dict[str, int]:
    query = sa.select(_groups.id, _groups.revision).where(_groups.id.in_(groups))
    return {row.id: row.revision for row in session.connection().execute(query)} if groups else {}


def _groups_of(session: Session, port_ids: Sequence[str]) -> dict[str, list[Any]]:
    """The revisions of each port's groups; none for a port without port security."""
    membership, group = models.Membership, models.SecurityGroup
    query = (
        sa.select(membership.port_id, group.id, group.revision, group.rules_revision)
        .join(group, group.id == membership.security_group_id)
        .join(_Port, _Port.id == membership.port_id)
        .where(membership.port_id.in_(port_ids), _Port.port_security_enabled)
    )
    found: dict[str, list[Any]] = {port_id: [] for port_id in port_ids}
    for row in session.execute(query):
        found[row.port_id].append(row)
    return found
