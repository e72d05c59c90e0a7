"""Keyed work queue: one flow per port at a time, newest wins, load makes batches.

The semantics are those of Kubernetes' client-go workqueue. A port is in one
of three places, and in one only::

    submit --> ready --> in flight --> gone
                 ^            |
                 |            |-- submitted again meanwhile --> ready
                 `-- delayed <`-- RETRY (backoff)

A worker takes every ready port at once, so no order of locks exists.
"""

import dataclasses
import enum
import heapq
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from oslo_log import log

from agent_flows.supervision import Backoff

LOG = log.getLogger(__name__)


class Verdict(enum.Enum):
    DONE = "done"
    RETRY = "retry"


@dataclasses.dataclass(frozen=True)
class Request:
    """One port to be processed. ``forced``: act even if nothing seems to have changed."""

    port_id: str
    attempt: int = 1
    forced: bool = False


class Participant:
    """Feeds ``process`` with batches of ports, and keeps at it until it says DONE.

    ``process`` gets at most ``max_batch`` requests and answers a verdict for
    each; a port it does not mention counts as DONE. If it raises, every port of
    the batch is tried again after its backoff.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Request]], Mapping[str, Verdict]],
        max_batch: int,
        workers: int,
        backoff: Backoff,
    ) -> None:
        self._process = process
        self._max_batch = max_batch
        self._backoff = backoff
        self._changed = threading.Condition()
        self._ready: dict[str, Request] = {}
        self._in_flight: set[str] = set()
        self._superseded: dict[str, Request] = {}
        self._delayed: dict[str, tuple[float, Request]] = {}
        self._due: list[tuple[float, str]] = []
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"participant-{n}", daemon=True)
            for n in range(workers)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float) -> None:
        """Let running flows end, for at most ``timeout`` seconds; what waits is dropped."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def submit(self, port_ids: Iterable[str], *, forced: bool = False) -> None:
        """Ask for ports to be processed; returns at once.

        A port in flight runs again, once, when it is done. A port that waits
        for its retry is taken at once, and its attempts count anew.
        """
        with self._changed:
            for port_id in port_ids:
                delayed = self._delayed.pop(port_id, None)
                queue = self._superseded if port_id in self._in_flight else self._ready
                known = queue.get(port_id) or (delayed[1] if delayed else None)
                queue[port_id] = Request(port_id, 1, forced or (known is not None and known.forced))
            self._changed.notify_all()

    def waiting(self) -> int:
        """Ports that are ready, in flight or waiting for a retry."""
        with self._changed:
            return len(self._ready) + len(self._in_flight) + len(self._delayed)

    def _work(self) -> None:
        while batch := self._claim():
            try:
                verdicts = self._process(batch)
            # Keeps the queue alive: every port of the batch is tried again, and
            # stays unreported, which the server turns into UNKNOWN.
            except Exception:
                LOG.exception("A batch of %d ports could not be processed", len(batch))
                verdicts = {request.port_id: Verdict.RETRY for request in batch}
            self._release(batch, verdicts)

    def _claim(self) -> Sequence[Request]:
        with self._changed:
            while not self._stopping:
                self._promote_due()
                if self._ready:
                    taken = list(self._ready)[: self._max_batch]
                    batch = [self._ready.pop(port_id) for port_id in taken]
                    self._in_flight.update(taken)
                    return batch
                pause = self._due[0][0] - time.monotonic() if self._due else None
                self._changed.wait(pause)
            return ()

    def _promote_due(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, port_id = heapq.heappop(self._due)
            # An entry whose port was submitted meanwhile is stale.
            if self._delayed.get(port_id, (None,))[0] == due:
                self._ready[port_id] = self._delayed.pop(port_id)[1]

    def _release(self, batch: Sequence[Request], verdicts: Mapping[str, Verdict]) -> None:
        with self._changed:
            for request in batch:
                port_id = request.port_id
                self._in_flight.discard(port_id)
                newer = self._superseded.pop(port_id, None)
                retry = verdicts.get(port_id) is Verdict.RETRY
                if newer is not None:
                    # A forced request that failed is not done by a plain one.
                    forced = newer.forced or (retry and request.forced)
                    self._ready[port_id] = dataclasses.replace(newer, forced=forced)
                elif retry:
                    due = time.monotonic() + self._backoff.delay(request.attempt)
                    again = dataclasses.replace(request, attempt=request.attempt + 1)
                    self._delayed[port_id] = (due, again)
                    heapq.heappush(self._due, (due, port_id))
            self._changed.notify_all()
