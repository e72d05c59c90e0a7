"""What Prometheus reads of an agent."""

import datetime
import time

from prometheus_client import generate_latest

from agent_flows.errors import ErrorType
from agent_flows.report import FlowName, Step, TaskError, TaskOutcome, TaskState
from agent_flows.reporting.metrics import AgentMetrics, Gauges
from agent_flows.rpc.timing import Outcome
from lab.model import flow_report

IDLE = Gauges(lambda: (0, None), lambda: 0, lambda: None, dict)


def text(metrics: AgentMetrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_flows_tasks_failures_drifts_and_retries_are_counted_by_names_of_the_code() -> None:
    metrics = AgentMetrics(IDLE)
    metrics.stored([flow_report(), flow_report("bind-vlan", attempt=2)])
    found_drift = TaskOutcome(
        "compare-switch",
        Step.SECURITY_GROUPS,
        TaskState.FAILED,
        datetime.datetime.now(datetime.UTC),
        0.0,
        TaskError(ErrorType.DRIFT, "1 flow of the port is missing", "table=82,tcp"),
    )
    metrics.stored([flow_report(flow=FlowName.AUDIT, tasks=(found_drift,))])
    found = text(metrics)
    for line in (
        'agent_flows_flows_total{flow="wire",outcome="succeeded"} 1.0',
        'agent_flows_flows_total{flow="wire",outcome="failed"} 1.0',
        'agent_flows_retries_total{flow="wire"} 1.0',
        'agent_flows_task_seconds_count{task="bind-vlan"} 2.0',
        "agent_flows_drifts_total 1.0",
    ):
        assert line in found.splitlines()
    assert 'agent_flows_task_failures_total{error_type="' in found


def test_what_waits_is_read_at_the_scrape() -> None:
    waiting: list[tuple[int, float | None]] = [(2, time.time() - 60)]
    metrics = AgentMetrics(
        Gauges(lambda: waiting[0], lambda: 3, lambda: 4.5, lambda: {"switch": "gone"})
    )
    lines = text(metrics).splitlines()
    assert "agent_flows_queue 3.0" in lines
    assert "agent_flows_queue_oldest_seconds 4.5" in lines
    assert "agent_flows_outbox_reports 2.0" in lines
    assert 'agent_flows_trouble{source="switch"} 1.0' in lines
    (age,) = [line.split()[1] for line in lines if line.startswith("agent_flows_outbox_oldest")]
    assert float(age) >= 60
    waiting[0] = (0, None)
    assert "agent_flows_outbox_oldest_seconds 0.0" in text(metrics).splitlines()


def test_calls_redeliveries_and_refusals_are_counted() -> None:
    metrics = AgentMetrics(IDLE)
    metrics.called("report", Outcome.ANSWERED, 0.02)
    metrics.called("report", Outcome.FAILED, 30.0)
    metrics.sent_again(3)
    metrics.rejected(fault=True)
    metrics.cast_refused("ids")
    lines = text(metrics).splitlines()
    for line in (
        'agent_flows_rpc_call_seconds_bucket{le="0.025",method="report",outcome="answered"} 1.0',
        'agent_flows_rpc_call_seconds_sum{method="report",outcome="failed"} 30.0',
        "agent_flows_reports_sent_again_total 3.0",
        'agent_flows_reports_rejected_total{fault="yes"} 1.0',
        'agent_flows_casts_refused_total{field="ids"} 1.0',
    ):
        assert line in lines
