"""What an inbox does, in numbers: an observer that counts.

    readings = Readings(METRICS)
    counting = InboxMetrics(readings, inbox)
    runner = InboxRunner(inbox, …, observer=counting)
    counting.watch(runner)

Labels are the group, its topics and its handlers; what no handler is for has the handler ``(none)``.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, get_args

from ..messaging.clock import Clock, SystemClock
from ..messaging.health import State
from ..messaging.metrics import LATENCY_SECONDS, Metric, Readings
from .inbox import Inbox
from .runner import InboxRunner

_BY_HANDLER = ("group", "topic", "handler")
HANDLED = Metric("postroom_inbox_handled_messages_total", "counter", "Messages handled and committed", _BY_HANDLER)
DUPLICATES = Metric(
    "postroom_inbox_duplicate_messages_total", "counter", "Deliveries of messages that were closed before", _BY_HANDLER
)
DEAD = Metric(
    "postroom_inbox_dead_lettered_messages_total", "counter", "Messages that became a dead letter", _BY_HANDLER
)
EXPIRED = Metric(
    "postroom_inbox_expired_messages_total", "counter", "Messages that came after their deadline", _BY_HANDLER
)
HELD = Metric(
    "postroom_inbox_put_aside_messages_total",
    "counter",
    "Messages put into the table of held messages, to be tried later or behind one of their key",
    _BY_HANDLER,
)
FAILED = Metric(
    "postroom_inbox_failed_attempts_total", "counter", "Times that a handler raised, whatever came of it", _BY_HANDLER
)
RETRIED = Metric(
    "postroom_inbox_retries_total", "counter", "Failed attempts that another one follows", ("group", "topic")
)
RECEIVED = Metric("postroom_inbox_received_messages_total", "counter", "Messages polled", ("group", "topic"))
SKIPPED = Metric(
    "postroom_inbox_skipped_messages_total",
    "counter",
    "Messages passed over: no handler for their type, or a replay for another group",
    ("group", "topic"),
)
DURATION = Metric(
    "postroom_inbox_handler_duration_seconds",
    "histogram",
    "How long handlers ran, failed ones too; of a batch each message has its share",
    _BY_HANDLER,
    LATENCY_SECONDS,
)
LATENCY = Metric(
    "postroom_inbox_end_to_end_latency_seconds",
    "histogram",
    "From the message's ce_time, when it was written into its outbox, until it was handled and committed",
    _BY_HANDLER,
    LATENCY_SECONDS,
)
LAG = Metric(
    "postroom_inbox_arrival_lag_seconds",
    "gauge",
    "How old the message polled last was then, by its ce_time",
    ("group", "topic"),
)
IN_HAND = Metric("postroom_inbox_in_hand_messages", "gauge", "Messages polled and not finished", ("group",))
WORKERS = Metric("postroom_inbox_workers", "gauge", "Threads that handle messages (inbox.concurrency)", ("group",))
BUSY = Metric("postroom_inbox_busy_workers", "gauge", "Of these, how many do something now", ("group",))
PARTITIONS = Metric("postroom_inbox_partitions", "gauge", "Partitions that this member reads", ("group",))
BREAKER = Metric(
    "postroom_inbox_breaker_open", "gauge", "1 while a handler's circuit breaker is open, else 0", ("group", "handler")
)
PAUSED = Metric(
    "postroom_inbox_handler_paused",
    "gauge",
    "1 while a handler is paused, by an operator or since too many of its messages died, else 0",
    ("group", "handler"),
)
LIMITED = Metric(
    "postroom_inbox_limited_total",
    "counter",
    "Times that a handler was paused since too many of its messages died within a minute",
    ("group", "handler"),
)
OVERDUE = Metric(
    "postroom_inbox_overdue_total", "counter", "Times that a handler took longer than its timeout", ("group", "handler")
)
AWAY = Metric(
    "postroom_inbox_unavailable_total",
    "counter",
    "Tries of the inbox itself that found Kafka or the database away",
    ("group", "dependency"),
)
STATE = Metric(
    "postroom_inbox_state",
    "gauge",
    f"1 for the state that this member is in: {', '.join(get_args(State))}; an inbox is never fenced",
    ("group", "state"),
)
METRICS = (
    HANDLED,
    DUPLICATES,
    DEAD,
    EXPIRED,
    HELD,
    FAILED,
    RETRIED,
    RECEIVED,
    SKIPPED,
    DURATION,
    LATENCY,
    LAG,
    IN_HAND,
    WORKERS,
    BUSY,
    PARTITIONS,
    BREAKER,
    PAUSED,
    LIMITED,
    OVERDUE,
    AWAY,
    STATE,
)
_COUNTED = {
    "dead_lettered": DEAD,
    "duplicate": DUPLICATES,
    "expired": EXPIRED,
    "shelved": HELD,
}


class InboxMetrics:
    """Counts an inbox's steps into ``readings``, which have ``METRICS``. Thread-safe."""

    def __init__(self, readings: Readings, inbox: Inbox, clock: Clock | None = None) -> None:
        self._readings = readings
        self._group = inbox.group
        self._clock = clock or SystemClock()
        self._takes: dict[str, Callable[..., None]] = {
            "applied": self._applied,
            "handled": self._handled,
            "held": self._held,
            "held_back": lambda handler, **_: self._switch(PAUSED, handler, on=True),
            "kafka_unavailable": lambda **_: readings.add(AWAY, self._group, "kafka"),
            "not_for_group": self._skipped,
            "limited": self._limited,
            "overdue": lambda handler, **_: readings.add(OVERDUE, self._group, handler),
            "paused": self._paused,
            "raised": self._raised,
            "received": self._received,
            "resumed": self._resumed,
            "retried": lambda topic, **_: readings.add(RETRIED, self._group, topic),
            "skipped": self._skipped,
        }
        self._begin(inbox)

    def __call__(self, step: str, /, **facts: Any) -> None:
        counted = _COUNTED.get(step)
        if counted is not None:
            self._readings.add(counted, self._group, facts["topic"], facts["handler"])
        elif (take := self._takes.get(step)) is not None:
            take(**facts)

    def watch(self, runner: InboxRunner) -> None:
        """Show the state of a runner, and what it has in hand."""

        def look() -> None:
            self._readings.set(IN_HAND, runner.in_hand, self._group)
            self._readings.set(WORKERS, runner.settings.concurrency, self._group)
            self._readings.set(BUSY, runner.busy, self._group)
            self._readings.set(PARTITIONS, len(runner.partitions), self._group)
            now = runner.health.state
            for state in get_args(State):
                self._readings.set(STATE, float(state == now), self._group, state)

        self._readings.watch(look)

    def _begin(self, inbox: Inbox) -> None:
        """All series are there from the beginning, so that the first dead letter is an increase."""
        for handler in inbox.handlers:
            for counter in (HANDLED, DUPLICATES, DEAD, EXPIRED, HELD, FAILED):
                self._readings.add(counter, self._group, handler.topic, handler.name, by=0)
            for counter in (LIMITED, OVERDUE):
                self._readings.add(counter, self._group, handler.name, by=0)
            for gauge in (BREAKER, PAUSED):
                self._readings.set(gauge, 0, self._group, handler.name)
        for topic in inbox.topics:
            for counter in (RETRIED, RECEIVED, SKIPPED):
                self._readings.add(counter, self._group, topic, by=0)
        for dependency in ("kafka", "database"):
            self._readings.add(AWAY, self._group, dependency, by=0)

    def _handled(self, *, topic: str, handler: str, sent_at: datetime, **_: Any) -> None:
        self._readings.add(HANDLED, self._group, topic, handler)
        self._readings.observe(LATENCY, self._age(sent_at), self._group, topic, handler)

    def _received(self, *, topic: str, sent_at: datetime, **_: Any) -> None:
        self._readings.add(RECEIVED, self._group, topic)
        self._readings.set(LAG, self._age(sent_at), self._group, topic)

    def _applied(self, *, topic: str, handler: str, seconds: float, **_: Any) -> None:
        self._readings.observe(DURATION, seconds, self._group, topic, handler)

    def _raised(self, *, topic: str, handler: str, seconds: float, **_: Any) -> None:
        self._readings.add(FAILED, self._group, topic, handler)
        self._readings.observe(DURATION, seconds, self._group, topic, handler)

    def _held(self, *, topic: str, handler: str, behind: int, **_: Any) -> None:
        self._readings.add(HELD, self._group, topic, handler, by=1 + behind)

    def _skipped(self, *, topic: str, **_: Any) -> None:
        self._readings.add(SKIPPED, self._group, topic)

    def _paused(self, *, handler: str | None = None, **_: Any) -> None:
        if handler is None:
            self._readings.add(AWAY, self._group, "database")
        else:
            self._switch(BREAKER, handler, on=True)

    def _resumed(self, *, handler: str | None = None, **facts: Any) -> None:
        if handler is not None:  # by an operator, or by itself
            self._switch(PAUSED if "reason" in facts else BREAKER, handler, on=False)

    def _limited(self, *, handler: str, **_: Any) -> None:
        self._readings.add(LIMITED, self._group, handler)
        self._switch(PAUSED, handler, on=True)

    def _switch(self, gauge: Metric, handler: str, *, on: bool) -> None:
        self._readings.set(gauge, float(on), self._group, handler)

    def _age(self, sent_at: datetime) -> float:
        return max(0.0, (self._clock.now() - sent_at).total_seconds())
