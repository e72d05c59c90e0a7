"""The in-process bus: kombu's memory transport, which waits for messages instead of polling.

oslo.messaging sets its polling interval to 0 (``impl_rabbit``, "kludge to
speed up tests"): an idle process of server and agent took 60 % of a core.
"""

import threading
import time
from typing import Any

from kombu import transport
from kombu.transport import memory


class _Arrivals:
    """Wakes all listeners of this process when a message arrives in any queue."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.count = 0

    def add(self) -> None:
        with self._changed:
            self.count += 1
            self._changed.notify_all()

    def wait(self, seen: int, timeout: float | None) -> None:
        """Wait at most ``timeout`` seconds until ``count`` is not ``seen``."""
        with self._changed:
            self._changed.wait_for(lambda: self.count != seen, timeout)


_ARRIVALS = _Arrivals()


class Channel(memory.Channel):
    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        super()._put(queue, message, **kwargs)  # type: ignore[no-untyped-call]
        _ARRIVALS.add()

    def _put_fanout(self, *args: Any, **kwargs: Any) -> None:
        super()._put_fanout(*args, **kwargs)  # type: ignore[no-untyped-call]
        _ARRIVALS.add()


class Transport(memory.Transport):
    Channel = Channel

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Deliver one message; raises TimeoutError if none arrives within ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            seen = _ARRIVALS.count
            try:
                super().drain_events(connection, timeout=0)  # type: ignore[no-untyped-call]
            except TimeoutError:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise
                _ARRIVALS.wait(seen, left)
            else:
                return


def install() -> None:
    """Use this transport for ``kombu+memory://`` from now on."""
    transport.TRANSPORT_ALIASES["memory"] = f"{__name__}:{Transport.__name__}"
