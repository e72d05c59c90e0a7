"""Agents and servers count what is declared, and nothing else."""

from collections.abc import Iterable, Sequence

import pytest
from prometheus_client.core import Metric as Family

from agent_flows import metrics
from agent_flows.metrics import Metric
from agent_flows.report import FlowName, Trouble
from agent_flows.reporting.metrics import AgentMetrics, Gauges
from agent_flows.rpc.timing import Outcome
from agent_flows.server.core.metrics import AGENT_NUMBERS, AgentGauges, Metrics, Snapshot
from lab.model import flow_report

# Names that one would look for the values of in the database, and never in a label.
UNBOUNDED = {"port", "port_id", "security_group", "network", "id", "report", "message", "project"}


def found_in(families: Iterable[Family]) -> dict[str, tuple[str, str, frozenset[str]]]:
    """Type, help and labels of each metric that has a series."""
    return {
        family.name: (
            family.type,
            family.documentation,
            frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
        )
        for family in families
    }


def declared(all_of: Sequence[Metric]) -> dict[str, tuple[str, str, frozenset[str]]]:
    return {each.name: (each.kind.value, each.help, frozenset(each.labels)) for each in all_of}


def test_an_agent_counts_what_is_declared() -> None:
    made = AgentMetrics(Gauges(lambda: (0, None), lambda: 0, lambda: 0.0, lambda: {"switch": ""}))
    made.stored([flow_report("bind-vlan", attempt=2), flow_report(flow=FlowName.AUDIT)])
    made.called("report", Outcome.ANSWERED, 0.1)
    made.rejected(fault=True)
    made.cast_refused("ids")
    assert found_in(made.registry.collect()) == declared(metrics.OF_AGENT)


def test_a_server_counts_what_is_declared() -> None:
    made = Metrics()
    made.reports.labels("proven").inc()
    made.casts_failed.labels("ports").inc()
    made.refused.labels("host").inc()
    made.requests.labels("GET", "/ports", "200").observe(0.1)
    made.called("report", Outcome.REFUSED, 0.1)
    numbers = dict.fromkeys(AGENT_NUMBERS, 1.0)
    agent = AgentGauges("a", True, 1.0, False, frozenset(Trouble), behind=0.0, numbers=numbers)
    made.watch_database(lambda: Snapshot({("a", "ACTIVE", "IN_SYNC"): 1}, [agent], {"": 1.0}))
    made.watch_process(lambda: {"sweeper": False})
    assert found_in(made.registry.collect()) == declared(metrics.OF_SERVER)


@pytest.mark.parametrize("metric", [*metrics.OF_AGENT, *metrics.OF_SERVER], ids=lambda m: m.name)
def test_labels_are_bounded_and_no_name_is_used_twice(metric: Metric) -> None:
    assert not UNBOUNDED.intersection(metric.labels)
    every = [each.name for each in (*metrics.OF_AGENT, *metrics.OF_SERVER)]
    assert every.count(metric.name) == 1
