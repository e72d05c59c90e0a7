"""The life of a port on a host: the phases it goes through, and what it carries with it. Pure.

:data:`MOVES` is all there is: every change of a phase is looked up in it, and
the diagram of the documentation is drawn from it.
"""

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from agent_flows.engine.drift import Drift


class Phase(enum.Enum):
    """Where a port is in its life; the value explains it."""

    NEW = "nothing is known of it"
    AWAITED = "another firewall driver is given time to program it"
    READY = "its flow is to run"
    RUNNING = "its flow runs"
    DELAYED = "its flow runs again after a pause"
    PROVEN = "its last flow succeeded, and the report is kept"
    STALE = "it was proven, and the switch has lost its flows since"
    ABSENT = "it has no interface on this host, and the report is kept"


class Event(enum.Enum):
    """What moves a port from one phase to another; the value explains it."""

    AWAIT = "another driver is about to change it"
    SUBMIT = "something about it may have changed"
    LOOK_RIGHT = "a look found it as it was proven"
    CLAIM = "a worker takes it"
    PROVE = "it is as desired"
    FAIL = "its flow failed, or the report could not be kept"
    LOOK_AGAIN = "it was too early to judge"
    MISS = "it has no interface"
    FORGET = "it is not desired here"
    COME_DUE = "its pause is over"
    LOSE = "the switch restarted"
    DRIFT = "the switch does not hold it any more as it was proven"


MOVES: Mapping[tuple[Phase, Event], Phase] = {
    (Phase.NEW, Event.SUBMIT): Phase.READY,
    (Phase.NEW, Event.AWAIT): Phase.AWAITED,
    (Phase.AWAITED, Event.AWAIT): Phase.AWAITED,
    (Phase.AWAITED, Event.SUBMIT): Phase.READY,
    (Phase.AWAITED, Event.LOOK_RIGHT): Phase.PROVEN,
    (Phase.READY, Event.SUBMIT): Phase.READY,
    (Phase.READY, Event.AWAIT): Phase.AWAITED,
    (Phase.READY, Event.CLAIM): Phase.RUNNING,
    (Phase.RUNNING, Event.PROVE): Phase.PROVEN,
    (Phase.RUNNING, Event.FAIL): Phase.DELAYED,
    (Phase.RUNNING, Event.LOOK_AGAIN): Phase.DELAYED,
    (Phase.RUNNING, Event.MISS): Phase.ABSENT,
    (Phase.RUNNING, Event.FORGET): Phase.NEW,
    (Phase.DELAYED, Event.COME_DUE): Phase.READY,
    (Phase.DELAYED, Event.SUBMIT): Phase.READY,
    (Phase.DELAYED, Event.AWAIT): Phase.AWAITED,
    (Phase.PROVEN, Event.SUBMIT): Phase.READY,
    (Phase.PROVEN, Event.AWAIT): Phase.AWAITED,
    (Phase.PROVEN, Event.LOSE): Phase.STALE,
    (Phase.PROVEN, Event.DRIFT): Phase.READY,
    (Phase.STALE, Event.SUBMIT): Phase.READY,
    (Phase.STALE, Event.AWAIT): Phase.AWAITED,
    (Phase.ABSENT, Event.SUBMIT): Phase.READY,
    (Phase.ABSENT, Event.AWAIT): Phase.AWAITED,
}


class IllegalMove(Exception):
    """A port was to make a move that is not in :data:`MOVES`: a defect of ours."""


class Verdict(enum.Enum):
    """What processing a port came to."""

    DONE = "it is as desired, or there is nothing to do"
    RETRY = "it failed: its next attempt comes after its backoff"
    LATER = "it was too early to judge: look once more, which is no failed attempt"


@dataclass(frozen=True)
class Request:
    """One port to be processed.

    ``forced``: act even if nothing seems to have changed. ``asked``: the server
    named this port, so it is to be reported even if it has no interface here.
    ``looked``: the last verdict was LATER. ``drift``: the finding that is reported before
    the port is repaired. ``since`` is when it was first asked
    for, in seconds of the table's clock.
    """

    port_id: str
    attempt: int = 1
    forced: bool = False
    asked: bool = False
    looked: bool = False
    drift: Drift | None = None
    since: float = dataclasses.field(default=0.0, compare=False)

    def with_newer(self, newer: "Request", *, afresh: bool) -> "Request":
        """This request, which is not done, and a newer one of the same port in one."""
        return Request(
            newer.port_id,
            newer.attempt if afresh else self.attempt,
            self.forced or newer.forced,
            self.asked or newer.asked,
            self.looked and not afresh,
            newer.drift or self.drift,
            self.since,
        )


@dataclass(frozen=True)
class Applied:
    """What the last flow of a port applied: where, and to bring it to what.

    Values of the host's own kind; equal ones need no flow. Not ``proven``: the
    flow failed, or the switch has lost it. ``rules`` is None after a refresh
    that failed: the wiring is proven, the security groups are not.
    """

    interface: Any
    wiring: Any
    rules: Any
    proven: bool


@dataclass(frozen=True)
class Superseding:
    """A request of a port whose flow runs: it moves the port by ``event`` when that has ended.

    ``afresh``: the attempts of the port count from one again, even if the running one fails.
    """

    event: Event
    request: Request
    afresh: bool

    def after(self, earlier: "Superseding | None") -> "Superseding":
        """Both in one."""
        if earlier is None:
            return self
        request = earlier.request.with_newer(self.request, afresh=True)
        return Superseding(self.event, request, self.afresh or earlier.afresh)


@dataclass(frozen=True)
class Life:
    """All that is known of a port on this host.

    ``request`` is the last one that was not superseded: what the port is READY,
    RUNNING or DELAYED (until ``due``) for. ``superseding`` was asked of it while
    it is RUNNING.
    ``absent_at`` is the revision at which its absence was reported.
    ``unreported`` is what its last flow came to, if the report could not be kept.
    """

    request: Request
    phase: Phase = Phase.NEW
    superseding: Superseding | None = None
    due: float = 0.0
    applied: Applied | None = None
    absent_at: int | None = None
    unreported: object = None

    @property
    def port_id(self) -> str:
        return self.request.port_id

    def moved(self, event: Event, **changes: Any) -> Self:
        """The life after ``event``. Raises :class:`IllegalMove`."""
        after = MOVES.get((self.phase, event))
        if after is None:
            raise IllegalMove(f"port {self.port_id}: {event.name} while {self.phase.name}")
        return dataclasses.replace(self, phase=after, **changes)

    @property
    def proven(self) -> bool:
        return self.applied is not None and self.applied.proven
