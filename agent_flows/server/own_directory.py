"""The port directory on our own tables."""

import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import PortStatus, SyncState
from agent_flows.server import models
from agent_flows.server.directory import KnownPort, PortDirectory
from agent_flows.server.gate import PortState
from agent_flows.spec import (
    AddressGroupSpec,
    AddressPair,
    Direction,
    Ethertype,
    Member,
    NetworkSpec,
    NetworkType,
    PortSpec,
    SecurityGroupRule,
    SecurityGroupSpec,
    Spec,
)

_Port = models.Port
_MOVED = (
    "status", "sync_state", "sequence", "proven_revision", "syncing_since",
    "updated_at",
)  # fmt: skip
_CLAIMED = (SyncState.IN_SYNC, SyncState.SYNCING, SyncState.OUT_OF_SYNC)


class OwnDirectory(PortDirectory):
    """Rows are locked in the order of their ids, so that workers do not lock each other out."""

    def lock(self, session: Session, port_ids: Collection[str]) -> dict[str, KnownPort]:
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
        query = sa.select(_Port).where(_Port.host == host).order_by(_Port.id)
        if port_ids is not None:
            query = query.where(_Port.id.in_(list(port_ids)))
        ports = session.scalars(query).all()
        if not ports:
            return []
        networks = _networks(session, {port.network_id for port in ports})
        specs: list[Spec] = [port_spec(port, networks[port.network_id]) for port in ports]
        groups = _groups(session, {group for port in ports for group in port.security_groups})
        remote = {rule.remote_group_id for group in groups for rule in group.rules}
        groups += _groups(
            session, {each for each in remote if each} - {group.id for group in groups}
        )
        # After the revisions: a member that joins meanwhile comes with an older
        # revision, which proves less than was done, never more.
        members = _members(session, [group.id for group in groups])
        specs += [_group_spec(group, members.get(group.id, ())) for group in groups]
        addressed = {rule.remote_address_group_id for group in groups for rule in group.rules}
        query_ = sa.select(models.AddressGroup).where(
            models.AddressGroup.id.in_([each for each in addressed if each])
        )
        specs += [
            AddressGroupSpec(id=each.id, addresses=tuple(map(ip_network, each.addresses)))
            for each in session.scalars(query_.order_by(models.AddressGroup.id))
        ]
        return specs

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

    def overdue(self, session: Session, before: datetime.datetime, limit: int) -> list[KnownPort]:
        late = _Port.sync_state == SyncState.SYNCING, _Port.syncing_since < before
        return _locked(session, sa.select(_Port).where(*late).limit(limit))

    def unvouched(self, session: Session, hosts: Collection[str], limit: int) -> list[KnownPort]:
        claimed = _Port.host.in_(list(hosts)), _Port.sync_state.in_(_CLAIMED)
        return _locked(session, sa.select(_Port).where(*claimed).limit(limit))

    def unknown(self, session: Session, host: str) -> list[KnownPort]:
        query = sa.select(_Port).where(_Port.host == host, _Port.sync_state == SyncState.UNKNOWN)
        return _locked(session, query)

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


def _networks(session: Session, ids: Collection[str]) -> dict[str, NetworkSpec]:
    query = sa.select(models.Network).where(models.Network.id.in_(list(ids)))
    return {
        row.id: NetworkSpec(
            id=row.id,
            network_type=NetworkType(row.network_type),
            segmentation_id=row.segmentation_id,
            physical_network=row.physical_network,
            mtu=row.mtu,
        )
        for row in session.scalars(query)
    }


def _groups(session: Session, ids: Collection[str]) -> list[models.SecurityGroup]:
    query = sa.select(models.SecurityGroup).where(models.SecurityGroup.id.in_(list(ids)))
    return list(session.scalars(query.order_by(models.SecurityGroup.id)))


def port_spec(port: models.Port, network: NetworkSpec) -> PortSpec:
    """The spec of a bound port."""
    return PortSpec(
        id=port.id,
        revision=port.revision_number,
        host=port.host or "",
        network=network,
        mac_address=port.mac_address,
        fixed_ips=tuple(map(ip_address, port.addresses)),
        allowed_address_pairs=tuple(
            AddressPair(ip_address=ip_network(pair["ip_address"]), mac_address=pair["mac_address"])
            for pair in port.allowed_address_pairs
        ),
        security_groups=tuple(port.security_groups),
        port_security_enabled=port.port_security_enabled,
        admin_state_up=port.admin_state_up,
        device_owner=port.device_owner,
    )


def rule_spec(rule: models.SecurityGroupRule) -> SecurityGroupRule:
    return SecurityGroupRule(
        direction=Direction(rule.direction),
        ethertype=Ethertype(rule.ethertype),
        protocol=rule.protocol,
        port_range_min=rule.port_range_min,
        port_range_max=rule.port_range_max,
        remote_ip_prefix=ip_network(rule.remote_ip_prefix) if rule.remote_ip_prefix else None,
        remote_group_id=rule.remote_group_id,
        remote_address_group_id=rule.remote_address_group_id,
    )


def _group_spec(
    group: models.SecurityGroup, members: Iterable[tuple[str, str]]
) -> SecurityGroupSpec:
    return SecurityGroupSpec(
        id=group.id,
        revision=group.revision,
        stateful=group.stateful,
        rules=tuple(rule_spec(rule) for rule in group.rules),
        members=tuple(
            Member(address=ip_network(address), mac_address=mac) for address, mac in members
        ),
    )


def _members(session: Session, group_ids: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Address and MAC of every member of each group, on every host, in a fixed order."""
    query = (
        sa.select(
            models.Membership.security_group_id,
            models.FixedIp.ip_address,
            _Port.mac_address,
            _Port.allowed_address_pairs,
        )
        .join(_Port, _Port.id == models.Membership.port_id)
        .outerjoin(models.FixedIp, models.FixedIp.port_id == _Port.id)
        .where(models.Membership.security_group_id.in_(group_ids))
    )
    found: dict[str, set[tuple[str, str]]] = {}
    for group, address, mac, pairs in session.execute(query):
        members = found.setdefault(group, set())
        members.update((pair["ip_address"], pair["mac_address"] or mac) for pair in pairs)
        if address is not None:
            members.add((address, mac))
    return {group: sorted(members) for group, members in found.items()}
