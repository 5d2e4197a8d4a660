"""The inbox on SQLite and an in-memory Kafka, on a clock that only runs when somebody waits."""

import json
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event as Flag
from typing import Any, NoReturn
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import field_validator

from postroom.inbox import AsyncContext, Context, Inbox, InboxRunner, InboxSettings, Received
from postroom.messaging.dead_letter import KIP_1191, OURS, REPLAY_COUNT, REPLAY_GROUP
from postroom.messaging.errors import (
    ConfigurationError,
    Fenced,
    InvalidHandler,
    KafkaUnavailable,
    PayloadRefused,
    Poison,
    SchemaMissing,
    Unavailable,
)
from postroom.messaging.headers import first, load
from postroom.messaging.ports import PartitionsHook
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.outbox import Event, Message, schema
from postroom.testing import FakeClock

GROUP = "billing"
UNLUCKY = 13


class Paid(Event, topic="orders", key="order_id", type="shop.paid"):
    order_id: str
    amount: int

    @field_validator("amount")
    @classmethod
    def _known(cls, amount: int) -> int:
        if amount == UNLUCKY:
            raise KeyError("a validator's own mistake")
        return amount


class Receipt(Event, topic="receipts", key="order_id", type="shop.receipt"):
    order_id: str


class WaitedClock(FakeClock):
    """Time passes when somebody waits; ``then`` is what happens at the n-th wait."""

    def __init__(self) -> None:
        super().__init__(datetime(2025, 1, 1, tzinfo=UTC), passing=True)
        self.then: dict[int, Callable[[], object]] = {}

    def wait(self, event: Flag, timeout: float) -> bool:
        super().wait(event, timeout)
        self.then.pop(len(self.waits), lambda: None)()
        return event.wait(0.0005)  # the workers are real


@dataclass
class FakeKafka:
    """One topic log and its committed offsets. What a poll finds nothing for, ``idle`` decides."""

    clock: WaitedClock
    idle: Callable[[], object] = lambda: None
    log: dict[Partition, list[ReceivedRecord]] = field(default_factory=dict)
    committed: dict[Partition, int] = field(default_factory=dict)
    consumers: list["FakeConsumer"] = field(default_factory=list)
    build_errors: list[Exception] = field(default_factory=list)
    poll_errors: list[Exception] = field(default_factory=list)
    commit_errors: list[Exception] = field(default_factory=list)

    def add(
        self,
        value: bytes | None,
        *headers: tuple[str, bytes],
        partition: int = 0,
        topic: str = "orders",
        key: bytes = b"k",
    ) -> None:
        place = Partition(topic, partition)
        records = self.log.setdefault(place, [])
        records.append(ReceivedRecord(place, len(records), key, value, list(headers), self.clock.now()))

    def consumer(
        self,
        group: str,
        topics: Sequence[str],
        *,
        on_assigned: PartitionsHook,
        on_revoked: PartitionsHook,
        instance: str | None = None,
        cooperative: bool = False,
    ) -> "FakeConsumer":
        if self.build_errors:
            raise self.build_errors.pop(0)
        self.consumers.append(FakeConsumer(self, on_assigned, on_revoked))
        return self.consumers[-1]

    def publisher(self) -> NoReturn:
        raise NotImplementedError

    def reader(self) -> NoReturn:
        raise NotImplementedError

    def topics(self) -> NoReturn:
        raise NotImplementedError

    def cluster(self) -> NoReturn:
        raise NotImplementedError


class FakeConsumer:
    def __init__(self, kafka: FakeKafka, on_assigned: PartitionsHook, on_revoked: PartitionsHook) -> None:
        self.kafka = kafka
        self.on_assigned = on_assigned
        self.on_revoked = on_revoked
        self.positions: dict[Partition, int] = {}
        self.paused: set[Partition] = set()
        self.polls: list[tuple[float, frozenset[Partition]]] = []
        self.rebalance = True
        self.inside = False
        self.closed = False

    def poll(self, timeout: float, max_records: int) -> Sequence[ReceivedRecord]:
        self.polls.append((timeout, frozenset(self.paused)))
        if timeout and self.kafka.poll_errors:
            raise self.kafka.poll_errors.pop(0)
        if self.rebalance:
            self.rebalance = False
            self.inside = True
            self.on_revoked(list(self.positions))
            self.positions = {place: self.kafka.committed.get(place, 0) for place in self.kafka.log}
            self.paused.clear()
            self.on_assigned(list(self.positions))
            self.inside = False
        found = [
            record
            for place, position in self.positions.items()
            if place not in self.paused
            for record in self.kafka.log[place][position:]
        ][:max_records]
        for record in found:
            self.positions[record.partition] = record.offset + 1
        if not found:
            self.kafka.clock.advance(timeout)
            if timeout:
                self.kafka.idle()
        return found

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        assert not self.inside, "kafka-python cannot commit inside a rebalance"
        if self.kafka.commit_errors:
            raise self.kafka.commit_errors.pop(0)
        self.kafka.committed.update(offsets)

    def seek(self, partition: Partition, offset: int) -> None:
        self.positions[partition] = offset

    def pause_only(self, partitions: Sequence[Partition]) -> None:
        self.paused = set(partitions)

    def lag(self, partitions: Sequence[Partition], timeout: float) -> Mapping[Partition, int]:
        return {place: len(self.kafka.log[place]) - self.positions[place] for place in partitions}

    def close(self) -> None:
        self.closed = True


@dataclass
class World:
    """A database, a Kafka, an inbox, and what its runner told."""

    path: Path
    clock: WaitedClock
    kafka: FakeKafka
    inbox: Inbox
    steps: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    on_step: Callable[..., object] = lambda step, **facts: None
    settings: InboxSettings = field(default_factory=InboxSettings)
    runner: InboxRunner | None = None

    def observe(self, step: str, /, **facts: Any) -> None:
        self.steps.append((step, facts))
        self.on_step(step, **facts)

    def stop(self) -> None:
        assert self.runner is not None
        self.runner.stop()

    def settle(self) -> None:
        """Kafka has nothing more: the end, unless something is still in hand."""
        assert self.runner is not None
        if self.runner.in_hand:
            time.sleep(0.001)  # the workers are real; the clock went on already
        else:
            self.stop()

    def run(self) -> None:
        """Until Kafka has nothing more, or the inbox ends by itself."""
        self.kafka.idle = self.settle
        self.runner = InboxRunner(
            self.inbox,
            database_url=f"sqlite:///{self.path}",
            kafka=self.kafka,
            settings=self.settings,
            observer=self.observe,
            clock=self.clock,
        )
        self.runner.start()
        assert self.runner.join(60)

    def told(self, *steps: str) -> list[str]:
        return [step for step, _ in self.steps if not steps or step in steps]

    def facts(self, step: str) -> dict[str, Any]:
        return next(facts for told, facts in self.steps if told == step)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql).fetchall()

    def effects(self) -> list[str]:
        return [name for (name,) in self.query("SELECT name FROM effect ORDER BY rowid")]

    def outcomes(self) -> dict[str, str]:
        return dict(self.query("SELECT message_id, outcome FROM postroom_inbox"))

    def published(self) -> list[tuple[str, bytes | None, list[tuple[str, bytes]]]]:
        rows = self.query("SELECT topic, payload, headers FROM postroom_outbox ORDER BY position")
        return [(topic, payload, load(headers)[0]) for topic, payload, headers in rows]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inbox") / "template.db"
    schema.upgrade(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE effect (name TEXT)")
        connection.commit()
    return path


@pytest.fixture
def world(template: Path, tmp_path: Path) -> World:
    return new_world(template, tmp_path)


def new_world(template: Path, folder: Path, **options: Any) -> World:
    path = Path(shutil.copy(template, folder / f"{uuid4().hex}.db"))
    clock = WaitedClock()
    return World(path, clock, FakeKafka(clock), Inbox(GROUP, **options))


def paid(name: str, amount: int = 1) -> bytes:
    return Paid(order_id=name, amount=amount).model_dump_json().encode()


def head(message_id: object, type_: str = "shop.paid") -> list[tuple[str, bytes]]:
    return [("ce_id", str(message_id).encode()), ("ce_type", type_.encode())]


def apply(event: Paid, ctx: Context) -> None:
    ctx.session.execute(sa.text("INSERT INTO effect VALUES (:name)"), {"name": event.order_id})
    ctx.publish(Receipt(order_id=event.order_id))


def test_a_message_delivered_twice_has_one_effect(world: World) -> None:
    world.inbox.handler("orders", Paid)(apply)
    for _ in range(2):
        world.kafka.add(paid("a"), *head("1"))
    world.kafka.add(paid("b"), *head("2"))

    world.run()

    assert world.effects() == ["a", "b"]
    assert [topic for topic, *_ in world.published()] == ["receipts", "receipts"]
    assert world.outcomes() == {"1": "handled", "2": "handled"}
    assert world.told("handled", "duplicate") == ["handled", "duplicate", "handled"]
    assert world.kafka.committed == {Partition("orders", 0): 3}


def test_a_failed_attempt_leaves_nothing_behind_and_is_made_again(world: World) -> None:
    @world.inbox.handler("orders", Paid)
    def fail_twice(event: Paid, ctx: Context) -> None:
        apply(event, ctx)
        if ctx.attempt < 3:
            raise RuntimeError("not yet")

    world.kafka.add(paid("a"), *head("1"))

    world.run()

    assert world.effects() == ["a"]
    assert len(world.published()) == 1
    assert world.told("attempt", "retried", "applied", "handled") == [
        *["attempt", "retried"] * 2,
        *["attempt", "applied", "handled"],
    ]
    assert world.facts("retried")["seconds"] <= world.settings.backoff_base_seconds
    assert world.query("SELECT attempts, handler FROM postroom_inbox")[0][0] == 3


def test_exhausted_attempts_become_one_dead_letter_with_its_diagnosis(world: World) -> None:
    @world.inbox.handler("orders", Paid, attempts=2)
    def fail(event: Paid, ctx: Context) -> None:
        apply(event, ctx)
        raise RuntimeError(f"no account for {event.order_id}")

    message_id = uuid4()
    original = [*head(message_id), ("x-raw", b"\xff\x00"), ("x-raw", b"again")]
    world.kafka.add(paid("a"), *original)
    world.kafka.add(paid("a"), *original)

    world.run()

    assert world.effects() == []
    [(topic, payload, headers)] = world.published()
    assert topic == "orders.billing.dlq"
    assert payload == paid("a")
    assert headers[: len(original)] == original
    diagnosis = {name: first(headers, name) for name, _ in headers[len(original) :]}
    assert diagnosis[KIP_1191 + "topic"] == "orders"
    assert diagnosis[KIP_1191 + "offset"] == "0"
    assert diagnosis[KIP_1191 + "group"] == GROUP
    assert diagnosis[KIP_1191 + "delivery.count"] == "2"
    assert diagnosis[KIP_1191 + "message"] == "no account for a"
    assert diagnosis[OURS + "exception"] == "RuntimeError"
    assert "in fail" in (diagnosis[OURS + "stack"] or "")
    assert "outage.py" not in (diagnosis[OURS + "stack"] or "").splitlines()[-4]
    assert world.query("SELECT id, type FROM postroom_outbox") == [(str(message_id), "shop.paid")]
    assert world.outcomes() == {str(message_id): "dead-lettered"}
    assert world.told("dead_lettered", "duplicate") == ["dead_lettered", "duplicate"]
    assert world.kafka.committed == {Partition("orders", 0): 2}


@pytest.mark.parametrize(
    ("payload", "exception", "message"),
    [
        (b"{not json", "UndecodablePayload", "The payload is not JSON"),
        (b"\xff\xfe", "UndecodablePayload", "The payload is not JSON"),
        (None, "UndecodablePayload", "A tombstone is no Paid"),
        (b"[]", "WrongType", "Paid refuses the payload"),
        (b'{"order_id": "a"}', "MissingField", "amount: Field required"),
        (b'{"order_id": "a", "amount": "many"}', "WrongType", "amount: Input should be a valid integer"),
        (b'{"order_id": "a", "amount": 13}', "PayloadRefused", "KeyError"),
    ],
)
def test_what_can_never_succeed_is_dead_at_once(
    world: World, payload: bytes | None, exception: str, message: str
) -> None:
    world.inbox.handler("orders", Paid)(apply)
    world.kafka.add(payload, *head("1"))
    world.kafka.add(paid("b"), *head("2"))

    world.run()

    assert world.told("attempt", "dead_lettered", "handled") == ["dead_lettered", "attempt", "handled"]
    (_, dead, headers), _ = world.published()
    assert dead == payload
    assert (first(headers, OURS + "exception") or "").endswith(exception)
    assert message in (first(headers, KIP_1191 + "message") or "")
    assert first(headers, KIP_1191 + "delivery.count") == "1"
    assert world.effects() == ["b"]


def test_a_poison_error_of_the_handler_uses_up_no_further_attempts(world: World) -> None:
    @world.inbox.handler("orders", Paid)
    def refuse(event: Paid, ctx: Context) -> None:
        raise PayloadRefused("no such currency")

    world.kafka.add(paid("a"), *head("1"))

    world.run()

    assert world.told("attempt", "dead_lettered") == ["attempt", "dead_lettered"]


def test_a_type_without_handler_is_skipped_and_counted(world: World) -> None:
    world.inbox.handler("orders", Paid)(apply)
    world.kafka.add(b"{}", *head("1", "shop.refunded"))

    world.run()

    assert world.told("skipped") == ["skipped"]
    assert world.outcomes() == {}
    assert world.kafka.committed == {Partition("orders", 0): 1}


def test_a_type_without_handler_becomes_a_dead_letter_where_asked_for(template: Path, tmp_path: Path) -> None:
    world = new_world(template, tmp_path, on_unhandled="dead-letter")
    world.inbox.handler("orders", Paid)(apply)
    world.kafka.add(b"{}", *head("1", "shop.refunded"))

    world.run()

    [(topic, _, headers)] = world.published()
    assert topic == "orders.billing.dlq"
    assert first(headers, OURS + "exception") == "postroom.messaging.errors.Unhandled"
    assert world.outcomes() == {"1": "dead-lettered"}


def test_a_handler_without_a_model_gets_what_no_other_takes(world: World) -> None:
    seen: list[Received] = []
    world.inbox.handler("orders", Paid)(apply)

    @world.inbox.handler("orders", type="shop.raw")
    def raw(received: Received, ctx: Context) -> None:
        seen.append(received)

    @world.inbox.handler("orders")
    def rest(received: Received, ctx: Context) -> None:
        seen.append(received)

    world.kafka.add(b"\x00raw", *head("1", "shop.raw"))
    world.kafka.add(None)
    world.kafka.add(paid("a"), *head("3"))

    world.run()

    assert [(one.payload, one.envelope.type, one.key) for one in seen] == [
        (b"\x00raw", "shop.raw", b"k"),
        (None, None, b"k"),
    ]
    assert world.outcomes() == {"1": "handled", "orders/0/1": "handled", "3": "handled"}


@pytest.mark.parametrize("strange", ["x" * 5000, "nul\x00", "line\nbreak"])
def test_an_id_that_no_table_can_hold_is_recorded_under_another(world: World, strange: str) -> None:
    world.inbox.handler("orders", Paid)(apply)
    world.kafka.add(paid("a"), *head(strange))
    world.kafka.add(paid("a"), *head(strange))

    world.run()

    assert world.effects() == ["a"]
    [stored] = world.outcomes()
    assert UUID(stored)


def test_a_dead_letter_of_a_foreign_record_has_an_id_of_its_place(world: World) -> None:
    @world.inbox.handler("orders", attempts=1)
    def fail(received: Received, ctx: Context) -> None:
        raise RuntimeError

    world.kafka.add(b"1")
    world.kafka.add(b"2")
    world.kafka.add(b"3", *head("no uuid", "bad\x00type"))

    world.run()

    rows = world.query("SELECT id, type FROM postroom_outbox")
    assert len({UUID(id_) for id_, _ in rows}) == 3
    assert {type_ for _, type_ in rows} == {"unknown"}
    assert world.outcomes().keys() == {"orders/0/0", "orders/0/1", "no uuid"}


def test_a_replay_opens_its_dead_letter_once_and_only_for_its_group(world: World) -> None:
    @world.inbox.handler("orders", Paid, attempts=1)
    def fail_first_delivery(event: Paid, ctx: Context) -> None:
        apply(event, ctx)
        if REPLAY_COUNT not in ctx.headers:
            raise RuntimeError

    world.kafka.add(paid("a"), *head("1"))
    for group in ("shipping", GROUP, GROUP):
        world.kafka.add(paid("a"), *head("1"), (REPLAY_COUNT, b"1"), (REPLAY_GROUP, group.encode()))
    world.kafka.add(paid("b"), *head("2"), (REPLAY_COUNT, b"99999999"))

    world.run()

    assert world.told("not_for_group") == ["not_for_group"]
    outcome = ("dead_lettered", "handled", "duplicate")
    assert world.told(*outcome) == [*outcome, "handled"]
    assert world.effects() == ["a", "b"]
    assert world.outcomes() == {"1": "handled", "2": "handled"}


def test_poisoned_messages_that_are_all_that_is_left_become_dead_letters(world: World) -> None:
    @world.inbox.handler("orders", Paid, attempts=3)
    def handle(event: Paid, ctx: Context) -> None:
        apply(event, ctx)
        if event.amount == 2:
            raise RuntimeError("poisoned")

    for number in range(125):
        world.kafka.add(paid(str(number), 2 if number % 5 == 0 else 1), *head(number), key=b"%d" % number)

    world.run()

    assert Counter(world.outcomes().values()) == {"handled": 100, "dead-lettered": 25}
    assert world.query("SELECT count(*) FROM postroom_inbox_held") == [(0,)]
    assert world.told("paused") == []


def test_a_large_dead_letter_is_given_a_shorter_diagnosis(world: World) -> None:
    @world.inbox.handler("orders", attempts=1)
    def fail(received: Received, ctx: Context) -> None:
        raise RuntimeError("é" * 20_000)

    world.kafka.add(b"x" * 1_035_000)
    world.kafka.add(b"x" * 1_048_000)

    world.run()

    shorter, shortest = (headers for _, _, headers in world.published())
    size = sum(len(name.encode()) + len(value) for name, value in shorter) + 1_035_000
    assert 1_030_000 < size < world.settings.dead_letter_max_bytes
    assert (first(shorter, OURS + "stack") or "").endswith("é\n")
    assert first(shortest, OURS + "stack") == ""
    assert first(shortest, KIP_1191 + "message") == ""
    assert first(shortest, OURS + "exception") == "RuntimeError"


def test_an_outage_burns_no_attempt_and_the_group_hears_from_us_meanwhile(world: World) -> None:
    tries = Counter[str]()

    @world.inbox.handler("orders", Paid, attempts=1)
    def call_a_service_that_is_down(event: Paid, ctx: Context) -> None:
        apply(event, ctx)
        tries[event.order_id] += 1
        if tries[event.order_id] < 40:
            raise Unavailable("the bank does not answer")
        assert ctx.attempt == 1

    world.kafka.add(paid("a"), *head("1"))

    world.run()

    assert world.effects() == ["a"]
    assert world.outcomes() == {"1": "handled"}
    assert world.told("paused", "resumed", "retried", "dead_lettered") == ["paused"] * 39 + ["resumed"]
    [consumer] = world.kafka.consumers
    everything = frozenset(world.kafka.log)
    keeping_alive = [paused for timeout, paused in consumer.polls if timeout == 0]
    assert len(keeping_alive) > 10
    assert set(keeping_alive) == {everything}
    assert max(world.clock.waits) <= world.settings.keep_alive_seconds
    assert all(not paused for timeout, paused in consumer.polls if timeout)


def test_a_driver_that_lost_its_server_is_an_outage_too(world: World) -> None:
    tries: list[int] = []

    @world.inbox.handler("orders", Paid, attempts=1)
    def use_another_database(event: Paid, ctx: Context) -> None:
        tries.append(ctx.attempt)
        if len(tries) < 3:
            raise psycopg.OperationalError("the connection is lost")

    world.kafka.add(paid("a"), *head("1"))

    world.run()

    assert tries == [1, 1, 1]
    assert world.outcomes() == {"1": "handled"}


def test_a_stop_between_attempts_leaves_the_message(world: World) -> None:
    @world.inbox.handler("orders", Paid)
    def fail(event: Paid, ctx: Context) -> None:
        if event.order_id == "b":
            world.stop()
            raise RuntimeError

    world.kafka.add(paid("a"), *head("1"))
    world.kafka.add(paid("b"), *head("2"))
    world.kafka.add(paid("c"), *head("3"))

    world.run()

    assert world.told("attempt", "handled", "retried") == ["attempt", "handled", "attempt", "retried"]
    assert world.kafka.committed == {Partition("orders", 0): 1}
    assert world.outcomes() == {"1": "handled"}


def test_what_was_revoked_is_dropped_and_its_offsets_stay(world: World) -> None:
    world.settings = InboxSettings(keep_alive_seconds=0.001)
    failed: list[str] = []

    @world.inbox.handler("orders", Paid, base=10, cap=10)
    def fail_once(event: Paid, ctx: Context) -> None:
        apply(event, ctx)
        if not failed:
            failed.append(event.order_id)
            world.kafka.consumers[0].rebalance = True
            raise RuntimeError

    for number in range(3):
        world.kafka.add(paid(f"{number}"), *head(number))

    world.run()

    assert world.told("assigned", "revoked") == ["assigned", "revoked", "assigned"]
    assert world.effects() == ["0", "1", "2"]
    assert world.told("handled") == ["handled"] * 3
    assert world.kafka.committed == {Partition("orders", 0): 3}


def test_a_rebalance_in_the_middle_of_the_work_repeats_no_effect(world: World) -> None:
    seen: list[str] = []

    @world.inbox.handler("orders", Paid)
    def handle(event: Paid, ctx: Context) -> None:
        seen.append(event.order_id)
        world.clock.advance(1)
        world.kafka.consumers[0].rebalance = len(seen) == 2

    for number in range(4):
        world.kafka.add(paid(f"{number}"), *head(number))

    world.run()

    assert seen == ["0", "1", "2", "3"]
    assert world.told("handled") == ["handled"] * 4
    assert world.kafka.committed == {Partition("orders", 0): 4}


def test_the_offset_never_passes_a_record_that_ended_the_inbox(world: World) -> None:
    @world.inbox.handler("orders", Paid)
    def crash(event: Paid, ctx: Context) -> None:
        if event.order_id == "b":
            raise ConfigurationError("no API key")

    for name in "abc":
        world.kafka.add(paid(name), *head(name))

    with pytest.raises(ConfigurationError, match="no API key"):
        world.run()

    assert world.kafka.committed == {Partition("orders", 0): 1}
    assert world.kafka.consumers[0].closed


def test_an_observer_that_raises_ends_the_inbox_and_is_not_the_handlers_failure(world: World) -> None:
    world.inbox.handler("orders", Paid)(apply)
    world.kafka.add(paid("a"), *head("1"))

    def object_to(step: str, **_: Any) -> None:
        if step == "applied":
            raise ZeroDivisionError

    world.on_step = object_to

    with pytest.raises(ZeroDivisionError):
        world.run()

    assert world.told("applied", "retried", "dead_lettered") == ["applied"]
    assert world.effects() == []
    assert world.kafka.committed == {}


def test_an_offset_commit_that_fails_is_made_good_or_ends_in_duplicates(world: World) -> None:
    world.inbox.handler("orders", Paid)(apply)
    world.kafka.commit_errors = [Fenced("gone"), KafkaUnavailable("away")]
    for name in "ab":
        world.kafka.add(paid(name), *head(name))

    def rebalance(step: str, **_: Any) -> None:
        if step == "not_committed" and len(world.kafka.commit_errors) == 1:
            world.kafka.consumers[0].rebalance = True

    world.on_step = rebalance

    world.run()

    assert world.effects() == ["a", "b"]
    assert world.told("not_committed") == ["not_committed"] * 2
    assert world.told("handled", "duplicate") == ["handled", "handled", "duplicate", "duplicate"]
    assert world.kafka.committed == {Partition("orders", 0): 2}


def test_kafka_is_waited_for_at_the_start_and_later(world: World) -> None:
    world.inbox.handler("orders", Paid)(apply)
    world.kafka.add(paid("a"), *head("1"))
    world.kafka.build_errors = [KafkaUnavailable("no broker") for _ in range(5)]
    world.kafka.poll_errors = [KafkaUnavailable("gone"), Fenced("not a member")]

    world.run()

    assert world.told("kafka_unavailable") == ["kafka_unavailable"] * 7
    assert world.effects() == ["a"]
    assert [consumer.closed for consumer in world.kafka.consumers] == [True, True, True]


def test_missing_tables_end_the_inbox(world: World, tmp_path: Path) -> None:
    world.path = tmp_path / "empty.db"
    world.inbox.handler("orders", Paid)(apply)

    with pytest.raises(SchemaMissing, match="postroom init"):
        world.run()

    assert world.kafka.consumers == []


@pytest.mark.parametrize("way", ["rollback", "commit"])
def test_a_handler_must_not_end_the_transaction(world: World, way: str) -> None:
    @world.inbox.handler("orders", Paid, attempts=2)
    def meddle(event: Paid, ctx: Context) -> None:
        apply(event, ctx)
        getattr(ctx.session, way)()

    world.kafka.add(paid("a"), *head("1"))

    world.run()

    if way == "rollback":  # nothing of it was stored, so it must not count as handled
        assert world.outcomes() == {"1": "dead-lettered"}
        assert world.effects() == []
        assert "begin_nested" in (first(world.published()[0][2], KIP_1191 + "message") or "")
    else:  # all of it was stored, once
        assert world.outcomes() == {"1": "handled"}
        assert world.effects() == ["a"]


def test_a_handler_that_exits_is_a_failed_attempt(world: World) -> None:
    @world.inbox.handler("orders", Paid, attempts=2)
    def leave(event: Paid, ctx: Context) -> None:
        raise SystemExit(3)

    world.kafka.add(paid("a"), *head("1"))

    world.run()

    assert world.told("retried", "dead_lettered") == ["retried", "dead_lettered"]
    assert "SystemExit: 3" in (first(world.published()[0][2], OURS + "stack") or "")


def test_a_coroutine_from_a_sync_handler_is_not_taken_for_work_done(world: World) -> None:
    async def work() -> None: ...

    world.inbox.handler("orders", Paid)(lambda event, ctx: work())
    world.kafka.add(paid("a"), *head("1"))

    with pytest.raises(InvalidHandler, match="async def"):
        world.run()

    assert world.outcomes() == {}


def test_what_a_handler_publishes_carries_on_the_story(world: World) -> None:
    seen: list[Context] = []

    @world.inbox.handler("orders", Paid)
    def handle(event: Paid, ctx: Context) -> None:
        seen.append(ctx)
        ctx.publish(Receipt(order_id="inherits"))
        ctx.publish(Receipt(order_id="own"), correlation_id="c2", headers={"traceparent": "t2"})
        ctx.publish(Receipt(order_id="deadline"), expires_in=timedelta(days=1))
        ctx.publish(Message(topic="raw", type="raw", payload=b"", headers={"tracestate": "s3"}))

    told = [("correlation_id", b"c1"), ("traceparent", b"t1"), ("tracestate", b"s1")]
    world.kafka.add(paid("a"), *head("1"), *told, ("expires_at", b"2030-01-01T00:00:00Z"), ("x", b"\xff"))
    world.kafka.add(paid("b"), *head("2"), ("traceparent", b"bad\x00"))

    world.run()

    assert (seen[0].message_id, seen[0].topic, seen[0].partition, seen[0].offset) == ("1", "orders", 0, 0)
    assert (seen[0].key, seen[0].correlation_id, seen[0].attempt, "x" in seen[0].headers) == (b"k", "c1", 1, False)
    inherits, own, deadline, raw, second, *_ = (dict(headers) for _, _, headers in world.published())
    assert {name: inherits[name] for name in ("correlation_id", "traceparent", "tracestate", "expires_at")} == {
        **dict(told),
        "expires_at": b"2030-01-01T00:00:00Z",
    }
    assert inherits["causation_id"] == b"1"
    assert inherits["ce_source"] == b"/billing"
    assert (own["correlation_id"], own["traceparent"]) == (b"c2", b"t2")
    assert deadline["expires_at"] < b"2030"
    assert (raw["tracestate"], raw["traceparent"]) == (b"s3", b"t1")
    assert (second["correlation_id"], second["causation_id"]) == (b"2", b"2")
    assert "traceparent" not in second


def test_an_async_handler_has_the_same_guarantees(world: World) -> None:
    @world.inbox.handler("orders", Paid, attempts=2)
    async def handle(event: Paid, ctx: AsyncContext) -> None:
        await ctx.session.execute(sa.text("INSERT INTO effect VALUES (:name)"), {"name": event.order_id})
        ctx.publish(Receipt(order_id=event.order_id))
        if event.amount == 0:
            raise SystemExit
        if ctx.attempt == 1:
            raise RuntimeError

    world.kafka.add(paid("a"), *head("1"))
    world.kafka.add(paid("a"), *head("1"))
    world.kafka.add(paid("b", 0), *head("2"))

    world.run()

    assert world.effects() == ["a"]
    assert [topic for topic, *_ in world.published()] == ["receipts", "orders.billing.dlq"]
    assert world.outcomes() == {"1": "handled", "2": "dead-lettered"}


def test_an_inbox_without_handlers_or_with_impossible_waits_does_not_start(world: World) -> None:
    with pytest.raises(ConfigurationError, match="no handlers"):
        world.run()
    world.inbox.handler("orders", Paid, base=60)(apply)
    with pytest.raises(ConfigurationError, match="base must not be over cap"):
        world.run()


@given(
    messages=st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.sampled_from("fupo"), max_size=4)), min_size=1, max_size=8
    ),
    rebalances=st.sets(st.integers(1, 12), max_size=3),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_message_has_one_effect_or_one_dead_letter(
    template: Path, tmp_path: Path, messages: list[tuple[int, list[str]]], rebalances: set[int]
) -> None:
    """Whatever is delivered again, fails, is away, or is rebalanced: f fails, u is an outage, p is poison."""
    world = new_world(template, tmp_path)
    world.settings = InboxSettings(attempts=3, keep_alive_seconds=0.01)
    scripts = {str(number): list(script) for number, (_, script) in enumerate(messages)}
    calls: list[str] = []

    @world.inbox.handler("orders", Paid)
    def handle(event: Paid, ctx: Context) -> None:
        calls.append(event.order_id)
        world.kafka.consumers[0].rebalance |= len(calls) in rebalances
        apply(event, ctx)
        script = scripts[event.order_id]
        what = script.pop(0) if script else "o"
        if what != "o":
            raise {"f": RuntimeError, "u": Unavailable, "p": Poison}[what]

    for number, (copies, _) in enumerate(messages):
        for copy in range(copies + 1):
            world.kafka.add(paid(f"{number}"), *head(number), partition=copy % 2)

    world.run()

    applied = Counter(world.effects())
    dead = Counter(first(headers, "ce_id") for topic, _, headers in world.published() if topic == "orders.billing.dlq")
    receipts = Counter(
        json.loads(payload or b"")["order_id"] for topic, payload, _ in world.published() if topic == "receipts"
    )
    assert applied + dead == Counter(scripts.keys())
    assert receipts == applied
    outcomes = Counter(world.outcomes().values())
    assert outcomes == Counter({"handled": applied.total(), "dead-lettered": dead.total()})
    assert world.kafka.committed == {place: len(records) for place, records in world.kafka.log.items()}


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("postroom")] == []
