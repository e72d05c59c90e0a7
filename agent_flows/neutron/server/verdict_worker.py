"""The thread that settles ports soon after something was decided of them."""

import threading
import time
from collections.abc import Callable, Collection

from oslo_log import log

LOG = log.getLogger(__name__)

# Seconds after which a port that is not yet what was decided is looked at again.
_AGAIN = (0.3, 1.0, 3.0)


class Settler:
    """Calls ``settle`` with the ports it is told of; it answers those to look at again.

    Lifting a block takes Neutron tens of milliseconds a port, for which no
    agent should wait that only wants to hear that its report is safe. After a
    few looks, what is left over is the sweep's.
    """

    def __init__(self, settle: Callable[[Collection[str]], Collection[str]]) -> None:
        self._settle = settle
        self._due: dict[str, tuple[float, int]] = {}
        self._busy = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def soon(self, port_ids: Collection[str]) -> None:
        with self._changed:
            now = time.monotonic()
            self._due.update(dict.fromkeys(port_ids, (now, 0)))
            # Made when first needed: Neutron makes its plugins before it forks.
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="settler", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait_until_quiet(self, seconds: float) -> bool:
        """Wait until nothing is due at once; whether that came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._busy or self._ready()), seconds)

    def _ready(self) -> dict[str, int]:
        now = time.monotonic()
        return {port_id: looks for port_id, (when, looks) in self._due.items() if when <= now}

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
                left = self._settle(ready)
            except Exception:
                # The thread lives on; the ports stay unsettled, for the next sweep.
                LOG.exception("Could not settle %d ports now", len(ready))
                left = ()
            with self._changed:
                now = time.monotonic()
                for port_id in left:
                    looks = ready[port_id]
                    if port_id not in self._due and looks < len(_AGAIN):
                        self._due[port_id] = (now + _AGAIN[looks], looks + 1)
                self._busy = False
                self._changed.notify_all()
