"""The thread that applies verdicts soon after they were committed."""

import threading
import time
from collections.abc import Callable, Collection

from oslo_log import log

LOG = log.getLogger(__name__)

# Seconds after which a port without the status of its verdict is tried again.
_AGAIN = (0.3, 1.0, 3.0)


class VerdictWorker:
    """Calls ``apply`` with ports whose verdict changed; it answers those to try again.

    Neutron takes tens of milliseconds to make a port ACTIVE, and an agent
    should not wait that long for the receipt of its report. After a few tries
    the sweep takes over.
    """

    def __init__(self, apply: Callable[[Collection[str]], Collection[str]]) -> None:
        self._apply = apply
        self._due: dict[str, tuple[float, int]] = {}
        self._busy = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def soon(self, port_ids: Collection[str]) -> None:
        with self._changed:
            now = time.monotonic()
            self._due.update(dict.fromkeys(port_ids, (now, 0)))
            # Started when first needed: Neutron makes its plugins before it forks.
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="verdicts", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait_until_quiet(self, seconds: float) -> bool:
        """Wait until nothing is due; whether that happened in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._busy or self._ready()), seconds)

    def _ready(self) -> dict[str, int]:
        now = time.monotonic()
        return {port_id: tries for port_id, (when, tries) in self._due.items() if when <= now}

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (ready := self._ready()):
                    first = min((when for when, _ in self._due.values()), default=None)
                    self._changed.wait(first and max(first - time.monotonic(), 0))
                for port_id in ready:
                    del self._due[port_id]
                self._busy = True
            try:
                left = self._apply(ready)
            except Exception:
                # The thread goes on; the ports stay unsettled, for the next sweep.
                LOG.exception("Could not apply the verdicts of %d ports", len(ready))
                left = ()
            with self._changed:
                now = time.monotonic()
                for port_id in left:
                    tries = ready[port_id]
                    if port_id not in self._due and tries < len(_AGAIN):
                        self._due[port_id] = (now + _AGAIN[tries], tries + 1)
                self._busy = False
                self._changed.notify_all()
