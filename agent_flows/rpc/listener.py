"""Hears what is cast to this process, as soon as the message bus lets it."""

import threading
from collections.abc import Callable
from typing import Any

import oslo_messaging

from agent_flows.report import Trouble
from agent_flows.rpc.dispatch import Endpoint, listener
from agent_flows.supervision import Loop, Troubles

# Seconds for a call to a message bus that may not be there.
_PATIENCE = 3.0


class Listener:
    """An RPC server whose start is tried until it succeeds; meanwhile that is the trouble
    LISTENER. The start itself waits for the message bus, so it runs in a thread."""

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
        """Hear nothing any more; waits for the message bus at most a few seconds."""
        self._loop.stopping.set()
        if self._server is not None:
            briefly(self._server.stop)

    def wait(self) -> None:
        """Until what was heard is dealt with."""
        if self._server is not None:
            briefly(self._server.wait)

    def _step(self) -> None:
        if self._server is None:
            # A new one each time: one that failed to start cannot be started again.
            server = self._make()
            server.start()
            self._server = server
        else:
            self._loop.stopping.wait()


def briefly(call: Callable[[], None]) -> None:
    """``call``, which may wait for a message bus that is not there: so not for its end."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
