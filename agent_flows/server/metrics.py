"""What Prometheus may ask: counters of this process and gauges from the database."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PortCounts = Mapping[tuple[str, str, str], int]


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
            "Calls refused because another agent speaks for the host.",
            registry=self.registry,
        )
        self.requests = Histogram(
            "agent_flows_request_seconds",
            "REST requests.",
            ["method", "route", "status"],
            registry=self.registry,
        )

    def watch_ports(self, counts: Callable[[], PortCounts]) -> None:
        self.registry.register(_Ports(counts))

    def watch_refusals(self, refused: Mapping[str, int]) -> None:
        self.registry.register(_Refusals(refused))

    def text(self) -> bytes:
        """In Prometheus' exposition format."""
        return generate_latest(self.registry)


class _Ports(Collector):
    def __init__(self, counts: Callable[[], PortCounts]) -> None:
        self._counts = counts

    def describe(self) -> Iterable[Metric]:
        return [GaugeMetricFamily("agent_flows_ports", "Ports.")]

    def collect(self) -> Iterable[Metric]:
        labels = ["host", "status", "sync_state"]
        family = GaugeMetricFamily("agent_flows_ports", "Ports.", labels=labels)
        for key, number in self._counts().items():
            family.add_metric(list(key), number)
        return [family]


class _Refusals(Collector):
    def __init__(self, refused: Mapping[str, int]) -> None:
        self._refused = refused

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(
            "agent_flows_rpc_refused", "What agents sent and was refused.", labels=["field"]
        )
        for field, number in dict(self._refused).items():
            family.add_metric([field], number)
        return [family]
