"""Casts to agents, sent after a transaction committed."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import oslo_messaging
from oslo_log import log

from agent_flows.rpc.desired import Change
from agent_flows.server.core.metrics import Metrics
from agent_flows.supervision import described

LOG = log.getLogger(__name__)

# Seconds after which a cast that the bus has not taken is a failure.
_LONG = 30.0
# Changes that wait for one host. An agent that gets only the ids of more asks once for all of them.
_MOST_CHANGES = 16

Ids = Mapping[str, frozenset[str]]


class Agents(Protocol):
    """The casts of :class:`agent_flows.rpc.server.AgentClient`."""

    def ports_changed(self, host: str, port_ids: Collection[str]) -> None: ...

    def security_groups_changed(
        self, host: str, ids: Collection[str], change: Mapping[str, Any] | None = None
    ) -> None: ...

    def resync(self, host: str, port_ids: Collection[str] | None = None) -> None: ...


@dataclass(frozen=True)
class Casts:
    """Ids by host: ports that changed, groups that changed, ports to wire again.

    ``changes`` are groups that changed, with what changed of them; in the order of their commits.
    ``hosts`` are to wire all their ports again; their ids are empty.
    """

    ports: Ids = field(default_factory=dict)
    groups: Ids = field(default_factory=dict)
    changes: Mapping[str, tuple[Change, ...]] = field(default_factory=dict)
    resyncs: Ids = field(default_factory=dict)
    hosts: Ids = field(default_factory=dict)

    def __or__(self, other: "Casts") -> "Casts":
        changes = {
            host: (*self.changes.get(host, ()), *other.changes.get(host, ()))
            for host in {*self.changes, *other.changes}
        }
        crowded = {host for host, waiting in changes.items() if len(waiting) > _MOST_CHANGES}
        asked = {host: _ids_of(changes.pop(host)) for host in crowded}
        return Casts(
            _union(self.ports, other.ports),
            _union(_union(self.groups, other.groups), asked),
            changes,
            _union(self.resyncs, other.resyncs),
            _union(self.hosts, other.hosts),
        )


def _union(one: Ids, other: Ids) -> Ids:
    none: frozenset[str] = frozenset()
    return {host: one.get(host, none) | other.get(host, none) for host in {*one, *other}}


def _ids_of(changes: Iterable[Change]) -> frozenset[str]:
    return frozenset(id_ for change in changes for id_ in change.ids)


def to_hosts(hosts: Iterable[str | None], ids: Collection[str]) -> Ids:
    """The same ids for each host; None is skipped."""
    return {host: frozenset(ids) for host in hosts if host} if ids else {}


def by_host(ports: Iterable[tuple[str | None, str]]) -> Ids:
    """The ids of ports, each given with its host; a port without host is skipped."""
    found: dict[str, set[str]] = {}
    for host, port_id in ports:
        if host:
            found.setdefault(host, set()).add(port_id)
    return {host: frozenset(ids) for host, ids in found.items()}


class _Cast(NamedTuple):
    """``again`` is sent later if ``send`` fails."""

    kind: str
    host: str
    number: int
    send: Callable[[], None]
    again: Casts


class Caster:
    """Sends casts in the background: a bus that is away makes no request wait or fail.

    What could not be sent is counted, logged and merged into the next send, so
    it never grows beyond the existing ids. The clock of ``report_timeout`` runs
    for its ports, so that a lost cast shows as UNKNOWN.

    ``failure`` is why something waits, None if nothing does.
    """

    def __init__(self, agents: Agents, metrics: Metrics, pool: Executor | None = None) -> None:
        """``pool`` runs one send after the other; by default in a thread of its own."""
        self._agents = agents
        self._send: Mapping[str, Callable[[str, Collection[str]], None]] = {
            "ports": agents.ports_changed,
            "groups": agents.security_groups_changed,
            "resyncs": agents.resync,
            "hosts": lambda host, _: agents.resync(host, None),
        }
        self._metrics = metrics
        self._pool = pool or ThreadPoolExecutor(1, thread_name_prefix="casts")
        self._lock = threading.Lock()
        self._waiting = Casts()
        self._failure: str | None = None
        self._sending_since: float | None = None

    @property
    def failure(self) -> str | None:
        since = self._sending_since
        if since is not None and (busy := time.monotonic() - since) > _LONG:
            return f"the message bus has not taken a cast for {busy:.0f} s"
        return self._failure

    def send(self, casts: Casts) -> "Future[None]":
        """Send soon. The future fails if something that waited with it could not be sent."""
        with self._lock:
            self._waiting |= casts
        return self._pool.submit(self._send_waiting)

    def cast(self, casts: Casts) -> None:
        """As :meth:`send`, if there is anything to send."""
        if casts != Casts():
            self.send(casts)

    def retry(self) -> None:
        """Send what could not be sent before, if there is any."""
        if self._waiting != Casts():
            self.send(Casts())

    def _send_waiting(self) -> None:
        with self._lock:
            casts, self._waiting = self._waiting, Casts()
        failures: list[Exception] = []
        for cast in self._separate(casts):
            self._sending_since = time.monotonic()
            try:
                cast.send()
            except Exception as exc:
                # A bus that is away is no fault of ours.
                fault = not isinstance(exc, oslo_messaging.MessagingException)
                LOG.error(
                    "Could not cast %d %s to host %s: %s",
                    cast.number,
                    cast.kind,
                    cast.host,
                    described(exc),
                    exc_info=fault,
                )
                self._metrics.casts_failed.labels(cast.kind).inc()
                failures.append(exc)
                with self._lock:
                    self._waiting |= cast.again
            finally:
                self._sending_since = None
        if casts != Casts():
            self._failure = " ".join(str(failures[0]).split())[:200] if failures else None
        if failures:
            raise failures[0]

    def _separate(self, casts: Casts) -> Iterator[_Cast]:
        for kind, send in self._send.items():
            for host, ids in getattr(casts, kind).items():
                again = Casts(**{kind: {host: ids}})
                yield _Cast(kind, host, len(ids), partial(send, host, sorted(ids)), again)
        for host, changes in casts.changes.items():
            for change in changes:
                ids = sorted(change.ids)
                send_change = partial(self._agents.security_groups_changed, host, ids, change.wire)
                # Later its agent asks: by then there may be further changes.
                again = Casts(groups={host: change.ids})
                yield _Cast("groups", host, len(ids), send_change, again)

    def stop(self) -> None:
        """Wait for what is being sent; what still waits is given up."""
        self._pool.shutdown(cancel_futures=True)
