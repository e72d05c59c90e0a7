"""Every port of a host with its life: one flow per port at a time, the newest request wins.

The semantics are those of Kubernetes' client-go workqueue, the phases those of
:mod:`.port_life`. A worker claims every ready port at once, so no order of
locks exists; but ports that failed before are not claimed together with those
that did not, so that they cost the others nothing.
"""

import dataclasses
import functools
import heapq
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from agent_flows.engine.drift import Drift
from agent_flows.engine.port_life import (
    Applied,
    Event,
    Life,
    Phase,
    Request,
    Superseding,
    Verdict,
)
from agent_flows.fairness import fair
from agent_flows.supervision import Backoff

_WAITING = frozenset({Phase.READY, Phase.RUNNING, Phase.DELAYED})
# The request of such a port is not done: a newer one adds to it.
_PENDING = frozenset({Phase.AWAITED, Phase.READY, Phase.DELAYED})


class PortTable:
    """Safe from any thread. ``clock`` gives seconds.

    A port without anything to remember is dropped, so the table is as large as
    the host.
    """

    def __init__(
        self, max_batch: int, backoff: Backoff, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_batch = max_batch
        self._backoff = backoff
        self._clock = clock
        self._changed = threading.Condition()
        self._lives: dict[str, Life] = {}
        # Indexes of the lives: who is READY, in the order of the requests, and who is DELAYED, by
        # time. An entry of the latter whose port has moved since counts for nothing.
        self._ready: dict[str, None] = {}
        self._due: list[tuple[float, str]] = []
        self._failed_last = True
        self._closed = False

    def submit(
        self,
        port_ids: Iterable[str],
        *,
        forced: bool = False,
        asked: bool = False,
        afresh: bool = True,
        event: Event = Event.SUBMIT,
    ) -> None:
        """Ask for ports to be processed; returns at once.

        A running port runs again, once, when its flow has ended. A delayed port
        is taken at once. Its attempts count from one again if the change is its
        own (``afresh``); if it is one of many that share what changed they go
        on, and with them the growth of its backoff.
        """
        now = self._clock()
        with self._changed:
            for port_id in fair(port_ids):
                life = self._life(port_id)
                new = Request(port_id, 1, forced, asked, since=now)
                if life.phase is Phase.RUNNING:
                    newer = Superseding(event, new, afresh).after(life.superseding)
                    self._lives[port_id] = dataclasses.replace(life, superseding=newer)
                elif life.phase in _PENDING:
                    self._request(life, event, life.request.with_newer(new, afresh=afresh))
                elif life.phase is Phase.STALE:
                    # What became of it is not reported yet.
                    lost = dataclasses.replace(new, drift=life.request.drift)
                    self._request(life, event, lost)
                else:
                    self._request(life, event, new)
            self._changed.notify_all()

    def drifted(self, drifts: Mapping[str, Drift]) -> None:
        """Have these ports repaired, and what differs reported before.

        A port that is not proven is left out: nothing is claimed of it, and its
        flow is to run anyway.
        """
        now = self._clock()
        with self._changed:
            for port_id, drift in drifts.items():
                life = self._life(port_id)
                new = Request(port_id, forced=True, drift=drift, since=now)
                if not life.proven:
                    continue
                if life.phase is Phase.PROVEN:
                    self._request(life, Event.DRIFT, new)
                elif life.phase is Phase.RUNNING:
                    newer = Superseding(Event.SUBMIT, new, afresh=False).after(life.superseding)
                    self._lives[port_id] = dataclasses.replace(life, superseding=newer)
                elif life.phase in _PENDING:
                    # At its turn: a finding does not end the pause of a port.
                    request = life.request.with_newer(new, afresh=False)
                    self._lives[port_id] = dataclasses.replace(life, request=request)
            self._changed.notify_all()

    def claim(self, *, wait: bool = True) -> Sequence[Life]:
        """The next batch; empty when the table is closed, or if none is ready and not ``wait``."""
        with self._changed:
            while not self._closed:
                self._promote_due()
                if self._ready:
                    return [self._move(life, Event.CLAIM) for life in fair(self._choose())]
                if not wait:
                    break
                self._changed.wait(self._pause())
            return ()

    def release(self, port_ids: Iterable[str], verdicts: Mapping[str, Verdict]) -> None:
        """Claimed ports were processed; one without a verdict counts as DONE."""
        now = self._clock()

        # The same for all: what failed together is tried again together, and may be one report.
        @functools.cache
        def due(attempt: int) -> float:
            return now + self._backoff.delay(attempt)

        with self._changed:
            for port_id in fair(port_ids):
                self._release(self._lives[port_id], verdicts.get(port_id, Verdict.DONE), due)
            self._changed.notify_all()

    def note(self, port_id: str, **changes: Any) -> None:
        """Remember what processing a claimed port brought: fields of its life but the phase's."""
        with self._changed:
            self._lives[port_id] = dataclasses.replace(self._lives[port_id], **changes)

    def lose(self, drift: Drift | None = None) -> None:
        """The switch has lost its flows: nothing that was applied is proven any more.

        ``drift`` is why: it is reported before a proven port is wired again.
        """
        with self._changed:
            for port_id, life in self._lives.items():
                if life.applied is None:
                    continue
                request = life.request
                if life.proven and life.phase in _PENDING | {Phase.PROVEN}:
                    request = dataclasses.replace(request, drift=drift or request.drift)
                lost = dataclasses.replace(life.applied, proven=False)
                self._lives[port_id] = dataclasses.replace(life, applied=lost, request=request)
            for life in list(self._lives.values()):
                if life.phase is Phase.PROVEN:
                    self._move(life, Event.LOSE)

    def close(self) -> None:
        """End every wait; nothing is claimed any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # What is asked of it.

    def life(self, port_id: str) -> Life:
        with self._changed:
            return self._life(port_id)

    def lives(self) -> Mapping[str, Life]:
        """All ports, as they are now."""
        with self._changed:
            return dict(self._lives)

    def known(self) -> Mapping[str, Applied]:
        """Ports that were wired, or tried, and not unwired since."""
        return {id_: life.applied for id_, life in self.lives().items() if life.applied is not None}

    def waiting(self) -> int:
        """Number of ports that are ready, running or delayed."""
        return sum(life.phase in _WAITING for life in self.lives().values())

    def oldest(self) -> float | None:
        """Seconds since the port that has waited longest was asked for; None if none waits."""
        waiting = [life.request for life in self.lives().values() if life.phase in _WAITING]
        return self._clock() - min(request.since for request in waiting) if waiting else None

    def wait_for(self, port_ids: Collection[str]) -> bool:
        """Wait until none of these ports is running; whether one of them is ready then."""
        with self._changed:
            while not self._closed and self._any(port_ids, Phase.RUNNING):
                self._changed.wait()
            return not self._closed and self._any(port_ids, Phase.READY)

    # How it moves them. The caller holds the lock.

    def _life(self, port_id: str) -> Life:
        return self._lives.get(port_id) or Life(Request(port_id))

    def _any(self, port_ids: Collection[str], phase: Phase) -> bool:
        lives = (self._lives.get(port_id) for port_id in port_ids)
        return any(life is not None and life.phase is phase for life in lives)

    def _move(self, life: Life, event: Event, **changes: Any) -> Life:
        """The one place where a port changes its phase, and with it the indexes."""
        after = life.moved(event, **changes)
        port_id = life.port_id
        if life.phase is Phase.READY and after.phase is not Phase.READY:
            del self._ready[port_id]
        if after.phase is Phase.READY:
            self._ready[port_id] = None
        elif after.phase is Phase.DELAYED:
            heapq.heappush(self._due, (after.due, port_id))
        if after.phase is Phase.NEW:
            self._lives.pop(port_id, None)
        else:
            self._lives[port_id] = after
        return after

    def _request(self, life: Life, event: Event, request: Request) -> None:
        self._move(life, event, request=request, superseding=None)

    def _release(self, life: Life, verdict: Verdict, due: Callable[[int], float]) -> None:
        request, newer = life.request, life.superseding
        if verdict is Verdict.DONE:
            event = Event.MISS if life.absent_at is not None else Event.FORGET
            after = self._move(life, Event.PROVE if life.proven else event)
            again = newer.request if newer else request
        else:
            looked = verdict is Verdict.LATER
            again = (
                dataclasses.replace(request, looked=True)
                if looked
                else dataclasses.replace(request, attempt=request.attempt + 1, looked=False)
            )
            after = self._move(
                life,
                Event.LOOK_AGAIN if looked else Event.FAIL,
                request=again,
                due=due(1 if looked else request.attempt),
            )
            if newer is not None:
                # A forced request that failed is not done by a plain one.
                again = again.with_newer(newer.request, afresh=newer.afresh)
        if newer is not None:
            self._request(after, newer.event, again)

    def _choose(self) -> list[Life]:
        """Ports that have not failed, or those that have: in turn, if there are both."""
        ready = [self._lives[port_id] for port_id in self._ready]
        failed = [life for life in ready if life.request.attempt > 1]
        fresh = [life for life in ready if life.request.attempt == 1]
        self._failed_last = not fresh or (bool(failed) and not self._failed_last)
        return (failed if self._failed_last else fresh)[: self._max_batch]

    def _pause(self) -> float | None:
        return self._due[0][0] - self._clock() if self._due else None

    def _promote_due(self) -> None:
        now = self._clock()
        if not self._due or self._due[0][0] > now:
            return
        # Those that are due a moment later come along: they failed together.
        horizon = now + self._backoff.initial / 4
        while self._due and self._due[0][0] <= horizon:
            due, port_id = heapq.heappop(self._due)
            life = self._lives.get(port_id)
            if life is not None and life.phase is Phase.DELAYED and life.due == due:
                self._move(life, Event.COME_DUE)
