"""Which ports are not where they should be, and when each is tried again. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from agent_flows.supervision import Backoff


@dataclass(frozen=True)
class _Pending:
    attempts: int
    due: float


class Retries:
    """Times are seconds of one clock. Not safe from several threads at once.

    A port's backoff is its own: it grows with each failed attempt, whoever asked for that
    attempt, and ends when the port has succeeded or is gone.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._pending: dict[str, _Pending] = {}

    def __contains__(self, port_id: object) -> bool:
        return port_id in self._pending

    def attempts(self, port_id: str) -> int:
        """How many attempts of the port have failed since it last succeeded."""
        pending = self._pending.get(port_id)
        return 0 if pending is None else pending.attempts

    def failed(self, port_id: str, attempts: int, now: float) -> None:
        """This many attempts have failed by ``now``."""
        self._pending[port_id] = _Pending(attempts, now + self._backoff.delay(attempts))

    def look_again(self, port_id: str, now: float) -> None:
        """The port was only looked at: the next look is soon, and counts for no attempt."""
        attempts = self.attempts(port_id)
        self._pending[port_id] = _Pending(attempts, now + self._backoff.delay(1))

    def settled(self, port_id: str) -> None:
        """The port is where it should be, or is no more."""
        self._pending.pop(port_id, None)

    def keep(self, needed: Callable[[str], bool]) -> None:
        """Forget all ports but those."""
        self._pending = {id_: each for id_, each in self._pending.items() if needed(id_)}

    def due(self, now: float, limit: int) -> list[str]:
        """Up to ``limit`` ports whose pause is over, the most overdue first."""
        waiting = ((each.due, port_id) for port_id, each in self._pending.items())
        return [port_id for at, port_id in sorted(waiting) if at <= now][:limit]

    def pause(self, now: float) -> float | None:
        """Seconds until the next port is due; None if none is pending."""
        first = min((each.due for each in self._pending.values()), default=None)
        return None if first is None else max(0.0, first - now)

    def all_tried(self, times: int) -> bool:
        """Whether every pending port has failed this often at least."""
        return all(each.attempts >= times for each in self._pending.values())
