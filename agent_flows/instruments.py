"""Makes what Prometheus' client counts with, of declared metrics; importing it takes some MiB."""

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily

from agent_flows.metrics import Metric


def counter(metric: Metric, registry: CollectorRegistry | None) -> Counter:
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def histogram(metric: Metric, registry: CollectorRegistry | None) -> Histogram:
    buckets = metric.buckets or Histogram.DEFAULT_BUCKETS
    return Histogram(metric.name, metric.help, metric.labels, buckets=buckets, registry=registry)


def gauges(metric: Metric) -> GaugeMetricFamily:
    """To be filled at a scrape, with a value for each combination of the labels."""
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)


def gauge(metric: Metric, value: float) -> GaugeMetricFamily:
    """Of a metric without labels."""
    return GaugeMetricFamily(metric.name, metric.help, value=float(value))
