"""Measures how long calls take, and how they end."""

import enum
from collections.abc import Callable


class Outcome(enum.StrEnum):
    ANSWERED = "answered"
    REFUSED = "refused"
    """The server will never take this message."""
    FAILED = "failed"
    """No answer in time, or the other side failed: the call may be tried again."""


Observe = Callable[[str, Outcome, float], None]
"""Receives the method of a call, how it ended and how many seconds it took. The method is one of
the code's, or :data:`agent_flows.rpc.refusals.UNKNOWN`."""


def unobserved(method: str, outcome: Outcome, seconds: float) -> None:
    """Measures nothing."""
