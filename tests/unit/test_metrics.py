"""Metrics: what is counted, how it is shown, and that no data can make them grow without bound."""

import http.client
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from postroom.cli.health import HealthServer
from postroom.cli.metrics import ANSWERS, BACKLOG, Looks, build, catalogue, taken
from postroom.inbox import Inbox
from postroom.inbox import metrics as of_inbox
from postroom.messaging.errors import DatabaseUnavailable, Interrupted, KafkaUnavailable
from postroom.messaging.health import Health
from postroom.messaging.metrics import MAX_SERIES, Buckets, Metric, Readings
from postroom.messaging.observer import together
from postroom.messaging.prometheus import page
from postroom.relay import metrics as of_relay
from postroom.relay.metrics import RelayMetrics

BY_TOPIC = Metric("things_total", "counter", "Things", ("topic",))
SPREAD = Metric("seconds", "histogram", "How long", (), (1, 10))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Frozen:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0

    def wait(self, event: Event, timeout: float) -> bool:
        return event.is_set()


def values(readings: Readings, metric: Metric) -> dict[tuple[str, ...], Any]:
    return dict(dict(readings.read())[metric])


def shown(*readings: Readings) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page(*readings).decode())
        for sample in family.samples
    }


def everything() -> Readings:
    """Every metric of the catalogue, with a series."""
    all_metrics = [metric for found in catalogue().values() for metric in found]
    readings = Readings(all_metrics)
    for metric in all_metrics:
        labels = ("x",) * len(metric.labels)
        if metric.kind == "histogram":
            readings.observe(metric, 1.0, *labels)
        else:
            readings.set(metric, 1.0, *labels)
    return readings


def test_what_would_be_one_series_too_many_is_added_up_as_other() -> None:
    readings = Readings([BY_TOPIC])
    for number in range(MAX_SERIES + 500):
        readings.add(BY_TOPIC, f"topic-{number}")
    readings.add(BY_TOPIC, "topic-0")
    found = values(readings, BY_TOPIC)
    assert len(found) == MAX_SERIES
    assert found["topic-0",] == 2
    assert found["other",] == 501
    assert sum(found.values()) == MAX_SERIES + 501


def test_a_histogram_counts_each_value_in_the_first_bucket_that_holds_it() -> None:
    readings = Readings([SPREAD])
    for value, weight in ((0.5, 1), (1, 1), (1.1, 3), (99, 1)):
        readings.observe(SPREAD, value, weight=weight)
    assert values(readings, SPREAD) == {(): Buckets([2, 3, 1], 0.5 + 1 + 3.3 + 99)}
    found = shown(readings)
    assert [found["seconds_bucket", (("le", bound),)] for bound in ("1.0", "10.0", "+Inf")] == [2, 5, 6]
    assert found["seconds_count", ()] == 6


def test_a_counter_without_labels_is_there_before_anything_happened() -> None:
    assert shown(Readings([of_relay.FENCED]))["postroom_relay_fenced_total", ()] == 0


def test_label_values_cannot_break_the_format() -> None:
    readings = Readings([BY_TOPIC])
    readings.add(BY_TOPIC, 'a"b\\c\nd')
    assert shown(readings)["things_total", (("topic", 'a"b\\c\nd'),)] == 1


def test_the_names_follow_the_conventions() -> None:
    names = []
    for metric in (metric for found in catalogue().values() for metric in found):
        names.append(metric.name)
        assert metric.name.startswith("postroom_"), metric
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric
        assert metric.text
        assert not metric.text.endswith("."), metric
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric
        assert list(metric.buckets) == sorted(metric.buckets), metric
        assert not metric.name.endswith(("_count", "_sum", "_bucket", "_milliseconds", "_ms")), metric
        if metric.kind == "histogram":
            assert metric.name.endswith(("_seconds", "_messages")), metric
        assert not {"key", "payload", "message_id", "correlation_id"} & set(metric.labels), metric
    assert len(names) == len(set(names))


def test_everything_is_readable_by_a_parser() -> None:
    families = {family.name: family for family in text_string_to_metric_families(page(everything()).decode())}
    for metric in (metric for found in catalogue().values() for metric in found):
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.text)
        assert all({*metric.labels} == {*sample.labels} - {"le"} for sample in family.samples)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (it comes with Prometheus)")
def test_promtool_has_nothing_to_say() -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=page(everything()), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_relays_steps_become_numbers() -> None:
    readings = Readings(of_relay.METRICS)
    observe = RelayMetrics(readings)
    observe("claimed", shards=[0, 1, 2])
    observe("read", count=3, positions=(1, 3))
    observe("published", count=3, positions=(1, 3), topics={"a": 2, "b": 1}, latencies=[0.002, 0.002, 7.0])
    observe("settled", count=4, parked=1)
    observe("parked", topic="b", id="x", position=4, error=KafkaUnavailable("x"))
    observe("interrupted", count=2, error=Interrupted("x"))
    observe("paused", error=KafkaUnavailable("x"), seconds=1.0)
    observe("in_doubt", count=5)
    observe("something new", fact=1)
    found = shown(readings)
    assert found["postroom_relay_shards", ()] == 3
    assert found["postroom_relay_published_messages_total", (("topic", "a"),)] == 2
    assert found["postroom_relay_publish_latency_seconds_bucket", (("le", "0.0025"),)] == 2
    assert found["postroom_relay_publish_latency_seconds_count", ()] == 3
    assert found["postroom_relay_settled_messages_total", ()] == 4
    assert found["postroom_relay_parked_messages_total", (("topic", "b"),)] == 1
    assert found["postroom_relay_retries_total", (("verdict", "retry"),)] == 1
    assert found["postroom_relay_retries_total", (("verdict", "pause"),)] == 1
    assert found["postroom_relay_possible_duplicates_total", ()] == 5
    assert found["postroom_relay_breaker_open", ()] == 1
    observe("resumed")
    observe("fenced", error=KafkaUnavailable("x"))
    assert (shown(readings)["postroom_relay_breaker_open", ()], shown(readings)["postroom_relay_shards", ()]) == (0, 0)


def test_a_spread_of_a_large_batch_stands_for_all_of_it() -> None:
    readings = Readings(of_relay.METRICS)
    RelayMetrics(readings)("published", count=1_001, positions=(1, 2), topics={}, latencies=[0.5] * 31 + [20.0])
    [found] = values(readings, of_relay.LATENCY).values()
    assert sum(found.counts) == 1_001
    assert 31 <= found.counts[of_relay.LATENCY.buckets.index(30)] <= 32


def test_the_state_is_shown_as_it_is_when_somebody_looks() -> None:
    readings, health = Readings(of_relay.METRICS), Health(stuck_seconds=1, hung_seconds=1)
    RelayMetrics(readings).watch(health)
    health.became("paused", "by an operator")
    found = values(readings, of_relay.STATE)
    assert [state for (state,), value in found.items() if value] == ["paused"]
    health.became("running")
    assert values(readings, of_relay.STATE)["paused",] == 0


def test_an_inboxs_steps_become_numbers() -> None:
    inbox = Inbox("billing")

    @inbox.handler("orders")
    def charge(event: Any, ctx: Any) -> None: ...

    readings = Readings(of_inbox.METRICS)
    observe = of_inbox.InboxMetrics(readings, inbox, Frozen())
    name = inbox.handlers[0].name
    place = (("group", "billing"), ("handler", name), ("topic", "orders"))
    before = shown(readings)
    assert before["postroom_inbox_dead_lettered_messages_total", place] == 0
    message = {"topic": "orders", "message_id": "1", "sent_at": NOW - timedelta(seconds=3)}
    observe("received", **message)
    observe("raised", **message, handler=name, attempt=1, seconds=0.2, error=ValueError())
    observe("retried", **message, attempt=1, error=ValueError(), seconds=1.0)
    observe("held", **message, handler=name, attempts=2, behind=4, seconds=1.0)
    observe("applied", **message, handler=name, attempt=2, seconds=0.3)
    observe("handled", **message, handler=name, attempt=2)
    observe("duplicate", **message, handler=name, attempt=1)
    observe("dead_lettered", **message, handler=name, attempts=3, error=ValueError())
    observe("expired", **message, handler=name)
    observe("paused", error=ValueError(), seconds=1.0, handler=name)
    observe("held_back", handler=name, reason="because")
    observe("paused", error=ValueError(), seconds=1.0)
    found = shown(readings)
    told = {
        "handled_messages": 1,
        "duplicate_messages": 1,
        "dead_lettered_messages": 1,
        "expired_messages": 1,
        "put_aside_messages": 5,
        "failed_attempts": 1,
    }
    assert {each: found[f"postroom_inbox_{each}_total", place] for each in told} == told
    assert found["postroom_inbox_handler_duration_seconds_count", place] == 2
    assert found["postroom_inbox_end_to_end_latency_seconds_sum", place] == 3
    assert found["postroom_inbox_arrival_lag_seconds", (("group", "billing"), ("topic", "orders"))] == 3
    of_handler = (("group", "billing"), ("handler", name))
    assert found["postroom_inbox_breaker_open", of_handler] == 1
    assert found["postroom_inbox_handler_paused", of_handler] == 1
    assert found["postroom_inbox_unavailable_total", (("dependency", "database"), ("group", "billing"))] == 1
    observe("resumed", handler=name, failures=1)
    after = shown(readings)
    assert (after["postroom_inbox_breaker_open", of_handler], after["postroom_inbox_handler_paused", of_handler]) == (
        0,
        1,
    )
    observe("resumed", handler=name, reason=None)
    assert shown(readings)["postroom_inbox_handler_paused", of_handler] == 0
    observe("limited", handler=name, limit=10, reason="too many died")
    limited = shown(readings)
    assert limited["postroom_inbox_limited_total", of_handler] == 1
    assert limited["postroom_inbox_handler_paused", of_handler] == 1


def test_several_observers_are_told_in_order() -> None:
    told: list[tuple[int, str, Any]] = []
    together(lambda s, /, **f: told.append((1, s, f)), lambda s, /, **f: told.append((2, s, f)))("step", fact=3)
    assert told == [(1, "step", {"fact": 3}), (2, "step", {"fact": 3})]


class Looked:
    """Counts how often the tables were looked at."""

    def __init__(self) -> None:
        self.at = 0.0
        self.times = 0
        self.error: Exception | None = None
        self.hold: Event | None = None
        self.took = 0.0

    def clock(self) -> float:
        return self.at

    def __call__(self) -> Readings:
        self.times += 1
        if self.hold is not None:
            self.hold.wait(10)
        if self.error is not None:
            raise self.error
        self.at += self.took
        readings = Readings([BACKLOG])
        readings.set(BACKLOG, self.times)
        return readings


def up(tables: Looks) -> tuple[float, float | None]:
    found = shown(*tables.readings())
    return found[ANSWERS.name, (("tables", "outbox"),)], found.get((BACKLOG.name, ()))


def test_the_tables_are_looked_at_every_five_seconds_at_the_most() -> None:
    looked = Looked()
    tables = Looks({"outbox": looked}, looked.clock)
    assert [up(tables), up(tables)] == [(1, 1), (1, 1)]
    looked.at += 4.9
    assert up(tables) == (1, 1)
    looked.at += 0.2
    assert up(tables) == (1, 2)


def test_tables_that_take_long_are_looked_at_less_often() -> None:
    looked = Looked()
    looked.took = 2.0
    tables = Looks({"outbox": looked}, looked.clock)
    up(tables)
    looked.at += 39.0
    up(tables)
    assert looked.times == 1
    looked.at += 2.0
    up(tables)
    assert looked.times == 2


def test_a_database_that_is_away_hides_its_metrics_and_no_others() -> None:
    looked, other = Looked(), Looked()
    tables = Looks({"outbox": looked, "held": other}, looked.clock)
    assert up(tables) == (1, 1)
    looked.error = DatabaseUnavailable("away")
    looked.at += 6
    assert up(tables)[0] == 0
    found = shown(*tables.readings())
    assert found[ANSWERS.name, (("tables", "held"),)] == 1


def test_a_database_that_hangs_holds_no_scrape_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.cli.metrics._WAIT", 0.05)
    looked = Looked()
    tables = Looks({"outbox": looked}, looked.clock)
    assert up(tables) == (1, 1)
    looked.hold = Event()
    try:
        looked.at += 6
        assert up(tables) == (1, 1)  # the last ones, still young
        looked.at += 61
        assert up(tables) == (0, None)
        assert looked.times == 2
    finally:
        looked.hold.set()


def test_kafka_and_the_database_hold_a_scrape_up_together_and_not_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("postroom.cli.metrics._WAIT", 0.3)

    def takes_a_while() -> Readings:
        never.wait(0.1)
        return build("inbox")

    slow, never = Looked(), Event()
    slow.hold = Event()
    looks = [Looks({"outbox": slow}, up=None), Looks({"lag": takes_a_while}, up=None)]
    began = time.monotonic()
    try:
        assert len(taken(*looks)) == 1, "the other one was begun at once"
        assert time.monotonic() - began < 0.55
    finally:
        slow.hold.set()


def test_what_kafka_does_not_tell_is_absent_and_asked_for_seldom() -> None:
    looked = Looked()
    looks = Looks({"lag": looked}, looked.clock, every=10, up=None)
    assert (BACKLOG.name, ()) in shown(*looks.readings())
    looked.error = KafkaUnavailable("away")
    looked.at += 9
    assert (BACKLOG.name, ()) in shown(*looks.readings())
    looked.at += 2
    assert looks.readings() == []
    assert looked.times == 2


def test_metrics_are_served_beside_the_probes() -> None:
    with HealthServer("127.0.0.1:0", {}, lambda: page(build("relay"))) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.request("GET", "/metrics?x")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Content-Type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
        text = answer.read().decode()
        connection.close()
    assert 'postroom_build_info{python="' in text
    assert "process_resident_memory_bytes" in text
