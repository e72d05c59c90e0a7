"""Keyed work queue: one flow per port at a time, newest wins, load makes batches.

The semantics are those of Kubernetes' client-go workqueue. A port is in one
of three places, and in one only::

    submit --> ready --> in flight --> gone
                 ^            |
                 |            |-- submitted again meanwhile --> ready
                 `-- delayed <`-- RETRY (backoff)

A worker takes every ready port at once, so no order of locks exists; but ports
that failed before are not taken together with those that did not, so that
they cost the others nothing.
"""

import collections
import dataclasses
import enum
import heapq
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from oslo_log import log

from agent_flows.report import Trouble
from agent_flows.supervision import Backoff, Loop, Troubles, described

LOG = log.getLogger(__name__)

# How long, and with how many calls, a worker looks for the ports that make a
# batch fail as a whole; what is left then is tried again after its backoff.
_SEARCH_SECONDS = 5.0
_SEARCH_CALLS = 32
# The attempt of a request whose attempts go on from those of the one in flight.
_GO_ON = 0


class Verdict(enum.Enum):
    DONE = "done"
    RETRY = "retry"
    LATER = "later"
    """It is too early to tell: look once more, which is no attempt that failed."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One port to be processed.

    ``forced``: act even if nothing seems to have changed. ``asked``: the server
    named this port, so it wants to hear even that the port is not here.
    ``looked``: the last answer was LATER.
    ``since`` is when it was first asked for, by the queue's clock.
    """

    port_id: str
    attempt: int = 1
    forced: bool = False
    asked: bool = False
    looked: bool = False
    since: float = dataclasses.field(default=0.0, compare=False)


class Participant:
    """Feeds ``process`` with batches of ports, and keeps at it until it says DONE.

    ``process`` gets at most ``max_batch`` requests and answers a verdict for
    each; a port it does not mention counts as DONE. If it raises, the batch is
    split to find the ports at fault; these are the trouble PORTS, and are
    tried again after their backoff. ``clock`` gives seconds.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Request]], Mapping[str, Verdict]],
        max_batch: int,
        workers: int,
        backoff: Backoff,
        *,
        troubles: Troubles | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process = process
        self._max_batch = max_batch
        self._backoff = backoff
        self._troubles = troubles or Troubles()
        self._clock = clock
        self._changed = threading.Condition()
        self._ready: dict[str, Request] = {}
        self._in_flight: dict[str, Request] = {}
        self._superseded: dict[str, Request] = {}
        self._delayed: dict[str, tuple[float, Request]] = {}
        self._due: list[tuple[float, str]] = []
        self._failed_last = True
        # Ports that process raised for, and what it raised.
        self._unprocessed: dict[str, str] = {}
        self._stopping = False
        self._loops = [
            Loop(f"participant-{n}", self._work, self._troubles, Trouble.PORTS)
            for n in range(workers)
        ]

    def start(self) -> None:
        for loop in self._loops:
            loop.start()

    def stop(self, timeout: float) -> None:
        """Let running flows end, for at most ``timeout`` seconds; what waits is dropped."""
        for loop in self._loops:
            loop.stopping.set()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline = time.monotonic() + timeout
        for loop in self._loops:
            loop.stop(max(0.0, deadline - time.monotonic()))

    def is_alive(self) -> bool:
        """Whether every worker runs."""
        return all(loop.is_alive() for loop in self._loops)

    def submit(
        self,
        port_ids: Iterable[str],
        *,
        forced: bool = False,
        asked: bool = False,
        afresh: bool = True,
    ) -> None:
        """Ask for ports to be processed; returns at once.

        A port in flight runs again, once, when it is done. A port that waits
        for its retry is taken at once. Its attempts count from one again if
        the change is its own (``afresh``); if it is one of many that share
        what changed they go on, and with them the growth of its backoff.
        """
        now = self._clock()
        with self._changed:
            for port_id in port_ids:
                delayed = self._delayed.pop(port_id, None)
                in_flight = port_id in self._in_flight
                queue = self._superseded if in_flight else self._ready
                known = queue.get(port_id) or (delayed[1] if delayed else None)
                first = _GO_ON if in_flight and not afresh else 1
                new = Request(port_id, first, forced, asked, since=now)
                queue[port_id] = new if known is None else _merged(known, new, afresh)
            self._changed.notify_all()

    def waiting(self) -> int:
        """Ports that are ready, in flight or waiting for a retry."""
        with self._changed:
            return len(self._ready) + len(self._in_flight) + len(self._delayed)

    def oldest(self) -> float | None:
        """Seconds since the port that has waited longest was asked for; None if none waits."""
        with self._changed:
            waiting = [*self._ready.values(), *self._in_flight.values()]
            waiting += [request for _, request in self._delayed.values()]
        return self._clock() - min(each.since for each in waiting) if waiting else None

    def _work(self) -> None:
        batch = self._claim()
        if not batch:
            return
        verdicts: Mapping[str, Verdict] = dict.fromkeys(
            (each.port_id for each in batch), Verdict.RETRY
        )
        try:
            verdicts = self._verdicts(batch)
        finally:
            self._release(batch, verdicts)

    def _verdicts(self, batch: Sequence[Request]) -> dict[str, Verdict]:
        """What became of each port, those that ``process`` raised for searched out."""
        verdicts: dict[str, Verdict] = {}
        raised: dict[str, str] = {}
        parts = collections.deque([tuple(batch)])
        deadline = self._clock() + _SEARCH_SECONDS
        calls, reason = 0, ""
        while parts:
            part = parts.popleft()
            if calls == _SEARCH_CALLS or (calls and self._clock() > deadline):
                raised |= {each.port_id: reason for each in part}
                continue
            calls += 1
            try:
                answers = dict(self._process(part))
            # Keeps the queue alive; it ends in the trouble PORTS, and in a retry.
            except Exception as exc:
                new = described(exc)
                if not reason and new not in self._unprocessed.values():
                    LOG.exception("A batch of %d ports could not be processed", len(part))
                elif not reason:
                    LOG.error("A batch of %d ports could not be processed: %s", len(part), new)
                reason = new
                if len(part) == 1:
                    raised[part[0].port_id] = reason
                else:
                    middle = len(part) // 2
                    parts += [part[:middle], part[middle:]]
            else:
                verdicts |= {each.port_id: answers.get(each.port_id, Verdict.DONE) for each in part}
        self._note(verdicts, raised)
        return verdicts | dict.fromkeys(raised, Verdict.RETRY)

    def _note(self, processed: Iterable[str], raised: Mapping[str, str]) -> None:
        with self._changed:
            was = bool(self._unprocessed)
            for port_id in processed:
                self._unprocessed.pop(port_id, None)
            self._unprocessed |= raised
            now = dict(self._unprocessed)
        if now:
            port_id, reason = next(iter(now.items()))
            message = f"{len(now)} ports cannot be processed, first {port_id}: {reason}"
            self._troubles.report(Trouble.PORTS, message)
        elif was:
            self._troubles.clear(Trouble.PORTS)

    def _claim(self) -> Sequence[Request]:
        with self._changed:
            while not self._stopping:
                self._promote_due()
                if self._ready:
                    batch = self._choose()
                    for request in batch:
                        del self._ready[request.port_id]
                        self._in_flight[request.port_id] = request
                    return batch
                pause = self._due[0][0] - self._clock() if self._due else None
                self._changed.wait(pause)
            return ()

    def _choose(self) -> list[Request]:
        """Ports that have not failed, or those that have: in turn, if there are both."""
        failed = [each for each in self._ready.values() if each.attempt > 1]
        fresh = [each for each in self._ready.values() if each.attempt == 1]
        self._failed_last = not fresh or (bool(failed) and not self._failed_last)
        return (failed if self._failed_last else fresh)[: self._max_batch]

    def _promote_due(self) -> None:
        now = self._clock()
        if not self._due or self._due[0][0] > now:
            return
        # Those that are due a moment later come along: they failed together.
        horizon = now + self._backoff.initial / 4
        while self._due and self._due[0][0] <= horizon:
            due, port_id = heapq.heappop(self._due)
            # An entry whose port was submitted meanwhile is stale.
            if self._delayed.get(port_id, (None,))[0] == due:
                self._ready[port_id] = self._delayed.pop(port_id)[1]

    def _release(self, batch: Sequence[Request], verdicts: Mapping[str, Verdict]) -> None:
        with self._changed:
            for request in batch:
                port_id = request.port_id
                self._in_flight.pop(port_id, None)
                newer = self._superseded.pop(port_id, None)
                verdict = verdicts.get(port_id)
                retry = verdict in {Verdict.RETRY, Verdict.LATER}
                again = (
                    dataclasses.replace(request, looked=True)
                    if verdict is Verdict.LATER
                    else dataclasses.replace(request, attempt=request.attempt + 1)
                )
                if newer is not None and retry:
                    # A forced request that failed is not done by a plain one.
                    self._ready[port_id] = _merged(again, newer, newer.attempt != _GO_ON)
                elif newer is not None:
                    self._ready[port_id] = dataclasses.replace(newer, attempt=1)
                elif retry:
                    due = self._clock() + self._backoff.delay(request.attempt)
                    self._delayed[port_id] = (due, again)
                    heapq.heappush(self._due, (due, port_id))
            self._changed.notify_all()


def _merged(known: Request, new: Request, afresh: bool) -> Request:
    """``known``, which was not done yet, and ``new`` in one."""
    return Request(
        new.port_id,
        new.attempt if afresh else known.attempt,
        known.forced or new.forced,
        known.asked or new.asked,
        known.looked and not afresh,
        known.since,
    )
