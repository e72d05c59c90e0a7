"""What a simulated world is made of: its clock, its processes, and the points where one may end."""

import collections
import dataclasses
import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_TICK = 0.001
"""Seconds that pass between two steps, so that no two of them have the same time."""


class Crashed(BaseException):
    """The process has ended here. Nothing of the product catches it."""


class Clock:
    """One clock for all hosts; ``seconds`` have passed."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def pass_(self, seconds: float = _TICK) -> None:
        self.seconds += seconds

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime.datetime:
        return START + datetime.timedelta(seconds=self.seconds)

    def microseconds(self) -> int:
        return (self.now() - _EPOCH) // datetime.timedelta(microseconds=1)


class Every:
    """Something that is due at once, and ``seconds`` after it was due last."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds, self._clock, self._at = seconds, clock, 0.0

    def is_due(self) -> bool:
        due = self._clock.seconds >= self._at
        if due:
            self._at = self._clock.seconds + self._seconds
        return due


@dataclass(frozen=True)
class _Plan:
    points: int
    what: str
    act: Callable[[], None] | None


class Process:
    """A process that may end at any of its points, as by ``kill -9``.

    A point is where something outside of it changes: a commit, a message, a bundle of flows. What
    is planned for a point happens there: the end of the process, or what others do meanwhile.
    """

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self.name = name
        self.say = say
        self.alive = True
        self._plans: collections.deque[_Plan] = collections.deque()

    def plan(self, points: int, what: str, act: Callable[[], None] | None = None) -> None:
        """After ``points`` further points do ``act``, or end."""
        self._plans.append(_Plan(points, what, act))

    def forget_plans(self) -> None:
        self._plans.clear()

    def point(self, where: str, *, free: bool = True) -> None:
        """The process gets to a point. Not ``free``: it holds a lock, so that others cannot act
        upon what it holds."""
        if not self.alive:
            raise Crashed(self.name)
        if not self._plans:
            return
        plan = self._plans[0]
        if plan.act is not None and not free:
            return
        if plan.points:
            self._plans[0] = dataclasses.replace(plan, points=plan.points - 1)
            return
        self._plans.popleft()
        self.say(f"    at this point ({where}): {plan.what}")
        if plan.act is None:
            self.alive = False
            raise Crashed(self.name)
        plan.act()

    @contextmanager
    def around(self, where: str, *, free: bool = True) -> Iterator[None]:
        """A point before what is done inside, and one after it."""
        self.point(f"before {where}", free=free)
        yield
        self.point(f"after {where}", free=free)
