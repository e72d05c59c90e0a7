"""A message bus that loses messages on purpose."""

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import oslo_messaging

EVER = 1_000_000


class LossyBus:
    """A transport of oslo.messaging around another one: what is sent through it may be lost.

    A call that is lost, or whose answer is, fails as one without an answer does, but at once.
    """

    def __init__(self, bus: oslo_messaging.Transport) -> None:
        self._bus = bus
        self._lock = threading.Lock()
        self._to_lose: Counter[tuple[str, bool]] = Counter()
        self._lost: Counter[str] = Counter()
        self._reports: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    def lose(self, method: str, *, answer: bool = False, times: int = 1) -> None:
        """Lose the next ``times`` messages of this method; 0: no more of them."""
        with self._lock:
            self._to_lose[method, answer] = times

    def lost(self, method: str) -> int:
        """How many messages of this method were lost, answers included."""
        with self._lock:
            return self._lost[method]

    def reports_of(self, resource_id: str) -> set[str]:
        """The ids of the reports of this resource that were sent, lost or not."""
        with self._lock:
            return {id_ for id_, resource in self._reports.items() if resource == resource_id}

    def _send(
        self, target: object, ctxt: object, message: Mapping[str, Any], **kwargs: Any
    ) -> object:
        method = message["method"]
        with self._lock:
            if method == "report":
                sent = message["args"]["reports"]
                self._reports |= {report["id"]: report["resource_id"] for report in sent}
            before, after = self._loses(method, answer=False), self._loses(method, answer=True)
        answer = None if before else self._bus._send(target, ctxt, message, **kwargs)
        if (before or after) and kwargs.get("wait_for_reply"):
            raise oslo_messaging.MessagingTimeout(f"{method} was lost")
        return answer

    def _loses(self, method: str, *, answer: bool) -> bool:
        if self._to_lose[method, answer] <= 0:
            return False
        self._to_lose[method, answer] -= 1
        self._lost[method] += 1
        return True
