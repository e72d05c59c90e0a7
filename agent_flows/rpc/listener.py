"""Receives messages as soon as the message bus can be reached."""

import threading
from collections.abc import Callable
from typing import Any

import oslo_messaging

from agent_flows.report import Trouble
from agent_flows.rpc.dispatch import Endpoint, listener
from agent_flows.rpc.timing import Observe, unobserved
from agent_flows.supervision import Loop, Troubles

# Timeout in seconds of a call to a message bus that may not answer.
_PATIENCE = 3.0


class Listener:
    """An RPC server that is started in a thread, because the start waits for the message bus.

    With one thread messages are handled one after the other, in the order in which they arrive;
    with None there are as many as ``executor_thread_pool_size``. While the start fails, the trouble
    is LISTENER. ``observe`` is called with each call.
    """

    def __init__(
        self,
        transport: oslo_messaging.Transport,
        target: oslo_messaging.Target,
        endpoint: Endpoint,
        troubles: Troubles,
        *,
        # Each method of an agent's endpoint returns at once, and an idle thread of the pool
        # wakes every second (futurist's MAX_IDLE_FOR): 64 of them cost more than all the rest.
        threads: int | None = 1,
        observe: Observe = unobserved,
    ) -> None:
        # oslo.messaging publishes no types.
        self._make: Callable[[], Any] = lambda: listener(transport, target, endpoint, observe)
        self._server: Any = None
        self._threads = threads
        self._receives = threading.Event()
        self._loop = Loop(
            "listen",
            self._step,
            troubles,
            Trouble.LISTENER,
            expected=(oslo_messaging.MessagingException,),
        )

    def start(self, patience: float = 0.0) -> None:
        """Begin; wait at most ``patience`` seconds until messages are received."""
        self._loop.start()
        self._receives.wait(patience)

    def is_receiving(self) -> bool:
        """Whether the start has succeeded."""
        return self._receives.is_set()

    def stop(self) -> None:
        """Receive nothing more; waits at most a few seconds for the message bus."""
        self._loop.stopping.set()
        if self._server is not None:
            briefly(self._server.stop)

    def wait(self, patience: float = _PATIENCE) -> None:
        """Wait at most ``patience`` seconds until the received messages are handled."""
        if self._server is not None:
            briefly(self._server.wait, patience)

    def _step(self) -> None:
        if self._server is None:
            # A server that failed to start cannot be started again.
            server = self._make()
            server.start(override_pool_size=self._threads)
            self._server = server
            self._receives.set()
        else:
            self._loop.stopping.wait()


def briefly(call: Callable[[], None], patience: float = _PATIENCE) -> None:
    """``call`` without waiting for its end: it may wait for a message bus that does not answer."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(patience)
