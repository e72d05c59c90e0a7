"""Specs from the own tables, read with one statement for each kind of row."""

from collections.abc import Collection, Iterable, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.rpc.desired import (
    AddressesChange,
    Entry,
    GroupChange,
    Known,
    MembersChange,
    Update,
)
from agent_flows.server.standalone import models
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

# Rows, not objects of the ORM: making those took twice the time of everything else.
_networks = models.Network.__table__.c
_groups = models.SecurityGroup.__table__.c
_rules = models.SecurityGroupRule.__table__.c
_address_groups = models.AddressGroup.__table__.c
_ports = models.Port.__table__.c
_addresses = models.FixedIp.__table__.c
_memberships = models.Membership.__table__.c
_changes = models.MemberChange.__table__.c

Row = sa.Row[*tuple[Any, ...]]


def read(session: Session, host: str, port_ids: Collection[str] | None) -> list[Spec]:
    """See :meth:`agent_flows.server.core.directory.PortDirectory.specs`."""
    connection = session.connection()
    ports = _port_specs(connection, host, port_ids)
    own = {group for port in ports for group in port.security_groups}
    return [*ports, *(_group_specs(connection, own) if ports else ())]


def _port_specs(
    connection: sa.Connection, host: str, port_ids: Collection[str] | None
) -> list[PortSpec]:
    query = (
        sa.select(
            _ports.id, _ports.revision_number, _ports.host, _ports.mac_address,
            _ports.allowed_address_pairs, _ports.port_security_enabled, _ports.admin_state_up,
            _ports.device_owner, _ports.network_id,
            _networks.network_type, _networks.segmentation_id, _networks.physical_network,
            _networks.mtu,
        )
        .join_from(models.Port.__table__, models.Network.__table__)
        .where(_ports.host == host)
        .order_by(_ports.id)
    )  # fmt: skip
    if port_ids is not None:
        query = query.where(_ports.id.in_(list(port_ids)))
    ports = connection.execute(query).all()
    if not ports:
        return []
    ids = [port.id for port in ports]
    addresses = _of_ports(connection, _addresses, _addresses.ip_address, ids)
    memberships = _of_ports(connection, _memberships, _memberships.security_group_id, ids)
    networks = {port.network_id: _network(port) for port in ports}
    return [
        _port(port, networks[port.network_id], addresses[port.id], memberships[port.id])
        for port in ports
    ]


def changes(session: Session, host: str, port_ids: Collection[str], known: Known) -> Update:
    """See :meth:`agent_flows.server.core.directory.PortDirectory.changes`.

    Revisions are read before contents, so that no content is older than its revision.
    """
    connection = session.connection()
    ports = _port_specs(connection, host, port_ids) if port_ids else []
    own = {group for port in ports for group in port.security_groups_in_force}
    own |= known.security_groups.keys()
    rows = _group_rows(connection, own)
    changed = {
        id_: row for id_, row in rows.items() if known.security_groups.get(id_) != row.revision
    }
    if not changed:
        return Update(ports=ports, gone=sorted(own - rows.keys()))
    remotes, addressed = _remotes(connection, changed)
    remote_rows = _group_rows(connection, remotes) if remotes else {}
    address_rows = [
        row
        for row in _address_group_rows(connection, addressed)
        if known.address_groups.get(row.id) != row.revision
    ]
    lacking = [id_ for id_, row in changed.items() if not _has_rules(row, known)]
    rules = _rules_of(connection, lacking) if lacking else {}
    return Update(
        ports=ports,
        security_groups=[
            GroupChange(
                id_,
                row.revision,
                row.stateful,
                tuple(map(_rule, rules.get(id_, ()))) if id_ in lacking else None,
            )
            for id_, row in changed.items()
        ],
        members=[
            _members_change(connection, row, known.members.get(id_))
            for id_, row in remote_rows.items()
            if known.members.get(id_) != row.members_revision
        ],
        address_groups=[
            AddressesChange(row.id, row.revision, tuple(map(ip_network, row.addresses)))
            for row in address_rows
        ],
        gone=sorted(own - rows.keys()),
    )


def _has_rules(row: Row, known: Known) -> bool:
    """A revision above the newest is of a database that was restored since."""
    revision = known.security_groups.get(row.id, -1)
    return bool(row.rules_revision <= revision <= row.revision)


def _remotes(connection: sa.Connection, groups: Collection[str]) -> tuple[set[str], set[str]]:
    """The security groups and the address groups that the rules of ``groups`` refer to."""
    query = sa.select(_rules.remote_group_id, _rules.remote_address_group_id).distinct()
    rows = connection.execute(query.where(_rules.security_group_id.in_(list(groups)))).all()
    return (
        {row.remote_group_id for row in rows if row.remote_group_id},
        {row.remote_address_group_id for row in rows if row.remote_address_group_id},
    )


def _members_change(connection: sa.Connection, row: Row, since: int | None) -> MembersChange:
    newest = row.members_revision
    port_ids = None if since is None else _changed_between(connection, row.id, since, newest)
    if port_ids is None:
        return MembersChange(row.id, newest, None, _contributions(connection, row.id, None))
    found = _contributions(connection, row.id, port_ids)
    return MembersChange(
        row.id, newest, since, {port_id: found.get(port_id, ()) for port_id in sorted(port_ids)}
    )


def _changed_between(
    connection: sa.Connection, group: str, since: int, newest: int
) -> set[str] | None:
    """The members that changed after ``since``; None if not every change since is kept."""
    if not newest - models.MEMBER_CHANGES_KEPT <= since < newest:
        return None
    query = sa.select(_changes.port_id).where(
        _changes.security_group_id == group,
        _changes.revision > since,
        _changes.revision <= newest,
    )
    port_ids = connection.scalars(query).all()
    # Another transaction may have removed the oldest meanwhile.
    return set(port_ids) if len(port_ids) == newest - since else None


def _contributions(
    connection: sa.Connection, group: str, port_ids: Collection[str] | None
) -> dict[str, tuple[Entry, ...]]:
    """The addresses of each member, or of those in ``port_ids``."""
    query = (
        sa.select(
            _ports.id, _addresses.ip_address, _ports.mac_address, _ports.allowed_address_pairs
        )
        .join_from(models.Membership.__table__, models.Port.__table__)
        .outerjoin(models.FixedIp.__table__, _addresses.port_id == _ports.id)
        .where(_memberships.security_group_id == group)
    )
    if port_ids is not None:
        query = query.where(_memberships.port_id.in_(list(port_ids)))
    found: dict[str, set[tuple[str, str]]] = {}
    for port_id, address, mac, pairs in connection.execute(query):
        entries = found.setdefault(port_id, set())
        entries.update((pair["ip_address"], pair["mac_address"] or mac) for pair in pairs)
        if address is not None:
            entries.add((address, mac))
    return {
        port_id: tuple((ip_network(address), mac) for address, mac in sorted(entries))
        for port_id, entries in sorted(found.items())
        if entries
    }


def _group_specs(connection: sa.Connection, own: Collection[str]) -> list[Spec]:
    groups = _group_rows(connection, own)
    rules = _rules_of(connection, groups)
    remote = {rule.remote_group_id for each in rules.values() for rule in each} - {None, *groups}
    if remote:
        groups |= (further := _group_rows(connection, remote))
        rules |= _rules_of(connection, further)
    # After the revisions: a member that joins in between comes with an older
    # revision, which proves less than was done, never more.
    members = _members(connection, groups)
    addressed = {rule.remote_address_group_id for each in rules.values() for rule in each} - {None}
    return [
        *(_group(row, rules.get(row.id, ()), members.get(row.id, ())) for row in groups.values()),
        *(_address_group(row) for row in _address_group_rows(connection, addressed)),
    ]


def _of_ports(
    connection: sa.Connection, table: Any, value: sa.ColumnElement[Any], port_ids: Sequence[str]
) -> dict[str, list[str]]:
    """The values of each port, in the order of their positions."""
    query = (
        sa.select(table.port_id, value)
        .where(table.port_id.in_(port_ids))
        .order_by(table.port_id, table.position)
    )
    found: dict[str, list[str]] = {port_id: [] for port_id in port_ids}
    for port_id, each in connection.execute(query):
        found[port_id].append(each)
    return found


def _group_rows(connection: sa.Connection, ids: Collection[str]) -> dict[str, Row]:
    query = sa.select(
        _groups.id,
        _groups.revision,
        _groups.stateful,
        _groups.rules_revision,
        _groups.members_revision,
    )
    rows = connection.execute(query.where(_groups.id.in_(list(ids))).order_by(_groups.id))
    return {row.id: row for row in rows}


def _rules_of(connection: sa.Connection, groups: Collection[str]) -> dict[str, list[Row]]:
    query = (
        sa.select(*_rules)
        .where(_rules.security_group_id.in_(list(groups)))
        .order_by(_rules.security_group_id, _rules.position)
    )
    found: dict[str, list[Row]] = {}
    for rule in connection.execute(query):
        found.setdefault(rule.security_group_id, []).append(rule)
    return found


def _members(
    connection: sa.Connection, groups: Collection[str]
) -> dict[str, list[tuple[str, str]]]:
    """Address and MAC of every member of each group, on every host, in a fixed order."""
    query = (
        sa.select(
            _memberships.security_group_id,
            _addresses.ip_address,
            _ports.mac_address,
            _ports.allowed_address_pairs,
        )
        .join_from(models.Membership.__table__, models.Port.__table__)
        .outerjoin(models.FixedIp.__table__, _addresses.port_id == _ports.id)
        .where(_memberships.security_group_id.in_(list(groups)))
    )
    found: dict[str, set[tuple[str, str]]] = {}
    for group, address, mac, pairs in connection.execute(query):
        members = found.setdefault(group, set())
        members.update((pair["ip_address"], pair["mac_address"] or mac) for pair in pairs)
        if address is not None:
            members.add((address, mac))
    return {group: sorted(members) for group, members in found.items()}


def _address_group_rows(connection: sa.Connection, ids: Collection[str]) -> Sequence[Row]:
    if not ids:
        return ()
    query = sa.select(_address_groups.id, _address_groups.addresses, _address_groups.revision)
    query = query.where(_address_groups.id.in_(list(ids))).order_by(_address_groups.id)
    return connection.execute(query).all()


def _network(row: Row) -> NetworkSpec:
    return NetworkSpec(
        id=row.network_id,
        network_type=NetworkType(row.network_type),
        segmentation_id=row.segmentation_id,
        physical_network=row.physical_network,
        mtu=row.mtu,
    )


def _port(
    row: Row, network: NetworkSpec, addresses: Iterable[str], groups: Iterable[str]
) -> PortSpec:
    return PortSpec(
        id=row.id,
        revision=row.revision_number,
        host=row.host,
        network=network,
        mac_address=row.mac_address,
        fixed_ips=tuple(map(ip_address, addresses)),
        allowed_address_pairs=tuple(
            AddressPair(ip_address=ip_network(pair["ip_address"]), mac_address=pair["mac_address"])
            for pair in row.allowed_address_pairs
        ),
        security_groups=tuple(groups),
        port_security_enabled=row.port_security_enabled,
        admin_state_up=row.admin_state_up,
        device_owner=row.device_owner,
    )


def _rule(row: Row) -> SecurityGroupRule:
    return SecurityGroupRule(
        direction=Direction(row.direction),
        ethertype=Ethertype(row.ethertype),
        protocol=row.protocol,
        port_range_min=row.port_range_min,
        port_range_max=row.port_range_max,
        source_port_range_min=row.source_port_range_min,
        source_port_range_max=row.source_port_range_max,
        remote_ip_prefix=ip_network(row.remote_ip_prefix) if row.remote_ip_prefix else None,
        remote_group_id=row.remote_group_id,
        remote_address_group_id=row.remote_address_group_id,
    )


def _group(row: Row, rules: Iterable[Row], members: Iterable[tuple[str, str]]) -> SecurityGroupSpec:
    return SecurityGroupSpec(
        id=row.id,
        revision=row.revision,
        stateful=row.stateful,
        rules=tuple(map(_rule, rules)),
        members=tuple(
            Member(address=ip_network(address), mac_address=mac) for address, mac in members
        ),
    )


def _address_group(row: Row) -> AddressGroupSpec:
    return AddressGroupSpec(id=row.id, addresses=tuple(map(ip_network, row.addresses)))
