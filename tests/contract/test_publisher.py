"""What every Kafka client guarantees behind the publisher's port."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from postroom.messaging.errors import (
    ConfigurationError,
    Interrupted,
    KafkaUnavailable,
    RecordTooLarge,
    UnknownTopic,
)
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.ports import Kafka, Publisher
from postroom.messaging.records import OutgoingRecord
from postroom.testing.kafka import Broker


def kafka_at(broker: Broker, **options: object) -> Kafka:
    return connect(KafkaOptions(broker.bootstrap_servers, options={**broker.client_config, **options}))


@pytest.fixture
def kafka(postroom_kafka: Broker) -> Kafka:
    return kafka_at(postroom_kafka)


@pytest.fixture
def publisher(kafka: Kafka) -> Iterator[Publisher]:
    publisher = kafka.publisher()
    yield publisher
    publisher.close(5)


def record(topic: str, value: str | bytes, key: str = "k") -> OutgoingRecord:
    payload = value.encode() if isinstance(value, str) else value
    return OutgoingRecord(topic, key.encode(), payload, [("h", b"\x00\xff")])


def values(kafka: Kafka, topic: str) -> list[bytes]:
    reader = kafka.reader()
    try:
        return [received.value or b"" for received in reader.read(topic)]
    finally:
        reader.close()


def send(publisher: Publisher, *records: OutgoingRecord) -> dict[int, Exception]:
    publication = publisher.send(records)
    assert publication.wait(30)
    return dict(publication.errors())


def test_records_of_a_key_are_appended_in_order_as_they_are(
    kafka: Kafka, publisher: Publisher, postroom_topic: Callable[[str], str]
) -> None:
    topic = postroom_topic("plain")
    assert send(publisher, *(record(topic, str(n)) for n in range(100))) == {}
    assert send(publisher, OutgoingRecord(topic, b"\x00", None, [])) == {}
    reader = kafka.reader()
    received = list(reader.read(topic))
    offsets = reader.offsets(topic)
    reader.close()

    keyed = [each for each in received if each.key == b"k"]
    assert [each.value for each in keyed] == [str(n).encode() for n in range(100)]
    assert keyed[0].headers == [("h", b"\x00\xff")]
    assert [(each.key, each.value) for each in received if each.key != b"k"] == [(b"\x00", None)]
    assert sum(after - first for first, after in offsets.values()) == 101


def test_nothing_of_a_partition_is_appended_behind_a_refused_record_and_nothing_is_doubled(
    postroom_real_kafka: Broker, postroom_topic: Callable[[str], str]
) -> None:
    """The first of a batch is refused by the broker, and what follows must not overtake it."""
    kafka = kafka_at(postroom_real_kafka)
    topics, publisher = kafka.topics(), kafka.publisher()
    strict, free = postroom_topic("strict"), postroom_topic("free")
    assert topics.create(strict, 3, 1, {"max.message.bytes": "2000"})
    assert topics.create(free, 3, 1, {})
    wanted = []
    for n in range(300):
        wanted += [record(strict, f"{n}", key=f"k{n % 5}"), record(free, f"{n}", key=f"k{n % 5}")]
    wanted.insert(100, record(strict, b"x" * 5000, key="k3"))

    refused, waiting, rounds = [], wanted, 0
    while waiting:
        errors = send(publisher, *waiting)
        refused += [waiting[i] for i, error in errors.items() if isinstance(error, RecordTooLarge)]
        before = len(waiting)
        waiting = [waiting[i] for i, error in sorted(errors.items()) if isinstance(error, Interrupted)]
        overtaken = {waiting[0].key} if waiting else set()
        rounds += 1
        assert len(waiting) < before
        assert rounds < 5, overtaken

    assert [len(each.value or b"") for each in refused] == [5000]
    for topic in (strict, free):
        got = values(kafka, topic)
        assert sorted(map(int, got)) == list(range(300)), "each once"
        for key in range(5):
            mine = [int(value) for value in got if int(value) % 5 == key]
            assert mine == sorted(mine)
    publisher.close(5)
    topics.close()


def test_a_record_over_the_clients_limit_is_refused_before_it_is_sent(
    kafka: Kafka, publisher: Publisher, postroom_topic: Callable[[str], str]
) -> None:
    topic = postroom_topic("large")
    errors = send(publisher, record(topic, "1"), record(topic, b"x" * 2_000_000), record(topic, "2"))

    assert isinstance(errors.pop(1), RecordTooLarge)
    assert isinstance(errors.pop(2), Interrupted)
    assert errors == {}
    assert send(publisher, record(topic, "2")) == {}
    assert values(kafka, topic) == [b"1", b"2"]


def test_an_unknown_topic_is_told_apart_from_an_absent_broker(
    postroom_real_kafka: Broker, postroom_topic: Callable[[str], str]
) -> None:
    kafka = kafka_at(postroom_real_kafka, allow_auto_create_topics=False, max_block_ms=1500)
    known, unknown = postroom_topic("known"), postroom_topic("unknown")
    topics = kafka.topics()
    topics.create(known, 1, 1, {})
    topics.close()
    publisher = kafka.publisher()

    errors = send(publisher, record(known, "1"), record(unknown, "2"), record(known, "3"))

    assert {index: type(error) for index, error in errors.items()} == {1: UnknownTopic, 2: Interrupted}
    assert unknown in str(errors[1])
    publisher.close(5)


def test_an_absent_broker_is_unavailable() -> None:
    with pytest.raises(KafkaUnavailable, match="Kafka does not answer"):
        connect(KafkaOptions("127.0.0.1:1", options={"bootstrap_timeout_ms": 500})).publisher()


@pytest.mark.parametrize("part", ["publisher", "consumer", "reader", "topics"])
def test_a_connect_that_fails_leaves_no_thread_behind(part: str) -> None:
    """Each try of a long outage would leave one."""
    kafka = connect(KafkaOptions("127.0.0.1:1", options={"bootstrap_timeout_ms": 100}))
    hooks: dict[str, Any] = {"on_assigned": list, "on_revoked": list}
    before = set(threading.enumerate())
    with pytest.raises(KafkaUnavailable):
        kafka.consumer("g", ["t"], **hooks) if part == "consumer" else getattr(kafka, part)()

    assert set(threading.enumerate()) <= before


def test_closing_gives_up_what_is_in_flight(postroom_kafka: Broker, postroom_topic: Callable[[str], str]) -> None:
    publisher = kafka_at(postroom_kafka).publisher()
    topic = postroom_topic("paused")
    assert send(publisher, record(topic, "1")) == {}
    postroom_kafka.pause()
    try:
        publication = publisher.send([record(topic, "2")])
        assert not publication.wait(0.2)
        publisher.close(0.2)
        assert publication.wait(5)
    finally:
        postroom_kafka.resume()

    assert {index: type(error) for index, error in publication.errors().items()} == {0: Interrupted}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"acks": 1}, "'acks' cannot be set: every record needs acks='all'"),
        ({"enable_idempotence": False}, "idempotent producer"),
        ({"no_such_option": 1}, "knows no option 'no_such_option'"),
    ],
)
def test_options_that_break_a_promise_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        connect(KafkaOptions("127.0.0.1:1", options=options))


def test_an_unknown_client_is_told_so() -> None:
    with pytest.raises(ConfigurationError, match="'carrier-pigeon' is not known"):
        connect(KafkaOptions("127.0.0.1:1", client="carrier-pigeon"))
