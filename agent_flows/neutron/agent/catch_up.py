"""What Neutron said while its agent could not hear it: asked for anew, and passed on as if it had
just been said.

Neutron tells its agents of a change once, by a fanout cast. What is cast while
an agent has no queue at the broker (RabbitMQ was restarted, its connection
broke) is lost, and its resource cache stays as it was until it is restarted.
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

from agent_flows.neutron.resource_cache import steadily
from agent_flows.report import Trouble
from agent_flows.supervision import Loop, Troubles

# Values in one question: the server makes one condition of them.
_AT_ONCE = 100


class Server(Protocol):
    """Neutron's ResourcesPullRpcApi (neutron/api/rpc/handlers/resources_rpc.py)."""

    def bulk_pull(
        self, context: Any, resource_type: str, filter_kwargs: Mapping[str, Collection[str]]
    ) -> Sequence[Any]: ...


class Missed:
    """Brings ``cache`` to what ``server`` knows; everybody who listens to it hears of what
    differed, Neutron's agent as well as ours."""

    def __init__(self, cache: Any, server: Server, host: str) -> None:
        self._cache, self._server, self._host = cache, server, host
        self._context = context.get_admin_context()

    def catch_up(self, port_ids: Collection[str] | None) -> None:
        """These ports (None: all of this host) and all that their rules depend on.

        Raises :class:`oslo_messaging.MessagingException` if the server does not answer, and
        :class:`neutron_lib.exceptions.NeutronException` if it answers with an error of its own.
        """
        ports = self._ports_here() if port_ids is None else frozenset(port_ids)
        self._ask(resources.PORT, "id", ports)
        groups = {
            group
            for port in self._held(resources.PORT, "id", ports)
            for group in port.security_group_ids
        }
        self._ask(resources.SECURITYGROUP, "id", groups)
        self._ask(resources.SECURITYGROUPRULE, "security_group_id", groups)
        rules = self._held(resources.SECURITYGROUPRULE, "security_group_id", groups)
        self._ask(
            resources.PORT, "security_group_ids", _ids(rule.remote_group_id for rule in rules)
        )
        self._ask(
            resources.ADDRESSGROUP, "id", _ids(rule.remote_address_group_id for rule in rules)
        )

    def _ports_here(self) -> frozenset[str]:
        def here(port: Any) -> bool:
            return any(binding.host == self._host for binding in port.bindings)

        found = steadily(lambda: self._cache.match_resources_with_func(resources.PORT, here))
        return frozenset(port.id for port in found)

    def _held(self, kind: str, field: str, values: Collection[str]) -> list[Any]:
        """What the cache holds whose ``field`` is, or contains, one of ``values``."""
        wanted = frozenset(values)

        def matches(each: Any) -> bool:
            value = getattr(each, field)
            return value in wanted if isinstance(value, str) else not wanted.isdisjoint(value)

        found: list[Any] = steadily(lambda: self._cache.match_resources_with_func(kind, matches))
        return found

    def _ask(self, kind: str, field: str, values: Iterable[str]) -> None:
        for some in _batches(values):
            # Before the server is asked: what is pushed meanwhile is not taken for gone.
            held = {each.id for each in self._held(kind, field, some)}
            absent = held - self._take(kind, field, some)
            if absent and field != "id":
                # It may still be there, and belong elsewhere.
                for ids in _batches(absent):
                    absent -= self._take(kind, "id", ids)
            for each in absent:
                self._gone(kind, each)

    def _take(self, kind: str, field: str, values: Collection[str]) -> frozenset[str]:
        """The ids of what the server has; the cache has it, too, then."""
        found = self._server.bulk_pull(self._context, kind, filter_kwargs={field: tuple(values)})
        for each in found:
            self._cache.record_resource_update(self._context, kind, each)
        return frozenset(each.id for each in found)

    def _gone(self, kind: str, identity: str) -> None:
        """As the cache does when it is told (record_resource_delete), but not for good: a replica
        of the database that lags behind may yet have it."""
        [was] = self._held(kind, "id", [identity]) or [None]
        self._cache.record_resource_remove(kind, identity)
        payload = events.DBEventPayload(self._context, resource_id=identity, states=(was,))
        registry.publish(kind, events.AFTER_DELETE, self._cache, payload=payload)


def _ids(values: Iterable[str | None]) -> frozenset[str]:
    return frozenset(filter(None, values))


def _batches(values: Iterable[str]) -> Iterator[tuple[str, ...]]:
    ordered = iter(sorted(values))
    while some := tuple(itertools.islice(ordered, _AT_ONCE)):
        yield some


@dataclass(frozen=True)
class _Request:
    port_ids: Collection[str] | None
    then: Callable[[], None] = lambda: None


class CatchingUp:
    """A thread that asks, for an answer may take as long as the message bus lets it. A question
    that got no answer is asked again, and is the host's trouble until it is answered."""

    def __init__(
        self, catch_up: Callable[[Collection[str] | None], None], troubles: Troubles
    ) -> None:
        self._catch_up = catch_up
        self._requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        # Of the last question, if it got no answer: None stands for all ports.
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
        """End the thread; what is not asked yet is dropped."""
        self._loop.stopping.set()
        self._requests.put(_Request(frozenset()))
        self._loop.stop(timeout)

    def soon(
        self, port_ids: Collection[str] | None, then: Callable[[], None] = lambda: None
    ) -> None:
        """Catch up on these ports (None: all of this host), and call ``then``, whether or not
        the server answered at first."""
        self._requests.put(_Request(port_ids, then))

    def _step(self) -> None:
        requests = self._waiting()
        asked = _together([self._unanswered, *(each.port_ids for each in requests)])
        self._unanswered = asked
        try:
            if asked != frozenset():
                self._catch_up(asked)
            self._unanswered = frozenset()
        finally:
            for each in requests:
                each.then()

    def _waiting(self) -> list[_Request]:
        requests: list[_Request] = []
        if self._unanswered == frozenset():
            requests.append(self._requests.get())
        while not self._requests.empty():
            requests.append(self._requests.get())
        return requests


def _together(chosen: Collection[Collection[str] | None]) -> frozenset[str] | None:
    if any(each is None for each in chosen):
        return None
    return frozenset().union(*filter(None, chosen))
