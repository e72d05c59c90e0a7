"""What runs too long is a trouble until it ends."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from agent_flows.report import Trouble
from agent_flows.supervision import Loop, Troubles

Watch = Callable[[str], AbstractContextManager[object]]
"""Takes what is about to run, in words, and watches it as a context."""


def unwatched(what: str) -> AbstractContextManager[object]:
    """For who has no watchdog."""
    return contextlib.nullcontext()


@dataclasses.dataclass(eq=False)
class _Running:
    source: str
    what: str
    limit: float
    since: float
    # Seconds that it was last reported with.
    reported: float = 0.0


class Watchdog:
    """Looks once every ``tick`` seconds, from :meth:`start` to :meth:`stop`."""

    def __init__(self, troubles: Troubles, tick: float = 0.5) -> None:
        self._troubles = troubles
        self._tick = tick
        self._lock = threading.Lock()
        self._running: dict[_Running, None] = {}
        self._loop = Loop("watchdog", self._step, troubles, Trouble.OTHER)

    def start(self) -> None:
        self._loop.start()

    def stop(self, timeout: float) -> None:
        self._loop.stop(timeout)

    def watch(self, source: str, limit: float) -> Watch:
        """A watch of ``source``: the trouble of what it watches for more than ``limit`` seconds."""
        return lambda what: self._watching(_Running(source, what, limit, time.monotonic()))

    def oldest(self, source: str) -> float | None:
        """Seconds for which the oldest of ``source`` has been running; None if none is."""
        with self._lock:
            since = [each.since for each in self._running if each.source == source]
        return time.monotonic() - min(since) if since else None

    @contextlib.contextmanager
    def _watching(self, running: _Running) -> Iterator[None]:
        with self._lock:
            self._running[running] = None
        try:
            yield
        finally:
            with self._lock:
                del self._running[running]
            if running.reported:
                self._troubles.clear(running.source)
                # Another of the same source may be late as well.
                self._report(again=running.source)

    def _step(self) -> None:
        self._loop.stopping.wait(self._tick)
        self._report()

    def _report(self, again: str | None = None) -> None:
        """Report each source's oldest that is late; ``again`` even if it was reported."""
        now = time.monotonic()
        with self._lock:
            late = [each for each in self._running if now - each.since > each.limit]
        oldest: dict[str, _Running] = {}
        for each in late:
            first = oldest.setdefault(each.source, each)
            if each.since < first.since:
                oldest[each.source] = each
        for source, each in oldest.items():
            seconds = now - each.since
            # Not with every tick: a change of a trouble is sent to the server at once.
            if source == again or not each.reported or seconds >= 2 * each.reported:
                each.reported = seconds
                self._troubles.report(source, f"{each.what} has been running for {seconds:.0f} s")
        # One that is not the oldest is reported by its source's line all the same.
        for each in late:
            each.reported = each.reported or now - each.since
