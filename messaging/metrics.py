"""Metrics without a library: what is measured, and what was measured so far.

A daemon's part counts and measures through an observer into ``Readings``; ``messaging.prometheus`` shows them. Every
metric has at most 1,000 series: what would be one more is added up under the label value ``other``.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Literal, NamedTuple

MAX_SERIES = 1_000
OTHER = "other"
Labels = tuple[str, ...]
#: From a millisecond to an hour: what is fast and what waited for an outage to end are both told apart.
LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600)


class Metric(NamedTuple):
    """A metric as it is shown and documented. Counters end in ``_total``; ``buckets`` are a histogram's upper bounds.

    ``text``: one sentence, without a full stop.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: Labels = ()
    buckets: tuple[float, ...] = ()


@dataclass(slots=True)
class Buckets:
    """A histogram's series. ``counts`` are by bucket, not cumulated; the last one is beyond all bounds."""

    counts: list[int]
    sum: float = 0.0


Value = float | Buckets
Series = Mapping[Labels, Value]


class Readings:
    """The values of some metrics. Thread-safe. A metric without labels is there from the beginning, with 0."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._lock = Lock()
        self._watched: list[Callable[[], None]] = []
        self._series: dict[Metric, dict[Labels, float]] = {}
        self._buckets: dict[Metric, dict[Labels, Buckets]] = {}
        for metric in metrics:
            if metric.kind == "histogram":
                self._buckets[metric] = {} if metric.labels else {(): _empty(metric)}
            else:
                self._series[metric] = {} if metric.labels else {(): 0.0}

    def add(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """Count ``by`` more. By 0, the series is there from now on, so that its first increase can be seen."""
        with self._lock:
            series = self._series[metric]
            labels = _within(series, labels)
            series[labels] = series.get(labels, 0.0) + by

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """It is ``value`` now."""
        with self._lock:
            series = self._series[metric]
            series[_within(series, labels)] = value

    def observe(self, metric: Metric, value: float, *labels: str, weight: int = 1) -> None:
        """``weight`` times ``value`` was measured."""
        with self._lock:
            series = self._buckets[metric]
            labels = _within(series, labels)
            found = series.get(labels)
            if found is None:
                found = series[labels] = _empty(metric)
            found.counts[bisect_left(metric.buckets, value)] += weight
            found.sum += value * weight

    def watch(self, look: Callable[[], None]) -> None:
        """Have ``look`` set what is known at the time only, whenever somebody wants to see."""
        self._watched.append(look)

    def read(self) -> list[tuple[Metric, Series]]:
        """A copy of everything."""
        for look in self._watched:
            look()
        with self._lock:
            plain: list[tuple[Metric, Series]] = [(metric, dict(series)) for metric, series in self._series.items()]
            return plain + [
                (metric, {labels: Buckets(list(found.counts), found.sum) for labels, found in series.items()})
                for metric, series in self._buckets.items()
            ]


def _within(series: Mapping[Labels, object], labels: Labels) -> Labels:
    return labels if labels in series or len(series) < MAX_SERIES - 1 else (OTHER,) * len(labels)


def _empty(metric: Metric) -> Buckets:
    return Buckets([0] * (len(metric.buckets) + 1))
