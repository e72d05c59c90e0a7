"""One flow per port at a time; the newest request wins."""

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_flows.flows.participant import Participant, Request, Verdict
from agent_flows.supervision import Backoff

PATIENCE = 10.0


class Worker:
    """Holds each batch until told to go on, and knows what ran at one time."""

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


@contextmanager
def participant(
    worker: Worker, *, max_batch: int = 100, workers: int = 1, initial: float = 0.01
) -> Iterator[Participant]:
    queue = Participant(worker, max_batch, workers, Backoff(initial, 60.0))
    queue.start()
    try:
        yield queue
    finally:
        for _ in range(100):
            worker.finish()
        queue.stop(PATIENCE)


def ids(batch: Sequence[Request]) -> list[str]:
    return [request.port_id for request in batch]


def test_an_idle_queue_runs_one_port_at_once_and_load_makes_the_next_batch_grow() -> None:
    worker = Worker()
    with participant(worker) as queue:
        queue.submit(["a"])
        assert ids(worker.next_batch()) == ["a"]
        for port_id in ("b", "c", "d"):
            queue.submit([port_id])
        worker.finish()
        assert ids(worker.next_batch()) == ["b", "c", "d"]


def test_a_batch_is_never_larger_than_allowed() -> None:
    worker = Worker()
    with participant(worker, max_batch=2) as queue:
        queue.submit(["a", "b", "c"])
        assert ids(worker.next_batch()) == ["a", "b"]
        worker.finish()
        assert ids(worker.next_batch()) == ["c"]


def test_invariant_5_a_port_in_flight_waits_and_then_runs_once_however_often_it_was_asked() -> None:
    worker = Worker()
    with participant(worker, workers=4) as queue:
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


def test_a_failed_port_comes_back_with_the_number_of_its_attempt() -> None:
    worker = Worker()
    worker.answers = {"a": [Verdict.RETRY, Verdict.RETRY, Verdict.DONE]}
    with participant(worker) as queue:
        queue.submit(["a"])
        attempts = []
        for _ in range(3):
            attempts.append(worker.next_batch()[0].attempt)
            worker.finish()
        assert attempts == [1, 2, 3]


def test_a_new_request_does_not_wait_for_the_backoff_and_counts_from_one() -> None:
    worker = Worker()
    worker.answers = {"a": [Verdict.RETRY]}
    with participant(worker, initial=3600.0) as queue:
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
    with participant(worker) as queue:
        queue.submit(["a"], forced=True)
        assert worker.next_batch()[0].forced
        queue.submit(["a"])
        worker.finish()
        assert worker.next_batch()[0].forced
        worker.finish()
        assert worker.next_batch()[0].forced


def test_invariant_9_a_crash_of_the_whole_batch_is_tried_again() -> None:
    seen = threading.Semaphore(0)
    attempts: list[int] = []

    def crash_once(batch: Sequence[Request]) -> Mapping[str, Verdict]:
        attempts.append(batch[0].attempt)
        seen.release()
        if len(attempts) == 1:
            raise RuntimeError("no such luck")
        return {}

    queue = Participant(crash_once, 10, 1, Backoff(0.01, 1.0))
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

    queue = Participant(process, 5, 4, Backoff(0.0001, 0.001))
    queue.start()
    try:
        for n in range(3000):
            port_id = f"p{dice.randrange(20)}"
            with lock:
                last_asked[port_id] = n
            queue.submit([port_id])
        settled = threading.Event()
        for _ in range(1000):
            if queue.waiting() == 0:
                settled.set()
                break
            threading.Event().wait(0.01)
        assert settled.is_set(), "a port got stuck"
    finally:
        queue.stop(PATIENCE)
    assert not collisions
    assert last_seen == last_asked, "the newest request was not the last to run"


@settings(deadline=None)
@given(st.integers(1, 10_000))
def test_backoff_grows_stays_within_its_bound_and_jitters(attempt: int) -> None:
    backoff = Backoff(0.5, 60.0)
    full = min(60.0, 0.5 * 2.0 ** min(attempt - 1, 30))
    assert full / 2 <= backoff.delay(attempt) <= full
