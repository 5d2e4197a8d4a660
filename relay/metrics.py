"""What a relay does, in numbers: an observer that counts.

readings = Readings(METRICS)
Relay(store, kafka, observer=RelayMetrics(readings))
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

from ..messaging.errors import PostroomError, Verdict
from ..messaging.health import Health, State
from ..messaging.metrics import LATENCY_SECONDS, Metric, Readings

PUBLISHED = Metric(
    "postroom_relay_published_messages_total", "counter", "Messages that Kafka acknowledged to this relay", ("topic",)
)
LATENCY = Metric(
    "postroom_relay_publish_latency_seconds",
    "histogram",
    "From the INSERT of a message to Kafka's acknowledgement; of large batches a spread of 32 stands for all",
    buckets=LATENCY_SECONDS,
)
BATCH = Metric(
    "postroom_relay_batch_messages",
    "histogram",
    "Messages read in one batch",
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 50_000),
)
SETTLED = Metric(
    "postroom_relay_settled_messages_total", "counter", "Messages that the cursors moved past, parked ones among them"
)
IN_DOUBT = Metric(
    "postroom_relay_possible_duplicates_total",
    "counter",
    "Messages that may be in Kafka twice: unanswered or unsettled when a lease or a connection was lost",
)
PARKED = Metric("postroom_relay_parked_messages_total", "counter", "Messages that Kafka refused for good", ("topic",))
UNPARKED = Metric("postroom_relay_unparked_messages_total", "counter", "Parked messages that were published after all")
MOVED = Metric("postroom_relay_due_messages_total", "counter", "Delayed messages that were moved into the log when due")
RETRIES = Metric(
    "postroom_relay_retries_total",
    "counter",
    "Times that publishing failed and was tried again, by the error's verdict (retry, pause, park)",
    ("verdict",),
)
FENCED = Metric("postroom_relay_fenced_total", "counter", "Times that a lease was lost to another relay")
LEASES = Metric("postroom_relay_lease_changes_total", "counter", "Times that the shards of this relay changed")
SHARDS = Metric("postroom_relay_shards", "gauge", "Shards that this relay owns")
BREAKER = Metric("postroom_relay_breaker_open", "gauge", "1 while the relay waits for Kafka or the database, else 0")
STATE = Metric(
    "postroom_relay_state",
    "gauge",
    f"1 for the state that this relay is in: {', '.join(get_args(State))}",
    ("state",),
)
METRICS = (
    PUBLISHED,
    LATENCY,
    BATCH,
    SETTLED,
    IN_DOUBT,
    PARKED,
    UNPARKED,
    MOVED,
    RETRIES,
    FENCED,
    LEASES,
    SHARDS,
    BREAKER,
    STATE,
)


class RelayMetrics:
    """Counts a relay's steps into ``readings``, which have ``METRICS``."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._takes: dict[str, Callable[..., None]] = {
            "claimed": self._claimed,
            "fenced": self._fenced,
            "in_doubt": lambda count, **_: readings.add(IN_DOUBT, by=count),
            "interrupted": self._interrupted,
            "moved_due": lambda count, **_: readings.add(MOVED, by=count),
            "parked": lambda topic, **_: readings.add(PARKED, topic),
            "paused": self._paused,
            "published": self._published,
            "read": lambda count, **_: readings.observe(BATCH, count),
            "resumed": lambda **_: readings.set(BREAKER, 0),
            "settled": lambda count, **_: readings.add(SETTLED, by=count),
            "stepped_aside": lambda **_: readings.set(SHARDS, 0),
            "stopped": lambda **_: readings.set(SHARDS, 0),
            "unparked": lambda count, **_: readings.add(UNPARKED, by=count),
        }

        for verdict in (Verdict.RETRY, Verdict.PAUSE, Verdict.PARK):  # so that the first one is an increase
            readings.add(RETRIES, verdict.value, by=0)

    def __call__(self, step: str, /, **facts: Any) -> None:
        take = self._takes.get(step)
        if take is not None:
            take(**facts)

    def watch(self, health: Health) -> None:
        """Show the state of a relay."""

        def look() -> None:
            now = health.state
            for state in get_args(State):
                self._readings.set(STATE, float(state == now), state)

        self._readings.watch(look)

    def _published(self, *, count: int, topics: dict[str, int], latencies: list[float], **_: Any) -> None:
        for topic, messages in topics.items():
            self._readings.add(PUBLISHED, topic, by=messages)
        ends = [index * count // len(latencies) for index in range(len(latencies) + 1)]
        for seconds, (begin, end) in zip(latencies, pairwise(ends), strict=True):
            self._readings.observe(LATENCY, seconds, weight=end - begin)

    def _claimed(self, *, shards: list[int], **_: Any) -> None:
        self._readings.add(LEASES)
        self._readings.set(SHARDS, len(shards))

    def _fenced(self, **_: Any) -> None:
        self._readings.add(FENCED)
        self._readings.set(SHARDS, 0)

    def _interrupted(self, *, error: Exception, **_: Any) -> None:
        if isinstance(error, PostroomError):
            self._readings.add(RETRIES, error.verdict.value)

    def _paused(self, *, error: Exception, **_: Any) -> None:
        self._readings.set(BREAKER, 1)
        self._interrupted(error=error)
