"""Reports an operation that runs too long as a trouble until it ends."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from agent_flows.report import Trouble
from agent_flows.supervision import Loop, Troubles

Watch = Callable[[str], AbstractContextManager[object]]
"""Takes the name of an operation and watches it as a context."""


def unwatched(what: str) -> AbstractContextManager[object]:
    """Without a watchdog."""
    return contextlib.nullcontext()


@dataclasses.dataclass(eq=False)
class _Running:
    source: str
    what: str
    limit: float
    since: float
    # The duration in its last report, in seconds.
    reported: float = 0.0


class Watchdog:
    """Checks every ``tick`` seconds, from :meth:`start` to :meth:`stop`."""

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
        """A watch that reports operations of more than ``limit`` seconds as trouble ``source``."""
        return lambda what: self._watching(_Running(source, what, limit, time.monotonic()))

    def oldest(self, source: str) -> float | None:
        """Seconds that the oldest operation of ``source`` has been running; None without one."""
        with self._lock:
            since = [running.since for running in self._running if running.source == source]
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
                # Another operation of the source may be late as well.
                self._report(again=running.source)

    def _step(self) -> None:
        self._loop.stopping.wait(self._tick)
        self._report()

    def _report(self, again: str | None = None) -> None:
        """Report the oldest late operation of each source; of ``again`` even if unchanged."""
        now = time.monotonic()
        with self._lock:
            late = [running for running in self._running if now - running.since > running.limit]
        late.sort(key=lambda running: running.since, reverse=True)
        for source, oldest in {running.source: running for running in late}.items():
            seconds = now - oldest.since
            # Not every tick: each change of a trouble is sent to the server at once.
            if source == again or not oldest.reported or seconds >= 2 * oldest.reported:
                oldest.reported = seconds
                self._troubles.report(source, f"{oldest.what} has been running for {seconds:.0f} s")
        # The line of the oldest one reports the others of its source, too.
        for running in late:
            running.reported = running.reported or now - running.since
