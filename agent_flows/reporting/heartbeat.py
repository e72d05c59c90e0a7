"""Sends the agent's state to the server, at intervals and when a trouble begins or ends."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import oslo_messaging
from oslo_log import log

from agent_flows.report import Trouble
from agent_flows.reporting.comparison import Comparison
from agent_flows.rpc.agent import host_taken
from agent_flows.rpc.answers import Held
from agent_flows.rpc.revisions import KEY
from agent_flows.supervision import Backoff, Loop, Troubles

LOG = log.getLogger(__name__)

# Changes within this time are sent together.
_DEBOUNCE = 0.2
_BACKOFF = Backoff(0.5, 10.0)
# Seconds until the next heartbeat after one without an answer.
_AGAIN = 2.0


class Client(Protocol):
    """The agent's RPC client, as far as a heartbeat needs it."""

    def heartbeat(self, state: Mapping[str, Any]) -> Held: ...


class Heartbeat:
    """One thread; sends ``state()`` every ``interval`` seconds.

    ``on_answer`` gets the server's answer; ``on_return`` is called when the
    server answers again. ``comparison`` adds its digest to the state, and gets
    that of the answer.
    """

    def __init__(
        self,
        client: Client,
        interval: float,
        state: Callable[[], Mapping[str, Any]],
        on_answer: Callable[[Held], None],
        on_return: Callable[[], None] = lambda: None,
        *,
        troubles: Troubles | None = None,
        comparison: Comparison | None = None,
    ) -> None:
        self._client = client
        self._interval = interval
        self._state = state
        self._on_answer = on_answer
        self._on_return = on_return
        self._comparison = comparison
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
        """Have a heartbeat sent now. Returns at once."""
        self._soon.set()

    def _step(self) -> None:
        self._soon.clear()
        silent = not self.beat()
        if self._soon.wait(min(self._interval, _AGAIN) if silent else self._interval):
            self._loop.stopping.wait(_DEBOUNCE)

    def beat(self) -> bool:
        """Send one heartbeat in the caller's thread; whether the server answered."""
        state = dict(self._state())
        if self._comparison is not None:
            state[KEY] = self._comparison.digest()
        try:
            held = self._client.heartbeat(state)
        except oslo_messaging.MessagingException as exc:
            return self._miss(exc)
        self._troubles.clear(Trouble.IDENTITY)
        self._on_answer(held)
        if self._comparison is not None:
            self._comparison.answered(state[KEY], held.desired, after_outage=self._missed > 0)
        if self._missed:
            LOG.info("The server answers again, after %d missed heartbeats", self._missed)
            self._missed = 0
            self._on_return()
        return True

    def _miss(self, exc: oslo_messaging.MessagingException) -> bool:
        """Whether the server answered, if only with an error."""
        self._missed += 1
        if self._missed == 1:
            LOG.warning("The server does not answer heartbeats: %s", str(exc).partition("\n")[0])
        reason = host_taken(exc)
        # Once: the reason contains a time, and every change would be sent at once.
        if reason is not None and Trouble.IDENTITY not in self._troubles.current():
            self._troubles.report(Trouble.IDENTITY, reason)
        return isinstance(exc, oslo_messaging.RemoteError)
