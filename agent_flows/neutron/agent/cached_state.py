"""What the agent's resource cache has of its host's desired state, as revisions by content.

Neutron's agent, and with it every firewall driver, works from this cache: a
member that it has reaches the switch, and one that it lacks does not.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from operator import is_
from typing import Any, Generic, TypeVar

from neutron.api.rpc.callbacks import resources
from neutron_lib import constants

from agent_flows.fairness import fair
from agent_flows.neutron import content, rules_digest
from agent_flows.neutron.content import PortContent, comparable
from agent_flows.neutron.resource_cache import retry_read
from agent_flows.rpc.revisions import NOT_COMPARED, Revisions

T = TypeVar("T")

_FILLING_SECONDS = 60.0
"""The longest that the agent's first requests are waited for."""


@dataclass(frozen=True)
class _Port:
    """``hosts``: those it is bound to."""

    id: str
    hosts: frozenset[str]
    filtered: bool
    groups: frozenset[str]
    revision: int
    members: frozenset[str]


@dataclass(frozen=True)
class _Rule:
    group: str
    line: str
    remote_group: str | None
    remote_address_group: str | None


@dataclass(frozen=True)
class _Group:
    id: str
    stateful: bool


@dataclass(frozen=True)
class _AddressGroup:
    id: str
    revision: int


class CachedState:
    """Reads ``cache`` (neutron/agent/resource_cache.py) for ``host``, in any thread."""

    def __init__(self, cache: Any, host: str) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._ports = _Kept(cache, resources.PORT, _port)
        self._rules = _Kept(cache, resources.SECURITYGROUPRULE, _rule)
        self._groups = _Kept(cache, resources.SECURITYGROUP, _group)
        self._address_groups = _Kept(cache, resources.ADDRESSGROUP, _address_group)
        self._of_rules = _Digests[_Rule](_digest_of_rules)
        self._of_members = _Digests[_Port](_digest_of_members)
        # Ports that are bound to the host and that the server does not count, such as those of
        # another agent.
        self._uncounted: frozenset[str] = frozenset()

    def count_all(self) -> None:
        """Count every port that is bound to the host."""
        self._uncounted = frozenset()

    def count_only(self, port_ids: Collection[str]) -> None:
        """Do not count the other ports that are bound to the host now."""
        self._uncounted = frozenset(self.revisions().ports) - frozenset(port_ids)

    def revisions(self) -> Revisions:
        """Without what the cache lacks."""
        with self._lock:
            return self._revisions()

    def members(self, group: str) -> dict[str, int]:
        """A revision of what each port with an address adds to the security group's members."""
        with self._lock:
            ports = [port for port in self._ports.all() if group in port.groups and port.members]
        return {port.id: content.revision_of_members(port.members) for port in ports}

    def _revisions(self) -> Revisions:
        ports = self._ports.all()
        here = [
            port for port in ports if self._host in port.hosts and port.id not in self._uncounted
        ]
        groups = frozenset().union(*(port.groups for port in here if port.filtered))
        rules = _by_group(groups, ((rule.group, rule) for rule in self._rules.all()))
        used = [rule for of_group in rules.values() for rule in of_group]
        remotes = {rule.remote_group for rule in used if rule.remote_group}
        address_groups = {rule.remote_address_group for rule in used}
        members = _by_group(remotes, ((group, port) for port in ports for group in port.groups))
        stateful = {group.id: group.stateful for group in self._groups.all() if group.id in groups}
        digests = self._of_rules.of(rules)
        revisions_of_groups = {
            group: content.revision_of_group(stateful=flag, rules=digests[group])
            for group, flag in stateful.items()
        }
        return Revisions(
            ports=comparable({port.id: port.revision for port in here}),
            security_groups=comparable(revisions_of_groups),
            members=comparable(self._of_members.of(members)),
            address_groups=comparable(
                {
                    group.id: group.revision
                    for group in self._address_groups.all()
                    if group.id in address_groups
                }
            ),
        )


class SettledDigest:
    """The digest of what ``read`` finds, or ``NOT_COMPARED`` while the agent fills its cache: after
    its start it asks for everything itself, and must not be served twice. ``clock`` is monotonic,
    in seconds."""

    def __init__(
        self, read: Callable[[], Revisions], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read, self._clock = read, clock
        self._filled_at = clock() + _FILLING_SECONDS
        self._last = NOT_COMPARED

    def __call__(self) -> str:
        found = self._read()
        last, self._last = self._last, found.digest()
        settled = bool(found.ports) and self._last == last
        return self._last if settled or self._clock() >= self._filled_at else NOT_COMPARED


class _Kept(Generic[T]):
    """What was read of each resource of a kind, kept while the cache has the same object: every
    push and every pull replaces it. Reading an attribute of Neutron's objects is slow."""

    def __init__(self, cache: Any, kind: str, read: Callable[[Any], T]) -> None:
        self._cache, self._kind, self._read = cache, kind, read
        self._known: dict[int, tuple[Any, T]] = {}

    def all(self) -> list[T]:
        found = retry_read(
            lambda: self._cache.match_resources_with_func(self._kind, lambda _: True)
        )
        known = self._known
        # With the object, so that no other gets its id.
        self._known = {
            id(each): known.get(id(each)) or (each, self._read(each)) for each in fair(found)
        }
        return [read for _, read in self._known.values()]


class _Digests(Generic[T]):
    """The digest of each group's values, kept while they are the same objects."""

    def __init__(self, digest: Callable[[Iterable[T]], int]) -> None:
        self._digest = digest
        self._known: dict[str, tuple[list[T], int]] = {}

    def of(self, groups: dict[str, list[T]]) -> dict[str, int]:
        self._known = {group: self._of(group, values) for group, values in groups.items()}
        return {group: digest for group, (_, digest) in self._known.items()}

    def _of(self, group: str, values: list[T]) -> tuple[list[T], int]:
        known = self._known.get(group)
        if known is not None and len(known[0]) == len(values) and all(map(is_, known[0], values)):
            return known
        return values, self._digest(values)


def _by_group(groups: Collection[str], items: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {group: [] for group in groups}
    for group, item in items:
        if group in found:
            found[group].append(item)
    return found


def _port(port: Any) -> _Port:
    trusted = port.device_owner.startswith(constants.DEVICE_OWNER_NETWORK_PREFIX)
    # As SecurityGroupServerAPIShim has it: without the extension driver there is no ``security``.
    secured = getattr(port.security, "port_security_enabled", True)
    groups = frozenset(port.security_group_ids or ())
    read = PortContent(
        mac=str(port.mac_address),
        admin_state_up=port.admin_state_up,
        filtered=secured and not trusted,
        addresses=[str(each.ip_address) for each in port.fixed_ips or ()],
        pairs=[
            (str(each.ip_address), str(each.mac_address))
            for each in port.allowed_address_pairs or ()
        ],
        groups=groups,
    )
    hosts = frozenset(
        binding.host for binding in port.bindings or () if binding.status == constants.ACTIVE
    )
    return _Port(port.id, hosts, read.filtered, groups, read.revision, read.members)


def _rule(rule: Any) -> _Rule:
    return _Rule(
        rule.security_group_id,
        rules_digest.line_of_object(rule),
        rule.remote_group_id,
        rule.remote_address_group_id,
    )


def _group(group: Any) -> _Group:
    return _Group(group.id, group.stateful)


def _address_group(group: Any) -> _AddressGroup:
    addresses = (str(each.address) for each in group.addresses or ())
    return _AddressGroup(group.id, content.revision_of_addresses(addresses))


def _digest_of_rules(rules: Iterable[_Rule]) -> int:
    return rules_digest.of_lines(rule.line for rule in rules)


def _digest_of_members(ports: Iterable[_Port]) -> int:
    return content.revision_of_members(line for port in ports for line in port.members)
