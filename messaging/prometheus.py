"""Readings as Prometheus wants them: a collector for any registry of prometheus-client."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from .metrics import Buckets, Metric, Readings, Series


class ReadingsCollector(Collector):
    """``REGISTRY.register(ReadingsCollector(readings))``, for an application that has /metrics of its own.

    Several readings may have a metric in common; their series must differ.
    """

    def __init__(self, *readings: Readings) -> None:
        self._readings = readings

    def collect(self) -> Iterable[Family]:
        """Every family once."""
        found: dict[Metric, list[Series]] = {}
        for readings in self._readings:
            for metric, series in readings.read():
                found.setdefault(metric, []).append(series)
        return [_family(metric, all_series) for metric, all_series in found.items()]


def page(*readings: Readings) -> bytes:
    """What /metrics answers: the readings, and the process's memory, time and open files."""
    registry = CollectorRegistry()
    registry.register(ReadingsCollector(*readings))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def _family(metric: Metric, all_series: Sequence[Series]) -> Family:
    rows = [(labels, value) for series in all_series for labels, value in series.items()]
    if metric.kind == "histogram":
        family = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
        for labels, value in rows:
            if isinstance(value, Buckets):
                family.add_metric(labels, list(_cumulated(metric, value)), value.sum)
        return family
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    plain = kind(metric.name, metric.text, labels=metric.labels)
    for labels, value in rows:
        if not isinstance(value, Buckets):
            plain.add_metric(labels, value)
    return plain


def _cumulated(metric: Metric, value: Buckets) -> Iterator[tuple[str, float]]:
    bounds = [*(str(float(bound)) for bound in metric.buckets), "+Inf"]
    return zip(bounds, accumulate(value.counts), strict=True)
