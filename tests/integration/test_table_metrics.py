"""The metrics of the tables tell what is in them, on both databases."""

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from postroom.cli.app import App
from postroom.cli.command import COMMON
from postroom.cli.lag import Lagging
from postroom.cli.metrics import (
    ASIDE,
    ASIDE_OLDEST,
    BACKLOG,
    BEHIND,
    FINGERPRINTS,
    HORIZON,
    LEDGER,
    LETTERS,
    OLDEST,
    ORPHANS,
    SIZE,
    STOPPED,
    STOPPED_TOPICS,
    WAITING,
    WRITER,
    of_dead_letters,
    of_held,
    of_lag,
    of_outbox,
)
from postroom.cli.statistics import Statistics
from postroom.dlq import Ledger
from postroom.inbox.delivery import Delivery
from postroom.inbox.held import HeldTable, Hold
from postroom.messaging.errors import KafkaUnavailable
from postroom.messaging.kafka import connect
from postroom.messaging.metrics import Metric, Readings
from postroom.messaging.records import OutgoingRecord, Partition, ReceivedRecord
from postroom.outbox import Message, Names, Outbox, schema
from postroom.outbox.database import open_store, parse_url
from postroom.outbox.log import Refusal
from postroom.outbox.postgres import PostgresLog
from postroom.testing.kafka import Broker


@pytest.fixture(params=["postgres", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url: str = (
        request.getfixturevalue("postroom_postgres").url
        if request.param == "postgres"
        else f"sqlite:///{tmp_path / 'log.db'}"
    )
    schema.upgrade(url)
    return url


def values(readings: Readings, metric: Metric) -> dict[tuple[str, ...], Any]:
    return dict(dict(readings.read()).get(metric, {}))


def entries(topic: str, count: int) -> list[Any]:
    outbox = Outbox(source="/test")
    return [outbox.entry(Message(topic=topic, key=b"k", payload=b"x", type="n")) for _ in range(count)]


def test_what_waits_in_the_outbox(url: str) -> None:
    store, statistics = open_store(url), Statistics(url, Names(), patience=10)
    look = of_outbox(store, statistics)
    store.append([*entries("a", 3), *entries("b", 2)])
    found = look()
    assert values(found, BACKLOG) == {(): 5}
    assert 0 < values(found, OLDEST)[()] < 60
    assert values(found, SIZE)[()] > 0
    assert values(found, ORPHANS)[()] > 0
    assert (values(found, STOPPED)[()], values(found, STOPPED_TOPICS)[()]) == (0, 0)

    reader = store.reader("relay", 60)
    reader.claim()
    batch = reader.read(10)
    refused, *behind = [row for row in batch.rows if row.topic == "a"]
    refusals = [Refusal(refused, "too large"), *(Refusal(row, None) for row in behind)]
    reader.settle([batch], refusals)
    store.pause(None, "because", "me")
    store.pause("b", "because", "me")
    found = look()
    assert values(found, BACKLOG) == {(): 0}
    assert values(found, ORPHANS)[()] == 0
    assert values(found, WAITING) == {("a", "refused"): 1, ("a", "behind"): 2, ("a", "topic"): 0}
    assert (values(found, STOPPED)[()], values(found, STOPPED_TOPICS)[()]) == (1, 1)
    reader.close()
    store.close()


def test_open_transactions_are_seen(postroom_postgres: Any) -> None:
    schema.upgrade(postroom_postgres.url)
    store = open_store(postroom_postgres.url)
    assert isinstance(store, PostgresLog)
    look = of_outbox(store, Statistics(postroom_postgres.url, Names(), patience=10))
    with psycopg.connect(postroom_postgres.url) as reading, psycopg.connect(postroom_postgres.url) as writing:
        reading.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reading.execute("SELECT 1")
        first = look()
        assert values(first, HORIZON)[()] > 0
        assert values(first, WRITER)[()] == 0
        writing.execute("DELETE FROM postroom.outbox")
        second = look()
        assert values(second, HORIZON)[()] > values(first, HORIZON)[()]
        assert 0 < values(second, WRITER)[()] < values(second, HORIZON)[()]
    store.close()


def test_how_far_a_group_is_behind(postroom_kafka: Broker, postroom_topic: Callable[[str], str]) -> None:
    topic, absent, group = postroom_topic("lag"), postroom_topic("absent"), postroom_topic("group")
    kafka = connect(postroom_kafka.options_for())
    publisher = kafka.publisher()
    sent = publisher.send([OutgoingRecord(topic, b"k", b"%d" % n, []) for n in range(20)])
    assert sent.wait(30)
    publisher.close(5)

    def lagging(address: str, **options: Any) -> Lagging:
        app = App()
        options = {**postroom_kafka.client_config, **options}
        given = {"kafka_bootstrap_servers": address, "assignments": [f"kafka_options={json.dumps(options)}"]}
        app.take({**dict.fromkeys(COMMON), **given})
        return Lagging(app)

    with closing(lagging(postroom_kafka.bootstrap_servers)) as there:
        look = of_lag(there, group, [topic, absent])
        assert values(look(), BEHIND) == {(group, topic): 20}, "nothing of a topic that nobody made"
        consumer = kafka.consumer(group, [topic], on_assigned=lambda _: None, on_revoked=lambda _: None)
        read: list[Any] = []
        while len(read) < 20:
            read += consumer.poll(1.0, 100)
        consumer.commit({read[12].partition: read[12].offset + 1})
        consumer.close()
        assert values(look(), BEHIND) == {(group, topic): 7}
        topics = kafka.topics()
        assert absent not in topics.partitions(), "asking makes none"
        topics.close()
    with closing(lagging("127.0.0.1:1", bootstrap_timeout_ms=300)) as away, pytest.raises(KafkaUnavailable):
        of_lag(away, group, [topic])()


def test_held_messages_by_topic_and_state(url: str) -> None:
    records = [
        ReceivedRecord(Partition("orders", 0), offset, b"k", b"x", [("ce_id", b"%d" % offset)], datetime.now(UTC))
        for offset in range(3)
    ]
    soon = datetime.now(UTC) + timedelta(hours=1)
    holds = [Hold(delivery=Delivery.of(records[0]), state="retry", handler="h", attempts=1, next_attempt_at=soon)]
    holds += [Hold(delivery=Delivery.of(each), state="behind") for each in records[1:]]
    engine = sa.create_engine(parse_url(url))
    with engine.begin() as connection:
        HeldTable("billing", Names()).hold(connection, holds)
    engine.dispose()
    found = of_held(Statistics(url, Names()))()
    assert values(found, ASIDE) == {("billing", "orders", "retry"): 1, ("billing", "orders", "behind"): 2}
    assert 0 <= values(found, ASIDE_OLDEST)["billing", "orders"] < 60


def test_dead_letters_by_state_and_the_most_frequent_failures(url: str) -> None:
    look = of_dead_letters(Statistics(url, Names()))
    assert (values(look(), LETTERS), values(look(), LEDGER)) == ({}, {})
    ledger = Ledger(url)
    number = 0

    def letters(connection: sa.Connection, group: str | None, fingerprint: str, state: str, count: int) -> None:
        nonlocal number
        for _ in range(count):
            number += 1
            row = {
                "dead_letter_topic": "t.dlq",
                "partition": 0,
                "offset": number,
                "written_at": datetime.now(UTC),
                "family": "postroom",
                "message_id": str(number),
                "inbox_id": str(number),
                "consumer_group": group,
                "failed_at": datetime.now(UTC),
                "fingerprint": fingerprint,
                "order_partition": 0,
                "order_offset": number,
            }
            made = connection.execute(sa.insert(ledger.tables.fact).values(**row))
            if state != "dead":  # without a row of its own it is
                assert made.inserted_primary_key is not None
                letter = made.inserted_primary_key[0]
                connection.execute(sa.insert(ledger.tables.state).values(id=letter, state=state))

    with ledger.changing() as work:
        letters(work.connection, "billing", "often", "dead", 3)
        letters(work.connection, "billing", "often", "confirmed", 2)
        letters(work.connection, None, "foreign", "quarantined", 2)
        for rare in range(25):
            letters(work.connection, "billing", f"rare-{rare:02}", "dead", 1)
        source = {"dead_letter_topic": "t.dlq", "partition": 0, "next_offset": number}
        work.connection.execute(sa.insert(ledger.tables.source).values(**source))
    ledger.close()

    found = look()
    assert values(found, LETTERS) == {
        ("billing", "dead"): 28,
        ("billing", "confirmed"): 2,
        ("", "quarantined"): 2,
    }
    by = values(found, FINGERPRINTS)
    assert (by["billing", "often"], by["", "foreign"], by["billing", "other"]) == (3, 2, 7)
    assert len(by) == 21
    assert 0 <= values(found, LEDGER)[()] < 60
