"""The in-process bus: kombu's memory transport, which waits for messages instead of polling.

oslo.messaging sets its polling interval to 0 (``impl_rabbit``, "kludge to
speed up tests"): an idle process of server and agent took 60 % of a core. It
also limits each wait to 0.05 s, which took 1.3 % of a core; see :func:`patience`.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from kombu import transport
from kombu.transport import memory

# Seconds: how often an idle listener lets oslo.messaging look after its connection.
_LONG = 5.0


class _Arrivals:
    """Wakes all listeners of this process when a message arrives in any queue."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.count = 0
        self._shortest_wait = 0.0

    def add(self) -> None:
        with self._changed:
            self.count += 1
            self._changed.notify_all()

    def wait(self, seen: int, timeout: float | None) -> bool:
        """Wait until ``count`` is not ``seen``; False if it still is after ``timeout`` seconds,
        or after the shortest wait if that is longer."""
        with self._changed:
            if timeout is not None:
                timeout = max(timeout, self._shortest_wait)
            return self._changed.wait_for(lambda: self.count != seen, timeout)

    def set_shortest_wait(self, seconds: float) -> None:
        with self._changed:
            self._shortest_wait = seconds
        # Ends the waits that have begun.
        self.add()


_ARRIVALS = _Arrivals()


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """While inside, a listener without messages waits for seconds; a message still wakes it at
    once. Outside, oslo.messaging's own limit lets a listener end soon."""
    _ARRIVALS.set_shortest_wait(_LONG)
    try:
        yield
    finally:
        _ARRIVALS.set_shortest_wait(0.0)


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
        """Deliver one message; raises TimeoutError if none arrives within ``timeout`` seconds,
        or within the longer time of :func:`patience`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            seen = _ARRIVALS.count
            try:
                super().drain_events(connection, timeout=0)  # type: ignore[no-untyped-call]
            except TimeoutError:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not _ARRIVALS.wait(seen, left):
                    raise
            else:
                return


def install() -> None:
    """Use this transport for ``kombu+memory://`` from now on."""
    transport.TRANSPORT_ALIASES["memory"] = f"{__name__}:{Transport.__name__}"
