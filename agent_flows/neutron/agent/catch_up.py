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

from agent_flows.neutron.resource_cache import retry_read
from agent_flows.report import Trouble
from agent_flows.supervision import Loop, Troubles

# Values in one request: the server makes one SQL condition of them.
_BATCH = 100


class Server(Protocol):
    """Neutron's ResourcesPullRpcApi (neutron/api/rpc/handlers/resources_rpc.py)."""

    def bulk_pull(
        self, context: Any, resource_type: str, filter_kwargs: Mapping[str, Collection[str]]
    ) -> Sequence[Any]: ...


class CacheUpdate:
    """Brings ``cache`` to what ``server`` has. The cache's subscribers, Neutron's agent and ours,
    are notified of each difference."""

    def __init__(self, cache: Any, server: Server, host: str) -> None:
        self._cache, self._server, self._host = cache, server, host
        self._context = context.get_admin_context()

    def run(self, port_ids: Collection[str] | None) -> None:
        """Update these ports (None: all of this host) and all that their rules depend on.

        Raises :class:`oslo_messaging.MessagingException` if the server does not answer, and
        :class:`neutron_lib.exceptions.NeutronException` for an error of the server's.
        """
        ports = self._ports_here() if port_ids is None else frozenset(port_ids)
        self._update(resources.PORT, "id", ports)
        groups = {
            group
            for port in self._cached(resources.PORT, "id", ports)
            for group in port.security_group_ids
        }
        self._update(resources.SECURITYGROUP, "id", groups)
        self._update(resources.SECURITYGROUPRULE, "security_group_id", groups)
        rules = self._cached(resources.SECURITYGROUPRULE, "security_group_id", groups)
        self._update(
            resources.PORT, "security_group_ids", _ids(rule.remote_group_id for rule in rules)
        )
        self._update(
            resources.ADDRESSGROUP, "id", _ids(rule.remote_address_group_id for rule in rules)
        )

    def _ports_here(self) -> frozenset[str]:
        def here(port: Any) -> bool:
            return any(binding.host == self._host for binding in port.bindings)

        found = retry_read(lambda: self._cache.match_resources_with_func(resources.PORT, here))
        return frozenset(port.id for port in found)

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
        for resource in found:
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


def _batches(values: Iterable[str]) -> Iterator[tuple[str, ...]]:
    ordered = iter(sorted(values))
    while batch := tuple(itertools.islice(ordered, _BATCH)):
        yield batch


@dataclass(frozen=True)
class _Request:
    port_ids: Collection[str] | None
    then: Callable[[], None] = lambda: None


class CatchUpLoop:
    """Runs ``update`` in a thread of its own, since an answer may take as long as the message bus
    allows. An unanswered request is repeated, and is the host's trouble until it is answered."""

    def __init__(
        self, update: Callable[[Collection[str] | None], None], troubles: Troubles
    ) -> None:
        self._update = update
        self._requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        # The ports of the last request, if it got no answer; None: all ports.
        self._unanswered: frozenset[str] | None = frozenset()
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
        self._requests.put(_Request(frozenset()))
        self._loop.stop(timeout)

    def request(
        self, port_ids: Collection[str] | None, then: Callable[[], None] = lambda: None
    ) -> None:
        """Update these ports (None: all of this host) soon, and call ``then`` after the first
        attempt, answered or not."""
        self._requests.put(_Request(port_ids, then))

    def _step(self) -> None:
        requests = self._waiting()
        ports = _union([self._unanswered, *(request.port_ids for request in requests)])
        self._unanswered = ports
        try:
            if ports != frozenset():
                self._update(ports)
            self._unanswered = frozenset()
        finally:
            for request in requests:
                request.then()

    def _waiting(self) -> list[_Request]:
        requests: list[_Request] = []
        if self._unanswered == frozenset():
            requests.append(self._requests.get())
        while not self._requests.empty():
            requests.append(self._requests.get())
        return requests


def _union(chosen: Collection[Collection[str] | None]) -> frozenset[str] | None:
    if any(ports is None for ports in chosen):
        return None
    return frozenset().union(*filter(None, chosen))
