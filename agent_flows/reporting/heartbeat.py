"""Says to the server, at intervals and whenever a trouble comes or goes, how the agent fares."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import oslo_messaging
from oslo_log import log

from agent_flows.report import Trouble
from agent_flows.rpc.agent import host_taken
from agent_flows.rpc.answers import Held
from agent_flows.supervision import Backoff, Loop, Troubles

LOG = log.getLogger(__name__)

# Changes that come together are sent together.
_DEBOUNCE = 0.2
_BACKOFF = Backoff(0.5, 10.0)


class Client(Protocol):
    """The agent's RPC client, as far as heartbeats go."""

    def heartbeat(self, state: Mapping[str, Any]) -> Held: ...


class Heartbeat:
    """One thread. ``interval`` in seconds; ``state`` is asked again each time.

    ``heard`` gets what the server holds of this host, ``back`` is called when
    the server answers after it did not.
    """

    def __init__(
        self,
        client: Client,
        interval: float,
        state: Callable[[], Mapping[str, Any]],
        heard: Callable[[Held], None],
        back: Callable[[], None],
        *,
        troubles: Troubles | None = None,
    ) -> None:
        self._client = client
        self._interval = interval
        self._state = state
        self._heard = heard
        self._back = back
        self._missed = 0
        self._troubles = troubles or Troubles()
        self._soon = threading.Event()
        self._loop = Loop("heartbeat", self._step, self._troubles, Trouble.HEARTBEAT, _BACKOFF)

    def start(self) -> None:
        self._loop.start()

    def stop(self, timeout: float) -> None:
        self._loop.stopping.set()
        self._soon.set()
        self._loop.stop(timeout)

    def soon(self) -> None:
        """Send one at once: something has changed. Returns at once."""
        self._soon.set()

    def _step(self) -> None:
        self._soon.clear()
        self._beat()
        if self._soon.wait(self._interval):
            self._loop.stopping.wait(_DEBOUNCE)

    def _beat(self) -> None:
        try:
            held = self._client.heartbeat(self._state())
        except oslo_messaging.MessagingException as exc:
            self._miss(exc)
            return
        self._troubles.clear(Trouble.IDENTITY)
        self._heard(held)
        if self._missed:
            LOG.info("The server answers again, after %d missed heartbeats", self._missed)
            self._missed = 0
            self._back()

    def _miss(self, exc: oslo_messaging.MessagingException) -> None:
        # The server notices silence by itself: that is what heartbeats are for.
        self._missed += 1
        if self._missed == 1:
            LOG.warning("The server does not answer: %s", str(exc).partition("\n")[0])
        reason = host_taken(exc)
        # Once: its words change with the time, and a change is sent at once.
        if reason is not None and Trouble.IDENTITY not in self._troubles.current():
            self._troubles.report(Trouble.IDENTITY, reason)
