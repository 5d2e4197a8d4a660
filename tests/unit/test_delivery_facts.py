"""What is told of batches on their way: topics, latencies, doubts, correlation, and a span for each publication."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from postroom.messaging.errors import Interrupted, KafkaUnavailable, PostroomError, RecordTooLarge
from postroom.messaging.records import OutgoingRecord
from postroom.outbox.entry import LogRow
from postroom.outbox.log import Batch
from postroom.relay.delivery import Delivery
from postroom.testing import FakeClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Publishing:
    """A publisher whose next publications have these errors, by index."""

    def __init__(self, *answers: Mapping[int, PostroomError]) -> None:
        self.answers = list(answers)
        self.away = False

    def send(self, records: Sequence[OutgoingRecord]) -> "Published":
        if self.away:
            raise KafkaUnavailable("away")
        return Published(self.answers.pop(0) if self.answers else {})

    def recover(self) -> None: ...

    def close(self, timeout: float) -> None: ...


class Published:
    def __init__(self, errors: Mapping[int, PostroomError]) -> None:
        self._errors = errors

    def wait(self, timeout: float) -> bool:
        return True

    def errors(self) -> Mapping[int, PostroomError]:
        return self._errors


def row(position: int, age: float = 0.0, topic: str = "t", headers: str = "{}", shard: int = 0) -> LogRow:
    return LogRow(shard, position, f"id-{position}", topic, b"k", "x", b"1", headers, NOW - timedelta(seconds=age))


@pytest.fixture
def one(steps: Any) -> Delivery:
    return Delivery(lambda topic: "park-key", steps, FakeClock(NOW))


def test_what_is_published_is_told_by_topic_with_the_age_of_some(one: Delivery, steps: Any) -> None:
    told = Publishing()
    one.take_off(Batch([row(1, 3.0), row(2, 2.0, "u"), row(3, -9.0)]), lambda: told)
    one.take_off(Batch([row(n, 100.0 - n) for n in range(4, 104)]), lambda: told)
    assert one.land()
    few, many = steps.of("published")
    assert few["topics"] == {"t": 2, "u": 1}
    assert few["latencies"] == [3.0, 2.0, 0.0]  # clocks differ; nothing is published before it was written
    assert len(many["latencies"]) == 32
    assert many["latencies"] == sorted(many["latencies"], reverse=True)
    assert many["latencies"][0] - many["latencies"][-1] > 90


def test_a_moment_without_a_time_zone_ends_no_relay(one: Delivery, steps: Any) -> None:
    naive = datetime.now()  # noqa: DTZ005  as somebody may have put it into the table by hand
    one.take_off(Batch([row(1)._replace(created_at=naive)]), Publishing)
    assert one.land()
    assert len(steps.of("published")[0]["latencies"]) == 1


def test_what_gets_no_answer_is_in_doubt(one: Delivery, steps: Any) -> None:
    told = Publishing()
    one.take_off(Batch([row(1), row(2)]), lambda: told)
    one.take_off(Batch([row(3)]), lambda: told)
    answers = iter([True, False])
    one.abandon(lambda publication: next(answers))
    assert steps.of("in_doubt") == [{"count": 1}]


def test_what_kafka_has_of_shards_that_others_settle_is_in_doubt(one: Delivery, steps: Any) -> None:
    told = Publishing()
    one.take_off(Batch([row(1), row(2, shard=1)]), lambda: told)
    one.abandon(lambda publication: True)
    one.keep({1})
    one.keep({1})
    assert steps.of("in_doubt") == [{"count": 1}]


@pytest.mark.parametrize(
    ("headers", "correlation"),
    [
        ("{}", "id-1"),
        ('{"correlation_id": "story"}', "story"),
        ('[["correlation_id", "story"]]', "story"),
        ("7", "id-1"),
    ],
)
def test_a_parked_message_is_told_with_its_correlation(
    one: Delivery, steps: Any, headers: str, correlation: str
) -> None:
    told = Publishing({0: RecordTooLarge("too large")})
    one.take_off(Batch([row(1, headers=headers)]), lambda: told)
    if not one.land():
        one.sort_out(lambda: told, lambda publication: None)
    [parked] = steps.of("parked")
    assert parked["correlation_id"] == correlation


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[tuple[str, Any]]]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield lambda: [(each.name, (each.attributes or {}).get("error.type")) for each in exporter.get_finished_spans()]
    provider.shutdown()


def test_each_publication_has_a_span_that_ends_with_its_error(
    one: Delivery, spans: Callable[[], list[tuple[str, Any]]]
) -> None:
    told = Publishing({1: Interrupted("halted")}, {0: Interrupted("halted")})
    one.take_off(Batch([row(1), row(2)]), lambda: told)
    one.take_off(Batch([row(3)]), lambda: told)
    assert spans() == [], "they are in the air"
    assert not one.land()
    one.sort_out(lambda: told, lambda publication: None)
    interrupted = "postroom.messaging.errors.Interrupted"
    assert spans() == [("send t", interrupted), ("send t", interrupted), ("send t", None)]


def test_no_span_is_left_open_where_nothing_could_be_sent_or_no_answer_came(
    one: Delivery, spans: Callable[[], list[tuple[str, Any]]]
) -> None:
    told = Publishing()
    one.take_off(Batch([row(1)]), lambda: told)
    told.away = True
    with pytest.raises(KafkaUnavailable):
        one.take_off(Batch([row(2)]), lambda: told)
    one.abandon(lambda publication: False)
    assert [error.rsplit(".", 1)[1] for _, error in spans()] == ["KafkaUnavailable", "Interrupted"]
