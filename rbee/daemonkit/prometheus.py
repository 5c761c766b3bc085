"""Format a daemon's metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from rbee.observe.metrics import COUNTED, Counter, Gauge, Histogram, Labels

GaugeValues = Mapping[Labels, float]


def exposition(daemon: str, gauges: Mapping[Gauge, GaugeValues | float]) -> tuple[bytes, str]:
    """Return the text of all metrics and its media type.

    Args:
        daemon: `queen`, `hive` or `worker`; only its own counters and the common ones are included.
        gauges: the current values of the gauges of *daemon*.
    """
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector

    class DaemonCollector(Collector):
        def collect(self) -> Iterator[Metric]:
            for gauge, values in gauges.items():
                family = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
                for labels, value in _as_mapping(values).items():
                    family.add_metric(labels, value)
                yield family
            for metric in _own_metrics(daemon):
                yield counter(metric) if isinstance(metric, Counter) else histogram(metric)

    def counter(metric: Counter) -> Metric:
        family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in sorted(metric.values.items()):
            family.add_metric(labels, value)
        return family

    def histogram(metric: Histogram) -> Metric:
        family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, (counts, total) in sorted(metric.values.items()):
            bounds = [*(str(bound) for bound in metric.buckets), "+Inf"]
            family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total[0])
        return family

    registry = CollectorRegistry()
    registry.register(DaemonCollector())
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _as_mapping(values: GaugeValues | float) -> GaugeValues:
    return values if isinstance(values, Mapping) else {(): values}


def _own_metrics(daemon: str) -> Iterable[Counter | Histogram]:
    return (metric for metric in COUNTED if metric.name.startswith((f"rbee_{daemon}_", "rbee_http_")))
