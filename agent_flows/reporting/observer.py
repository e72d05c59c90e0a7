"""What an agent does, for those who count it or trace it."""

from collections.abc import Sequence
from typing import Protocol

from agent_flows.report import FlowReport
from agent_flows.rpc.timing import Outcome


class Observer(Protocol):
    """Each method returns at once and raises nothing. Called from any thread."""

    def stored(self, reports: Sequence[FlowReport]) -> None:
        """These reports are in the outbox."""
        ...

    def sent_again(self, number: int) -> None:
        """So many reports were sent once more."""
        ...

    def rejected(self, *, fault: bool) -> None:
        """The server rejected a report for good; without ``fault`` the port has changed."""
        ...

    def called(self, method: str, outcome: Outcome, seconds: float) -> None:
        """A call to the server ended; an :data:`agent_flows.rpc.timing.Observe`."""
        ...

    def cast_refused(self, field: str) -> None:
        """A message of the server was refused."""
        ...


class Unobserved:
    """The :class:`Observer` of an agent without metrics and traces."""

    def stored(self, reports: Sequence[FlowReport]) -> None:
        """Nothing."""

    def sent_again(self, number: int) -> None:
        """Nothing."""

    def rejected(self, *, fault: bool) -> None:
        """Nothing."""

    def called(self, method: str, outcome: Outcome, seconds: float) -> None:
        """Nothing."""

    def cast_refused(self, field: str) -> None:
        """Nothing."""


UNOBSERVED: Observer = Unobserved()
