"""The port directory on our own tables."""

import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import PortStatus, SyncState
from agent_flows.server.core.directory import KnownPort, PortDirectory
from agent_flows.server.core.gate import PortState
from agent_flows.server.standalone import models, specs
from agent_flows.spec import Spec

_Port = models.Port
_MOVED = (
    "status", "sync_state", "sequence", "proven_revision", "syncing_since",
    "updated_at",
)  # fmt: skip


class OwnDirectory(PortDirectory):
    """Rows are locked in the order of their ids, so that workers do not lock each other out."""

    def lock(self, session: Session, port_ids: Collection[str], host: str) -> dict[str, KnownPort]:
        found = _locked(session, sa.select(_Port).where(_Port.id.in_(list(port_ids))))
        return {port.state.id: port for port in found}

    def move(self, session: Session, ports: Sequence[KnownPort]) -> None:
        if not ports:
            return
        statement = (
            sa.update(_Port)
            .where(_Port.id == sa.bindparam("port"))
            .values({name: sa.bindparam(name) for name in _MOVED})
        )
        session.connection().execute(statement, [_row(port) for port in ports])

    def specs(self, session: Session, host: str, port_ids: Collection[str] | None) -> list[Spec]:
        return specs.read(session, host, port_ids)

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

    def overdue(
        self,
        session: Session,
        before: datetime.datetime,
        ahead: datetime.datetime,
        limit: int,
    ) -> list[KnownPort]:
        since = _Port.syncing_since
        late = _Port.sync_state == SyncState.SYNCING, sa.or_(since < before, since > ahead)
        return _locked(session, sa.select(_Port).where(*late).limit(limit))

    def in_states(
        self,
        session: Session,
        hosts: Collection[str],
        states: Collection[SyncState],
        limit: int | None = None,
    ) -> list[KnownPort]:
        theirs = _Port.host.in_(list(hosts)), _Port.sync_state.in_(list(states))
        return _locked(session, sa.select(_Port).where(*theirs).limit(limit))

    def hosts_in_states(self, session: Session, states: Collection[SyncState]) -> set[str]:
        bound = _Port.host.is_not(None), _Port.sync_state.in_(list(states))
        found = session.scalars(sa.select(_Port.host).where(*bound).distinct())
        return {host for host in found if host}

    def with_ports(self, session: Session, hosts: Collection[str]) -> set[str]:
        theirs = sa.select(_Port.host).where(_Port.host.in_(list(hosts))).distinct()
        return {host for host in session.scalars(theirs) if host}

    def counts(self, session: Session) -> Mapping[tuple[str, str, str], int]:
        query = sa.select(_Port.host, _Port.status, _Port.sync_state, sa.func.count())
        rows = session.execute(query.group_by(_Port.host, _Port.status, _Port.sync_state))
        return {(host or "", status, state): number for host, status, state, number in rows}


def _locked(session: Session, query: sa.Select[Any]) -> list[KnownPort]:
    columns = (
        _Port.id, _Port.host, _Port.revision_number, _Port.status, _Port.sync_state,
        _Port.admin_state_up, _Port.sequence, _Port.proven_revision, _Port.port_security_enabled,
        _Port.syncing_since, _Port.updated_at,
    )  # fmt: skip
    rows = session.execute(
        query.with_only_columns(*columns).order_by(_Port.id).with_for_update()
    ).all()
    revisions = _revisions(session, [row.id for row in rows if row.port_security_enabled])
    return [
        KnownPort(
            PortState(
                id=row.id,
                host=row.host,
                revision=row.revision_number,
                status=PortStatus(row.status),
                sync_state=SyncState(row.sync_state),
                admin_state_up=row.admin_state_up,
                sequence=row.sequence,
                proven_revision=row.proven_revision,
                security_group_revisions=revisions.get(row.id, {}),
            ),
            row.syncing_since,
            row.updated_at,
        )
        for row in rows
    ]


def _revisions(session: Session, port_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    query = (
        sa.select(models.Membership.port_id, models.SecurityGroup.id, models.SecurityGroup.revision)
        .join(models.SecurityGroup, models.SecurityGroup.id == models.Membership.security_group_id)
        .where(models.Membership.port_id.in_(port_ids))
    )
    revisions: dict[str, dict[str, int]] = {}
    for port, group, revision in session.execute(query):
        revisions.setdefault(port, {})[group] = revision
    return revisions


def _row(port: KnownPort) -> dict[str, Any]:
    return {
        "port": port.state.id,
        "status": port.state.status.value,
        "sync_state": port.state.sync_state.value,
        "sequence": port.state.sequence,
        "proven_revision": port.state.proven_revision,
        "syncing_since": port.syncing_since,
        "updated_at": port.updated_at,
    }
