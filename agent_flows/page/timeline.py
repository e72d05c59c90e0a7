"""Attempts as a timeline of their tasks. Pure."""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from agent_flows.page.source import View
from agent_flows.report import FlowName, TaskState

WIDTH = 1000.0
"""The width of a timeline; bars are drawn in these units."""
_LEAST = 4.0
"""A bar of a task that took no time can still be seen."""


@dataclass(frozen=True)
class Bar:
    """A task; ``start`` and ``width`` are units of :data:`WIDTH`, None if it never ran."""

    task: View
    start: float | None = None
    width: float | None = None

    @property
    def failed(self) -> bool:
        return bool(self.task["task_state"] == TaskState.FAILED.value)


@dataclass(frozen=True)
class Attempt:
    """One attempt of a flow; ``seconds`` is from the start of its first task to the last end."""

    first: View
    bars: Sequence[Bar]
    seconds: float
    started_at: str | None

    @property
    def failed(self) -> bool:
        return any(bar.failed for bar in self.bars)

    @property
    def drift(self) -> bool:
        """It is what another program changed in the switch; no flow ran."""
        return bool(self.first["flow"] == FlowName.AUDIT.value)


def attempts(tasks: Iterable[View]) -> tuple[Attempt, ...]:
    """The attempts of ``tasks``, which come as a list of the API has them: attempt by attempt, in
    the order they ran."""
    return tuple(_attempt(list(group)) for _, group in groupby(tasks, lambda task: task["flow_id"]))


def _attempt(tasks: Sequence[View]) -> Attempt:
    starts = [_moment(task["started_at"]) for task in tasks]
    ran = [
        (start, start + datetime.timedelta(seconds=task["duration"] or 0.0))
        for start, task in zip(starts, tasks, strict=True)
        if start is not None
    ]
    if not ran:
        return Attempt(tasks[0], tuple(map(Bar, tasks)), 0.0, None)
    began = min(start for start, _ in ran)
    seconds = (max(end for _, end in ran) - began).total_seconds()
    bars = [
        Bar(task) if start is None else _bar(task, (start - began).total_seconds(), seconds)
        for task, start in zip(tasks, starts, strict=True)
    ]
    return Attempt(tasks[0], tuple(bars), seconds, began.isoformat())


def _bar(task: View, offset: float, seconds: float) -> Bar:
    unit = WIDTH / seconds if seconds else 0.0
    width = min(max((task["duration"] or 0.0) * unit, _LEAST), WIDTH)
    return Bar(task, round(min(offset * unit, WIDTH - width), 2), round(width, 2))


def _moment(text: str | None) -> datetime.datetime | None:
    return None if text is None else datetime.datetime.fromisoformat(text)
