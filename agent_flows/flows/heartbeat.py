"""Tells the server, time and again, that this agent lives and how it fares."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import oslo_messaging
from oslo_log import log

from agent_flows.rpc.server import Held

LOG = log.getLogger(__name__)


class Client(Protocol):
    """The agent's RPC client, as far as heartbeats go."""

    def heartbeat(self, state: Mapping[str, Any]) -> Held: ...


class Heartbeat:
    """One thread. ``interval`` in seconds; ``state`` is asked anew each time.

    ``heard`` gets what the server holds of this host,
    ``back`` is called when the server answers after it did not.
    """

    def __init__(
        self,
        client: Client,
        interval: float,
        state: Callable[[], Mapping[str, Any]],
        heard: Callable[[Held], None],
        back: Callable[[], None],
    ) -> None:
        self._client = client
        self._interval = interval
        self._state = state
        self._heard = heard
        self._back = back
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _beat(self) -> None:
        missed = 0
        while True:
            try:
                self._heard(self._client.heartbeat(self._state()))
            except oslo_messaging.MessagingException as exc:
                # The server notices silence by itself: that is what heartbeats are for.
                missed += 1
                if missed == 1:
                    LOG.warning("The server does not answer: %s", str(exc).partition("\n")[0])
            else:
                if missed:
                    LOG.info("The server answers again, after %d missed heartbeats", missed)
                    self._back()
                missed = 0
            if self._stopping.wait(self._interval):
                return
