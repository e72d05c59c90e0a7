"""One batch of ports through one TaskFlow flow; one report per port comes out."""

import dataclasses
import datetime
import errno
import re
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oslo_log import log
from taskflow import engines

# TaskFlow imports these by entry point when the first flow runs: 40 ms that
# the first port after a start would wait for.
from taskflow.engines.action_engine import engine as _engine  # noqa: F401
from taskflow.flow import Flow
from taskflow.persistence import models

from agent_flows.engine.drift import COMPARE_SWITCH, Drift
from agent_flows.engine.memory import EngineMemory
from agent_flows.engine.task import FlowTask, PortErrors, TaskFailed
from agent_flows.engine.transcript import Clock, Transcript, utcnow
from agent_flows.fairness import fair
from agent_flows.report import FlowName, FlowReport, TaskError, TaskOutcome, TaskState
from agent_flows.supervision import described
from agent_flows.watchdog import Watch, unwatched

LOG = log.getLogger(__name__)

_BACKEND = EngineMemory()


# Errors of the system about one device, which may be one port's; any other (no memory, no file
# descriptor left, no such tool) concerns the host.
_OF_ONE_DEVICE = frozenset(
    {errno.ENODEV, errno.ENXIO, errno.EINVAL, errno.ENAMETOOLONG, errno.EEXIST, errno.EBUSY}
)
_NO_NAME = re.compile(r"^[^A-Za-z]+|[^A-Za-z0-9_.-]")


@dataclasses.dataclass(frozen=True)
class Work:
    """One port of a batch: what its report contains besides the outcomes."""

    port_id: str
    revision: int
    security_group_revisions: Mapping[str, int]
    attempt: int


@dataclasses.dataclass(frozen=True)
class _Run:
    """What came of running the flow once for a batch."""

    transcript: Transcript
    started_at: datetime.datetime
    errors: Mapping[str, TaskError]
    failed: bool

    @property
    def failed_task(self) -> str | None:
        return self.transcript.failed_task


class Runner:
    """Runs batches so that one port's trouble is its own.

    A failure that names ports (:class:`PortErrors`) takes those out and runs
    the rest again; one that names none splits the batch, unless it is plainly
    the host's (no memory, no such tool): then it is every port's.
    """

    def __init__(self, host: str, clock: Clock = utcnow, watch: Watch = unwatched) -> None:
        self.host = host
        self._watch = watch
        self._clock = clock

    def run(
        self,
        flow: FlowName,
        compose: Callable[[], Flow],
        batch: Sequence[Work],
        inputs: Mapping[str, object],
        deliver: Callable[[Sequence[FlowReport]], None],
    ) -> None:
        """Run ``compose()`` for ``batch`` with ``inputs`` in the store, beside ``port_ids``.

        Hands every port's report to ``deliver``: the good ports of a batch before
        the search for a bad one goes on, all bad ones together when it has ended.
        What failed for all of them in the same way may then be one report. Raises
        only what ``deliver`` raises.
        """
        with self._watch(f"{flow} of {len(batch)} ports"):
            self._run(flow, compose, batch, inputs, deliver)

    def _run(
        self,
        flow: FlowName,
        compose: Callable[[], Flow],
        batch: Sequence[Work],
        inputs: Mapping[str, object],
        deliver: Callable[[Sequence[FlowReport]], None],
    ) -> None:
        pending = [tuple(batch)]
        failed: list[FlowReport] = []
        unexplained: set[str] = set()
        while pending:
            part = pending.pop()
            if not part:
                continue
            run = self._run_once(compose, part, inputs, unexplained)
            if not run.failed:
                deliver([self._report(flow, work, run, None) for work in fair(part)])
            elif run.errors:
                rest = tuple(work for work in part if work.port_id not in run.errors)
                pending.append(rest)
                failed += [
                    self._report(flow, work, run, run.errors[work.port_id])
                    for work in fair(part)
                    if work.port_id in run.errors
                ]
            else:
                middle = len(part) // 2
                pending += [part[middle:], part[:middle]]
        if failed:
            deliver(failed)

    def never_ran(
        self, flow: FlowName, work: Work, task: type[FlowTask], error: TaskError
    ) -> FlowReport:
        """The report of a port for which ``flow`` could not even be run: it failed in ``task``."""
        now = self._clock()
        failed = TaskOutcome(task.name_, task.step, TaskState.FAILED, now, 0.0, error)
        return self._written(flow, work, now, now, (failed,))

    def drifted(self, work: Work, drift: Drift) -> FlowReport:
        """The report of a port that is not in the switch as it was proven."""
        now = self._clock()
        failed = TaskOutcome(COMPARE_SWITCH, drift.step, TaskState.FAILED, now, 0.0, drift.error)
        return self._written(FlowName.AUDIT, work, now, now, (failed,))

    def _run_once(
        self,
        compose: Callable[[], Flow],
        part: Sequence[Work],
        inputs: Mapping[str, object],
        unexplained: set[str],
    ) -> _Run:
        port_ids = tuple(work.port_id for work in part)
        started_at = self._clock()
        engine = engines.load(
            compose(),
            store={**inputs, "port_ids": port_ids},
            book=models.LogBook("agent_flows"),
            backend=_BACKEND,
            engine="serial",
        )
        engine.compile()
        transcript = Transcript(engine, _tasks_of(engine), self._clock)
        cause: BaseException | None = None
        with transcript:
            try:
                engine.run()
            # The one door that keeps a batch alive: whatever a task raised
            # becomes the outcome of the ports it concerns.
            except Exception as exc:  # noqa: BLE001
                cause = _execution_failure(engine) or exc
        if cause is not None and transcript.failed_task is None:
            raise cause
        errors = {} if cause is None else _blame(cause, port_ids, unexplained)
        return _Run(transcript, started_at, errors, cause is not None)

    def _report(self, flow: FlowName, work: Work, run: _Run, error: TaskError | None) -> FlowReport:
        tasks: tuple[TaskOutcome, ...] = run.transcript.outcomes(work.port_id, error)
        finished_at = max(self._clock(), run.started_at)
        return self._written(flow, work, run.started_at, finished_at, tasks)

    def _written(
        self,
        flow: FlowName,
        work: Work,
        started_at: datetime.datetime,
        finished_at: datetime.datetime,
        tasks: tuple[TaskOutcome, ...],
    ) -> FlowReport:
        return FlowReport(
            id=str(uuid.uuid4()),
            host=self.host,
            resource_id=work.port_id,
            flow=flow,
            revision=work.revision,
            security_group_revisions=dict(work.security_group_revisions),
            attempt=work.attempt,
            started_at=started_at,
            finished_at=finished_at,
            tasks=tasks,
        )


def _tasks_of(engine: Any) -> dict[str, FlowTask]:
    """The tasks of a compiled engine, in the order they run."""
    nodes = engine.compilation.execution_graph.topological_sort()
    return {node.name: node for node in nodes if isinstance(node, FlowTask)}


def _execution_failure(engine: Any) -> BaseException | None:
    """What the failed task raised; a revert that failed too is in the transcript."""
    for failure in engine.storage.get_execute_failures().values():
        exception: BaseException | None = failure.exception
        if exception is not None:
            return exception
    return None


def _blame(
    cause: BaseException, port_ids: Sequence[str], unexplained: set[str]
) -> dict[str, TaskError]:
    """Who of ``port_ids`` is at fault; empty if that is not known yet.

    ``unexplained`` are the types of what was raised and logged already, while
    the batch is searched for the port at fault.
    """
    if isinstance(cause, PortErrors):
        named = {port: cause.errors[port] for port in port_ids if port in cause.errors}
        if named:
            return named
    if isinstance(cause, TaskFailed):
        error, whole_batch = cause.error, cause.whole_batch
    else:
        whole_batch = _is_the_hosts(cause)
        error = error_of(cause)
        if whole_batch:
            LOG.error("A flow failed for all of %d ports: %s", len(port_ids), described(cause))
        elif error.type not in unexplained:
            unexplained.add(error.type)
            LOG.error(
                "A task raised what no task should, in a batch of %d ports, first port %s",
                len(port_ids),
                port_ids[0],
                exc_info=cause,
                extra={"port": port_ids[0]},
            )
    if whole_batch or len(port_ids) == 1:
        return dict.fromkeys(port_ids, error)
    return {}


def _is_the_hosts(cause: BaseException) -> bool:
    """Whether the host is at fault, so that the search for a port would repeat the failure."""
    if isinstance(cause, OSError):
        return cause.errno not in _OF_ONE_DEVICE
    return isinstance(cause, MemoryError | ModuleNotFoundError)


def error_of(cause: BaseException) -> TaskError:
    """What ``cause`` is as the error of a task."""
    if isinstance(cause, TaskFailed):
        return cause.error
    name = _NO_NAME.sub("", type(cause).__name__)[:64] or "Error"
    frames = "".join(traceback.format_exception(cause))
    return TaskError(name, str(cause) or "no message", frames)
