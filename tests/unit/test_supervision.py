"""Loops that do not die, and the troubles they leave and take away."""

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from agent_flows.supervision import Backoff, Loop, Troubles

QUICK = Backoff(0.001, 0.001)
SOURCE = "disk"


class Steps:
    """What a loop does, one after the other; the last of them again and again."""

    def __init__(self, *steps: Callable[[], None] | Exception) -> None:
        # One more than is asked for: what the loop does after a step is done by then.
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


def test_a_loop_goes_on_after_whatever_its_step_raises(run: Callable[..., Loop]) -> None:
    steps = Steps(OSError("fork failed"), KeyError("x"), RecursionError(), MemoryError())
    assert run(steps).is_alive()


def test_an_error_is_the_trouble_until_a_step_succeeds(
    run: Callable[..., Loop], troubles: Troubles
) -> None:
    seen: list[dict[str, str]] = []
    troubles.changed = lambda: seen.append(dict(troubles.current()))
    run(Steps(OSError("no space left\non device")))
    assert seen == [{SOURCE: "OSError: no space left on device"}, {}]


def test_a_success_clears_no_trouble_that_others_reported(
    run: Callable[..., Loop], troubles: Troubles
) -> None:
    troubles.report(SOURCE, "reported elsewhere")
    run(Steps(lambda: None))
    assert troubles.current() == {SOURCE: "reported elsewhere"}


def test_a_fault_shows_its_traceback_once_and_then_a_line(
    run: Callable[..., Loop], caplog: pytest.LogCaptureFixture
) -> None:
    run(Steps(*(KeyError(number) for number in range(4))))
    records = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert [bool(each.exc_info) for each in records] == [True, False, False, False]


def test_what_is_expected_is_one_line_each_time(
    run: Callable[..., Loop], caplog: pytest.LogCaptureFixture
) -> None:
    run(Steps(*(TimeoutError(f"no answer to message {n}") for n in range(3))), OSError)
    records = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert [bool(each.exc_info) for each in records] == [False, False, False]
    assert "no answer to message 2" in records[-1].getMessage()


def test_a_trouble_is_one_bounded_line_and_told_only_when_it_changes() -> None:
    told: list[dict[str, str]] = []
    troubles = Troubles(lambda: told.append(dict(troubles.current())))
    for _ in range(2):
        troubles.report(SOURCE, "a\n  long " + "story " * 200)
    assert len(told) == 1
    assert "\n" not in told[0][SOURCE]
    assert len(told[0][SOURCE]) <= 512
    troubles.clear(SOURCE)
    troubles.clear(SOURCE)
    assert told[1:] == [{}]
