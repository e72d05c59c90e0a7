"""What Neutron's rows desire of a host, as revisions by content."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from neutron.db import models_v2
from neutron.db.models import address_group, allowed_address_pair, securitygroup
from neutron.db.port_security.models import PortSecurityBinding
from sqlalchemy.orm import Session

from agent_flows.neutron import content, rules_digest
from agent_flows.neutron.content import PortContent, comparable
from agent_flows.neutron.server import block_policy
from agent_flows.neutron.server.models import GatedPort
from agent_flows.report import SyncState
from agent_flows.rpc.revisions import Revisions

T = TypeVar("T")

_Port = models_v2.Port
_Address = models_v2.IPAllocation
_Pair = allowed_address_pair.AllowedAddressPair
_Membership = securitygroup.SecurityGroupPortBinding
_Group = securitygroup.SecurityGroup
_Rule = securitygroup.SecurityGroupRule
_Association = address_group.AddressAssociation

_FRESH_SECONDS = 5.0
"""How long what was read of a group is used again, for the heartbeats of all hosts with the group.
It is less than the time between two heartbeats of a host: an agent that has newer members than this
is not found to differ at both."""


@dataclass(frozen=True)
class _GroupContent:
    """A security group's rules; ``remotes`` and ``address_groups`` are those they refer to."""

    revision: int
    remotes: frozenset[str]
    address_groups: frozenset[str]


class DesiredContent:
    """Reads the rows; in any thread. ``now`` is a monotonic clock, in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._groups = _Fresh(_groups, now)
        self._members = _Fresh(_members, now)
        self._address_groups = _Fresh(_address_groups, now)

    def of_host(self, session: Session, host: str) -> Revisions:
        """Of every port that has a row for ``host``, and of all that its filter depends on."""
        ports = _ports(session, host)
        used = frozenset().union(*(port.groups for port in ports.values() if port.filtered))
        groups = self._groups.of(session, used)
        remotes = frozenset().union(*(group.remotes for group in groups.values()))
        addresses = frozenset().union(*(group.address_groups for group in groups.values()))
        return Revisions(
            ports=comparable({id_: port.revision for id_, port in ports.items()}),
            security_groups=comparable({id_: group.revision for id_, group in groups.items()}),
            awaited=_awaited(session, host),
            members=comparable(self._members.of(session, remotes)),
            address_groups=comparable(self._address_groups.of(session, addresses)),
        )


def members(session: Session, group: str) -> dict[str, int]:
    """A revision of what each port with an address adds to the security group's members."""
    lines: dict[str, list[str]] = defaultdict(list)
    for _, port_id, address, mac in _member_rows(session, [group]):
        lines[port_id].append(content.member(address, mac))
    return {port_id: content.revision_of_members(found) for port_id, found in lines.items()}


class _Fresh(Generic[T]):
    """What ``read`` found, by id, used again for :data:`_FRESH_SECONDS`. While one thread reads,
    the others wait: hosts mostly ask for the same groups."""

    def __init__(
        self,
        read: Callable[[Session, Sequence[str]], Mapping[str, T]],
        now: Callable[[], float],
    ) -> None:
        self._read, self._now = read, now
        self._lock = threading.Lock()
        # When it was read, and what was found.
        self._known: dict[str, tuple[float, T]] = {}

    def of(self, session: Session, ids: Collection[str]) -> dict[str, T]:
        if not ids:
            return {}
        with self._lock:
            now = self._now()
            self._known = {
                id_: entry for id_, entry in self._known.items() if now - entry[0] < _FRESH_SECONDS
            }
            if missing := ids - self._known.keys():
                found = self._read(session, sorted(missing))
                self._known.update((id_, (now, value)) for id_, value in found.items())
            return {id_: self._known[id_][1] for id_ in ids if id_ in self._known}


def _ports(session: Session, host: str) -> dict[str, PortContent]:
    addresses: dict[str, list[str]] = defaultdict(list)
    for row in _of_host(session, host, _Address.port_id, _Address.ip_address):
        addresses[row.port_id].append(row.ip_address)
    pairs: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in _of_host(session, host, _Pair.port_id, _Pair.ip_address, _Pair.mac_address):
        pairs[row.port_id].append((row.ip_address, row.mac_address))
    groups: dict[str, set[str]] = defaultdict(set)
    for row in _of_host(session, host, _Membership.port_id, _Membership.security_group_id):
        groups[row.port_id].add(row.security_group_id)
    query = (
        sa.select(
            _Port.id,
            _Port.mac_address,
            _Port.admin_state_up,
            _Port.device_owner,
            PortSecurityBinding.port_security_enabled,
        )
        .join(GatedPort, GatedPort.port_id == _Port.id)
        .outerjoin(PortSecurityBinding, PortSecurityBinding.port_id == _Port.id)
        .where(GatedPort.host == host)
    )
    return {
        id_: PortContent(
            mac=mac,
            admin_state_up=admin_state_up,
            filtered=block_policy.is_filtered(owner or "", port_security),
            addresses=addresses[id_],
            pairs=pairs[id_],
            groups=frozenset(groups[id_]),
        )
        for id_, mac, admin_state_up, owner, port_security in session.execute(query)
    }


def _awaited(session: Session, host: str) -> tuple[str, ...]:
    """The ports of which nothing is known: their agent is to report them."""
    unknown = GatedPort.sync_state == SyncState.UNKNOWN.value
    return tuple(
        session.scalars(sa.select(GatedPort.port_id).where(GatedPort.host == host, unknown))
    )


def _of_host(session: Session, host: str, port_id: Any, *columns: Any) -> sa.Result[Any]:
    """These columns of the rows that belong to a port of ``host``, after the port's id."""
    query = sa.select(port_id, *columns).join(GatedPort, GatedPort.port_id == port_id)
    return session.execute(query.where(GatedPort.host == host))


def _groups(session: Session, ids: Sequence[str]) -> dict[str, _GroupContent]:
    query = sa.select(_Group.id, _Group.stateful).where(_Group.id.in_(ids))
    stateful = {row.id: row.stateful for row in session.execute(query)}
    rules: dict[str, list[Any]] = {id_: [] for id_ in stateful}
    columns = [getattr(_Rule, name) for name in rules_digest.NAMES]
    query_rules = sa.select(_Rule.security_group_id, *columns)
    for row in session.execute(query_rules.where(_Rule.security_group_id.in_(stateful))):
        rules[row.security_group_id].append(row)
    return {
        id_: _GroupContent(
            content.revision_of_group(
                stateful=stateful[id_], rules=rules_digest.of_objects(of_group)
            ),
            frozenset(filter(None, (rule.remote_group_id for rule in of_group))),
            frozenset(filter(None, (rule.remote_address_group_id for rule in of_group))),
        )
        for id_, of_group in rules.items()
    }


def _members(session: Session, ids: Sequence[str]) -> dict[str, int]:
    """Also of a group without members."""
    lines: dict[str, list[str]] = {id_: [] for id_ in ids}
    for id_, _, address, mac in _member_rows(session, ids):
        lines[id_].append(content.member(address, mac))
    return {id_: content.revision_of_members(found) for id_, found in lines.items()}


def _member_rows(session: Session, groups: Sequence[str]) -> Iterator[Any]:
    """Group, port, IP address and MAC address of each address of each member."""
    group, port = _Membership.security_group_id, _Membership.port_id
    of_ports = (
        sa.select(group, port, _Address.ip_address, _Port.mac_address)
        .join(_Port, _Port.id == port)
        .join(_Address, _Address.port_id == port)
    )
    of_pairs = sa.select(group, port, _Pair.ip_address, _Pair.mac_address).join(
        _Pair, _Pair.port_id == port
    )
    for query in (of_ports, of_pairs):
        yield from session.execute(query.where(group.in_(groups)))


def _address_groups(session: Session, ids: Sequence[str]) -> dict[str, int]:
    query = sa.select(_Association.address_group_id, _Association.address)
    addresses: dict[str, list[str]] = {id_: [] for id_ in ids}
    for id_, address in session.execute(query.where(_Association.address_group_id.in_(ids))):
        addresses[id_].append(address)
    return {id_: content.revision_of_addresses(found) for id_, found in addresses.items()}
