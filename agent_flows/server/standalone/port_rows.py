"""Ports as the tables have them, many at once: values, and reading and writing these.

Rows, not objects of the ORM: these take less than half of the time.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.server.core.models import table_of
from agent_flows.server.standalone import bodies, dependents, models
from agent_flows.server.standalone.bounded_queries import in_chunks

_PORTS, _FIXED_IPS = table_of(models.Port), table_of(models.FixedIp)
_MEMBERSHIPS = table_of(models.Membership)

_WISHES = (
    "name", "network_id", "mac_address", "allowed_address_pairs", "port_security_enabled",
    "admin_state_up", "device_owner", "host",
)  # fmt: skip

_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_BY_ID = (
    sa.select(*(column.label(column.key) for column in _PORTS.c))
    .where(_PORTS.c.id.in_(_IDS))
    .order_by(_PORTS.c.id)
    .with_for_update()
)
_ADDRESSES = (
    sa.select(_FIXED_IPS.c.port_id, _FIXED_IPS.c.ip_address)
    .where(_FIXED_IPS.c.port_id.in_(_IDS))
    .order_by(_FIXED_IPS.c.port_id, _FIXED_IPS.c.position)
)
_GROUPS = (
    sa.select(_MEMBERSHIPS.c.port_id, _MEMBERSHIPS.c.security_group_id)
    .where(_MEMBERSHIPS.c.port_id.in_(_IDS))
    .order_by(_MEMBERSHIPS.c.port_id, _MEMBERSHIPS.c.position)
)
_UPDATE = sa.update(_PORTS).where(_PORTS.c.id == sa.bindparam("its_id"))


@dataclass(frozen=True)
class PortRows:
    """One port: ``row`` by the columns of the table of ports, and what other tables have of it."""

    row: Mapping[str, Any]
    addresses: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def id(self) -> str:
        return str(self.row["id"])

    @property
    def host(self) -> str | None:
        host: str | None = self.row["host"]
        return host

    @property
    def wishes(self) -> tuple[object, ...]:
        """What a PUT sets."""
        return (self.row["name"], *self.wiring)

    @property
    def wiring(self) -> tuple[object, ...]:
        """What the port's revision is about: all that a PUT sets but the name."""
        wishes = (self.row[name] for name in _WISHES if name != "name")
        return (*wishes, self.addresses, self.groups)

    @property
    def dependence(self) -> frozenset[tuple[str, str]]:
        """The groups that its security depends on, each with the host."""
        if self.host is None or not self.row["port_security_enabled"]:
            return frozenset()
        return frozenset((self.host, group) for group in self.groups)

    @property
    def contribution(self) -> dependents.Contribution:
        """What it adds to the members of each of its groups."""
        mac, pairs = self.row["mac_address"], self.row["allowed_address_pairs"]
        return dependents.contribution(self.groups, mac, self.addresses, pairs)


def wanted(body: bodies.Port) -> PortRows:
    """What a PUT wants of the port: its row has no revision, and nothing of its state."""
    row = {name: getattr(body, name) for name in _WISHES}
    row["allowed_address_pairs"] = [
        {
            "ip_address": str(pair.ip_address),
            "mac_address": None if pair.mac_address == body.mac_address else pair.mac_address,
        }
        for pair in body.allowed_address_pairs
    ]
    addresses = tuple(str(each.ip_address) for each in body.fixed_ips)
    return PortRows({"id": body.id, **row}, addresses, tuple(body.security_groups))


def lock(session: Session, port_ids: Collection[str]) -> dict[str, PortRows]:
    """Those of the ports that exist; they do not change until the transaction ends."""
    connection = session.connection()
    rows = [
        row
        for ids in in_chunks(sorted(port_ids))
        for row in connection.execute(_BY_ID, {"ids": ids}).mappings()
    ]
    present = [row["id"] for row in rows]
    addresses, groups = (_lists(session, query, present) for query in (_ADDRESSES, _GROUPS))
    return {
        row["id"]: PortRows(dict(row), tuple(addresses[row["id"]]), tuple(groups[row["id"]]))
        for row in rows
    }


def _lists(
    session: Session, query: sa.Select[Any], port_ids: Sequence[str]
) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {port_id: [] for port_id in port_ids}
    for ids in in_chunks(port_ids):
        for port_id, value in session.connection().execute(query, {"ids": ids}):
            found[port_id].append(value)
    return found


def write(session: Session, changes: Sequence[tuple[PortRows | None, PortRows]]) -> None:
    """Write ports, each with what :func:`lock` found of it; None for a new one."""
    _make_way(session, changes)
    connection = session.connection()
    new = [dict(after.row) for before, after in changes if before is None]
    if new:
        connection.execute(sa.insert(_PORTS), new)
    present = [{**after.row, "its_id": after.id} for before, after in changes if before]
    if present:
        connection.execute(_UPDATE, present)
    addresses = [
        {
            "network_id": after.row["network_id"],
            "ip_address": address,
            "port_id": after.id,
            "position": place,
        }
        for before, after in changes
        if before is None or _placed(before) != _placed(after)
        for place, address in enumerate(after.addresses)
    ]
    if addresses:
        connection.execute(sa.insert(_FIXED_IPS), addresses)
    memberships = [
        {
            "port_id": after.id,
            "security_group_id": group,
            "position": place,
            "proven_revision": None,
        }
        for before, after in changes
        if before is None or before.groups != after.groups
        for place, group in enumerate(after.groups)
    ]
    if memberships:
        connection.execute(sa.insert(_MEMBERSHIPS), memberships)


def _make_way(session: Session, changes: Sequence[tuple[PortRows | None, PortRows]]) -> None:
    """Remove what :func:`write` replaces, for ports may take addresses from each other."""
    replaced = [(before, after) for before, after in changes if before is not None]
    readdressed = [after.id for before, after in replaced if _placed(before) != _placed(after)]
    regrouped = [after.id for before, after in replaced if before.groups != after.groups]
    for table, ids in ((_FIXED_IPS, readdressed), (_MEMBERSHIPS, regrouped)):
        for some in in_chunks(ids):
            session.connection().execute(sa.delete(table).where(table.c.port_id.in_(some)))
    leaving = {_mac(before): after.id for before, after in replaced if _mac(before) != _mac(after)}
    taken = [leaving[mac] for mac in (_mac(after) for _, after in changes) if mac in leaving]
    if taken:
        # No MAC address, and gone before the transaction ends.
        parked = [{"its_id": id_, "mac_address": f"-{n}"} for n, id_ in enumerate(taken)]
        session.connection().execute(_UPDATE, parked)


def _placed(port: PortRows) -> tuple[str, tuple[str, ...]]:
    return port.row["network_id"], port.addresses


def _mac(port: PortRows) -> tuple[str, str]:
    return port.row["network_id"], port.row["mac_address"]
