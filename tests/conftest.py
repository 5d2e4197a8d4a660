"""What several tiers of tests share: a workload whose history can be counted."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa

from postroom.inbox import Context, Inbox, InboxRunner, InboxSettings, Received
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.ports import Kafka
from postroom.messaging.records import OutgoingRecord, Partition, ReceivedRecord
from postroom.outbox import Message, Names, Outbox, schema
from postroom.outbox.database import open_store
from postroom.outbox.write import write_psycopg
from postroom.relay import Relay, RelaySettings
from postroom.testing.kafka import Broker
from postroom.testing.postgres import Database


def eventually(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait for ``condition``; it is polled, and the deadline only ends a test that has failed."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.01)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., None]:
    return eventually


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The minute of fire first, the unit tests last, of either the files with most tests first, so that the processes
    end at about the same time."""
    tests = Counter(item.path for item in items)

    def order(item: pytest.Item) -> tuple[object, ...]:
        return item.path.name != "test_chaos.py", item.path.parent.name == "unit", -tests[item.path], item.path

    items.sort(key=order)


@dataclass
class Steps:
    """An observer that remembers, and on which a test can wait."""

    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, step: str, /, **facts: Any) -> None:
        self.seen.append((step, facts))

    def of(self, step: str) -> list[dict[str, Any]]:
        return [facts for name, facts in list(self.seen) if name == step]

    def await_step(self, step: str, count: int = 1, seconds: float = 60.0) -> None:
        eventually(lambda: len(self.of(step)) >= count, f"{count} times {step}; seen {self.seen[-5:]}", seconds)


@pytest.fixture
def steps() -> Steps:
    return Steps()


def _numbered(record: ReceivedRecord) -> tuple[bytes, int]:
    return record.key or b"", int((record.value or b"0").split()[0])


@dataclass
class Workload:
    """Numbered messages by key, and what arrived of them."""

    url: str
    kafka: Kafka
    broker: Broker
    topic: str
    outbox: Outbox = field(default_factory=lambda: Outbox(source="/test", max_payload_bytes=10_000_000))
    sent: Counter[bytes] = field(default_factory=Counter)
    ids: dict[tuple[bytes, int], bytes] = field(default_factory=dict, repr=False)

    def publish(self, count: int, keys: int = 10, size: int = 50, per_transaction: int = 100) -> None:
        """``count`` messages round robin over ``keys``, numbered by key from 1."""
        with psycopg.connect(self.url) as connection:
            entries = []
            for n in range(count):
                key = b"key-%d" % (n % keys)
                self.sent[key] += 1
                payload = b"%d " % self.sent[key] + b"x" * size
                entries.append(self.outbox.entry(Message(topic=self.topic, key=key, payload=payload, type="n")))
                self.ids[key, self.sent[key]] = str(entries[-1].id).encode()
                if len(entries) == per_transaction or n == count - 1:
                    write_psycopg(connection, entries, Names())
                    connection.commit()
                    entries = []

    def records(self) -> list[ReceivedRecord]:
        """What is in the topic, by partition in the order of offsets."""
        reader = self.kafka.reader()
        try:
            return list(reader.read(self.topic))
        finally:
            reader.close()

    def arrived(self) -> list[tuple[bytes, int]]:
        """Key and number of each record in the topic, by partition in the order of offsets."""
        return [_numbered(record) for record in self.records()]

    def check(self, *, duplicates: int = 0) -> int:
        """Nothing lost, at most so many doubled, each key's first deliveries in order. Returns the duplicates."""
        by_key: dict[bytes, list[int]] = defaultdict(list)
        for record in self.records():
            key, number = _numbered(record)
            by_key[key].append(number)
            message_id = dict(record.headers)["ce_id"]
            assert self.ids.get((key, number), message_id) == message_id, "another message's id"
        doubled = 0
        for key, numbers in by_key.items():
            first_seen = list(dict.fromkeys(numbers))
            doubled += len(numbers) - len(first_seen)
            assert first_seen == list(range(1, self.sent[key] + 1)), f"{key!r} is lost or out of order"
        assert sum(len(set(numbers)) for numbers in by_key.values()) == self.sent.total(), "messages are lost"
        assert doubled <= duplicates
        return doubled

    def unsettled(self) -> int:
        store = open_store(self.url)
        try:
            return store.backlog()[0]
        finally:
            store.close()


@pytest.fixture
def workload(postroom_postgres: Database, postroom_kafka: Broker, postroom_topic: Callable[[str], str]) -> Workload:
    schema.upgrade(postroom_postgres.url)
    options = KafkaOptions(postroom_kafka.bootstrap_servers, options=dict(postroom_kafka.client_config))
    return Workload(postroom_postgres.url, connect(options), postroom_kafka, postroom_topic("n"))


@pytest.fixture
def rooms() -> Path:
    """The root of the repository."""
    return Path(__file__).parent.parent


@pytest.fixture
def relay_settings() -> dict[str, Any]:
    """Of relays under test: the shortest lease, and a window of several batches."""
    return {
        "batch_size": 100,
        "max_in_flight": 400,
        "lease_seconds": 2,
        "backoff_cap_seconds": 0.5,
        "shutdown_seconds": 5,
    }


@pytest.fixture
def relays(steps: Steps, relay_settings: dict[str, Any]) -> Iterator[Callable[..., Relay]]:
    """Starts relays of a workload in this process, which are stopped after the test.

    ``kafka`` and ``url`` are other ways to its servers; ``settings`` are added to ``relay_settings``.
    """
    started: list[Relay] = []

    def start(
        of: Workload,
        *,
        kafka: Kafka | None = None,
        url: str = "",
        observer: Any = steps,
        owner: str | None = None,
        **settings: Any,
    ) -> Relay:
        relay = Relay(
            open_store(url or of.url),
            kafka or of.kafka,
            settings=RelaySettings(**{**relay_settings, **settings}),
            observer=observer,
            owner=owner,
        )
        started.append(relay)
        relay.start()
        return relay

    yield start
    for relay in started:
        relay.stop()
    for relay in started:
        assert relay.join(60)


@contextmanager
def _writing(workload: Workload, pause: float, per_transaction: int) -> Iterator[None]:
    stop = Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            while not stop.wait(pause):
                workload.publish(per_transaction, per_transaction=per_transaction)
        except BaseException as error:  # noqa: BLE001  it is raised below
            failed.append(error)

    thread = Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert not failed, failed


@pytest.fixture
def writing() -> Callable[..., Any]:
    """``with writing(workload):`` small transactions, one after the other, the whole time."""

    def start(workload: Workload, pause: float = 0.005, per_transaction: int = 10) -> Any:
        return _writing(workload, pause, per_transaction)

    return start


@dataclass
class Ledger:
    """Numbered messages by key on one topic, and what one group's handlers did: a row for each effect.

    ``orders[key]`` has the numbers sent. A message's id is ``<key>/<number>``, its payload JSON of both.
    """

    url: str
    broker: Broker
    topic: str
    observe: Steps
    settings: dict[str, Any]
    group: str = field(default_factory=lambda: f"ledger-{uuid4().hex[:8]}")
    orders: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    runners: list[InboxRunner] = field(default_factory=list)

    def kafka(self, client: str = "kafka-python", **options: Any) -> Kafka:
        return connect(self.broker.options_for(client, options))

    def create(self, partitions: int, topic: str = "") -> None:
        with closing(self.kafka().topics()) as topics:
            topics.create(topic or self.topic, partitions, 1, {})

    def send(self, count: int, keys: int = 10, topic: str = "") -> None:
        """``count`` messages round robin over ``keys``, numbered by key from 1, each record once."""
        pairs = []
        for n in range(count):
            numbers = self.orders[f"key-{n % keys}"]
            numbers.append(len(numbers) + 1)
            pairs.append((f"key-{n % keys}", numbers[-1]))
        self.put(*(self.record(key, number, topic=topic) for key, number in pairs))

    def record(
        self,
        key: str,
        number: int,
        *,
        keyless: bool = False,
        topic: str = "",
        value: bytes | None = None,
        **headers: str,
    ) -> OutgoingRecord:
        """One message. Those that are put without ``send`` are not in ``orders``."""
        told = {"ce_id": f"{key}/{number}", "ce_type": "n", **headers}
        payload = json.dumps({"key": key, "number": number}).encode() if value is None else value
        pairs = [(name, text.encode()) for name, text in told.items()]
        return OutgoingRecord(topic or self.topic, None if keyless else key.encode(), payload, pairs)

    def put(self, *records: OutgoingRecord) -> None:
        publisher = self.kafka().publisher()
        publication = publisher.send(records)
        assert publication.wait(30)
        assert not publication.errors()
        publisher.close(5)

    def inbox(self, **options: Any) -> Inbox:
        return Inbox(self.group, **options)

    def applying(self, until: Event | None = None) -> Inbox:
        """An inbox whose handler applies each message, once ``until`` is set."""
        inbox = self.inbox()

        @inbox.handler(self.topic)
        def handle(_: Received, ctx: Context) -> None:
            assert until is None or until.wait(60)
            self.apply(ctx)

        return inbox

    def start(
        self, inbox: Inbox, *, kafka: Kafka | None = None, url: str = "", observer: Any = None, **settings: Any
    ) -> InboxRunner:
        """A runner in this process; it is stopped after the test."""
        runner = InboxRunner(
            inbox,
            database_url=url or self.url,
            kafka=kafka or self.kafka(),
            settings=InboxSettings(**{**self.settings, **settings}),
            observer=observer or self.observe,
        )
        self.runners.append(runner)
        runner.start()
        return runner

    @staticmethod
    def apply(ctx: Context) -> None:
        """The effect of the message in hand."""
        key, number = ctx.message_id.split("/")
        statement = sa.text("INSERT INTO effect (key, number) VALUES (:key, :number)")
        ctx.session.execute(statement, {"key": key, "number": int(number)})

    def query(self, sql: str, *params: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(sql.encode(), params).fetchall()

    def execute(self, sql: str, *params: object) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute(sql.encode(), params)

    def effects(self) -> dict[str, list[int]]:
        """The numbers applied by key, in the order in which they were."""
        found: dict[str, list[int]] = defaultdict(list)
        for key, number in self.query("SELECT key, number FROM effect ORDER BY place"):
            found[key].append(number)
        return dict(found)

    def outcomes(self) -> Counter[str]:
        return Counter(outcome for (outcome,) in self.query("SELECT outcome FROM postroom.inbox"))

    def attempts(self, message_id: str) -> int:
        [(attempts,)] = self.query("SELECT attempts FROM postroom.inbox WHERE message_id = %s", message_id)
        return int(attempts)

    def held(self) -> list[tuple[str, str]]:
        """Message and state, in the order of offsets."""
        return self.query('SELECT message_id, state FROM postroom.inbox_held ORDER BY "partition", "offset"')

    def dead_letters(self) -> Counter[str]:
        """By message, as they are on their way to the topic of dead letters."""
        sql = "SELECT headers FROM postroom.outbox WHERE topic LIKE %s"
        rows = self.query(sql, "%.dlq")
        return Counter(str(dict(pairs)["ce_id"]) for (pairs,) in rows)

    def closed(self) -> int:
        [(count,)] = self.query("SELECT count(*) FROM postroom.inbox")
        return int(count)

    def committed(self) -> dict[Partition, int]:
        with closing(self.kafka().topics()) as topics:
            return dict(topics.committed(self.group, [self.topic]))

    def check(self, dead: Sequence[str] = ()) -> None:
        """Each message of ``send`` once, by key in order, but for the dead ones, which have a dead letter each."""
        expected = {
            key: [number for number in numbers if f"{key}/{number}" not in dead] for key, numbers in self.orders.items()
        }
        assert self.effects() == {key: numbers for key, numbers in expected.items() if numbers}
        assert self.dead_letters() == Counter(dead)
        assert self.held() == []


@pytest.fixture
def ledger(
    postroom_postgres: Database, postroom_kafka: Broker, postroom_topic: Callable[[str], str], steps: Steps
) -> Iterator[Ledger]:
    schema.upgrade(postroom_postgres.url)
    settings = {
        "attempts": 3,
        "backoff_base_seconds": 0.01,
        "backoff_cap_seconds": 0.02,
        "outage_base_seconds": 0.05,
        "outage_cap_seconds": 0.2,
        "poll_timeout_seconds": 0.1,
        "keep_alive_seconds": 0.2,
        "control_seconds": 0.1,
    }
    ledger = Ledger(postroom_postgres.url, postroom_kafka, postroom_topic("ledger"), steps, settings)
    ledger.execute("CREATE TABLE effect (place bigserial, key text, number integer)")
    yield ledger
    for runner in ledger.runners:
        runner.stop()
    for runner in ledger.runners:
        assert runner.join(30)
