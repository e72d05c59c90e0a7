"""Prometheus metrics: counters of the server's processes and gauges from the database.

Labels are names from the code, and hosts that are in the database.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oslo_log import log
from prometheus_client import CollectorRegistry, generate_latest, multiprocess, values
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from agent_flows import metrics as declared
from agent_flows.instruments import counter, gauge, gauges, histogram
from agent_flows.report import Trouble
from agent_flows.rpc.refusals import KINDS, UNKNOWN
from agent_flows.rpc.timing import Outcome

LOG = log.getLogger(__name__)

PortCounts = Mapping[tuple[str, str, str], int]
# Numbers of a heartbeat that have a gauge.
AGENT_NUMBERS = {
    "waiting": declared.AGENT_WAITING,
    "oldest": declared.AGENT_OLDEST,
    "oldest_flow": declared.AGENT_OLDEST_FLOW,
    "unreported": declared.AGENT_UNREPORTED,
}


@dataclass(frozen=True)
class AgentGauges:
    """``age``: seconds since its last heartbeat. ``behind``: for how many seconds its desired state
    has not been the server's; None if that is not compared. ``gated``: gating is on there.
    ``numbers`` are those of its heartbeat.
    """

    host: str
    alive: bool
    age: float
    conflict: bool
    troubles: frozenset[Trouble]
    gated: bool = True
    behind: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """What the database holds now; ``ports`` counts by host, status and sync_state.

    ``gating_off`` is until when gating is off, in seconds of Unix time, by host; "" is all hosts.
    """

    ports: PortCounts
    agents: Sequence[AgentGauges]
    gating_off: Mapping[str, float] = field(default_factory=dict)


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
        self.reports = counter(declared.REPORTS, counters)
        self.redelivered = counter(declared.REDELIVERED, counters)
        self.store_seconds = histogram(declared.STORE_SECONDS, counters)
        self.casts_failed = counter(declared.CASTS_FAILED, counters)
        self.sweeps_failed = counter(declared.SWEEPS_FAILED, counters)
        self.hosts_taken = counter(declared.HOST_TAKEN, counters)
        self.refused = counter(declared.RPC_REFUSED, counters)
        self.requests = histogram(declared.REQUEST_SECONDS, counters)
        self._calls = histogram(declared.RPC_SECONDS, counters)
        # Prometheus sees no increase of a series that begins with 1.
        for field_name in (*sorted(KINDS), UNKNOWN):
            self.refused.labels(field_name)

    def called(self, method: str, outcome: Outcome, seconds: float) -> None:
        """An agent's call ended; an :data:`agent_flows.rpc.timing.Observe`."""
        self._calls.labels(method, outcome).observe(seconds)

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
    return [
        _up(True),
        _ports(snapshot.ports),
        *_agents(snapshot.agents),
        _gating_off(snapshot.gating_off),
    ]


def _up(there: bool) -> Metric:
    return gauge(declared.DATABASE_UP, there)


def _ports(counts: PortCounts) -> Metric:
    family = gauges(declared.PORTS)
    for key, number in counts.items():
        family.add_metric(list(key), number)
    return family


def _gating_off(until: Mapping[str, float]) -> Metric:
    family = gauges(declared.GATING_OFF_UNTIL)
    for host, moment in until.items():
        family.add_metric([host], moment)
    return family


def _agents(agents: Sequence[AgentGauges]) -> Iterator[Metric]:
    up = gauges(declared.AGENT_UP)
    age = gauges(declared.AGENT_HEARTBEAT_AGE)
    conflict = gauges(declared.AGENT_CONFLICT)
    behind = gauges(declared.AGENT_BEHIND)
    gated = gauges(declared.AGENT_GATED)
    trouble = gauges(declared.AGENT_TROUBLE)
    for agent in agents:
        up.add_metric([agent.host], float(agent.alive))
        age.add_metric([agent.host], agent.age)
        conflict.add_metric([agent.host], float(agent.conflict))
        gated.add_metric([agent.host], float(agent.gated))
        if agent.behind is not None:
            behind.add_metric([agent.host], agent.behind)
        for source in sorted(agent.troubles):
            trouble.add_metric([agent.host, source.value], 1.0)
    yield from (up, age, conflict, behind, gated, trouble)
    for name, metric in AGENT_NUMBERS.items():
        family = gauges(metric)
        for agent in agents:
            if name in agent.numbers:
                family.add_metric([agent.host], agent.numbers[name])
        yield family


def _process(failing: Mapping[str, bool]) -> Iterable[Metric]:
    family = gauges(declared.SERVER_FAILING)
    for part, fails in failing.items():
        family.add_metric([part], float(fails))
    return [family]
