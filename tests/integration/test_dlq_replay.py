"""A replay on real Kafka and PostgreSQL: each dead letter once, whoever runs it, however often, killed or not."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest

from postroom.messaging.dead_letter import Failure, dead_letter_headers
from postroom.messaging.headers import load
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.ports import Kafka
from postroom.messaging.records import OutgoingRecord, Partition, ReceivedRecord
from postroom.outbox import schema
from postroom.testing.kafka import Broker
from postroom.testing.postgres import Database

LETTERS = 120
BATCH = 10

#: Plans, says so, waits for a line, then replays; what happens on the way is the second argument.
OPERATOR = """
import json, os, signal, sys
from postroom.dlq import Filter, Ledger, find_topics, make_plan, read, run_plan
from postroom.messaging.kafka import KafkaOptions, connect

given = json.loads(sys.argv[1])
at, count, what = given["at"], given["count"], given["what"]
seen = 0

def observe(step, /, **facts):
    global seen
    seen += step == at
    if seen == count and step == at:
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        print("holding", flush=True)
        sys.stdin.readline()

kafka = connect(KafkaOptions(given["servers"], options=given["options"]))
reader, topics = kafka.reader(), kafka.topics()
existing = topics.partitions()
ledger = Ledger(given["url"])
plan = make_plan(read(reader, find_topics(existing, topic=given["topic"]), Filter()), ledger, existing=existing)
print("planned", len(plan.replay), len(plan.already), flush=True)
sys.stdin.readline()
done = run_plan(plan, reader, ledger, actor=given["actor"], batch=given["batch"], observer=observe)
print("done", done.replayed, done.already, flush=True)
reader.close()
topics.close()
ledger.close()
"""


@dataclass
class Desk:
    """Dead letters of one topic, and operators who replay them."""

    url: str
    broker: Broker
    kafka: Kafka
    topic: str
    ids: list[str]

    @contextmanager
    def operator(self, actor: str, at: str = "", count: int = 0, what: str = "") -> Iterator["Operator"]:
        given = {
            "url": self.url,
            "servers": self.broker.bootstrap_servers,
            "options": dict(self.broker.client_config),
            "topic": self.topic,
            "actor": actor,
            "batch": BATCH,
            "at": at,
            "count": count,
            "what": what,
        }
        with subprocess.Popen(
            [sys.executable, "-c", OPERATOR, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield Operator(process)
            finally:
                process.kill()

    def published(self) -> Counter[str]:
        """Message ids in the outbox."""
        with psycopg.connect(self.url) as connection:
            return Counter(str(row[0]) for row in connection.execute("SELECT id FROM postroom.outbox"))

    def recorded(self) -> Counter[str]:
        """Message ids in the audit."""
        with psycopg.connect(self.url) as connection:
            return Counter(row[0] for row in connection.execute("SELECT message_id FROM postroom.dead_letter_action"))


@dataclass
class Operator:
    """A process that replays."""

    process: "subprocess.Popen[str]"

    def says(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def run(self) -> list[str]:
        assert self.says()[0] == "planned"
        self.go_on()
        return self.says()


@pytest.fixture
def desk(postroom_postgres: Database, postroom_kafka: Broker, postroom_topic: Callable[[str], str]) -> Desk:
    schema.upgrade(postroom_postgres.url)
    kafka = connect(KafkaOptions(postroom_kafka.bootstrap_servers, options=dict(postroom_kafka.client_config)))
    topic = postroom_topic("orders")
    now = datetime.now(UTC)
    failure = Failure(ValueError("no stock"), "shop.charge", 5, now, now)
    ids = [str(uuid4()) for _ in range(LETTERS)]
    records = [OutgoingRecord(topic, b"k", b"{}", [])]
    for n, id_ in enumerate(ids):
        original = ReceivedRecord(Partition(topic, 0), n, b"k%d" % (n % 5), b"%d" % n, [("ce_id", id_.encode())], now)
        headers = dead_letter_headers(original, "billing", failure)
        records.append(OutgoingRecord(f"{topic}.billing.dlq", original.key, original.value, headers))
    publisher = kafka.publisher()
    publication = publisher.send(records)
    assert publication.wait(30)
    assert publication.errors() == {}
    publisher.close(5)
    return Desk(postroom_postgres.url, postroom_kafka, kafka, topic, ids)


def once(ids: list[str]) -> Counter[str]:
    return Counter(dict.fromkeys(ids, 1))


def test_run_twice_it_replays_once_in_order_without_the_failure_headers(desk: Desk) -> None:
    with desk.operator("ada") as first:
        assert first.run() == ["done", str(LETTERS), "0"]
    with desk.operator("ada") as second:
        assert second.says() == ["planned", "0", str(LETTERS)]
        second.go_on()
        assert second.says() == ["done", "0", "0"]
    assert desk.published() == desk.recorded() == once(desk.ids)
    with psycopg.connect(desk.url) as connection:
        rows = connection.execute(
            "SELECT topic, key, payload, headers::text FROM postroom.outbox ORDER BY position"
        ).fetchall()
    by_key: dict[bytes, list[int]] = {}
    for topic, key, payload, headers in rows:
        assert topic == desk.topic
        by_key.setdefault(key, []).append(int(payload))
        names = [name for name, _ in load(headers)[0]]
        assert names == ["ce_id", "postroom_replay_count", "postroom_replay_group"]
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    assert len(by_key) == 5


def test_two_operators_with_the_same_plan_replay_each_letter_once(desk: Desk) -> None:
    with desk.operator("ada") as ada, desk.operator("eve") as eve:
        for operator in (ada, eve):
            assert operator.says() == ["planned", str(LETTERS), "0"]
        for operator in (ada, eve):
            operator.go_on()
        done = [operator.says() for operator in (ada, eve)]
    assert [word for word, *_ in done] == ["done", "done"]
    assert sum(int(replayed) for _, replayed, _ in done) == LETTERS
    assert sum(int(already) for *_, already in done) == LETTERS
    assert desk.published() == desk.recorded() == once(desk.ids)


def test_an_operator_waits_for_the_batch_that_another_has_not_committed(
    desk: Desk, eventually: Callable[..., None]
) -> None:
    with desk.operator("ada", at="replaying", count=1, what="hold") as ada, desk.operator("eve") as eve:
        assert ada.run() == ["holding"]
        assert eve.says() == ["planned", str(LETTERS), "0"]
        eve.go_on()
        with psycopg.connect(desk.url, autocommit=True) as connection:
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            eventually(
                lambda: connection.execute(waiting).fetchone() == (1,), "eve waits for ada's transaction", seconds=20
            )
        ada.go_on()
        done = [operator.says() for operator in (ada, eve)]
    assert sum(int(replayed) for _, replayed, _ in done) == LETTERS
    assert desk.published() == desk.recorded() == once(desk.ids)


@pytest.mark.parametrize("step", ["replaying", "replayed"])
def test_killed_in_the_middle_and_run_again_each_letter_is_replayed_once(desk: Desk, step: str) -> None:
    with desk.operator("ada", at=step, count=3, what="kill") as killed:
        assert killed.run() == []
        assert killed.process.wait(30) == -signal.SIGKILL
    batches = 2 if step == "replaying" else 3
    assert desk.published() == desk.recorded()
    assert desk.published().total() == batches * BATCH
    with desk.operator("ada") as again:
        assert again.run() == ["done", str(LETTERS - batches * BATCH), "0"]
    assert desk.published() == desk.recorded() == once(desk.ids)


def test_a_reader_reads_a_topic_again_and_from_anywhere(desk: Desk) -> None:
    """More than one poll takes at once: what the client holds of an earlier read must not be in the way."""
    topic, count = f"{desk.topic}.many", 6_000
    publisher = desk.kafka.publisher()
    publication = publisher.send([OutgoingRecord(topic, b"%d" % n, b"x" * 200, []) for n in range(count)])
    assert publication.wait(60)
    publisher.close(5)
    reader = desk.kafka.reader()
    try:
        bounds = reader.offsets(topic)
        for window in (1_000, count, 600, count):
            start = {number: max(first, end - window) for number, (first, end) in bounds.items()}
            expected = sum(end - start[number] for number, (_, end) in bounds.items())
            assert sum(1 for _ in reader.read(topic, start)) == expected
    finally:
        reader.close()
