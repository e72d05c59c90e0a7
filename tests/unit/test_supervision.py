"""Loops survive exceptions, and report and clear troubles."""

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from agent_flows.supervision import Backoff, Loop, Troubles

QUICK = Backoff(0.001, 0.001)
SOURCE = "disk"


class Steps:
    """The steps of a loop, in order; exceptions are raised."""

    def __init__(self, *steps: Callable[[], None] | Exception) -> None:
        # One more: when it begins, the loop has finished with the others.
        self._steps = [*steps, lambda: None]
        self.done = threading.Event()

    def __call__(self) -> None:
        step = self._steps.pop(0) if self._steps else None
        if step is None:
            self.done.set()
            threading.Event().wait(0.001)
        elif isinstance(step, Exception):
            raise step
        else:
            step()


@pytest.fixture
def troubles() -> Troubles:
    return Troubles()


@pytest.fixture
def run(troubles: Troubles) -> Iterator[Callable[..., Loop]]:
    loops = []

    def start(steps: Steps, *expected: type[Exception]) -> Loop:
        loop = Loop("worker", steps, troubles, SOURCE, QUICK, expected=expected)
        loops.append(loop)
        loop.start()
        assert steps.done.wait(5)
        return loop

    yield start
    for loop in loops:
        loop.stop(5)
        assert not loop.is_alive()


def test_a_loop_survives_any_exception_of_its_step(run: Callable[..., Loop]) -> None:
    steps = Steps(OSError("fork failed"), KeyError("x"), RecursionError(), MemoryError())
    assert run(steps).is_alive()


def test_an_error_is_the_trouble_until_a_step_succeeds(
    run: Callable[..., Loop], troubles: Troubles
) -> None:
    seen: list[dict[str, str]] = []
    troubles.changed = lambda: seen.append(dict(troubles.current()))
    run(Steps(OSError("no space left\non device")))
    assert seen == [{SOURCE: "OSError: no space left on device"}, {}]


def test_a_success_does_not_clear_a_trouble_reported_elsewhere(
    run: Callable[..., Loop], troubles: Troubles
) -> None:
    troubles.report(SOURCE, "reported elsewhere")
    run(Steps(lambda: None))
    assert troubles.current() == {SOURCE: "reported elsewhere"}


def test_an_unexpected_error_is_logged_with_its_traceback_once(
    run: Callable[..., Loop], caplog: pytest.LogCaptureFixture
) -> None:
    run(Steps(*(KeyError(number) for number in range(4))))
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [bool(record.exc_info) for record in records] == [True, False, False, False]


def test_an_expected_error_is_logged_without_traceback(
    run: Callable[..., Loop], caplog: pytest.LogCaptureFixture
) -> None:
    run(Steps(*(TimeoutError(f"no answer to message {n}") for n in range(3))), OSError)
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [bool(record.exc_info) for record in records] == [False, False, False]
    assert "no answer to message 2" in records[-1].getMessage()


def test_a_trouble_is_one_short_line_and_signalled_only_on_change() -> None:
    changes: list[dict[str, str]] = []
    troubles = Troubles(lambda: changes.append(dict(troubles.current())))
    for _ in range(2):
        troubles.report(SOURCE, "a\n  long " + "story " * 200)
    assert len(changes) == 1
    assert "\n" not in changes[0][SOURCE]
    assert len(changes[0][SOURCE]) <= 512
    troubles.clear(SOURCE)
    troubles.clear(SOURCE)
    assert changes[1:] == [{}]
