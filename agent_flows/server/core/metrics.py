"""Prometheus metrics: counters of this process and gauges from the database.

Labels are names from the code, and hosts that are in the database.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from oslo_log import log
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
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


class Metrics:
    """A registry of its own, so that several servers may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reports = Counter(
            "agent_flows_reports", "Reports taken, by ruling.", ["ruling"], registry=self.registry
        )
        self.store_seconds = Histogram(
            "agent_flows_store_seconds", "Storing one message of reports.", registry=self.registry
        )
        self.casts_failed = Counter(
            "agent_flows_casts_failed",
            "Casts to agents that could not be sent.",
            ["kind"],
            registry=self.registry,
        )
        self.sweeps_failed = Counter(
            "agent_flows_sweeps_failed", "Sweeps that ended in an error.", registry=self.registry
        )
        self.hosts_taken = Counter(
            "agent_flows_host_taken",
            "Calls refused because another agent reports for the host.",
            registry=self.registry,
        )
        self.requests = Histogram(
            "agent_flows_request_seconds",
            "REST requests.",
            ["method", "route", "status"],
            registry=self.registry,
        )

    def watch_database(self, ask: Callable[[], Snapshot]) -> None:
        """Gauges of what ``ask`` answers; only ``agent_flows_database_up`` if it raises."""
        self.registry.register(_Asked(lambda: _from_database(ask)))

    def watch_refusals(self, refused: Mapping[str, int]) -> None:
        self.registry.register(_Asked(lambda: _refusals(refused)))

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


def _refusals(refused: Mapping[str, int]) -> Iterable[Metric]:
    what = "Refused messages of agents, by field."
    family = CounterMetricFamily("agent_flows_rpc_refused", what, labels=["field"])
    for name, number in dict(refused).items():
        family.add_metric([name], number)
    return [family]


def _process(failing: Mapping[str, bool]) -> Iterable[Metric]:
    what = "Parts of this process, 1 if failing."
    family = GaugeMetricFamily("agent_flows_server_failing", what, labels=["part"])
    for part, fails in failing.items():
        family.add_metric([part], float(fails))
    return [family]
