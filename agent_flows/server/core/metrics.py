"""Prometheus metrics: counters of the server's processes and gauges from the database.

Labels are names from the code, and hosts that are in the database.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oslo_log import log
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent_flows.report import Trouble

LOG = log.getLogger(__name__)

PortCounts = Mapping[tuple[str, str, str], int]
# Numbers of a heartbeat that have a gauge, with their descriptions.
AGENT_NUMBERS = {
    "waiting": "Ports that wait for a flow.",
    "oldest": "Seconds for which the port that waits longest has waited.",
    "oldest_flow": "Seconds for which the flow that takes longest has run.",
    "unreported": "Reports that the server has not yet taken.",
}


@dataclass(frozen=True)
class AgentGauges:
    """``age``: seconds since its last heartbeat. ``behind``: for how many seconds its desired state
    has not been the server's; None if that is not compared. ``numbers`` are those of its heartbeat.
    """

    host: str
    alive: bool
    age: float
    conflict: bool
    troubles: frozenset[Trouble]
    behind: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """What the database holds now; ``ports`` counts by host, status and sync_state."""

    ports: PortCounts
    agents: Sequence[AgentGauges]


def share(directory: Path, number: int) -> None:
    """Have the counters of this process in ``directory``, where the server's others have theirs.

    Before any is made. ``number`` is that of the worker; one that takes its place
    goes on from its counters.
    """
    # prometheus_client reads it for every counter, and has no other way to set it.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


class Metrics:
    """A registry of its own, so that several servers may live in one process.

    ``shared`` is the directory of :func:`share`, if there is one: counters are
    then the sums of all workers.
    """

    def __init__(self, shared: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        counters = self.registry if shared is None else None
        if shared is not None:
            multiprocess.MultiProcessCollector(  # type: ignore[no-untyped-call]
                self.registry, str(shared)
            )
        self.reports = Counter(
            "agent_flows_reports", "Reports taken, by ruling.", ["ruling"], registry=counters
        )
        self.store_seconds = Histogram(
            "agent_flows_store_seconds", "Storing one message of reports.", registry=counters
        )
        self.casts_failed = Counter(
            "agent_flows_casts_failed",
            "Casts to agents that could not be sent.",
            ["kind"],
            registry=counters,
        )
        self.sweeps_failed = Counter(
            "agent_flows_sweeps_failed", "Sweeps that ended in an error.", registry=counters
        )
        self.hosts_taken = Counter(
            "agent_flows_host_taken",
            "Calls refused because another agent reports for the host.",
            registry=counters,
        )
        self.refused = Counter(
            "agent_flows_rpc_refused",
            "Refused messages of agents, by field.",
            ["field"],
            registry=counters,
        )
        self.requests = Histogram(
            "agent_flows_request_seconds",
            "REST requests.",
            ["method", "route", "status"],
            registry=counters,
        )

    def watch_database(self, ask: Callable[[], Snapshot]) -> None:
        """Gauges of what ``ask`` answers; only ``agent_flows_database_up`` if it raises."""
        self.registry.register(_Asked(lambda: _from_database(ask)))

    def watch_process(self, failing: Callable[[], Mapping[str, bool]]) -> None:
        """A gauge for each thing this process needs: 1 if it fails."""
        self.registry.register(_Asked(lambda: _process(failing())))

    def text(self) -> bytes:
        """In Prometheus' exposition format."""
        return generate_latest(self.registry)


class _Asked(Collector):
    """Asks when it is scraped; names are known without asking, so registering asks nothing."""

    def __init__(self, ask: Callable[[], Iterable[Metric]]) -> None:
        self._ask = ask

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        return self._ask()


def _from_database(ask: Callable[[], Snapshot]) -> Iterable[Metric]:
    try:
        snapshot = ask()
    # A scrape always answers: counters are needed most when the database fails.
    except Exception as exc:  # noqa: BLE001
        LOG.warning("Metrics without the database: %s", type(exc).__name__)
        return [_up(False)]
    return [_up(True), _ports(snapshot.ports), *_agents(snapshot.agents)]


def _up(there: bool) -> Metric:
    return GaugeMetricFamily(
        "agent_flows_database_up", "Whether the database answers.", value=float(there)
    )


def _ports(counts: PortCounts) -> Metric:
    labels = ["host", "status", "sync_state"]
    family = GaugeMetricFamily("agent_flows_ports", "Ports.", labels=labels)
    for key, number in counts.items():
        family.add_metric(list(key), number)
    return family


def _agents(agents: Sequence[AgentGauges]) -> Iterator[Metric]:
    up = _by_host("agent_flows_agent_up", "Whether the host's agent is alive.")
    age = _by_host("agent_flows_agent_heartbeat_age_seconds", "Seconds since its last heartbeat.")
    conflict = _by_host("agent_flows_agent_conflict", "Whether two agents report as this host.")
    behind = _by_host(
        "agent_flows_agent_behind_seconds",
        "For how long the agent's desired state has not been the server's.",
    )
    trouble = GaugeMetricFamily(
        "agent_flows_agent_trouble",
        "What keeps a host from its work.",
        labels=["host", "source"],
    )
    for agent in agents:
        up.add_metric([agent.host], float(agent.alive))
        age.add_metric([agent.host], agent.age)
        conflict.add_metric([agent.host], float(agent.conflict))
        if agent.behind is not None:
            behind.add_metric([agent.host], agent.behind)
        for source in sorted(agent.troubles):
            trouble.add_metric([agent.host, source.value], 1.0)
    yield from (up, age, conflict, behind, trouble)
    for name, what in AGENT_NUMBERS.items():
        family = _by_host(f"agent_flows_agent_{name}", what)
        for agent in agents:
            if name in agent.numbers:
                family.add_metric([agent.host], agent.numbers[name])
        yield family


def _by_host(name: str, what: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, labels=["host"])


def _process(failing: Mapping[str, bool]) -> Iterable[Metric]:
    what = "Parts of this process, 1 if failing."
    family = GaugeMetricFamily("agent_flows_server_failing", what, labels=["part"])
    for part, fails in failing.items():
        family.add_metric([part], float(fails))
    return [family]
