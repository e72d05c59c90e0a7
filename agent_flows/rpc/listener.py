"""Receives casts as soon as the message bus can be reached."""

import threading
from collections.abc import Callable
from typing import Any

import oslo_messaging

from agent_flows.report import Trouble
from agent_flows.rpc.dispatch import Endpoint, listener
from agent_flows.supervision import Loop, Troubles

# Timeout in seconds of a call to a message bus that may not answer.
_PATIENCE = 3.0


class Listener:
    """An RPC server that is started in a thread, because the start waits for the message bus.

    Messages are handled one after the other, in the order in which they arrive.
    Until the start succeeds, the trouble is LISTENER.
    """

    def __init__(
        self,
        transport: oslo_messaging.Transport,
        target: oslo_messaging.Target,
        endpoint: Endpoint,
        troubles: Troubles,
    ) -> None:
        # oslo.messaging publishes no types.
        self._make: Callable[[], Any] = lambda: listener(transport, target, endpoint)
        self._server: Any = None
        self._loop = Loop(
            "listen",
            self._step,
            troubles,
            Trouble.LISTENER,
            expected=(oslo_messaging.MessagingException,),
        )

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        """Receive nothing more; waits at most a few seconds for the message bus."""
        self._loop.stopping.set()
        if self._server is not None:
            briefly(self._server.stop)

    def wait(self) -> None:
        """Wait until received casts are handled."""
        if self._server is not None:
            briefly(self._server.wait)

    def _step(self) -> None:
        if self._server is None:
            # A server that failed to start cannot be started again.
            server = self._make()
            # Each method of an agent's endpoint returns at once, and an idle thread of the pool
            # wakes every second (futurist's MAX_IDLE_FOR): 64 of them cost more than all the rest.
            server.start(override_pool_size=1)
            self._server = server
        else:
            self._loop.stopping.wait()


def briefly(call: Callable[[], None]) -> None:
    """``call`` without waiting for its end: it may wait for a message bus that does not answer."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
