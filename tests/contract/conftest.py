"""What the suites of the ports share: each runs over every implementation."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from postroom.dlq import Caught, DeadLetter, Draft, Filter, Ledger, Plan, Ran, catch_up, each, make_plan, run_plan
from postroom.messaging.dead_letter import Failure, dead_letter_headers
from postroom.messaging.errors import UnknownTopic
from postroom.messaging.headers import HeaderPairs
from postroom.messaging.kafka import connect
from postroom.messaging.ports import Kafka
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.outbox import schema
from postroom.outbox.archive import Archive
from postroom.outbox.audit import Action
from postroom.outbox.database import open_store
from postroom.outbox.log import LogReader, LogStore
from postroom.outbox.memory import MemoryLog
from postroom.testing import Broker, FakeClock, MemoryKafka, kafka_broker

CLIENTS = ("kafka-python", "confluent-kafka")


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """The name of a Kafka client library, as in ``KafkaOptions``."""
    name: str = request.param
    return name


#: The same wish in the words of each client.
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "no creation": {
        "kafka-python": {"allow_auto_create_topics": False, "max_block_ms": 1500},
        "confluent-kafka": {"allow.auto.create.topics": False, "topic.metadata.propagation.max.ms": 1500},
        "memory": {"auto_create": False},
    },
    "large requests": {
        "kafka-python": {"max_request_size": 5_000_000},
        "confluent-kafka": {"message.max.bytes": 5_000_000},
        "memory": {"max_request_bytes": 5_000_000},
    },
    # A member that does not poll for so long is out.
    "silent": {
        "kafka-python": {"max_poll_interval_ms": 1_500, "session_timeout_ms": 6_000, "heartbeat_interval_ms": 100},
        "confluent-kafka": {
            "max.poll.interval.ms": 6_000,
            "session.timeout.ms": 6_000,
            "heartbeat.interval.ms": 100,
        },
        "memory": {"max_poll_seconds": 1.0},
    },
}


@dataclass
class Cluster:
    """A cluster, and the client by which it is reached."""

    client: str
    broker: Broker | MemoryKafka

    def kafka(self, wish: str | None = None) -> Kafka:
        options = {} if wish is None else OPTIONS[wish][self.client]
        if isinstance(self.broker, MemoryKafka):
            return self.broker.configured(**options)
        return connect(self.broker.options_for(self.client, options))

    @property
    def is_mock(self) -> bool:
        return isinstance(self.broker, Broker) and self.broker.is_mock

    def pause(self) -> None:
        self.broker.pause()

    def resume(self) -> None:
        self.broker.start() if isinstance(self.broker, MemoryKafka) else self.broker.resume()

    def kill(self) -> None:
        self.broker.stop() if isinstance(self.broker, MemoryKafka) else self.broker.kill()

    def start(self) -> None:
        self.broker.start()


def cluster_of(request: pytest.FixtureRequest, client: str) -> Cluster:
    return Cluster(client, MemoryKafka() if client == "memory" else request.getfixturevalue("postroom_kafka"))


@pytest.fixture(params=[*CLIENTS, "memory"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """What the machine has by each client, and a Kafka in memory."""
    return cluster_of(request, request.param)


@pytest.fixture
def real(cluster: Cluster, request: pytest.FixtureRequest) -> Cluster:
    """The same, but not the mock cluster, which lacks much of what a broker does."""
    if cluster.is_mock:
        request.getfixturevalue("postroom_real_kafka")
    return cluster


@pytest.fixture(scope="module")
def mock() -> Iterator[Broker]:
    with kafka_broker(prefer="mock") as mock:
        yield mock


@pytest.fixture(params=[f"{broker} {client}" for broker in ("best", "mock") for client in CLIENTS] + ["memory"])
def any_cluster(request: pytest.FixtureRequest) -> Any:
    """What the machine has, the mock cluster that the demo runs on, and a Kafka in memory."""
    if request.param.startswith("mock "):
        return Cluster(request.param.removeprefix("mock "), request.getfixturevalue("mock"))
    return cluster_of(request, request.param.removeprefix("best "))


@pytest.fixture(params=["postgres", "sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogStore]:
    """An empty log."""
    if request.param == "memory":
        yield MemoryLog()
        return
    if request.param == "postgres":
        url = request.getfixturevalue("postroom_postgres").url
    else:
        url = f"sqlite:///{tmp_path / 'log.db'}"
    request.node.url = url
    schema.upgrade(url)
    store = open_store(url)
    yield store
    store.close()


@pytest.fixture
def readers() -> Iterator[Callable[..., LogReader]]:
    """Makes readers, which are closed after the test."""
    with ExitStack() as stack:

        def make(store: LogStore, owner: str = "a", lease: float = 60.0) -> LogReader:
            reader = store.reader(owner, lease)
            stack.callback(reader.close)
            reader.claim()
            return reader

        yield make


@pytest.fixture
def recorded(request: pytest.FixtureRequest, store: LogStore) -> Callable[[], list[Action]]:
    """What was recorded of operators' actions, the oldest first."""

    def actions() -> list[Action]:
        if isinstance(store, MemoryLog):
            return list(store.actions)
        archive = Archive(request.node.url)
        try:
            return archive.actions()[::-1]
        finally:
            archive.close()

    return actions


@dataclass
class Log:
    """A partition in memory. ``first`` and ``end`` are what the broker tells, whatever records are there."""

    records: list[ReceivedRecord] = field(default_factory=list)
    first: int = 0
    end: int = 0


@dataclass
class TopicsInMemory:
    """See ``ports.TopicReader``. ``at_offsets`` runs after the offsets were taken, ``at_record`` before each record."""

    topics: dict[str, dict[int, Log]] = field(default_factory=dict)
    at_offsets: Callable[[str], object] = lambda _: None
    at_record: Callable[[ReceivedRecord], object] = lambda _: None
    read_records: int = 0

    def create(self, topic: str, partitions: int = 2) -> None:
        logs = self.topics.setdefault(topic, {})
        for number in range(partitions):
            logs.setdefault(number, Log())

    def put(self, topic: str, partition: int, record: ReceivedRecord) -> ReceivedRecord:
        """Append it, whatever its own place is."""
        self.create(topic)
        log = self.topics[topic][partition]
        record = record._replace(partition=Partition(topic, partition), offset=log.end)
        log.records.append(record)
        log.end += 1
        return record

    def truncate(self, topic: str, partition: int, first: int) -> None:
        log = self.topics[topic][partition]
        log.first = first
        log.records = [record for record in log.records if record.offset >= first]

    def compact(self, topic: str, partition: int, *offsets: int) -> None:
        log = self.topics[topic][partition]
        log.records = [record for record in log.records if record.offset not in offsets]

    def offsets(self, topic: str) -> Mapping[int, tuple[int, int]]:
        if topic not in self.topics:
            raise UnknownTopic(topic)
        found = {number: (log.first, log.end) for number, log in self.topics[topic].items()}
        self.at_offsets(topic)
        return found

    def offsets_at(self, topic: str, moment: datetime) -> Mapping[int, int]:
        return {
            number: next((record.offset for record in log.records if record.timestamp >= moment), log.end)
            for number, log in self.topics[topic].items()
        }

    def read(
        self, topic: str, start: Mapping[int, int] | None = None, end: Mapping[int, int] | None = None
    ) -> Iterator[ReceivedRecord]:
        if topic not in self.topics:
            raise UnknownTopic(topic)
        found = [
            record
            for number, log in self.topics[topic].items()
            for record in log.records
            if (start or {}).get(number, 0) <= record.offset < (end or {}).get(number, log.end)
        ]
        for record in found:
            self.at_record(record)
            self.read_records += 1
            yield record

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Desk:
    """Dead letters in memory, and the ledger that takes them up. A message ``n`` has the id ``id-n``.

    ``START`` is when message 0 failed; each later one fails a minute later.
    """

    START: ClassVar[datetime] = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
    DLQ: ClassVar[str] = "orders.billing.dlq"

    url: str
    ledger: Ledger
    topics: TopicsInMemory = field(default_factory=TopicsInMemory, repr=False)
    clock: FakeClock = field(default_factory=lambda: FakeClock(passing=True))

    def sleep(self, seconds: float) -> bool:
        """As ``run_plan`` waits; the run shall not end."""
        return self.clock.wait(Event(), seconds)

    def die(
        self,
        n: int,
        partition: int = 0,
        *,
        replays: int = 0,
        told: str = "no stock",
        group: str = "billing",
        topic: str = "orders",
        dlq: str = "",
        offset: int | None = None,
        at: float | None = None,
        key: bytes | None = b"k",
        value: bytes | None = b"{}",
        headers: HeaderPairs = (),
        **options: Any,
    ) -> ReceivedRecord:
        """Message ``n`` dies in ``group``: a record as our inbox writes it."""
        moment = self.START + timedelta(minutes=n if at is None else at)
        own = [("ce_id", f"id-{n}".encode()), ("ce_type", b"shop.order.placed"), *headers]
        if replays:
            own += [("postroom_replay_count", str(replays).encode()), ("postroom_replay_group", group.encode())]
        place = n if offset is None else offset
        original = ReceivedRecord(Partition(topic, partition), place, key, value, own, moment)
        failure = Failure(ValueError(told), options.get("handler", "shop.charge"), 5, moment, moment)
        record = original._replace(headers=dead_letter_headers(original, group, failure))
        return self.topics.put(dlq or self.DLQ, options.get("into", partition), record)

    def catch_up(self, *topics: str, **options: Any) -> Caught:
        return catch_up(self.topics, self.ledger, topics or [self.DLQ], **options)

    def another(self) -> "Desk":
        """The same with a connection of its own."""
        return Desk(self.url, Ledger(self.url), self.topics, self.clock)

    def plan(self, wanted: Filter | None = None, **options: Any) -> tuple[Plan | None, Draft]:
        given = {"existing": {"orders"}, "actor": "ada@host", "told": "all", **options}
        return make_plan(self.ledger, wanted or Filter(), **given)

    def planned(self, wanted: Filter | None = None, **options: Any) -> Plan:
        plan, _ = self.plan(wanted, **options)
        assert plan is not None
        return plan

    def run(self, plan: Plan, **options: Any) -> Ran:
        given = {"actor": "ada@host", "clock": self.clock, "wait": self.sleep, "step_timeout": 1.0, **options}
        return run_plan(self.ledger, plan.id, **given)

    def letters(self, wanted: Filter | None = None, **options: Any) -> list[DeadLetter]:
        """All of them as they came, whole."""
        return list(each(self.ledger, wanted or Filter(), sort="arrival", records=True, **options))

    def states(self) -> dict[str, list[str]]:
        """By message, of each of its deaths."""
        found: dict[str, list[str]] = {}
        for letter in self.letters():
            found.setdefault(letter.message_id, []).append(letter.state.value)
        return found

    def published(self) -> list[str]:
        """Message ids in the outbox, in the order of the log."""
        return [headers["ce_id"] for headers in self.sent_headers()]

    def sent_headers(self) -> list[dict[str, Any]]:
        """The headers of each message in the outbox, as they stand there."""
        outbox = self.ledger.names.table("outbox", "sqlite" if self.ledger.sqlite else "postgres")
        with self.ledger.reading() as connection:
            rows = connection.exec_driver_sql(f"SELECT headers FROM {outbox} ORDER BY position").scalars().all()
        return [dict(json.loads(row) if isinstance(row, str) else row) for row in rows]

    def closes(self, n: int, outcome: str, replays: int, group: str = "billing") -> None:
        """The group's inbox closes message ``n``."""
        inbox = self.ledger.names.table("inbox", "sqlite" if self.ledger.sqlite else "postgres")
        with self.ledger.changing() as work:
            work.connection.execute(
                sa.text(
                    f"INSERT INTO {inbox} (consumer_group, message_id, outcome, topic, replays) "
                    "VALUES (:group, :id, :outcome, 'orders', :replays) ON CONFLICT (consumer_group, message_id) "
                    "DO UPDATE SET outcome = excluded.outcome, replays = excluded.replays"
                ),
                {"group": group, "id": f"id-{n}", "outcome": outcome, "replays": replays},
            )

    def change(self, verb: str, *letters: int, values: Mapping[str, Any] | None = None) -> int:
        """What an operator does with some letters."""
        with self.ledger.changing() as work:
            chosen = self.ledger.tables.letter.c.id.in_(letters)
            return work.change(verb, chosen, "ada@host", "asked", values or {})


@pytest.fixture(scope="module")
def ledgers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Ledger]]:
    """A store's ledger for the tests of one file, which is emptied before each; its ids go on."""
    with ExitStack() as stack:
        made: dict[str, Ledger] = {}

        def emptied(store: str) -> Ledger:
            if store not in made:
                url = f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}"
                if store == "postgres":
                    server = request.getfixturevalue("postroom_postgres_server")
                    url = stack.enter_context(server.database()).sqlalchemy_url
                schema.upgrade(url)
                made[store] = stack.enter_context(closing(Ledger(url)))
            ledger = made[store]
            tables = ("", "_state", "_record", "_source", "_plan", "_action")
            with ledger.changing() as work:
                for name in (*(f"dead_letter{table}" for table in tables), "inbox", "outbox"):
                    work.connection.exec_driver_sql(f"DELETE FROM {ledger.names.table(name, store)}")
            return ledger

        yield emptied


@pytest.fixture(params=["postgres", "sqlite"])
def desks(request: pytest.FixtureRequest, ledgers: Callable[[str], Ledger]) -> Callable[[], Desk]:
    """Makes empty ledgers, one after the other, and the topics before them."""

    def make() -> Desk:
        ledger = ledgers(request.param)
        return Desk(ledger.url, ledger)

    return make


@pytest.fixture
def desk(desks: Callable[[], Desk]) -> Desk:
    """An empty ledger, and the topics before it."""
    return desks()
