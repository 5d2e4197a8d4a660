"""The inbox on real servers: once only, dead letters, rebalances, async handlers, ``once`` for others."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from postroom.inbox import AsyncContext, Context, Inbox, InboxRunner, InboxSettings
from postroom.messaging.dead_letter import KIP_1191, OURS, replay_headers
from postroom.messaging.errors import ConfigurationError, SchemaMissing, Unavailable
from postroom.messaging.headers import first, load
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.ports import Kafka
from postroom.messaging.records import OutgoingRecord, Partition
from postroom.outbox import Event, schema
from postroom.testing.kafka import Broker
from postroom.testing.postgres import Database

QUICK = InboxSettings(
    attempts=3, backoff_base_seconds=0.01, backoff_cap_seconds=0.02, poll_timeout_seconds=0.1, keep_alive_seconds=0.1
)


class Paid(Event, topic="orders", key="order_id", type="shop.paid"):
    order_id: str
    amount: int = 1


class Receipt(Event, topic="receipts", key="order_id", type="shop.receipt"):
    order_id: str


@dataclass
class Shop:
    """A database with effects, a topic, and the runners of one group on it."""

    url: str
    kafka: Kafka
    topic: str
    observe: Callable[..., None]
    group: str = field(default_factory=lambda: f"billing-{uuid4().hex[:8]}")
    runners: list[InboxRunner] = field(default_factory=list)

    def inbox(self, **options: Any) -> Inbox:
        return Inbox(self.group, **options)

    def start(
        self, inbox: Inbox, observer: Callable[..., None] | None = None, kafka: Kafka | None = None
    ) -> InboxRunner:
        runner = InboxRunner(
            inbox,
            database_url=self.url,
            kafka=kafka or self.kafka,
            settings=QUICK,
            observer=observer or self.observe,
        )
        self.runners.append(runner)
        runner.start()
        return runner

    def send(self, *records: tuple[object, bytes | None], headers: list[tuple[str, bytes]] | None = None) -> None:
        """Records of type shop.paid with these ids."""
        outgoing = [
            OutgoingRecord(
                self.topic,
                str(message_id).encode(),
                payload,
                [("ce_id", str(message_id).encode()), ("ce_type", b"shop.paid"), *(headers or [])],
            )
            for message_id, payload in records
        ]
        publisher = self.kafka.publisher()
        publication = publisher.send(outgoing)
        assert publication.wait(30)
        assert not publication.errors()
        publisher.close(5)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(sql.encode()).fetchall()

    def effects(self) -> Counter[str]:
        return Counter(name for (name,) in self.query("SELECT name FROM effect"))

    def outcomes(self) -> Counter[str]:
        return Counter(outcome for (outcome,) in self.query("SELECT outcome FROM postroom.inbox"))

    def published(self) -> Counter[str]:
        return Counter(topic for (topic,) in self.query("SELECT topic FROM postroom.outbox"))


@pytest.fixture
def shop(
    postroom_postgres: Database, postroom_kafka: Broker, postroom_topic: Callable[[str], str], steps: Any
) -> Iterator[Shop]:
    schema.upgrade(postroom_postgres.url)
    with psycopg.connect(postroom_postgres.url) as connection:
        connection.execute("CREATE TABLE effect (name text)")
    options = KafkaOptions(postroom_kafka.bootstrap_servers, options=dict(postroom_kafka.client_config))
    shop = Shop(postroom_postgres.url, connect(options), postroom_topic("orders"), steps)
    yield shop
    for runner in shop.runners:
        runner.stop()
    for runner in shop.runners:
        assert runner.join(30)


def paid(name: object) -> bytes:
    return Paid(order_id=str(name)).model_dump_json().encode()


def apply(event: Paid, ctx: Context) -> None:
    ctx.session.execute(sa.text("INSERT INTO effect VALUES (:name)"), {"name": event.order_id})
    ctx.publish(Receipt(order_id=event.order_id))


def test_messages_delivered_twice_have_one_effect_and_offsets_are_kept(shop: Shop, steps: Any, eventually: Any) -> None:
    inbox = shop.inbox()
    inbox.handler(shop.topic, Paid)(apply)
    ids = [uuid4() for _ in range(50)]
    shop.send(*((one, paid(one)) for one in ids + ids))
    runner = shop.start(inbox)
    eventually(lambda: len(steps.of("handled")) + len(steps.of("duplicate")) == 100, "all are processed")
    runner.stop()
    assert runner.join(30)
    shop.start(inbox)
    shop.send(("last", paid("last")))
    steps.await_step("handled", 51)

    names = [str(one) for one in ids] + ["last"]
    assert shop.effects() == Counter(names)
    assert shop.published() == {"receipts": 51}
    assert shop.outcomes() == {"handled": 51}
    assert len(steps.of("received")) == 101, "the second runner began where the first had committed"


def test_a_failed_handler_leaves_no_row_and_no_message(shop: Shop, steps: Any) -> None:
    inbox = shop.inbox()

    @inbox.handler(shop.topic, Paid)
    def fail(event: Paid, ctx: Context) -> None:
        apply(event, ctx)
        ctx.session.flush()
        raise RuntimeError("no account")

    message_id = uuid4()
    shop.send((message_id, paid("a")))
    shop.start(inbox)
    steps.await_step("dead_lettered")

    assert len(steps.of("attempt")) == 3
    assert shop.effects() == Counter()
    assert shop.outcomes() == {"dead-lettered": 1}
    [(id_, topic, type_, payload, headers)] = shop.query(
        "SELECT id::text, topic, type, payload, headers::text FROM postroom.outbox"
    )
    assert (id_, topic, type_, payload) == (str(message_id), f"{shop.topic}.{shop.group}.dlq", "shop.paid", paid("a"))
    pairs, complete = load(headers)
    assert complete
    assert first(pairs, "ce_id") == str(message_id)
    assert first(pairs, KIP_1191 + "message") == "no account"
    assert first(pairs, KIP_1191 + "delivery.count") == "3"
    assert first(pairs, OURS + "exception") == "RuntimeError"


def test_what_cannot_be_read_is_a_dead_letter_and_a_replay_opens_it_once(shop: Shop, steps: Any) -> None:
    inbox = shop.inbox()
    inbox.handler(shop.topic, Paid)(apply)
    shop.send(("bad", b"{"), ("worse", b'{"amount": "many"}'), ("good", paid("good")))
    shop.start(inbox)
    steps.await_step("handled")
    steps.await_step("dead_lettered", 2)
    assert {facts["attempts"] for facts in steps.of("dead_lettered")} == {1}
    assert shop.published() == {"receipts": 1, f"{shop.topic}.{shop.group}.dlq": 2}

    again = replay_headers([], shop.group)
    shop.send(("bad", paid("mended")), headers=again)
    shop.send(("bad", paid("mended")), headers=again)
    shop.send(("worse", paid("mended")), headers=replay_headers([], "another-group"))
    steps.await_step("duplicate")
    steps.await_step("not_for_group")

    assert shop.effects() == {"good": 1, "mended": 1}
    assert shop.outcomes() == {"handled": 2, "dead-lettered": 1}


def test_a_handler_that_swallows_a_database_error_is_not_taken_for_done(shop: Shop, steps: Any) -> None:
    """PostgreSQL turns the COMMIT of a failed transaction into a rollback, silently."""
    inbox = shop.inbox()

    @inbox.handler(shop.topic, Paid)
    def swallow(event: Paid, ctx: Context) -> None:
        ctx.session.execute(sa.text("INSERT INTO effect VALUES ('lost')"))
        with pytest.raises(sa.exc.ProgrammingError):
            ctx.session.execute(sa.text("SELECT nonsense"))

    @inbox.handler(shop.topic, Paid, type="shop.careful")
    def careful(event: Paid, ctx: Context) -> None:
        with pytest.raises(sa.exc.ProgrammingError), ctx.session.begin_nested():
            ctx.session.execute(sa.text("SELECT nonsense"))
        ctx.session.execute(sa.text("INSERT INTO effect VALUES ('kept')"))

    shop.send(("1", paid("a")))
    shop.start(inbox)
    steps.await_step("dead_lettered")
    publisher = shop.kafka.publisher()
    publisher.send([OutgoingRecord(shop.topic, None, paid("b"), [("ce_id", b"2"), ("ce_type", b"shop.careful")])])
    steps.await_step("handled")
    publisher.close(5)

    assert shop.effects() == {"kept": 1}
    assert "begin_nested" in str(steps.of("dead_lettered")[0]["error"])


def test_async_and_sync_handlers_side_by_side(shop: Shop, steps: Any) -> None:
    inbox = shop.inbox()
    inbox.handler(shop.topic, Paid, type="shop.sync")(apply)
    background: list[str] = []

    @inbox.handler(shop.topic, Paid)
    async def handle(event: Paid, ctx: AsyncContext) -> None:
        async def go_on() -> None:
            await asyncio.sleep(0)
            background.append(event.order_id)

        task = asyncio.create_task(go_on())
        await ctx.session.execute(sa.text("INSERT INTO effect VALUES (:name)"), {"name": event.order_id})
        ctx.publish(Receipt(order_id=event.order_id))
        async with ctx.session.begin_nested():
            ctx.publish(Receipt(order_id="nested"))
        await task
        if event.order_id == "fails":
            raise asyncio.CancelledError

    shop.send(("1", paid("a")), ("1", paid("a")), ("2", paid("fails")))
    publisher = shop.kafka.publisher()
    publisher.send([OutgoingRecord(shop.topic, None, paid("b"), [("ce_id", b"3"), ("ce_type", b"shop.sync")])])
    shop.start(inbox)
    steps.await_step("handled", 2)
    steps.await_step("duplicate")
    steps.await_step("dead_lettered")
    publisher.close(5)

    assert shop.effects() == {"a": 1, "b": 1}
    assert shop.published() == {"receipts": 3, f"{shop.topic}.{shop.group}.dlq": 1}
    assert background.count("fails") == 3


def test_two_members_share_the_work_and_hand_over_without_a_second_effect(
    shop: Shop, steps: Any, eventually: Any, postroom_real_kafka: Broker
) -> None:
    inbox = shop.inbox()
    inbox.handler(shop.topic, Paid)(apply)
    total = 600
    one = shop.start(inbox)
    steps.await_step("assigned")
    shop.send(*((number, paid(number)) for number in range(total // 2)))
    steps.await_step("handled", 50)
    two = shop.start(inbox)
    steps.await_step("assigned", 3)
    shop.send(*((number, paid(number)) for number in range(total // 2, total)))
    steps.await_step("handled", 400)
    one.stop()
    assert one.join(30)
    eventually(lambda: shop.effects().total() >= total, "all are applied")

    assert two.running
    assert shop.effects() == Counter(map(str, range(total)))
    assert shop.published() == {"receipts": total}


def test_a_stop_commits_what_is_done(shop: Shop, steps: Any) -> None:
    inbox = shop.inbox()
    blocked, go_on = threading.Event(), threading.Event()

    @inbox.handler(shop.topic, Paid)
    def handle(event: Paid, ctx: Context) -> None:
        apply(event, ctx)
        blocked.set()
        go_on.wait(30)

    shop.send(*((number, paid(number)) for number in range(5)))
    runner = shop.start(inbox)
    assert blocked.wait(30)
    runner.stop()
    go_on.set()
    assert runner.join(30)

    assert shop.effects().total() == 1
    assert [sum(facts["offsets"].values()) for facts in steps.of("committed")] == [1]
    assert steps.seen[-1] == ("stopped", {})


def test_missing_tables_and_wrong_settings_are_told_in_join(
    postroom_postgres: Database, shop: Shop, steps: Any
) -> None:
    inbox = shop.inbox()
    inbox.handler(shop.topic, Paid)(apply)
    with psycopg.connect(shop.url) as connection:
        connection.execute("DROP SCHEMA postroom CASCADE")
    runner = shop.start(inbox)
    shop.runners.clear()

    with pytest.raises(SchemaMissing, match="postroom init"):
        runner.join(30)
    with pytest.raises(ConfigurationError, match="not on 'mysql'"):
        InboxRunner(inbox, database_url="mysql://localhost/x", kafka=shop.kafka)


def test_two_transactions_with_one_message_wait_for_each_other(shop: Shop) -> None:
    """``inbox.once`` where two consumers have the same message at the same time."""
    inbox = shop.inbox()
    engine = sa.create_engine(shop.url.replace("postgresql://", "postgresql+psycopg://"))
    answers: list[bool] = []

    def second() -> None:
        with Session(engine) as session, session.begin(), inbox.once(session, "1") as first_time:
            answers.append(first_time)

    thread = threading.Thread(target=second)
    with engine.connect() as watch, Session(engine) as session, session.begin():
        with inbox.once(session, "1") as first_time:
            answers.append(first_time)
        thread.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid' AND datname = current_database()"
        )
        while not watch.exec_driver_sql(waiting).scalar():
            watch.rollback()
        assert answers == [True]
    thread.join(30)
    engine.dispose()

    assert answers == [True, False]


def test_once_with_async_targets_and_other_drivers_of_the_application(shop: Shop) -> None:
    async def ask() -> list[bool]:
        engine = create_async_engine(shop.url.replace("postgresql://", "postgresql+psycopg://"))
        answers = []
        async with AsyncSession(engine) as session:
            async with shop.inbox().once(session, "1") as first_time:
                answers.append(first_time)
            await session.rollback()
        for _ in range(2):
            async with AsyncSession(engine) as session, session.begin(), shop.inbox().once(session, "1") as first_time:
                answers.append(first_time)
        async with engine.begin() as connection, shop.inbox().once(connection, "1") as first_time:
            answers.append(first_time)
        await engine.dispose()
        return answers

    assert asyncio.run(ask()) == [True, True, False, False]


def test_the_wait_of_an_outage_keeps_the_member_in_its_group(
    shop: Shop, steps: Any, postroom_real_kafka: Broker, eventually: Any
) -> None:
    """Longer than the client may be silent: no rebalance follows, and the record in hand is not lost."""
    inbox = shop.inbox()
    open_again = threading.Event()

    @inbox.handler(shop.topic, Paid, attempts=1)
    def handle(event: Paid, ctx: Context) -> None:
        if not open_again.is_set():
            raise Unavailable("the bank is closed")
        apply(event, ctx)

    silent = {**postroom_real_kafka.client_config, "max_poll_interval_ms": 1_500, "heartbeat_interval_ms": 100}
    kafka = connect(KafkaOptions(postroom_real_kafka.bootstrap_servers, options=silent))
    shop.send(*((number, paid(number)) for number in range(10)))
    shop.start(inbox, kafka=kafka)
    steps.await_step("paused")
    eventually(lambda: sum(facts["seconds"] for facts in steps.of("paused")) > 4, "more than the silence allowed")
    open_again.set()
    steps.await_step("handled", 10)
    shop.send(("10", paid(10)))  # takes a poll, which would tell of a group that was lost
    steps.await_step("handled", 11)

    assert steps.of("revoked") == []
    assert len(steps.of("assigned")) == 1
    assert shop.outcomes() == {"handled": 11}
    assert {facts["attempt"] for facts in steps.of("handled")} == {1}


def test_a_join_that_outlives_its_poll_is_taken_up(shop: Shop, eventually: Any, postroom_real_kafka: Broker) -> None:
    """kafka-python forgets it: the member would hold no partition, for good, and nobody would see why."""
    assigned: list[Sequence[Partition]] = []
    shop.send(("1", b""))
    consumer = shop.kafka.consumer(shop.group, [shop.topic], on_assigned=assigned.append, on_revoked=lambda _: None)
    coordinator = consumer._consumer._coordinator  # type: ignore[attr-defined]
    try:
        # Joined before the topic's partitions are known: with none of them.
        eventually(lambda: consumer.poll(0.03, 1) == [] and assigned != [], "the first join")
        eventually(coordinator.need_rejoin, "the partitions are known")
        while coordinator.need_rejoin():  # begins a join, and does not wait for it
            before = coordinator._join_task
            consumer.poll(0, 1)
            if coordinator._join_task is not before:
                eventually(lambda: coordinator._join_task.is_done, "the broker's answer comes between two polls")
                break

        eventually(lambda: bool(consumer.poll(0.5, 1)) or any(assigned), "partitions are assigned")
    finally:
        consumer.close()


def test_the_connection_says_who_it_is(shop: Shop, steps: Any) -> None:
    inbox = shop.inbox()
    seen: list[str] = []

    @inbox.handler(shop.topic, Paid)
    def handle(event: Paid, ctx: Context) -> None:
        seen.append(ctx.session.scalars(sa.text("SHOW application_name")).one())

    shop.send(("1", paid("a")))
    shop.start(inbox)
    steps.await_step("handled")

    assert seen == [f"postroom inbox {shop.group}"]
