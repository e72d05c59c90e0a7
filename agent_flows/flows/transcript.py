"""What TaskFlow said about each task of one run, collected while it ran."""

import dataclasses
import datetime
import time
from collections.abc import Callable, Mapping
from typing import Any

from taskflow import states
from taskflow.listeners import base
from taskflow.types.failure import Failure

from agent_flows.flows.task import FlowTask, Skipped
from agent_flows.report import TaskError, TaskOutcome, TaskState

Clock = Callable[[], datetime.datetime]


def utcnow() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclasses.dataclass
class _Entry:
    state: TaskState = TaskState.PENDING
    started_at: datetime.datetime | None = None
    started: float = 0.0
    duration: float | None = None
    skipped: frozenset[str] = frozenset()
    revert_error: TaskError | None = None


class Transcript(base.Listener):  # type: ignore[misc]  # TaskFlow publishes no types
    """Collects transitions and nothing else: TaskFlow swallows what a listener raises.

    A task that failed ends as REVERTED, so FAILURE is taken from the
    transition; the moves allowed are those of :data:`report.TRANSITIONS`.
    """

    def __init__(self, engine: Any, tasks: Mapping[str, FlowTask], clock: Clock) -> None:
        super().__init__(engine)
        self._tasks = tasks
        self._clock = clock
        self._entries = {name: _Entry() for name in tasks}
        self._outcomes: dict[tuple[frozenset[str], TaskError | None], tuple[TaskOutcome, ...]] = {}

    @property
    def failed_task(self) -> str | None:
        """Name of the task whose execution failed."""
        failed = (n for n, entry in self._entries.items() if entry.state is TaskState.FAILED)
        return next(failed, None)

    def outcomes(self, port_id: str, error: TaskError | None = None) -> tuple[TaskOutcome, ...]:
        """The outcomes of this run for one port, which ``error`` is the reason of, if it failed."""
        skipped = frozenset(n for n, entry in self._entries.items() if port_id in entry.skipped)
        # Most ports of a batch end alike.
        if (skipped, error) not in self._outcomes:
            self._outcomes[skipped, error] = tuple(
                self._outcome(name, name in skipped, error) for name in self._tasks
            )
        return self._outcomes[skipped, error]

    def _outcome(self, name: str, skipped: bool, error: TaskError | None) -> TaskOutcome:
        entry = self._entries[name]
        state, reason = entry.state, error
        if entry.revert_error is not None and state is not TaskState.FAILED:
            state, reason = TaskState.FAILED, entry.revert_error
        elif skipped:
            state = TaskState.SKIPPED
        return TaskOutcome(
            name=name,
            step=self._tasks[name].step,
            state=state,
            started_at=entry.started_at,
            duration=entry.duration,
            error=reason if state is TaskState.FAILED else None,
        )

    def _task_receiver(self, state: str, details: Mapping[str, Any]) -> None:
        entry = self._entries.get(details["task_name"])
        if entry is None:
            return
        if state == states.RUNNING:
            entry.state = TaskState.RUNNING
            entry.started_at, entry.started = self._clock(), time.monotonic()
        elif state in (states.SUCCESS, states.FAILURE):
            entry.duration = time.monotonic() - entry.started
            succeeded = state == states.SUCCESS
            entry.state = TaskState.SUCCEEDED if succeeded else TaskState.FAILED
            result = details.get("result")
            if isinstance(result, Skipped):
                entry.skipped = frozenset(result.ports)
        elif state == states.REVERTED and entry.state is TaskState.SUCCEEDED:
            entry.state = TaskState.REVERTED
        elif state == states.REVERT_FAILURE:
            entry.revert_error = revert_error(details.get("result"))


def revert_error(result: object) -> TaskError:
    """The error of a task that could not be reverted."""
    if not isinstance(result, Failure):
        return TaskError("RevertFailed", "the task could not be reverted")
    return TaskError(
        "RevertFailed",
        f"the task could not be reverted: {result.exception_str}",
        result.traceback_str or "",
    )
