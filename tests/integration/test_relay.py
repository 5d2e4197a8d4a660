"""The relay on real servers: everything committed is published, in order, or parked with a reason."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from postroom.messaging.errors import ConfigurationError, DatabaseUnavailable, SchemaMissing
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.outbox import Message, Outbox, schema
from postroom.outbox.database import open_store
from postroom.outbox.memory import MemoryLog
from postroom.outbox.postgres_reader import PostgresReader
from postroom.relay import Relay, RelaySettings
from postroom.testing.kafka import Broker
from postroom.testing.postgres import Database

QUICK = RelaySettings(upkeep_seconds=0.05, backoff_cap_seconds=0.5, lease_seconds=2)


@pytest.fixture
def relays(workload: Any, steps: Any) -> Iterator[Callable[..., Relay]]:
    """Starts relays, which are stopped after the test."""
    started: list[Relay] = []

    def start(settings: RelaySettings = QUICK, observer: Any = steps, **more: Any) -> Relay:
        relay = Relay(open_store(workload.url), workload.kafka, settings=settings, observer=observer, **more)
        started.append(relay)
        relay.start()
        return relay

    yield start
    for relay in started:
        relay.stop()
    for relay in started:
        assert relay.join(30)


def settled(steps: Any) -> int:
    return sum(facts["count"] for facts in steps.of("settled"))


@pytest.mark.parametrize("batch_size", [2_000, 37])
def test_a_backlog_and_what_comes_after_it_are_published_in_order(
    workload: Any, steps: Any, relays: Callable[..., Relay], eventually: Any, batch_size: int
) -> None:
    workload.publish(500)
    relays(QUICK.model_copy(update={"batch_size": batch_size}))
    eventually(lambda: settled(steps) == 500, "the backlog is settled")
    workload.publish(300, per_transaction=1)
    eventually(lambda: settled(steps) == 800, "the rest is settled")

    workload.check(duplicates=0)
    assert workload.unsettled() == 0


def test_the_records_are_cloudevents_with_the_messages_id(
    workload: Any, steps: Any, relays: Callable[..., Relay]
) -> None:
    outbox = Outbox(source="/shop")
    message = Message(topic=workload.topic, key="k", payload=b"{}", type="shop.order", headers={"tenant": "é"})
    with psycopg.connect(workload.url) as connection:
        outbox.publish(connection, message, correlation_id="c")
    relays()
    steps.await_step("settled")
    reader = workload.kafka.reader()
    (record,) = reader.read(workload.topic)
    reader.close()
    headers = dict(record.headers)

    assert (record.key, record.value) == (b"k", b"{}")
    assert headers.pop("ce_time").endswith(b"Z")
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": str(message.id).encode(),
        "ce_type": b"shop.order",
        "ce_source": b"/shop",
        "ce_subject": b"k",
        "tenant": "é".encode(),
        "correlation_id": b"c",
    }


def test_a_refused_message_is_parked_and_stops_only_its_key_until_it_is_retried(
    workload: Any,
    postroom_real_kafka: Broker,
    steps: Any,
    relays: Callable[..., Relay],
    eventually: Any,
) -> None:
    topics = workload.kafka.topics()
    topics.create(workload.topic, 3, 1, {"max.message.bytes": "3000"})
    topics.close()
    workload.publish(50, keys=5)
    workload.publish(1, keys=1, size=5_000)  # key-0
    workload.publish(50, keys=5)
    relays()
    eventually(lambda: settled(steps) == 101, "all is settled")
    store = open_store(workload.url)
    parked = store.parked()

    assert [len(each.row.payload or b"") > 5_000 for each in parked] == [True] + [False] * 10
    assert {each.row.key for each in parked} == {b"key-0"}
    assert "max.message.bytes" in (parked[0].error or "")
    assert {each.error for each in parked[1:]} == {None}
    arrived = workload.arrived()
    assert len(arrived) == len(set(arrived)) == 90

    workload.publish(5, keys=5)
    eventually(lambda: settled(steps) == 106, "later ones too")
    assert len(store.parked()) == 12, "the next of key-0 waits as well"
    assert store.request_retry([parked[0].row.position]) == 1
    steps.await_step("unparked")
    assert len(store.parked()) == 12, "still too large, parked again"

    reader = workload.kafka.reader()
    reader.close()
    alter_max_message_bytes(postroom_real_kafka, workload.topic, 100_000)

    def published() -> bool:  # the broker takes a while to know its new limit
        store.request_retry([parked[0].row.position])
        return not store.parked()

    eventually(published, "all that waited is published")
    store.close()
    workload.publish(5, keys=5)
    eventually(lambda: settled(steps) == 111, "and the key goes on")

    workload.check(duplicates=0)


def alter_max_message_bytes(broker: Broker, topic: str, size: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size)})])
    admin.close()


def test_with_park_message_the_key_goes_on(
    workload: Any, postroom_real_kafka: Broker, steps: Any, relays: Callable[..., Relay], eventually: Any
) -> None:
    topics = workload.kafka.topics()
    topics.create(workload.topic, 3, 1, {"max.message.bytes": "3000"})
    topics.close()
    workload.publish(1, keys=1, size=5_000)
    workload.publish(20, keys=1)
    settings = QUICK.model_copy(update={"on_refused": "park-message"})
    first = relays(settings)
    eventually(lambda: settled(steps) == 21, "all is settled")
    first.stop()
    assert first.join(30)
    workload.publish(20, keys=1)
    relays(settings)
    eventually(lambda: settled(steps) == 41, "all is settled by the next relay")

    assert [number for _, number in workload.arrived()] == list(range(2, 42))


def test_headers_that_a_plain_insert_left_in_a_wrong_form_park_the_message(
    workload: Any, steps: Any, relays: Callable[..., Relay], eventually: Any
) -> None:
    with psycopg.connect(workload.url) as connection:
        connection.execute(
            "INSERT INTO postroom.outbox (id, topic, key, type, payload, headers) "
            "VALUES (gen_random_uuid(), %s, 'bad', 'x', '', '{\"n\": 5}')",
            [workload.topic],
        )
    workload.publish(10)
    relays()
    eventually(lambda: settled(steps) == 11, "all is settled")
    store = open_store(workload.url)

    assert [(each.row.key, each.error) for each in store.parked()] == [
        (b"bad", "The stored headers must be a JSON object of texts.")
    ]
    store.close()
    workload.check()


def test_an_unknown_topic_parks_its_messages_and_no_others(
    workload: Any, postroom_real_kafka: Broker, steps: Any, eventually: Any, postroom_topic: Callable[[str], str]
) -> None:
    options = {"allow_auto_create_topics": False, "max_block_ms": 1000}
    kafka = connect(KafkaOptions(postroom_real_kafka.bootstrap_servers, options=options))
    topics = kafka.topics()
    topics.create(workload.topic, 2, 1, {})
    topics.close()
    unknown = postroom_topic("unknown")
    with psycopg.connect(workload.url) as connection:
        for number in range(20):
            workload.outbox.publish(connection, Message(topic=unknown, key=str(number), payload=b"1", type="x"))
    workload.publish(100)
    relay = Relay(open_store(workload.url), kafka, settings=QUICK, observer=steps)
    relay.start()
    eventually(lambda: settled(steps) == 120, "all is settled")
    relay.stop()
    assert relay.join(30)
    store = open_store(workload.url)

    assert {(each.row.topic, unknown in (each.error or "")) for each in store.parked()} == {(unknown, True)}
    assert len(store.parked()) == 20
    store.close()
    workload.check()


def test_delayed_messages_are_published_when_they_are_due(
    workload: Any, steps: Any, relays: Callable[..., Relay], eventually: Any
) -> None:
    message = Message(topic=workload.topic, key="k", payload=b"1", type="x")
    due = datetime.now(UTC) + timedelta(seconds=1)
    with psycopg.connect(workload.url) as connection:
        workload.outbox.publish(connection, message, deliver_at=due)
    relays()
    steps.await_step("settled")
    reader = workload.kafka.reader()
    (record,) = reader.read(workload.topic)
    reader.close()

    assert record.timestamp >= due - timedelta(milliseconds=2)
    assert dict(record.headers)["ce_id"] == str(message.id).encode()


def test_without_the_tables_the_relay_says_what_to_do(postroom_postgres: Database, postroom_kafka: Broker) -> None:
    relay = Relay(open_store(postroom_postgres.url), connect(KafkaOptions(postroom_kafka.bootstrap_servers)))
    relay.start()

    with pytest.raises(SchemaMissing, match="postroom init"):
        relay.join(30)


def test_wrong_credentials_end_the_relay_and_are_not_shown(postroom_kafka: Broker, tmp_path: Any) -> None:
    relay = Relay(open_store(f"sqlite:///{tmp_path}/no/such/folder/log.db"), connect(KafkaOptions("127.0.0.1:1")))
    relay.start()

    with pytest.raises(ConfigurationError, match="cannot be opened"):
        relay.join(30)


def test_when_settling_fails_nothing_is_published_again(
    workload: Any, steps: Any, relays: Callable[..., Relay], eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks between the acknowledgement and the settling: the relay remembers what Kafka has."""
    settle = PostgresReader.settle
    broken: list[Any] = []

    def settle_or_break(self: PostgresReader, batches: Any, refusals: Any = ()) -> None:
        if any(batch.rows for batch in batches) and len(broken) < 3:
            broken.append(batches)
            raise DatabaseUnavailable("cut")
        settle(self, batches, refusals)

    monkeypatch.setattr(PostgresReader, "settle", settle_or_break)
    workload.publish(100)
    relays()
    eventually(lambda: settled(steps) == 100, "all is settled")

    assert len(steps.of("paused")) == 3
    workload.check(duplicates=0)


def test_a_stop_right_after_settling_failed_leaves_nothing_to_be_published_again(
    workload: Any, steps: Any, relays: Callable[..., Relay], eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = PostgresReader.settle
    broken: list[Any] = []

    def settle_or_break(self: PostgresReader, batches: Any, refusals: Any = ()) -> None:
        if any(batch.rows for batch in batches) and not broken:
            broken.append(batches)
            first.stop()
            raise DatabaseUnavailable("cut")
        settle(self, batches, refusals)

    monkeypatch.setattr(PostgresReader, "settle", settle_or_break)
    first = relays()
    workload.publish(100)
    assert first.join(30)
    relays()
    eventually(lambda: workload.unsettled() == 0, "all is settled")

    assert broken
    workload.check(duplicates=0)


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
def test_the_other_stores_are_relayed_as_well(
    kind: str, workload: Any, steps: Any, tmp_path: Any, eventually: Any
) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    if kind == "sqlite":
        schema.upgrade(url)
    store = open_store(url) if kind == "sqlite" else MemoryLog()
    entries = []
    for n in range(500):
        key = b"key-%d" % (n % 7)
        workload.sent[key] += 1
        message = Message(topic=workload.topic, key=key, payload=b"%d" % workload.sent[key], type="n")
        entries.append(workload.outbox.entry(message))
    store.append(entries)
    relay = Relay(store, workload.kafka, settings=QUICK.model_copy(update={"batch_size": 60}), observer=steps)
    relay.start()
    eventually(lambda: settled(steps) == 500, "all is settled")
    relay.stop()
    assert relay.join(30)

    workload.check(duplicates=0)
