"""Traces: off by default and free then; each report stays in the trace of its flow."""

import datetime
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from agent_flows.report import FlowReport
from agent_flows.rpc.answers import Receipt
from agent_flows.rpc.codec import to_wire
from agent_flows.rpc.refusals import Refusals
from agent_flows.rpc.server import ServerEndpoint
from agent_flows.spans import CONTEXT, Spans
from agent_flows.tracing import UNTRACED
from agent_flows.validation import Invalid
from lab.model import flow_report, new_id

AN_HOUR_AGO = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
PARENT = f"00-{1:032x}-{1:016x}-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Spans:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Spans(provider)


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def run_of(number: int, **fields: Any) -> list[FlowReport]:
    """Reports of one run for several ports."""
    return [
        flow_report(
            started_at=AN_HOUR_AGO,
            finished_at=AN_HOUR_AGO + datetime.timedelta(seconds=1),
            **fields,
        )
        for _ in range(number)
    ]


def test_one_run_for_many_ports_is_one_flow_and_each_task_once(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    reports = run_of(3)
    spans.stored(reports)
    (flow,) = named(exporter, "flow wire")
    about = flow.attributes or {}
    assert about["agent_flows.ports"] == tuple(report.resource_id for report in reports)
    assert (about["agent_flows.reports"], about["agent_flows.failed"]) == (3, 0)
    assert flow.start_time == int(AN_HOUR_AGO.timestamp() * 1_000_000) * 1000
    names = [span.name for span in exporter.get_finished_spans() if span is not flow]
    assert sorted(names) == sorted(task.name for task in reports[0].tasks)


def test_the_task_at_fault_and_its_flow_have_the_error_and_no_other_task(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    spans.stored(run_of(1, fails="bind-vlan"))
    failed = {
        span.name
        for span in exporter.get_finished_spans()
        if span.status.status_code is StatusCode.ERROR
    }
    assert failed == {"flow wire", "bind-vlan"}


def test_reports_of_two_flows_in_one_message_stay_in_two_traces(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    early, late = run_of(2), [flow_report()]
    spans.stored(early)
    spans.stored(late)
    with spans.sending([*early, *late]) as carried, spans.received(carried):
        spans.judged([(report, "proven") for report in (*early, *late)], 1, 2)
    gates = {(gate.attributes or {})["agent_flows.port"]: gate for gate in named(exporter, "gate")}
    flows = {
        port: flow.context.trace_id
        for flow in named(exporter, "flow wire")
        for port in (flow.attributes or {})["agent_flows.ports"]  # type: ignore[union-attr]
    }
    assert {port: gate.context.trace_id for port, gate in gates.items()} == flows
    assert len(set(flows.values())) == 2


def test_a_message_that_was_not_answered_is_sent_again_in_the_same_trace(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    (report,) = run_of(1)
    spans.stored([report])
    with pytest.raises(TimeoutError), spans.sending([report]):
        raise TimeoutError
    with spans.sending([report]) as carried:
        assert carried
    first, again = named(exporter, "report")
    assert first.context.trace_id == again.context.trace_id
    with spans.sending([report]) as carried:
        assert carried == {}


def test_a_report_of_an_agent_without_traces_makes_no_span(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    with spans.received({}):
        spans.judged([(flow_report(), "proven")], 1, 2)
    assert exporter.get_finished_spans() == ()


HOSTILE: dict[str, object] = {
    "no object": "x",
    "no list": {PARENT: "x"},
    "no id": {PARENT: ["x"]},
    "no parent": {"00-1-1-01": [new_id()]},
    "another version": {PARENT.replace("00-", "99-", 1): [new_id()]},
    "too many ids": {PARENT: [new_id()] * 501},
    "too many parents": {f"00-{n:032x}-{1:016x}-01": [] for n in range(501)},
    "lines": {PARENT + "\n": [new_id()]},
}


@pytest.mark.parametrize("context", HOSTILE.values(), ids=HOSTILE)
def test_a_malformed_context_is_refused(spans: Spans, context: object) -> None:
    with pytest.raises(Invalid) as refused:
        spans.received({CONTEXT: context})
    assert refused.value.field == "traces"


class Consumer:
    """Takes every report."""

    def take_reports(
        self, host: str, reports: Sequence[FlowReport], agent: object = None
    ) -> Receipt:
        return Receipt(1, accepted=[report.id for report in reports])


def test_reports_with_a_malformed_context_count_and_the_context_is_counted_as_refused(
    spans: Spans,
) -> None:
    refusals = Refusals()
    endpoint = ServerEndpoint(Consumer(), refusals, traces=spans)  # type: ignore[arg-type]
    report = flow_report()
    answer = endpoint.report({CONTEXT: "x"}, report.host, [to_wire(report)])
    assert answer["accepted"] == [report.id]
    assert refusals.counts == {"traces": 1}


def test_without_tracing_a_message_carries_nothing() -> None:
    UNTRACED.stored([flow_report()])
    with UNTRACED.sending([flow_report()]) as carried:
        assert carried == {}
    with UNTRACED.received({CONTEXT: "x"}):
        UNTRACED.judged([(flow_report(), "proven")], 1, 2)


_MADE = """
import sys
{before}
from oslo_config import cfg
from agent_flows import conf, tracing
import agent_flows.agent.service, agent_flows.server.service
made = conf.register(cfg.ConfigOpts())
made([], default_config_files=[])
made.set_override("enabled", {enabled}, conf.TRACING)
try:
    print(type(tracing.of(made, "x")).__name__, "opentelemetry" in sys.modules)
except ValueError as exc:
    print(exc)
"""


@pytest.mark.parametrize(
    ("before", "enabled", "printed"),
    [
        ("", False, "Untraced False\n"),
        ("", True, "Spans True\n"),
        (
            'sys.modules["opentelemetry"] = None',
            True,
            "[agent_flows_tracing] enabled needs OpenTelemetry (opentelemetry is not installed): "
            "pip install agent_flows[tracing]\n",
        ),
    ],
    ids=["off", "on", "not installed"],
)
def test_opentelemetry_is_loaded_only_if_traces_are_wanted(
    before: str, enabled: bool, printed: str
) -> None:
    program = _MADE.format(before=before, enabled=enabled)
    argv = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == printed, done.stderr
