"""Spans of OpenTelemetry: of a flow, its tasks, the message of its reports, and the gate.

The spans of a flow are made when its reports are stored: these contain all that the spans say, so
the engine knows nothing of traces.
"""

import collections
import contextlib
import datetime
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Annotated

import pydantic
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from agent_flows.report import FlowReport, TaskOutcome, TaskState
from agent_flows.validation import Invalid, Uuid, parse

CONTEXT = "agent_flows_traces"
"""The key in the RPC context of a message of reports: W3C's traceparent, with ids of reports."""

_Parent = Annotated[
    str, pydantic.StringConstraints(pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")
]
_Ids = Annotated[list[Uuid], pydantic.Field(max_length=500)]
_CARRIED: pydantic.TypeAdapter[dict[str, list[str]]] = pydantic.TypeAdapter(
    Annotated[dict[_Parent, _Ids], pydantic.Field(max_length=500)]
)
# Reports that are not yet sent and of which the trace is known; older ones are sent without it.
_MOST_REMEMBERED = 20_000
# Ids of ports that a flow's span names.
_MOST_NAMED = 100
_EXPORT_SECONDS = 5

Carried = Mapping[str, object]

_NONE: Mapping[str, SpanContext] = MappingProxyType({})
_parents: ContextVar[Mapping[str, SpanContext]] = ContextVar("parents", default=_NONE)


def provider(service: str, endpoint: str) -> trace.TracerProvider:
    """The process' own provider; that of the program we are loaded into, if it has one.

    Spans go to ``endpoint`` by OTLP over HTTP. OpenTelemetry's environment variables decide the
    rest, as about sampling.
    """
    current = trace.get_tracer_provider()
    if not isinstance(current, trace.ProxyTracerProvider):
        return current
    made = TracerProvider(resource=Resource.create({"service.name": service}))
    url = f"{endpoint.rstrip('/')}/v1/traces"
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url, timeout=_EXPORT_SECONDS)))
    # oslo.messaging and others take it from there.
    trace.set_tracer_provider(made)
    return made


class Spans:
    """A :class:`agent_flows.tracing.Traces`."""

    def __init__(self, provider_: trace.TracerProvider) -> None:
        self._tracer = provider_.get_tracer("agent_flows")
        self._lock = threading.Lock()
        # The parent of each report's message, as W3C's traceparent, by the report's id.
        self._flows: collections.OrderedDict[str, str] = collections.OrderedDict()

    def stored(self, reports: Sequence[FlowReport]) -> None:
        runs = collections.defaultdict[tuple[str, datetime.datetime], list[FlowReport]](list)
        for report in reports:
            # A flow runs once for many ports.
            runs[report.flow, report.started_at].append(report)
        for run in runs.values():
            flow = _text(self._flow(run))
            with self._lock:
                self._flows.update(dict.fromkeys((report.id for report in run), flow))
                while len(self._flows) > _MOST_REMEMBERED:
                    self._flows.popitem(last=False)

    def sending(self, reports: Sequence[FlowReport]) -> AbstractContextManager[Carried]:
        return self._sending(reports)

    def received(self, context: Mapping[str, object]) -> AbstractContextManager[None]:
        raw = context.get(CONTEXT)
        if raw is None:
            return contextlib.nullcontext()
        try:
            carried = parse(_CARRIED, raw)
        except Invalid as exc:
            raise Invalid("traces", exc.value, exc.reason) from None
        parents = {id_: _parent(text) for text, ids in carried.items() for id_ in ids}
        return _handling(parents)

    def judged(self, judged: Sequence[tuple[FlowReport, str]], began: int, ended: int) -> None:
        parents = _parents.get()
        # What oslo.messaging made of the call, if it traces calls.
        handling = trace.get_current_span().get_span_context()
        links = [Link(handling)] if handling.is_valid else []
        for report, ruling in judged:
            parent = parents.get(report.id)
            if parent is None:
                continue
            attributes = {
                f"agent_flows.{report.resource_type}": report.resource_id,
                "agent_flows.host": report.host,
                "agent_flows.flow": report.flow.value,
                "agent_flows.attempt": report.attempt,
                "agent_flows.ruling": ruling,
            }
            span = self._tracer.start_span(
                "gate", _inside(parent), SpanKind.CONSUMER, attributes, links, began
            )
            span.end(ended)

    def _flow(self, run: Sequence[FlowReport]) -> SpanContext:
        first = run[0]
        failed = [report for report in run if report.failed is not None]
        attributes = {
            "agent_flows.host": first.host,
            "agent_flows.flow": first.flow.value,
            "agent_flows.attempt": max(report.attempt for report in run),
            "agent_flows.reports": len(run),
            "agent_flows.failed": len(failed),
            f"agent_flows.{first.resource_type}s": [
                report.resource_id for report in run[:_MOST_NAMED]
            ],
        }
        # A root: the thread may be inside another span.
        span = self._tracer.start_span(
            f"flow {first.flow}",
            Context(),
            attributes=attributes,
            start_time=_ns(first.started_at),
        )
        inside = trace.set_span_in_context(span, Context())
        for place, task in enumerate(first.tasks):
            if task.started_at is not None and task.duration is not None:
                self._task([report.tasks[place] for report in run], inside)
        if failed:
            span.set_status(_status(failed[0].failed))
        span.end(_ns(max(report.finished_at for report in run)))
        return span.get_span_context()

    def _task(self, outcomes: Sequence[TaskOutcome], flow: Context) -> None:
        """One task of a run; its outcome may differ by port."""
        first = outcomes[0]
        if first.started_at is None or first.duration is None:
            return
        failed = [task for task in outcomes if task.state is TaskState.FAILED]
        attributes = {
            "agent_flows.step": first.step.value,
            "agent_flows.state": (failed or outcomes)[0].state.value,
        }
        began = _ns(first.started_at)
        span = self._tracer.start_span(first.name, flow, attributes=attributes, start_time=began)
        if failed:
            span.set_status(_status(failed[0]))
        span.end(began + int(first.duration * 1e9))

    @contextlib.contextmanager
    def _sending(self, reports: Sequence[FlowReport]) -> Iterator[Mapping[str, object]]:
        with self._lock:
            flows = {
                report.id: self._flows[report.id] for report in reports if report.id in self._flows
            }
        if not flows:
            yield {}
            return
        first, *others = dict.fromkeys(flows.values())
        with self._tracer.start_as_current_span(
            "report",
            _inside(_parent(first)),
            SpanKind.PRODUCER,
            {"agent_flows.reports": len(reports)},
            [Link(_parent(other)) for other in others],
        ) as span:
            # One message belongs to one trace; the reports of other flows stay in theirs.
            message = _text(span.get_span_context())
            carried: dict[str, list[str]] = {}
            for report_id, flow in flows.items():
                carried.setdefault(message if flow == first else flow, []).append(report_id)
            yield {CONTEXT: carried}
        with self._lock:
            for report_id in flows:
                self._flows.pop(report_id, None)


@contextlib.contextmanager
def _handling(parents: Mapping[str, SpanContext]) -> Iterator[None]:
    token = _parents.set(parents)
    try:
        yield
    finally:
        _parents.reset(token)


def _inside(parent: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def _text(context: SpanContext) -> str:
    """As W3C's traceparent."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _parent(text: str) -> SpanContext:
    _, trace_id, span_id, flags = text.split("-")
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )


def _status(failed: TaskOutcome | None) -> Status:
    error = None if failed is None else failed.error
    reason = "" if error is None else f"{error.type}: {error.message}"
    return Status(StatusCode.ERROR, reason)


def _ns(moment: datetime.datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000
