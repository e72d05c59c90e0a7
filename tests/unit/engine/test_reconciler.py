"""One flow per port at a time; the newest request wins; one port's trouble is its own."""

import random
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from agent_flows.engine.drift import Drift
from agent_flows.engine.port_life import Life, Request, Verdict
from agent_flows.engine.reconciler import Desired, Reconciler, Sight
from agent_flows.engine.runner import Runner
from agent_flows.engine.task import FlowTask
from agent_flows.report import FlowName, FlowReport, Step, TaskError, TaskState, Trouble
from agent_flows.supervision import Backoff, Troubles
from lab.process import wait_until

PATIENCE = 10.0
Process = Callable[[Sequence[Request]], Mapping[str, Verdict]]


class Site:
    """Ports whose verdicts come from ``process``; none of their flows runs."""

    flows: Mapping[FlowName, Any] = {}
    forced_flow = FlowName.RESYNC
    first_task: Any = None

    def __init__(self, process: Process) -> None:
        self._process = process

    def look(self, lives: Sequence[Life]) -> Sight:
        verdicts = dict(self._process([life.request for life in lives]))
        by = {verdict: {p for p, v in verdicts.items() if v is verdict} for verdict in Verdict}
        return Sight({}, {}, by[Verdict.LATER], by[Verdict.RETRY])

    def inputs(self, flow: FlowName, port_ids: Sequence[str], sight: Sight) -> Mapping[str, object]:
        raise NotImplementedError

    def secured(self, reports: Sequence[FlowReport], sight: Sight) -> Sequence[FlowReport]:
        raise NotImplementedError

    def deliver(self, reports: Sequence[FlowReport], sight: Sight) -> None:
        raise NotImplementedError

    def is_deliverable(self) -> bool:
        raise NotImplementedError


def reconciler(
    process: Process,
    *,
    max_batch: int = 100,
    workers: int = 1,
    backoff: Backoff = Backoff(0.01, 1.0),  # noqa: B008  # an immutable value
    **more: Any,
) -> Reconciler:
    return Reconciler(
        Site(process),
        Runner("host-1"),
        max_batch=max_batch,
        workers=workers,
        backoff=backoff,
        **more,
    )


class Worker:
    """Holds each batch until ``finish``; records ports that ran twice at a time."""

    def __init__(self) -> None:
        self.batches: list[list[Request]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.answers: dict[str, list[Verdict]] = {}
        self._lock = threading.Lock()
        self._running: set[str] = set()
        self.collisions: list[str] = []

    def __call__(self, batch: Sequence[Request]) -> Mapping[str, Verdict]:
        ids = {request.port_id for request in batch}
        with self._lock:
            self.batches.append(list(batch))
            self.collisions += ids & self._running
            self._running |= ids
        self.entered.release()
        assert self.gate.acquire(timeout=PATIENCE)
        with self._lock:
            self._running -= ids
            return {
                port_id: answers.pop(0)
                for port_id in ids
                if (answers := self.answers.get(port_id, []))
            }

    def next_batch(self) -> list[Request]:
        assert self.entered.acquire(timeout=PATIENCE)
        return self.batches[-1]

    def finish(self) -> None:
        self.gate.release()


class FakeClock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def running(worker: Worker, *, initial: float = 0.01, **more: Any) -> Iterator[Reconciler]:
    queue = reconciler(worker, backoff=Backoff(initial, 3600.0), **more)
    queue.start()
    try:
        yield queue
    finally:
        for _ in range(100):
            worker.finish()
        queue.stop(PATIENCE)


def ids(batch: Sequence[Request]) -> list[str]:
    return [request.port_id for request in batch]


def test_idle_queue_runs_a_port_at_once_and_load_makes_the_next_batch_grow() -> None:
    worker = Worker()
    with running(worker) as queue:
        queue.submit(["a"])
        assert ids(worker.next_batch()) == ["a"]
        for port_id in ("b", "c", "d"):
            queue.submit([port_id])
        worker.finish()
        assert ids(worker.next_batch()) == ["b", "c", "d"]


def test_a_batch_is_never_larger_than_allowed() -> None:
    worker = Worker()
    with running(worker, max_batch=2) as queue:
        queue.submit(["a", "b", "c"])
        assert ids(worker.next_batch()) == ["a", "b"]
        worker.finish()
        assert ids(worker.next_batch()) == ["c"]


def test_invariant_5_port_submitted_several_times_in_flight_runs_once_afterwards() -> None:
    worker = Worker()
    with running(worker, workers=4) as queue:
        queue.submit(["a"])
        worker.next_batch()
        for _ in range(5):
            queue.submit(["a"])
        queue.submit(["b"])
        assert ids(worker.next_batch()) == ["b"]
        worker.finish()
        worker.finish()
        assert ids(worker.next_batch()) == ["a"]
        worker.finish()
        queue.submit(["z"])
        assert ids(worker.next_batch()) == ["z"]
        assert not worker.collisions


def test_failed_port_runs_again_with_the_next_attempt_number() -> None:
    worker = Worker()
    worker.answers = {"a": [Verdict.RETRY, Verdict.RETRY, Verdict.DONE]}
    with running(worker) as queue:
        queue.submit(["a"])
        attempts = []
        for _ in range(3):
            attempts.append(worker.next_batch()[0].attempt)
            worker.finish()
        assert attempts == [1, 2, 3]


def test_new_request_skips_the_backoff_and_counts_from_one() -> None:
    worker = Worker()
    worker.answers = {"a": [Verdict.RETRY]}
    with running(worker, initial=3600.0) as queue:
        queue.submit(["a"])
        worker.next_batch()
        worker.finish()
        queue.submit(["b"])
        worker.next_batch()
        queue.submit(["a"])
        worker.finish()
        assert worker.next_batch() == [Request("a", attempt=1)]
        worker.finish()


def test_a_forced_request_stays_forced_until_it_succeeded() -> None:
    worker = Worker()
    worker.answers = {"a": [Verdict.RETRY, Verdict.RETRY]}
    with running(worker) as queue:
        queue.submit(["a"], forced=True)
        assert worker.next_batch()[0].forced
        queue.submit(["a"])
        worker.finish()
        assert worker.next_batch()[0].forced
        worker.finish()
        assert worker.next_batch()[0].forced


def test_invariant_9_crashed_batch_is_tried_again() -> None:
    seen = threading.Semaphore(0)
    attempts: list[int] = []

    def crash_once(batch: Sequence[Request]) -> Mapping[str, Verdict]:
        attempts.append(batch[0].attempt)
        seen.release()
        if len(attempts) == 1:
            raise RuntimeError("no such luck")
        return {}

    queue = reconciler(crash_once, max_batch=10, workers=1, backoff=Backoff(0.01, 1.0))
    queue.start()
    try:
        queue.submit(["a"])
        assert seen.acquire(timeout=PATIENCE)
        assert seen.acquire(timeout=PATIENCE)
        assert attempts == [1, 2]
    finally:
        queue.stop(PATIENCE)


def test_invariant_5_many_workers_and_random_requests_never_run_a_port_twice_at_a_time() -> None:
    lock = threading.Lock()
    running: set[str] = set()
    last_asked: dict[str, int] = {}
    last_seen: dict[str, int] = {}
    collisions: list[str] = []
    dice = random.Random(7)

    def process(batch: Sequence[Request]) -> Mapping[str, Verdict]:
        port_ids = {request.port_id for request in batch}
        with lock:
            collisions.extend(port_ids & running)
            running.update(port_ids)
            last_seen.update({p: last_asked[p] for p in port_ids})
            verdicts = {p: dice.choice(list(Verdict)) for p in port_ids}
        with lock:
            running.difference_update(port_ids)
        return verdicts

    queue = reconciler(process, max_batch=5, workers=4, backoff=Backoff(0.0001, 0.001))
    queue.start()
    try:
        for n in range(3000):
            port_id = f"p{dice.randrange(20)}"
            with lock:
                last_asked[port_id] = n
            queue.submit([port_id])
        settled = threading.Event()
        for _ in range(1000):
            if queue.table.waiting() == 0:
                settled.set()
                break
            threading.Event().wait(0.01)
        assert settled.is_set(), "a port got stuck"
    finally:
        queue.stop(PATIENCE)
    assert not collisions
    assert last_seen == last_asked, "the newest request was not the last to run"


def test_changed_group_runs_its_port_at_once_and_keeps_its_attempts() -> None:
    worker = Worker()
    worker.answers = {"a": [Verdict.RETRY] * 3}
    with running(worker, initial=3600.0) as queue:
        queue.submit(["a"])
        worker.next_batch()
        worker.finish()
        attempts = []
        for _ in range(3):
            wait_until(lambda: queue.table.waiting() == 1, PATIENCE, "the port waits")
            queue.submit(["a"], afresh=False)
            attempts.append(worker.next_batch()[0].attempt)
            queue.submit(["a"], afresh=False)
            worker.finish()
            attempts.append(worker.next_batch()[0].attempt)
            worker.finish()
        assert attempts == [2, 3, 4, 1, 1, 1]


def test_failed_ports_run_in_a_batch_of_their_own() -> None:
    worker = Worker()
    bad = [f"bad{n}" for n in range(3)]
    worker.answers = {port_id: [Verdict.RETRY] for port_id in bad}
    clock = FakeClock()
    with running(worker, initial=10.0, clock=clock) as queue:
        queue.submit(bad)
        worker.next_batch()
        queue.submit(["good"])
        worker.finish()
        assert ids(worker.next_batch()) == ["good"]
        clock.now += 60.0
        queue.submit(["better"])
        worker.finish()
        # In turn, so that one kind does not starve the other.
        assert sorted(ids(worker.next_batch())) == bad
        worker.finish()
        assert ids(worker.next_batch()) == ["better"]


def test_early_look_is_repeated_and_counts_no_attempt() -> None:
    worker = Worker()
    worker.answers = {"a": [Verdict.LATER, Verdict.RETRY]}
    with running(worker) as queue:
        queue.submit(["a"], asked=True)
        seen = []
        for _ in range(3):
            seen += worker.next_batch()
            worker.finish()
        assert [(request.attempt, request.looked, request.asked) for request in seen] == [
            (1, False, True),
            (1, True, True),
            (2, False, True),
        ]


def test_failed_ports_are_not_starved_by_new_ones() -> None:
    worker = Worker()
    worker.answers = {"bad": [Verdict.RETRY]}
    clock = FakeClock()
    with running(worker, initial=10.0, clock=clock) as queue:
        queue.submit(["bad"])
        worker.next_batch()
        queue.submit(["good"])
        worker.finish()
        seen = ids(worker.next_batch())
        clock.now += 60.0
        for _ in range(3):
            queue.submit(["good"])
            worker.finish()
            seen += ids(worker.next_batch())
        assert seen == ["good", "bad", "good", "good"]


def test_port_that_cannot_be_processed_does_not_stop_its_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    troubles = Troubles()
    done: set[str] = set()
    mended = threading.Event()

    def process(batch: Sequence[Request]) -> Mapping[str, Verdict]:
        port_ids = {request.port_id for request in batch}
        if "poisoned" in port_ids and not mended.is_set():
            raise KeyError("poisoned")
        done.update(port_ids)
        return {}

    ports = [f"p{n}" for n in range(40)]
    queue = reconciler(
        process, max_batch=100, workers=1, backoff=Backoff(0.01, 0.05), troubles=troubles
    )
    queue.submit([*ports, "poisoned"])
    queue.start()
    try:
        wait_until(lambda: done == set(ports), PATIENCE, "the others are processed")
        wait_until(
            lambda: "1 ports" in troubles.current().get(Trouble.PORTS, ""),
            PATIENCE,
            "the trouble is reported",
        )
        assert "poisoned: KeyError" in troubles.current()[Trouble.PORTS]
        mended.set()
        wait_until(lambda: "poisoned" in done, PATIENCE, "the port is tried again")
        wait_until(lambda: troubles.current() == {}, PATIENCE, "the trouble is over")
    finally:
        queue.stop(PATIENCE)
    assert len([record for record in caplog.records if record.exc_info]) == 1


@pytest.mark.parametrize("answer", [None, 7, "RETRY", [("a",)]], ids=repr)
def test_worker_survives_an_invalid_answer(answer: Any) -> None:
    calls: list[int] = []

    def process(batch: Sequence[Request]) -> Mapping[str, Verdict]:
        calls.append(len(batch))
        answers: Mapping[str, Verdict] = answer if len(calls) == 1 else {}
        return answers

    queue = reconciler(process, max_batch=100, workers=1, backoff=Backoff(0.01, 0.05))
    queue.submit(["a"])
    queue.start()
    try:
        wait_until(lambda: queue.table.waiting() == 0, PATIENCE, "the port is done")
        assert queue.is_alive()
    finally:
        queue.stop(PATIENCE)
    assert calls == [1, 1]


def test_oldest_is_the_age_of_the_longest_waiting_port() -> None:
    worker, clock = Worker(), FakeClock()
    worker.answers = {"a": [Verdict.RETRY]}
    with running(worker, clock=clock, initial=3600.0) as queue:
        assert queue.table.oldest() is None
        queue.submit(["a"])
        worker.next_batch()
        clock.now += 5.0
        queue.submit(["b"])
        assert queue.table.oldest() == 5.0
        worker.finish()
        worker.next_batch()
        worker.finish()
        wait_until(lambda: queue.table.waiting() == 1, PATIENCE, "b is done")
        clock.now += 7.0
        assert queue.table.oldest() == 12.0


@settings(deadline=None)
@given(st.integers(1, 10_000))
def test_backoff_grows_stays_within_its_bound_and_jitters(attempt: int) -> None:
    backoff = Backoff(0.5, 60.0)
    full = min(60.0, 0.5 * 2.0 ** min(attempt - 1, 30))
    assert full / 2 <= backoff.delay(attempt) <= full


class _Nothing(FlowTask):
    name_ = "nothing"
    step = Step.L2

    def execute(self, port_ids: tuple[str, ...]) -> None: ...


class OneRun(Site):
    """Wires and refreshes by one callable; ``rules`` is what is desired of every port."""

    def __init__(self) -> None:
        self.rules = 1
        self.runs: list[tuple[str, ...]] = []
        self.reports: list[FlowReport] = []
        self.flows = dict.fromkeys((FlowName.REFRESH, FlowName.WIRE), self._compose)

    def _compose(self) -> Flow:
        return linear_flow.Flow("both").add(_Nothing())

    def look(self, lives: Sequence[Life]) -> Sight:
        ports = [life.port_id for life in lives]
        return Sight(
            dict.fromkeys(ports, "tap"), dict.fromkeys(ports, Desired("net", self.rules, 1, {}))
        )

    def inputs(self, flow: FlowName, port_ids: Sequence[str], sight: Sight) -> Mapping[str, object]:
        self.runs.append(tuple(port_ids))
        return {}

    def secured(self, reports: Sequence[FlowReport], sight: Sight) -> Sequence[FlowReport]:
        return reports

    def deliver(self, reports: Sequence[FlowReport], sight: Sight) -> None:
        self.reports += reports


def test_flows_of_one_composer_run_as_one_and_are_reported_by_name() -> None:
    wired, new = (str(uuid.UUID(int=number)) for number in (1, 2))
    site = OneRun()
    queue = Reconciler(site, Runner("host-1"), backoff=Backoff(1.0, 1.0), max_batch=100)
    queue.submit([wired])
    queue.finish([wired])
    site.rules = 2
    queue.submit([wired, new])
    queue.finish([wired, new])
    assert site.runs == [(wired,), (wired, new)]
    assert [(report.resource_id, report.flow) for report in site.reports] == [
        (wired, FlowName.WIRE),
        (wired, FlowName.REFRESH),
        (new, FlowName.WIRE),
    ]


class Repaired(OneRun):
    """A port whose forced flow is a wire; ``full`` is why reports cannot be kept."""

    forced_flow = FlowName.WIRE

    def __init__(self, troubles: Troubles) -> None:
        super().__init__()
        self.troubles = troubles
        self.full = False
        self.kept_before_run: list[list[FlowName]] = []

    def inputs(self, flow: FlowName, port_ids: Sequence[str], sight: Sight) -> Mapping[str, object]:
        self.kept_before_run.append([report.flow for report in self.reports])
        return super().inputs(flow, port_ids, sight)

    def deliver(self, reports: Sequence[FlowReport], sight: Sight) -> None:
        if self.full:
            self.troubles.report(Trouble.OUTBOX, "no space left on device")
            raise OSError("no space left on device")
        super().deliver(reports, sight)

    def is_deliverable(self) -> bool:
        return not self.full


DRIFT = Drift(Step.L2, TaskError("Drift", "the tag is 999 instead of 2"))


def proven_port(site: Repaired) -> tuple[Reconciler, str]:
    port_id = str(uuid.UUID(int=1))
    queue = Reconciler(
        site, Runner("host-1"), backoff=Backoff(0.0, 0.0), max_batch=100, troubles=site.troubles
    )
    queue.submit([port_id])
    queue.finish([port_id])
    return queue, port_id


def test_invariant_14_drift_is_kept_in_the_outbox_before_its_repair_begins() -> None:
    site = Repaired(Troubles())
    queue, port_id = proven_port(site)
    queue.drifted({port_id: DRIFT})
    queue.finish([port_id])
    assert [report.flow for report in site.reports] == [
        FlowName.WIRE,
        FlowName.AUDIT,
        FlowName.WIRE,
    ]
    assert site.kept_before_run[-1] == [FlowName.WIRE, FlowName.AUDIT]
    [found] = site.reports[1].tasks
    assert (found.name, found.step, found.state) == ("compare-switch", Step.L2, TaskState.FAILED)
    assert found.error == DRIFT.error


def test_drift_that_cannot_be_kept_is_repaired_and_reported_later() -> None:
    site = Repaired(Troubles())
    queue, port_id = proven_port(site)
    site.full = True
    queue.drifted({port_id: DRIFT})
    queue.finish([port_id])
    assert len(site.runs) == 2
    site.full = False
    queue.submit([port_id])
    queue.finish([port_id])
    assert [report.flow for report in site.reports[1:]] == [FlowName.AUDIT, FlowName.WIRE]
