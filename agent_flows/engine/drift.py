"""Drift: what is in the switch differs from what was proven, and no flow of ours changed it.

Something suspects (a flow monitor, OVSDB, the clock), an :class:`Auditor` of
the host compares, and what it finds is reported and repaired by the reconciler.
"""

import collections
import random
import resource
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from oslo_log import log

from agent_flows.report import MAX_MESSAGE_CHARS, FlowName, Step, TaskError, Trouble
from agent_flows.supervision import Backoff, Loop, Troubles, one_line

LOG = log.getLogger(__name__)

COMPARE_SWITCH = "compare-switch"
"""The task of the flow ``audit``."""

# All in seconds. Suspicions within this time are looked into together.
_DEBOUNCE = 0.1
# The audits of many hosts, or of one that restarts, are spread by this part of the interval.
_SPREAD = 0.1
# Comparing and repairing may take so much CPU at once, and so much of a core in the long run;
# a finding counts as at least so much. So a program that fights with the agent costs a bounded
# part of the host, and of the history: ten repairs at once, then one every three seconds.
# Over a minute that is 15 % of a core at most; what is left of 20 % is the rest of the agent's.
_CREDIT = 3.0
_SHARE = 0.1
_LEAST_COST = 0.3
# So many seconds after a finding, all that the agent does counts as its repair; in a storm always.
_REPAIRING = 10.0
# A comparison while the repair runs is useless: the next one waits so many times as long as the
# one that found something took.
_PATIENCE = 4.0
# To wire a port again, in a batch of 500 (measured: 5 s with the switch's and the server's part).
_COST_OF_PORT = 0.01
# So many findings in so many seconds are a trouble of the host; fewer ones if they use up what
# comparing and repairing may cost.
_OFTEN, _SEVERAL = 5, 2
_RECENT = 60.0
_BACKOFF = Backoff(0.5, 10.0)
_MOST_COOKIES = 10_000


@dataclass(frozen=True)
class Drift:
    """What differs for a port, found in the ``step`` that had proven it."""

    step: Step
    error: TaskError


@dataclass(frozen=True)
class Suspicion:
    """What may differ, since something happened that no flow of ours may have done.

    ``deleted`` and ``added``: cookies of ours of which flows were deleted from, and
    added to, the integration bridge, perhaps by a flow of ours. ``bridges``: their
    flows were changed by another program. ``counted``: the number of flows of the
    integration bridge is in question. ``port_ids``: their tag, link or interface
    changed. ``everything`` includes all of it.
    """

    deleted: frozenset[int] = frozenset()
    bridges: frozenset[str] = frozenset()
    counted: bool = False
    port_ids: frozenset[str] = frozenset()
    everything: bool = False
    added: frozenset[int] = frozenset()

    def __or__(self, other: "Suspicion") -> "Suspicion":
        deleted, added = self.deleted | other.deleted, self.added | other.added
        if self.everything or other.everything or len(deleted) + len(added) > _MOST_COOKIES:
            return EVERYTHING
        return Suspicion(
            deleted,
            self.bridges | other.bridges,
            self.counted or other.counted,
            self.port_ids | other.port_ids,
            added=added,
        )

    def __bool__(self) -> bool:
        return self != NONE


NONE = Suspicion()
EVERYTHING = Suspicion(everything=True)


class Auditor(Protocol):
    """Compares what is in the switch of one kind of host with what was proven."""

    def compare(self, suspicion: Suspicion) -> Mapping[str, Drift]:
        """What differs now, by port, as far as it was suspected.

        It changes nothing that belongs to a port. A port whose flow runs meanwhile
        may be in the answer. Raises :class:`agent_flows.engine.task.TaskFailed`
        if the switch cannot be read.
        """
        ...


def cpu_seconds() -> float:
    """CPU time of this process and of its children that ended."""
    return time.process_time() + _of_children()


def own_cpu_seconds() -> float:
    """CPU time of this thread and of the process's children that ended."""
    return time.thread_time() + _of_children()


def _of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Budget:
    """How much CPU comparing and repairing may use: at most :data:`_CREDIT` seconds at once,
    and :data:`_SHARE` of a core in the long run. ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._credit, self._at = _CREDIT, clock()

    def spend(self, seconds: float) -> None:
        self._earn()
        self._credit -= seconds

    def spend_on(self, ports: int) -> None:
        """So many ports are to be wired again."""
        self.spend(min(_LEAST_COST + ports * _COST_OF_PORT, _CREDIT))

    def pause(self) -> float:
        """Seconds until there is something to spend again."""
        self._earn()
        return max(0.0, -self._credit / _SHARE)

    def _earn(self) -> None:
        now = self._clock()
        self._credit = min(_CREDIT, self._credit + (now - self._at) * _SHARE)
        self._at = now


class DriftWatch:
    """One thread: looks into suspicions, and every ``audit_interval`` seconds compares everything.

    ``drifted`` gets what was found: :meth:`.reconciler.Reconciler.drifted`.
    Another program that changes the switch again and again is the trouble DRIFT.
    """

    def __init__(
        self,
        auditor: Auditor,
        drifted: Callable[[Mapping[str, Drift]], None],
        audit_interval: float,
        troubles: Troubles,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = cpu_seconds,
        own_cpu: Callable[[], float] = own_cpu_seconds,
    ) -> None:
        self._auditor, self._drifted = auditor, drifted
        self._interval, self._troubles = audit_interval, troubles
        self._clock, self._cpu, self._own_cpu = clock, cpu, own_cpu
        self._changed = threading.Condition()
        self._suspicion = NONE
        self._next_audit = clock() + self._spread()
        self._audited: float | None = None
        self._findings: collections.deque[float] = collections.deque(maxlen=1000)
        self._budget = Budget(clock)
        # Whether that is a trouble now, and the number of findings that was reported last.
        self._is_often, self._reported = False, 0
        # After a finding: the CPU time up to which the budget was charged, the least that is still
        # to be charged, and the seconds that the comparison took.
        self._charged_from: float | None = None
        self._least, self._took = 0.0, 0.0
        self._loop = Loop("drift-watch", self._step, troubles, Trouble.DRIFT, _BACKOFF)

    def start(self) -> None:
        self._loop.start()

    def stop(self, timeout: float) -> None:
        self._loop.stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._loop.stop(timeout)

    def suspect(self, suspicion: Suspicion) -> None:
        """Look into it soon. Returns at once."""
        with self._changed:
            self._suspicion |= suspicion
            self._changed.notify_all()

    def audit_age(self) -> float | None:
        """Seconds since everything was last compared, None if it never was."""
        audited = self._audited
        return None if audited is None else self._clock() - audited

    def _step(self) -> None:
        if not self._wait() or self._loop.stopping.wait(self._pause()):
            return
        with self._changed:
            suspicion, self._suspicion = self._suspicion, NONE
        if self._clock() >= self._next_audit:
            suspicion |= EVERYTHING
        before, own_before, began = self._cpu(), self._own_cpu(), self._clock()
        try:
            found = self._auditor.compare(suspicion)
        except BaseException:
            self.suspect(suspicion)
            raise
        if suspicion.everything:
            self._audited = self._clock()
            self._next_audit = self._audited + self._spread()
        if found:
            self._took = self._clock() - began
            self._found(found, before)
        elif self._charged_from is None:
            self._budget.spend(self._own_cpu() - own_before)
        self._report_often()

    def _wait(self) -> bool:
        """Until something is suspected or the audit is due; False after a while, or at the end."""
        with self._changed:
            if not self._suspicion and not self._loop.stopping.is_set():
                pause = self._next_audit - self._clock()
                if self._findings:
                    pause = min(pause, 1.0)
                if pause > 0:
                    self._changed.wait(pause)
        due = bool(self._suspicion) or self._clock() >= self._next_audit
        if not due:
            self._report_often()
        return due and not self._loop.stopping.is_set()

    def _found(self, found: Mapping[str, Drift], cpu_before: float) -> None:
        now = self._clock()
        self._findings.append(now)
        number, since = self._recent()
        first_id, first = next(iter(found.items()))
        LOG.warning(
            "%d ports are not in the switch as they were proven; repairing them. First port %s: "
            "%s: %s\n%s",
            len(found),
            first_id,
            first.step,
            first.error.message,
            first.error.detail,
            extra={"port": first_id, "flow": FlowName.AUDIT.value},
        )
        if number > 1:
            again = f"; finding number {number} of the last {max(1, round(now - since))} s"
            found = {port_id: _amended(drift, again) for port_id, drift in found.items()}
        self._least = _LEAST_COST
        if self._charged_from is None:
            self._charged_from = cpu_before
        self._drifted(found)

    def _pause(self) -> float:
        """Seconds to wait before the next comparison."""
        patience = 0.0
        if self._charged_from is not None:
            # The repair runs in other threads, beside whatever else the agent does.
            used = self._cpu()
            self._budget.spend(min(max(self._least, used - self._charged_from), _CREDIT))
            patience = _PATIENCE * self._took if self._least else 0.0
            self._least = 0.0
            repairing = self._findings and self._clock() - self._findings[-1] < _REPAIRING
            self._charged_from = used if repairing or self._is_often else None
        pause = min(self._budget.pause(), self._interval)
        if pause and self._recent()[0] >= _SEVERAL:
            self._is_often = True
            self._report_often()
        return _DEBOUNCE + max(pause, patience)

    def _recent(self) -> tuple[int, float]:
        """The number of recent findings, and when the first of them was."""
        now = self._clock()
        while self._findings and self._findings[0] < now - _RECENT:
            self._findings.popleft()
        return len(self._findings), self._findings[0] if self._findings else now

    def _report_often(self) -> None:
        number, since = self._recent()
        self._is_often = number >= (_SEVERAL if self._is_often else _OFTEN)
        if not self._is_often:
            self._reported = 0
            self._troubles.clear(Trouble.DRIFT)
            return
        if number == self._reported:
            # Each change of a trouble is sent to the server at once, and the time always changes.
            return
        self._reported = number
        seconds = max(1, round(self._clock() - since))
        self._troubles.report(
            Trouble.DRIFT,
            f"another program changes the switch again and again: found and repaired {number} "
            f"times in the last {seconds} s; the repairs are spread so that they do not use the "
            "host up",
        )

    def _spread(self) -> float:
        factor = random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311  # spreads load
        return self._interval * factor


def _amended(drift: Drift, addition: str) -> Drift:
    message = one_line(drift.error.message)[: MAX_MESSAGE_CHARS - len(addition)] + addition
    return replace(drift, error=replace(drift.error, message=message))
