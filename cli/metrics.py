"""What /metrics of a daemon shows besides what the daemon counts itself: the tables, the lag, and which version runs.

Tables and Kafka are looked at when somebody scrapes, each on a thread of its own, at most every five or ten seconds and
for at most a twentieth of the time. So a scrape waits two seconds at the most, and neither a slow server nor many
scrapers slow anything down; nothing of it runs on the thread that polls. While the database or Kafka does not answer,
these metrics are absent rather than old.
"""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from .. import __version__
from ..messaging.errors import KafkaUnavailable
from ..messaging.metrics import OTHER, Metric, Readings
from .statistics import Statistics

if TYPE_CHECKING:
    from ..outbox.log import LogStore
    from .lag import Lagging

BACKLOG = Metric(
    "postroom_outbox_backlog_messages",
    "gauge",
    "Messages that wait to be published; beyond 10,000 in a shard extrapolated",
)
OLDEST = Metric("postroom_outbox_backlog_oldest_seconds", "gauge", "For how long the oldest of them waits")
WAITING = Metric(
    "postroom_outbox_parked_messages",
    "gauge",
    "Parked messages: refused by Kafka, behind a refused one of their key, or of a topic that stands still",
    ("topic", "state"),
)
SCHEDULED = Metric("postroom_outbox_scheduled_messages", "gauge", "Delayed messages that are not due yet")
STOPPED = Metric("postroom_outbox_paused", "gauge", "1 while an operator has paused all publishing, else 0")
STOPPED_TOPICS = Metric("postroom_outbox_paused_topics", "gauge", "Topics that are paused")
ORPHANS = Metric("postroom_outbox_shards_without_relay", "gauge", "Shards that no living relay owns")
WRITER = Metric(
    "postroom_outbox_oldest_transaction_seconds",
    "gauge",
    "Age of the oldest open transaction that wrote messages, which wait for it",
)
HORIZON = Metric(
    "postroom_database_oldest_transaction_seconds",
    "gauge",
    "Age of the oldest transaction that holds back the snapshot horizon, and so vacuum",
)
SIZE = Metric("postroom_outbox_log_bytes", "gauge", "What the log takes with its indexes; on SQLite the whole file")
LETTERS = Metric(
    "postroom_dead_letters",
    "gauge",
    "Dead letters in the ledger, as it was brought up to date last",
    ("group", "state"),
)
FINGERPRINTS = Metric(
    "postroom_dead_letters_by_fingerprint",
    "gauge",
    "Dead letters to look after by failure: the 20 most frequent, the rest as other",
    ("group", "fingerprint"),
)
LEDGER = Metric(
    "postroom_dead_letters_ledger_age_seconds",
    "gauge",
    "Since the ledger of dead letters was brought up to date (postroom dlq); absent where it never was",
)
ASIDE = Metric(
    "postroom_inbox_held_messages",
    "gauge",
    "Held messages: to be tried again (retry), behind one of their key (behind), behind a dead letter (dead-letter)",
    ("group", "topic", "state"),
)
ASIDE_OLDEST = Metric(
    "postroom_inbox_held_oldest_seconds", "gauge", "For how long the oldest held message waits", ("group", "topic")
)
BEHIND = Metric(
    "postroom_inbox_lag_messages",
    "gauge",
    "Records up to the topic's end that the group has not committed; the same from each member",
    ("group", "topic"),
)
ANSWERS = Metric(
    "postroom_tables_up", "gauge", "1 if these tables could be read within the last minute, else 0", ("tables",)
)
BUILD = Metric("postroom_build_info", "gauge", "1, labelled by what runs", ("version", "python", "service"))
OF_OUTBOX = (BACKLOG, OLDEST, WAITING, SCHEDULED, STOPPED, STOPPED_TOPICS, ORPHANS, WRITER, HORIZON, SIZE)
OF_LETTERS = (LETTERS, FINGERPRINTS)
OF_LEDGER = (LEDGER,)
OF_HELD = (ASIDE, ASIDE_OLDEST)
OF_KAFKA = (BEHIND,)
OF_TABLES = (*OF_OUTBOX, *OF_LETTERS, *OF_LEDGER, *OF_HELD)
OF_DAEMON = (ANSWERS, BUILD)

_EVERY = 5.0
#: Of Kafka: a question about a group goes to all brokers that lead a partition of its topics.
EVERY_OF_KAFKA = 10.0
_SHARE = 20
_WAIT = 2.0
_TOO_OLD = 60.0
_TOP = 20
#: The patience with one query.
PATIENCE = 10.0
Look = Callable[[], Readings]


def build(service: str) -> Readings:
    """Which version runs."""
    readings = Readings((BUILD,))
    readings.set(BUILD, 1, __version__, platform.python_version(), service)
    return readings


class Looks:
    """``Readings`` as ``looks`` take them by name; see above. Thread-safe. ``up`` shows which could be taken."""

    def __init__(
        self,
        looks: Mapping[str, Look],
        clock: Callable[[], float] = time.monotonic,
        *,
        every: float = _EVERY,
        up: Metric | None = ANSWERS,
    ) -> None:
        self._looks = looks
        self._clock = clock
        self._every = every
        self._up = up
        self._lock = Lock()
        self._running: Event | None = None
        self._found: dict[str, tuple[Readings, float]] = {}
        self._again_at = float("-inf")

    def begin(self) -> Event | None:
        """Look again, if it is time; what is set when that has ended."""
        with self._lock:
            if self._looks and self._running is None and self._clock() >= self._again_at:
                self._running = Event()
                Thread(target=self._refresh, args=(self._running,), name="postroom-metrics", daemon=True).start()
            return self._running

    def readings(self, until: float | None = None) -> list[Readings]:
        """As they are now, or were a few seconds ago. Blocks for two seconds at the most, or ``until`` then."""
        running = self.begin()
        if running is not None:
            running.wait(_WAIT if until is None else max(0.0, until - self._clock()))
        with self._lock:
            now = self._clock()
            found = {name: readings for name, (readings, at) in self._found.items() if now - at <= _TOO_OLD}
        if self._up is None:
            return list(found.values())
        answers = Readings((self._up,))
        for name in self._looks:
            answers.set(self._up, float(name in found), name)
        return [answers, *found.values()]

    def _refresh(self, ended: Event) -> None:
        began = self._clock()
        found: dict[str, tuple[Readings, float]] = {}
        try:
            for name, look in self._looks.items():
                with suppress(Exception):  # the daemon's own log tells why the database is away
                    found[name] = look(), self._clock()
        finally:
            now = self._clock()
            with self._lock:
                self._found = found
                self._again_at = now + max(self._every, _SHARE * (now - began))
                self._running = None
            ended.set()


def taken(*looks: Looks) -> list[Readings]:
    """The readings of all, taken beside each other. Blocks for two seconds at the most."""
    until = time.monotonic() + _WAIT
    for each in looks:
        each.begin()
    return [readings for each in looks for readings in each.readings(until)]


def of_outbox(store: "LogStore", statistics: Statistics) -> Look:
    """What waits in the outbox. ``store`` is used by this alone."""

    def look() -> Readings:
        readings = Readings(OF_OUTBOX)
        backlog = store.backlog()
        readings.set(BACKLOG, backlog.messages)
        readings.set(OLDEST, backlog.oldest_seconds)
        readings.set(WRITER, max((each.age for each in store.open_transactions(0)), default=0.0))
        readings.set(HORIZON, statistics.oldest_transaction())
        readings.set(SIZE, statistics.log_bytes())
        for row in statistics.parked():
            counts = {"refused": row.refused, "behind": row.waiting, "topic": row.waiting_for_topic}
            for state, count in counts.items():
                readings.add(WAITING, row.topic, state, by=count)
        readings.set(SCHEDULED, statistics.scheduled().count)
        everything, *topics = statistics.controls()
        readings.set(STOPPED, float(everything.paused is not None))
        readings.set(STOPPED_TOPICS, len(topics))
        held = [shard.owner is not None and (shard.lease_seconds or -1) > 0 for shard in statistics.shards()]
        readings.set(ORPHANS, held.count(False))
        return readings

    return look


def of_dead_letters(statistics: Statistics) -> Look:
    """What the ledger has."""

    def look() -> Readings:
        age = statistics.ledger_age()
        readings = Readings(OF_LETTERS if age is None else OF_LETTERS + OF_LEDGER)
        if age is not None:
            readings.set(LEDGER, age)
        for row in statistics.dead_letters():
            readings.set(LETTERS, row.count, row.group, row.label)
        for row in statistics.fingerprints(_TOP):
            readings.add(FINGERPRINTS, row.group, row.label or OTHER, by=row.count)
        return readings

    return look


def of_held(statistics: Statistics) -> Look:
    """What waits in the table of held messages, of every group."""

    def look() -> Readings:
        readings, now = Readings(OF_HELD), datetime.now(UTC)
        oldest: dict[tuple[str, str], float] = {}
        for row in statistics.held():
            readings.set(ASIDE, row.count, row.group, row.topic, row.state)
            age = max(0.0, (now - row.oldest_at).total_seconds())
            oldest[row.group, row.topic] = max(age, oldest.get((row.group, row.topic), 0.0))
        for (group, topic), age in oldest.items():
            readings.set(ASIDE_OLDEST, age, group, topic)
        return readings

    return look


def of_lag(lagging: "Lagging", group: str, topics: Sequence[str]) -> Look:
    """How far a group is behind, by the offsets that it committed. ``lagging`` is used by this alone."""

    def look() -> Readings:
        lags, error = lagging.measure({group: topics}, named_only=True)
        if error is not None:
            raise KafkaUnavailable(error)
        readings = Readings(OF_KAFKA)
        for topic, lag in lags[group].items():
            readings.set(BEHIND, lag.messages, group, topic)
        return readings

    return look


def catalogue() -> Mapping[str, tuple[Metric, ...]]:
    """Every metric, by who serves it."""
    from ..inbox.metrics import METRICS as OF_INBOX
    from ..relay.metrics import METRICS as OF_RELAY

    return {
        "Every daemon": OF_DAEMON,
        "`relay run`, `inbox run --relay`": OF_RELAY,
        "`inbox run`": OF_INBOX,
        "`relay run`, `inbox run --relay`: the tables of the outbox": OF_OUTBOX,
        "Every daemon: the ledger of dead letters": OF_LETTERS + OF_LEDGER,
        "`inbox run`: the table of held messages": OF_HELD,
        "`inbox run`: Kafka": OF_KAFKA,
    }
