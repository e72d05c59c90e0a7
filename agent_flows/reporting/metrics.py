"""Prometheus metrics of an agent: what its reports contain, what waits, and its calls.

Labels are names from the code; an error's type is one too, or that of an exception.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from agent_flows import metrics as declared
from agent_flows.instruments import counter, gauge, gauges, histogram
from agent_flows.report import FlowName, FlowReport, TaskState
from agent_flows.rpc.timing import Outcome


@dataclass(frozen=True)
class Gauges:
    """What a scrape asks for.

    ``waiting``: how many reports the server has not taken, and when the oldest of these was made,
    in Unix time. ``queue``: how many ports wait for a flow. ``oldest``: for how many seconds the
    one that waits longest has waited. ``troubles``: what keeps the host from its work, by source.
    """

    waiting: Callable[[], tuple[int, float | None]]
    queue: Callable[[], int]
    oldest: Callable[[], float | None]
    troubles: Callable[[], Mapping[str, str]]


class AgentMetrics:
    """An :class:`agent_flows.reporting.observer.Observer`."""

    def __init__(self, asked: Gauges) -> None:
        self.registry = CollectorRegistry()
        self._flows = counter(declared.FLOWS, self.registry)
        self._tasks = histogram(declared.TASK_SECONDS, self.registry)
        self._failures = counter(declared.TASK_FAILURES, self.registry)
        self._drifts = counter(declared.DRIFTS, self.registry)
        self._retries = counter(declared.RETRIES, self.registry)
        self._sent_again = counter(declared.SENT_AGAIN, self.registry)
        self._rejected = counter(declared.REJECTED, self.registry)
        self._casts_refused = counter(declared.CASTS_REFUSED, self.registry)
        self._calls = histogram(declared.RPC_CALL_SECONDS, self.registry)
        self.registry.register(_Asked(asked))
        # Prometheus sees no increase of a series that begins with 1.
        for fault in ("yes", "no"):
            self._rejected.labels(fault)

    def stored(self, reports: Sequence[FlowReport]) -> None:
        for report in reports:
            self._count(report)

    def sent_again(self, number: int) -> None:
        self._sent_again.inc(number)

    def rejected(self, *, fault: bool) -> None:
        self._rejected.labels("yes" if fault else "no").inc()

    def called(self, method: str, outcome: Outcome, seconds: float) -> None:
        self._calls.labels(method, outcome).observe(seconds)

    def cast_refused(self, field: str) -> None:
        self._casts_refused.labels(field).inc()

    def _count(self, report: FlowReport) -> None:
        flow = report.flow.value
        if report.flow is FlowName.AUDIT:
            if report.failed is not None:
                self._drifts.inc()
            return
        self._flows.labels(flow, "succeeded" if report.failed is None else "failed").inc()
        if report.attempt > 1:
            self._retries.labels(flow).inc()
        for task in report.tasks:
            if task.duration is not None:
                self._tasks.labels(task.name).observe(task.duration)
            if task.state is TaskState.FAILED and task.error is not None:
                self._failures.labels(task.name, task.error.type).inc()


class _Asked(Collector):
    """Asks when it is scraped."""

    def __init__(self, asked: Gauges) -> None:
        self._asked = asked

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        number, made = self._asked.waiting()
        yield gauge(declared.QUEUE, self._asked.queue())
        yield gauge(declared.QUEUE_OLDEST, self._asked.oldest() or 0.0)
        yield gauge(declared.OUTBOX, number)
        age = 0.0 if made is None else max(time.time() - made, 0.0)
        yield gauge(declared.OUTBOX_OLDEST, age)
        family = gauges(declared.TROUBLE)
        for source in self._asked.troubles():
            family.add_metric([source], 1.0)
        yield family
