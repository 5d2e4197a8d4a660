"""``verify``: each finding is made by hand, on a real log and a real topic, and told for what it is."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from kafka import KafkaAdminClient, TopicPartition

from postroom.messaging.dead_letter import REPLAY_COUNT
from postroom.messaging.envelope import REPLAY
from postroom.messaging.errors import ConfigurationError, RecordTooLarge, UsageError
from postroom.messaging.kafka import connect
from postroom.messaging.partitioner import positive_hash
from postroom.messaging.ports import Kafka, Publisher
from postroom.messaging.records import OutgoingRecord
from postroom.outbox import Message, Outbox, schema
from postroom.outbox.archive import Wanted
from postroom.outbox.database import open_store
from postroom.outbox.entry import Entry, LogRow
from postroom.outbox.log import LogStore, Refusal
from postroom.outbox.verification import TopicResult, Verification, verify
from postroom.outbox.verification.log_side import LogSide
from postroom.testing.kafka import Broker

OUTBOX = Outbox(source="/test")
COUNTS = [name for name in TopicResult.__slots__ if name not in ("topic", "notes")]


@dataclass
class Scene:
    """A log and a topic, which a test fills as no relay would."""

    url: str
    kafka: Kafka
    broker: Broker
    topic: str
    store: LogStore
    publisher: Publisher

    def create(self, partitions: int = 4, **config: str) -> None:
        with closing(self.kafka.topics()) as topics:
            assert topics.create(self.topic, partitions, 1, {name.replace("_", "."): v for name, v in config.items()})

    def grow(self, partitions: int) -> None:
        with closing(KafkaAdminClient(bootstrap_servers=self.broker.bootstrap_servers)) as admin:
            admin.create_partitions({self.topic: partitions})
        self.publisher.close(5)
        self.publisher = self.kafka.publisher()  # which knows of them

    def write(self, *payloads: bytes | None, key: bytes | None = b"k", topic: str = "") -> list[LogRow]:
        """One transaction; the rows, not settled."""
        self.append(*(entry(topic or self.topic, key, payload) for payload in payloads))
        return self.unsettled()

    def append(self, *entries: Entry) -> None:
        self.store.append(entries)

    def unsettled(self) -> list[LogRow]:
        with closing(self.store.reader("looking", 60)) as reader:
            reader.claim()
            rows = list(reader.read(10_000).rows)
            reader.release()
            return rows

    def settle(self, *refusals: Refusal) -> list[LogRow]:
        """All that there is, whether it was published or not."""
        with closing(self.store.reader("settling", 60)) as reader:
            reader.claim()
            batch = reader.read(10_000)
            reader.settle([batch], refusals)
            reader.release()
            return list(batch.rows)

    def settled(self, *payloads: bytes | None, key: bytes | None = b"k") -> list[LogRow]:
        self.write(*payloads, key=key)
        return self.settle()

    def put(self, *records: OutgoingRecord | LogRow) -> None:
        """Into Kafka, one after the other."""
        for record in records:
            publication = self.publisher.send([record.record() if isinstance(record, LogRow) else record])
            assert publication.wait(30)
            assert not publication.errors()

    def verify(self, **options: Any) -> Verification:
        return verify(self.url, self.kafka, **options)

    def found(self, **options: Any) -> tuple[dict[str, int], Verification]:
        """The counts of the topic that are not 0."""
        verification = self.verify(**options)
        [result] = [each for each in verification.topics if each.topic == self.topic]
        six = ("arrived", "waiting", "parked", "discarded", "expired", "lost")
        assert result.logged == sum(getattr(result, name) for name in six)
        return {name: getattr(result, name) for name in COUNTS if getattr(result, name)}, verification

    def delete_before(self, offset: int, partition: int) -> None:
        """As Kafka's retention does."""
        with closing(KafkaAdminClient(bootstrap_servers=self.broker.bootstrap_servers)) as admin:
            admin.delete_records({TopicPartition(self.topic, partition): offset})


def entry(topic: str, key: bytes | None, payload: bytes | None) -> Entry:
    return OUTBOX.entry(Message(topic=topic, key=key, payload=payload, type="t"))


@pytest.fixture(params=["postgres"])
def scene(
    request: pytest.FixtureRequest, postroom_real_kafka: Broker, postroom_topic: Callable[[str], str], tmp_path: Any
) -> Iterator[Scene]:
    store_name, _, client = request.param.partition(" ")
    if store_name == "sqlite":
        url = f"sqlite:///{tmp_path / 'log.db'}"
    else:
        url = request.getfixturevalue("postroom_postgres").url
    schema.upgrade(url)
    kafka = connect(postroom_real_kafka.options_for(client or "kafka-python"))
    store = open_store(url)
    scene = Scene(url, kafka, postroom_real_kafka, postroom_topic("v"), store, kafka.publisher())
    yield scene
    scene.publisher.close(5)
    store.close()


clients = pytest.mark.parametrize("scene", ["postgres", "postgres confluent-kafka"], indirect=True)
stores = pytest.mark.parametrize("scene", ["postgres", "sqlite"], indirect=True)


def key_of(partition: int, of: int = 2) -> bytes:
    return next(key for n in range(100) if positive_hash(key := b"key-%d" % n) % of == partition)


@stores
def test_all_is_well_whatever_keys_and_payloads_there_are(scene: Scene) -> None:
    scene.write(b"1", b"", b"3")
    scene.write(b"other", key=b"")
    scene.write(b"no key", b"nor here", key=None)
    scene.write(None, key=b"\xff\x00 no text")  # a tombstone
    scene.put(*scene.settle())
    counts, verification = scene.found()
    assert counts == {"logged": 7, "arrived": 7}
    assert verification.ok
    assert not verification.examples
    assert scene.found(key=b"k")[0] == {"logged": 3, "arrived": 3}


@clients
def test_what_was_settled_and_never_published_is_lost(scene: Scene) -> None:
    rows = scene.settled(b"1", b"2", b"3")
    scene.put(rows[0], rows[2])
    counts, verification = scene.found()
    assert counts == {"logged": 3, "arrived": 2, "lost": 1}
    assert not verification.ok
    [example] = verification.examples
    assert (example.kind, example.position, example.id, example.key) == ("lost", rows[1].position, rows[1].id, b"k")
    assert (example.partition, example.offset) == (None, None)


def test_what_is_there_twice_is_doubled_and_no_loss_and_no_disorder(scene: Scene) -> None:
    rows = scene.settled(b"1", b"2", b"3")
    scene.put(*rows, *rows[1:])
    counts, verification = scene.found()
    assert counts == {"logged": 3, "arrived": 3, "doubled": 2}
    assert verification.ok
    assert verification.doubled == 2
    assert {example.position for example in verification.examples} == {row.position for row in rows[1:]}


def test_the_first_arrivals_of_a_key_are_held_to_its_order_and_other_keys_are_not(scene: Scene) -> None:
    scene.write(b"1", b"2", b"3")
    rows = scene.write(b"other", key=b"other")
    scene.settle()
    one, two, three, other = rows
    scene.put(other, one, three, two, three)
    counts, verification = scene.found()
    assert counts == {"logged": 4, "arrived": 4, "disordered": 1, "doubled": 1}
    [example] = [each for each in verification.examples if each.kind == "disordered"]
    assert (example.position, example.after) == (two.position, three.position)
    assert example.partition is not None
    assert example.offset is not None


def test_another_content_under_the_same_id_is_altered(scene: Scene) -> None:
    scene.create(1)
    rows = scene.settled(b"1", b"2", b"3")
    _, value, key = records = [row.record() for row in rows]
    scene.put(records[0], value._replace(value=b"changed"), key._replace(key=b"changed"))
    counts, verification = scene.found()
    assert counts == {"logged": 3, "arrived": 3, "altered": 2}
    assert {(each.kind, each.position) for each in verification.examples} == {
        ("altered", rows[1].position),
        ("altered", rows[2].position),
    }
    scene.put(value, key)  # the true ones after all
    assert scene.found()[0] == {"logged": 3, "arrived": 3, "altered": 2}


def test_other_headers_alone_are_not_altered(scene: Scene) -> None:
    """Debezium may have published it, or an older version."""
    [row] = scene.settled(b"1")
    record = row.record()
    scene.put(record._replace(headers=[("via", b"another relay"), *record.headers]))
    assert scene.found()[0] == {"logged": 1, "arrived": 1}


def test_records_of_other_producers_are_foreign_and_those_of_another_time_are_not_counted(scene: Scene) -> None:
    headers = [("ce_id", b"theirs"), ("ce_time", b"2020-01-01T00:00:00Z")]
    rows = scene.settled(b"1")
    scene.put(
        *rows,
        OutgoingRecord(scene.topic, b"k", b"no headers", []),
        OutgoingRecord(scene.topic, b"k", b"odd id", [("ce_id", b"\xff")]),
        OutgoingRecord(scene.topic, None, b"another id", [("ce_id", b"theirs")]),
        OutgoingRecord(scene.topic, b"k", b"long ago", headers),
    )
    counts, verification = scene.found()
    assert counts == {"logged": 1, "arrived": 1, "foreign": 3}
    assert verification.ok


def test_what_no_relay_has_settled_waits_and_may_have_arrived(scene: Scene) -> None:
    scene.settled(b"1")
    rows = scene.write(b"2", b"3")
    scene.put(rows[0])
    scene.put(OutgoingRecord(scene.topic, b"k", b"1", []))
    counts, _ = scene.found()
    assert counts == {"logged": 3, "arrived": 1, "waiting": 1, "lost": 1, "foreign": 1}


def test_a_transaction_that_commits_meanwhile_is_neither_lost_nor_foreign(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.put(*scene.settled(b"1"))
    with psycopg.connect(scene.url) as late:
        OUTBOX.publish(late, Message(topic=scene.topic, key=b"late", payload=b"2", type="t"))
        scene.put(*scene.settled(b"3"))  # behind it in the log
        reader = scene.kafka.reader

        def commit_first() -> Any:
            opened = reader()
            offsets = opened.offsets

            def then(topic: str) -> Any:
                if not late.closed and late.info.transaction_status:
                    late.commit()
                    scene.put(*scene.settle())
                return offsets(topic)

            opened.offsets = then  # type: ignore[method-assign]
            return opened

        monkeypatch.setattr(scene.kafka, "reader", commit_first)
        counts, verification = scene.found(until=datetime.now(UTC) + timedelta(hours=1))
        assert counts == {"logged": 3, "arrived": 3}
        assert verification.ok


@stores
def test_what_kafka_refused_is_parked_and_so_is_what_waits_behind_it_and_later_discarded(scene: Scene) -> None:
    first, second, free = scene.write(b"1", b"2", b"3")
    error = str(RecordTooLarge("too large"))
    scene.settle(Refusal(first, error), Refusal(second, None))
    scene.put(free)
    assert scene.found()[0] == {"logged": 3, "arrived": 1, "parked": 2}
    scene.store.discard([first.position], "ann")
    assert scene.found()[0] == {"logged": 3, "arrived": 1, "parked": 1, "discarded": 1}


def test_a_retried_message_comes_late_where_the_policy_lets_its_key_go_on(scene: Scene) -> None:
    first, second = scene.write(b"1", b"2")
    scene.settle(Refusal(first, "too large"))
    scene.put(second)
    scene.store.request_retry([first.position], "ann")
    scene.put(first)
    scene.store.unpark([first.position])
    assert scene.found(goes_on=lambda topic: topic == scene.topic)[0] == {"logged": 2, "arrived": 2}
    assert scene.found()[0] == {"logged": 2, "arrived": 2, "disordered": 1}


def copies_of(rows: Sequence[LogRow]) -> list[Entry]:
    return [
        Entry.forwarded(
            UUID(row.id), row.topic, row.key, row.type, row.payload, [(REPLAY, b"p"), *row.record().headers]
        )
        for row in rows
    ]


@stores
def test_what_an_operator_published_again_is_replayed_and_not_doubled(scene: Scene) -> None:
    rows = scene.settled(b"1", b"2")
    scene.append(*copies_of(rows))
    copies = scene.settle()
    scene.put(*rows, *copies, copies[0])
    counts, verification = scene.found()
    assert counts == {"logged": 4, "arrived": 4, "replayed": 2, "doubled": 1}
    assert verification.ok


def test_a_lost_message_that_was_published_again_is_lost_no_more_and_a_lost_copy_is(scene: Scene) -> None:
    rows = scene.settled(b"1", b"2")
    scene.put(rows[1])
    assert scene.found()[0]["lost"] == 1
    scene.append(*copies_of(rows))
    copies = scene.settle()
    scene.put(copies[0])
    counts, verification = scene.found()
    assert counts == {"logged": 4, "arrived": 3, "replayed": 1, "lost": 1}
    assert [each.position for each in verification.examples] == [copies[1].position]


def test_dead_letters_of_one_message_have_one_id_and_are_told_apart(scene: Scene) -> None:
    [row] = scene.settled(b"1")
    scene.put(row)
    headers = row.record().headers
    for count in (b"0", b"1"):
        headers_of = [*headers, ("postroom_dlq_replay_count", count)]
        scene.append(Entry.forwarded(UUID(row.id), scene.topic, b"k", "t", b"1", headers_of))
    scene.append(Entry.forwarded(UUID(row.id), scene.topic, b"k", "t", b"1", [*headers, (REPLAY_COUNT, b"1")]))
    first, second, replay = scene.settle()
    scene.put(first, replay)
    counts, verification = scene.found()
    assert counts == {"logged": 4, "arrived": 3, "replayed": 1, "lost": 1}
    assert [each.position for each in verification.examples] == [second.position]


def test_what_retention_deleted_is_expired_and_what_came_after_is_still_lost(scene: Scene) -> None:
    scene.create(2)
    home = positive_hash(b"k") % 2
    rows = scene.settled(b"1", b"2", b"3", b"4")
    scene.put(*rows[:2])
    scene.put(*scene.settled(b"other", key=key_of(1 - home)))
    scene.delete_before(2, home)
    counts, verification = scene.found()
    assert counts == {"logged": 5, "arrived": 1, "expired": 4}
    assert verification.ok
    with psycopg.connect(scene.url) as connection:  # the others were written long before what is still there
        connection.execute(
            "UPDATE postroom.outbox SET created_at = created_at - interval '1 hour' WHERE position = ANY (%s)",
            [[row.position for row in rows[:2]]],
        )
        connection.execute(
            "UPDATE postroom.outbox SET created_at = created_at + interval '1 hour' WHERE position = %s",
            [rows[3].position],
        )
    scene.put(rows[2])
    counts, verification = scene.found()
    assert counts == {"logged": 5, "arrived": 2, "expired": 2, "lost": 1}
    assert [each.position for each in verification.examples] == [rows[3].position]


def test_what_was_deleted_before_its_topic_grew_is_expired_though_its_partition_is_new(scene: Scene) -> None:
    scene.create(1)
    scene.put(*scene.settled(b"1", b"2", key=key_of(1)))
    scene.grow(2)
    scene.delete_before(2, 0)
    assert scene.found()[0] == {"logged": 2, "expired": 2}


def test_a_repetition_whose_first_arrival_was_deleted_is_no_disorder(scene: Scene) -> None:
    scene.create(1)
    rows = scene.settled(b"1", b"2", b"3")
    scene.put(*rows, *rows[1:])
    scene.delete_before(2, 0)  # leaves 3 2 3
    assert scene.found()[0] == {"logged": 3, "arrived": 2, "expired": 1, "doubled": 1}


def test_in_a_compacted_topic_the_last_of_a_key_alone_is_demanded(scene: Scene) -> None:
    """What compaction takes looks as if it had never been published."""
    scene.create(1, cleanup_policy="compact", delete_retention_ms="60000")
    compacted = scene.settled(b"1", b"2")
    last = scene.settled(b"other", key=b"lost")
    gone = scene.settled(b"3", None, key=b"deleted")
    young = scene.settled(None, key=b"young tombstone")
    scene.put(compacted[1])
    with psycopg.connect(scene.url) as connection:
        connection.execute(
            "UPDATE postroom.outbox SET created_at = created_at - interval '1 hour' WHERE position = ANY (%s)",
            [[row.position for row in gone]],
        )
    counts, verification = scene.found()
    assert counts == {"logged": 6, "arrived": 1, "expired": 3, "lost": 2}
    assert {each.position for each in verification.examples} == {last[0].position, young[0].position}
    scene.put(OutgoingRecord(scene.topic, b"lost", b"by another producer", []))
    assert scene.found()[0]["expired"] == 4


def test_a_key_in_two_partitions_is_misplaced(scene: Scene) -> None:
    scene.create(1)
    key = key_of(1)
    rows = scene.settled(b"1", b"2", b"3", key=key)
    scene.put(*rows[:2])
    scene.grow(2)
    scene.put(rows[2])
    counts, verification = scene.found()
    assert counts == {"logged": 3, "arrived": 3, "misplaced": 2}
    [example] = verification.examples
    assert (example.kind, example.partition, example.key) == ("misplaced", 0, key)


def test_a_topic_that_is_gone_or_was_made_anew_is_told_in_a_sentence(scene: Scene) -> None:
    rows = scene.settled(b"1", b"2")
    counts, verification = scene.found()
    assert counts == {"logged": 2, "lost": 2}
    assert "does not exist" in verification.topics[0].notes[0]
    scene.create(1)
    assert scene.found()[0] == {"logged": 2, "lost": 2}
    assert "empty" in scene.found()[1].topics[0].notes[0]
    scene.put(*scene.settled(b"3"))
    counts, verification = scene.found()
    assert counts == {"logged": 3, "arrived": 1, "lost": 2}
    assert "made anew" in verification.topics[0].notes[0]
    scene.put(*rows)
    assert not scene.found()[1].topics[0].notes


def test_a_topic_of_which_nothing_was_published_may_be_missing(scene: Scene) -> None:
    scene.write(b"1")
    counts, verification = scene.found()
    assert counts == {"logged": 1, "waiting": 1}
    assert verification.ok
    assert "nothing of it was published" in verification.topics[0].notes[0]
    with pytest.raises(UsageError, match="Neither the log"):
        scene.verify(topics=["no-such-topic"])


@clients
def test_a_window_looks_at_what_was_written_in_it(scene: Scene) -> None:
    """And only at records since then, whose timestamps agree with the log's."""
    old = scene.settled(b"1", b"2")
    between = datetime.now(UTC)
    while datetime.now(UTC) <= between + timedelta(milliseconds=2):
        pass
    new = scene.settled(b"3", b"4")
    scene.put(old[0], *new)
    assert scene.found()[0] == {"logged": 4, "arrived": 3, "lost": 1}
    assert scene.found(since=between)[0] == {"logged": 2, "arrived": 2}
    assert scene.found(until=between)[0] == {"logged": 2, "arrived": 1, "lost": 1}
    with pytest.raises(UsageError, match="before it ends"):
        scene.verify(since=between, until=between)


def test_clocks_that_differ_by_hours_lose_nothing(scene: Scene) -> None:
    """The window's first offset is looked up by time; what seems lost is looked for in the whole topic."""
    rows = scene.settled(b"1", b"2")
    with psycopg.connect(scene.url) as connection:
        connection.execute("UPDATE postroom.outbox SET created_at = created_at + interval '3 hours'")
    scene.put(*(row._replace(created_at=row.created_at + timedelta(hours=3)) for row in rows))
    assert scene.found()[0] == {"logged": 2, "arrived": 2}


def test_a_part_of_the_log_that_is_dropped_meanwhile_is_not_missed(scene: Scene) -> None:
    """Neither what was read of it nor what was not."""
    scene.put(*scene.settled(b"1", b"2"))
    with psycopg.connect(scene.url) as connection:
        connection.execute("SELECT setval('postroom.outbox_position', 999999)")
        connection.execute("SELECT postroom.outbox_add_partitions(4, 1000000)")
    scene.put(*scene.settled(b"3"))
    dropped: list[str] = []

    @contextmanager
    def progress(what: str, _: int, /) -> Iterator[Callable[[int], None]]:
        if what.startswith("reading the log"):
            yield lambda _: dropped.extend(scene.store.prune(timedelta(0)))
        else:
            yield lambda _: None

    counts, verification = scene.found(progress=progress)
    assert dropped
    assert counts == {"logged": 3, "arrived": 3}
    assert verification.ok
    assert scene.found()[0] == {"logged": 1, "arrived": 1}


def test_tables_of_another_cluster_are_not_compared(scene: Scene) -> None:
    with psycopg.connect(scene.url) as connection:
        connection.execute("UPDATE postroom.relay_cursor SET cluster = cluster + 1")
    with pytest.raises(ConfigurationError, match="reset-cursor"):
        scene.verify()


def test_the_log_is_read_by_its_primary_key(scene: Scene) -> None:
    """On a table never analysed, and without a long transaction."""
    rows = scene.settled(*(b"%d" % n for n in range(5_000)))
    log = LogSide(scene.url)
    begun = log.begin(None, None)
    assert (begun.after, begun.upto) == (rows[0].position - 1, rows[-1].position)
    with log._transaction() as connection:
        connection.exec_driver_sql(log._sql["plan"])
        query = log._sql["verify_rows"].replace("@", log._sql["browse"].rpartition("ORDER BY")[0])
        params = {**log._params(Wanted(), (1_000, 1_100), payloads=True), "topics": None}
        plans = [row[0] for row in connection.exec_driver_sql(f"EXPLAIN {query}", params)]
        following = [row[0] for row in connection.exec_driver_sql("EXPLAIN " + log._sql["verify_next"], {"after": 5})]
    log.close()
    scanned = [line for line in plans if "outbox_0" in line or "outbox_overflow" in line]
    assert scanned
    assert not [line for line in (*plans, *following) if "Seq Scan on outbox_0" in line], plans
    assert [line for line in plans if "Index Cond" in line and "position" in line]
