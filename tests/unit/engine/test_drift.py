"""Suspicions are looked into, findings go to the reconciler, and a storm of them stays cheap."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from agent_flows.engine import drift
from agent_flows.engine.drift import EVERYTHING, Budget, Drift, DriftWatch, Suspicion
from agent_flows.errors import ErrorType
from agent_flows.report import Step, TaskError, Trouble
from agent_flows.supervision import Troubles
from lab.process import wait_until

PATIENCE = 10.0
TAG = Drift(Step.L2, TaskError(ErrorType.DRIFT, "the tag is 999 instead of 2"))


class Auditor:
    """Answers with ``found``, and keeps what was suspected."""

    def __init__(self, found: Mapping[str, Drift] | None = None) -> None:
        self.found = dict(found or {})
        self.asked: list[Suspicion] = []
        self.error: Exception | None = None

    def compare(self, suspicion: Suspicion) -> Mapping[str, Drift]:
        self.asked.append(suspicion)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self.found


class Clock:
    """Seconds that pass only when ``now`` is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def watching(
    auditor: Auditor, *, interval: float = 3600.0, **more: Any
) -> Iterator[tuple[DriftWatch, list[Mapping[str, Drift]], Troubles]]:
    reported: list[Mapping[str, Drift]] = []
    troubles = Troubles()
    watch = DriftWatch(auditor, reported.append, interval, troubles, **more)
    watch.start()
    try:
        yield watch, reported, troubles
    finally:
        watch.stop(PATIENCE)


def seen(condition: Callable[[], object]) -> None:
    wait_until(condition, PATIENCE, "what was expected of the watch")


def test_what_is_suspected_is_compared_and_what_differs_is_given_to_the_reconciler() -> None:
    auditor = Auditor({"port-1": TAG})
    with watching(auditor) as (watch, reported, _):
        watch.suspect(Suspicion(port_ids=frozenset({"port-1"})))
        seen(lambda: reported)
    assert auditor.asked == [Suspicion(port_ids=frozenset({"port-1"}))]
    assert reported == [{"port-1": TAG}]


def test_everything_is_compared_at_each_audit_without_any_suspicion() -> None:
    auditor = Auditor()
    with watching(auditor, interval=0.1) as (_, reported, _):
        seen(lambda: len(auditor.asked) >= 3)
    assert all(suspicion.everything for suspicion in auditor.asked)
    assert reported == []


def test_the_audit_is_as_old_as_the_last_comparison_of_everything() -> None:
    auditor, clock = Auditor(), Clock()
    with watching(auditor, clock=clock) as (watch, _, _):
        watch.suspect(Suspicion(port_ids=frozenset({"port-1"})))
        seen(lambda: auditor.asked)
        assert watch.audit_age() is None
        watch.suspect(EVERYTHING)
        seen(lambda: watch.audit_age() is not None)
        clock.now += 5.0
        assert watch.audit_age() == 5.0


def test_suspicion_is_kept_when_the_switch_cannot_be_read() -> None:
    auditor = Auditor({"port-1": TAG})
    auditor.error = OSError("no file descriptor left")
    with watching(auditor) as (watch, reported, troubles):
        watch.suspect(Suspicion(bridges=frozenset({"br-int"})))
        seen(lambda: reported)
        seen(lambda: Trouble.DRIFT not in troubles.current())
    assert [suspicion.bridges for suspicion in auditor.asked] == [frozenset({"br-int"})] * 2


def test_repeated_finding_is_numbered() -> None:
    auditor = Auditor({"port-1": TAG})
    with watching(auditor) as (watch, reported, _):
        for number in (1, 2):
            watch.suspect(drift.EVERYTHING)
            seen(lambda number=number: len(reported) == number)
    messages = [found["port-1"].error.message for found in reported]
    assert messages[0] == TAG.error.message
    assert messages[1].startswith(TAG.error.message + "; finding number 2 of the last ")


def test_storm_of_changes_is_a_trouble_until_it_has_ended() -> None:
    auditor, clock = Auditor({"port-1": TAG}), Clock()
    with watching(auditor, clock=clock, cpu=lambda: 0.0) as (watch, reported, troubles):
        for number in range(1, 6):
            watch.suspect(drift.EVERYTHING)
            seen(lambda number=number: len(reported) == number)
        seen(lambda: Trouble.DRIFT in troubles.current())
        assert "found and repaired 5 times" in troubles.current()[Trouble.DRIFT]
        clock.now += 61.0
        seen(lambda: Trouble.DRIFT not in troubles.current())


def test_few_findings_are_a_trouble_if_they_cost_too_much() -> None:
    auditor, clock = Auditor({"port-1": TAG}), Clock()
    used = iter(range(0, 1000, 2))
    with watching(auditor, clock=clock, cpu=lambda: float(next(used))) as (watch, reported, trs):
        for number in (1, 2):
            watch.suspect(drift.EVERYTHING)
            seen(lambda number=number: len(reported) == number)
        assert Trouble.DRIFT not in trs.current()
        watch.suspect(drift.EVERYTHING)
        seen(lambda: Trouble.DRIFT in trs.current())
        assert "found and repaired 2 times" in trs.current()[Trouble.DRIFT]
        assert len(reported) == 2


def test_budget_allows_a_burst_and_then_a_share_of_a_core() -> None:
    clock = Clock()
    budget = Budget(clock)
    budget.spend(3.0)
    assert budget.pause() == 0.0
    budget.spend(1.5)
    assert budget.pause() == pytest.approx(15.0)
    clock.now += 15.0
    assert budget.pause() == pytest.approx(0.0)
    clock.now += 1000.0
    budget.spend(3.0)
    assert budget.pause() == 0.0


def test_suspicions_do_not_grow_without_bound() -> None:
    suspicion = drift.NONE
    for start in range(0, 20_000, 500):
        suspicion |= Suspicion(deleted=frozenset(range(start, start + 500)))
    assert suspicion == drift.EVERYTHING
