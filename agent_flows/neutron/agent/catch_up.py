"""Updates the agent's resource cache with what Neutron changed while the agent could not receive.

Neutron notifies its agents of a change once, by a fanout cast. A cast that is
sent while an agent has no queue at the broker (RabbitMQ was restarted, its
connection broke) is lost, and the cache stays outdated until the agent restarts.
"""

import itertools
import queue
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import oslo_messaging
from neutron.api.rpc.callbacks import resources
from neutron_lib import context
from neutron_lib.callbacks import events, registry

from agent_flows.fairness import at_once, fair
from agent_flows.neutron.agent.cached_state import CachedState
from agent_flows.neutron.resource_cache import retry_read
from agent_flows.report import Trouble
from agent_flows.rpc.revisions import Revisions
from agent_flows.supervision import Loop, Troubles

# Values in one request: the server makes one SQL condition of them.
_BATCH = 100
# Neutron makes objects of an answer without giving way, that of a port in 2 ms.
_GREEN_BATCH = 10


class Server(Protocol):
    """Neutron's ResourcesPullRpcApi (neutron/api/rpc/handlers/resources_rpc.py)."""

    def bulk_pull(
        self, context: Any, resource_type: str, filter_kwargs: Mapping[str, Collection[str]]
    ) -> Sequence[Any]: ...


class Desired(Protocol):
    """What our part of the server desires of this host, by revisions
    (:class:`agent_flows.rpc.agent.ServerClient`)."""

    def get_revisions(self) -> Revisions: ...

    def get_members(self, security_group: str) -> Mapping[str, int]: ...


class CacheUpdate:
    """Brings ``cache`` to what ``server`` has. The cache's subscribers, Neutron's agent and ours,
    are notified of each difference.

    ``state`` is what the cache has, and ``desired`` what it should have. ``awaited``
    is called with ports of which the server knows nothing: they are to be reported.
    """

    def __init__(
        self,
        cache: Any,
        server: Server,
        state: CachedState,
        desired: Desired,
        awaited: Callable[[Collection[str]], None] = lambda port_ids: None,
    ) -> None:
        self._cache, self._server = cache, server
        self._state, self._desired, self._awaited = state, desired, awaited
        self._context = context.get_admin_context()

    def run(self, port_ids: Collection[str] | None) -> None:
        """Update these ports and all that their rules depend on; None: what differs from what the
        server desires of this host.

        Raises :class:`oslo_messaging.MessagingException` if the server does not answer,
        :class:`agent_flows.validation.Invalid` if its answer is invalid, and
        :class:`neutron_lib.exceptions.NeutronException` for an error of Neutron's.
        """
        if port_ids is None:
            self._update_what_differs()
        else:
            self._update_ports(frozenset(port_ids))

    def _update_ports(self, ports: Collection[str]) -> None:
        self._update(resources.PORT, "id", ports)
        groups = {
            group
            for port in self._cached(resources.PORT, "id", ports)
            for group in port.security_group_ids
        }
        self._update_groups(groups)
        rules = self._cached(resources.SECURITYGROUPRULE, "security_group_id", groups)
        self._update_members(_ids(rule.remote_group_id for rule in rules))
        self._update_address_groups(_ids(rule.remote_address_group_id for rule in rules))

    def _update_what_differs(self) -> None:
        desired = self._desired.get_revisions()
        self._state.count_all()
        ports = self._state.revisions().ports
        self._update(resources.PORT, "id", _differing(ports, desired.ports))
        self._state.count_only(desired.ports)
        # Only now it is known which groups the ports have, and then to which the rules refer.
        groups = self._state.revisions().security_groups
        self._update_groups(_only_desired(groups, desired.security_groups))
        had = self._state.revisions()
        self._update_members(_only_desired(had.members, desired.members))
        self._update_address_groups(_only_desired(had.address_groups, desired.address_groups))
        if desired.awaited:
            self._awaited(desired.awaited)

    def _update_groups(self, groups: Collection[str]) -> None:
        self._update(resources.SECURITYGROUP, "id", groups)
        self._update(resources.SECURITYGROUPRULE, "security_group_id", groups)

    def _update_members(self, groups: Collection[str]) -> None:
        """Only the members that differ: each is a whole port, and takes milliseconds of the
        server's time."""
        for group in sorted(groups):
            try:
                members = self._desired.get_members(group)
            except oslo_messaging.RemoteError:
                # A server of the first release, or one in trouble: Neutron's own part may answer.
                self._update(resources.PORT, "security_group_ids", [group])
            else:
                self._update(resources.PORT, "id", _differing(self._state.members(group), members))

    def _update_address_groups(self, groups: Collection[str]) -> None:
        self._update(resources.ADDRESSGROUP, "id", groups)

    def _cached(self, kind: str, field: str, values: Collection[str]) -> list[Any]:
        """The cached resources whose ``field`` is, or contains, one of ``values``."""
        chosen = frozenset(values)

        def matches(resource: Any) -> bool:
            value = getattr(resource, field)
            return value in chosen if isinstance(value, str) else not chosen.isdisjoint(value)

        found: list[Any] = retry_read(lambda: self._cache.match_resources_with_func(kind, matches))
        return found

    def _update(self, kind: str, field: str, values: Iterable[str]) -> None:
        for batch in _batches(values):
            # Before the request, so that a resource pushed during it does not count as deleted.
            cached = {resource.id for resource in self._cached(kind, field, batch)}
            missing = cached - self._pull(kind, field, batch)
            if missing and field != "id":
                # They may exist with another value of the field.
                for ids in _batches(missing):
                    missing -= self._pull(kind, "id", ids)
            for identity in missing:
                self._remove(kind, identity)

    def _pull(self, kind: str, field: str, values: Collection[str]) -> frozenset[str]:
        """Copy the server's resources into the cache; their ids."""
        found = self._server.bulk_pull(self._context, kind, filter_kwargs={field: tuple(values)})
        for resource in fair(found):
            self._cache.record_resource_update(self._context, kind, resource)
        return frozenset(resource.id for resource in found)

    def _remove(self, kind: str, identity: str) -> None:
        """Like the cache's own record_resource_delete, but the resource may come back: a lagging
        replica of the database may have answered."""
        [was] = self._cached(kind, "id", [identity]) or [None]
        self._cache.record_resource_remove(kind, identity)
        payload = events.DBEventPayload(self._context, resource_id=identity, states=(was,))
        registry.publish(kind, events.AFTER_DELETE, self._cache, payload=payload)


def _ids(values: Iterable[str | None]) -> frozenset[str]:
    return frozenset(filter(None, values))


def _differing(had: Mapping[str, int], desired: Mapping[str, int]) -> frozenset[str]:
    """The ids whose revision here is not the desired one, or that only one of them has."""
    return frozenset(id_ for id_, _ in had.items() ^ desired.items())


def _only_desired(had: Mapping[str, int], desired: Mapping[str, int]) -> frozenset[str]:
    """Those that are desired."""
    return _differing(had, desired) & desired.keys()


def _batches(values: Iterable[str]) -> Iterator[tuple[str, ...]]:
    ordered = iter(sorted(values))
    while batch := tuple(itertools.islice(ordered, at_once(_BATCH, _GREEN_BATCH))):
        yield batch


@dataclass(frozen=True)
class _Request:
    """``differing``: also what differs from what the server desires of this host."""

    port_ids: frozenset[str] = frozenset()
    differing: bool = False
    then: Callable[[], None] = lambda: None


class CatchUpLoop:
    """Runs ``update`` in a thread of its own, since an answer may take as long as the message bus
    allows. An unanswered request is repeated, and is the host's trouble until it is answered."""

    def __init__(
        self, update: Callable[[Collection[str] | None], None], troubles: Troubles
    ) -> None:
        self._update = update
        self._requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._unanswered = _Request()
        self._loop = Loop(
            "agent_flows catch up",
            self._step,
            troubles,
            Trouble.CONTROL,
            expected=(oslo_messaging.MessagingException,),
        )
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """End the thread and drop the waiting requests."""
        self._loop.stopping.set()
        self._requests.put(_Request())
        self._loop.stop(timeout)

    def request(
        self, port_ids: Collection[str] | None, then: Callable[[], None] = lambda: None
    ) -> None:
        """Update these ports (None: what differs) soon, and call ``then`` after the first attempt,
        answered or not."""
        self._requests.put(_Request(frozenset(port_ids or ()), port_ids is None, then))

    def _step(self) -> None:
        requests = self._waiting()
        self._unanswered = _joined([self._unanswered, *requests])
        try:
            if self._unanswered.differing:
                self._update(None)
            if self._unanswered.port_ids:
                self._update(self._unanswered.port_ids)
            self._unanswered = _Request()
        finally:
            for request in requests:
                request.then()

    def _waiting(self) -> list[_Request]:
        requests: list[_Request] = []
        if not (self._unanswered.differing or self._unanswered.port_ids):
            requests.append(self._requests.get())
        while not self._requests.empty():
            requests.append(self._requests.get())
        return requests


def _joined(requests: Collection[_Request]) -> _Request:
    return _Request(
        frozenset().union(*(request.port_ids for request in requests)),
        any(request.differing for request in requests),
    )
