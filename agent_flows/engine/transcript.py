"""The states of each task of one run, collected from TaskFlow's notifications."""

import dataclasses
import datetime
import time
from collections.abc import Callable, Mapping
from typing import Any

from taskflow import states
from taskflow.listeners import base
from taskflow.types.failure import Failure

from agent_flows.engine.task import FlowTask, Skipped
from agent_flows.errors import ErrorType
from agent_flows.report import (
    TRANSITIONS,
    TaskError,
    TaskOutcome,
    TaskState,
    moment,
)

Clock = Callable[[], datetime.datetime]


def utcnow() -> datetime.datetime:
    return moment(datetime.datetime.now(datetime.UTC))


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

    A task that failed ends as REVERTED in TaskFlow, so FAILURE is taken from
    the transition. A move that :data:`report.TRANSITIONS` does not allow is not
    made, and :meth:`outcomes` raises RuntimeError for it.
    """

    def __init__(self, engine: Any, tasks: Mapping[str, FlowTask], clock: Clock) -> None:
        super().__init__(engine)
        self._tasks = tasks
        self._clock = clock
        self._entries = {name: _Entry() for name in tasks}
        self._illegal: list[str] = []
        self._failed_task: str | None = None
        self._outcomes: dict[tuple[frozenset[str], TaskError | None], tuple[TaskOutcome, ...]] = {}

    @property
    def failed_task(self) -> str | None:
        """Name of the task whose execution failed."""
        return self._failed_task

    def outcomes(self, port_id: str, error: TaskError | None = None) -> tuple[TaskOutcome, ...]:
        """The outcomes of this run for one port, which ``error`` is the reason of, if it failed."""
        if self._illegal:
            raise RuntimeError(f"TaskFlow made moves that no task makes: {self._illegal}")
        skipped = frozenset(n for n, entry in self._entries.items() if port_id in entry.skipped)
        # Most ports of a batch end alike.
        if (skipped, error) not in self._outcomes:
            self._outcomes[skipped, error] = tuple(
                self._outcome(name, name in skipped, error) for name in self._tasks
            )
        return self._outcomes[skipped, error]

    def _outcome(self, name: str, skipped: bool, error: TaskError | None) -> TaskOutcome:
        entry = self._entries[name]
        state = TaskState.SKIPPED if skipped else entry.state
        reason = error if name == self._failed_task else None
        if entry.revert_error is not None:
            state = TaskState.FAILED
            reason = _with_addition(reason, entry.revert_error) if reason else entry.revert_error
        return TaskOutcome(
            name=name,
            step=self._tasks[name].step,
            state=state,
            started_at=entry.started_at,
            duration=entry.duration,
            error=reason,
        )

    def _task_receiver(self, state: str, details: Mapping[str, Any]) -> None:
        name = details["task_name"]
        entry = self._entries.get(name)
        if entry is None:
            return
        if state == states.RUNNING:
            self._move(name, TaskState.RUNNING)
            entry.started_at, entry.started = self._clock(), time.monotonic()
        elif state in (states.SUCCESS, states.FAILURE):
            entry.duration = time.monotonic() - entry.started
            succeeded = state == states.SUCCESS
            self._move(name, TaskState.SUCCEEDED if succeeded else TaskState.FAILED)
            if not succeeded and self._failed_task is None:
                self._failed_task = name
            result = details.get("result")
            if isinstance(result, Skipped):
                entry.skipped = frozenset(result.ports)
        elif state == states.REVERTED and name != self._failed_task:
            self._move(name, TaskState.REVERTED)
        elif state == states.REVERT_FAILURE:
            if name != self._failed_task:
                self._move(name, TaskState.FAILED)
            entry.revert_error = revert_error(details.get("result"))

    def _move(self, name: str, state: TaskState) -> None:
        entry = self._entries[name]
        if state in TRANSITIONS[entry.state]:
            entry.state = state
        else:
            self._illegal.append(f"{name} from {entry.state} to {state}")


def _with_addition(error: TaskError, further: TaskError) -> TaskError:
    """The cause, and what else went wrong of it, in its detail."""
    detail = "\n".join(filter(None, (error.detail, f"{further.type}: {further.message}")))
    return dataclasses.replace(error, detail=detail)


def revert_error(result: object) -> TaskError:
    """The error of a task that could not be reverted."""
    if not isinstance(result, Failure):
        return TaskError(ErrorType.REVERT_FAILED, "the task could not be reverted")
    return TaskError(
        ErrorType.REVERT_FAILED,
        f"the task could not be reverted: {result.exception_str}",
        result.traceback_str or "",
    )
