"""Relays and inboxes of several services in one process, until nothing is left to do."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from postroom.inbox import AsyncContext, Context, Inbox
from postroom.messaging.clock import SystemClock
from postroom.messaging.errors import ConfigurationError, SchemaMissing, Unavailable
from postroom.messaging.kafka import connect
from postroom.messaging.ports import Kafka
from postroom.outbox import Event, Message, Outbox, schema
from postroom.outbox.log import Backlog
from postroom.outbox.sqlite import SqliteLog
from postroom.testing import (
    App,
    Crash,
    FakeClock,
    MemoryKafka,
    NotQuietError,
    Report,
    assert_published,
    crash_at,
    kafka_broker,
    run_until_quiet,
)
from postroom.testing.kafka import Broker
from postroom.testing.postgres import Database

outbox = Outbox(source="/shop")


class OrderPlaced(Event, topic="orders", key="order_id", type="shop.order.placed"):
    order_id: int


class PaymentTaken(Event, topic="payments", key="order_id", type="billing.payment.taken"):
    order_id: int


class ParcelSent(Event, topic="parcels", key="order_id", type="shipping.parcel.sent"):
    order_id: int


@pytest.fixture
def database(tmp_path: Path) -> Callable[[str], str]:
    """Makes SQLite files with Postroom's tables."""

    def make(name: str) -> str:
        url = f"sqlite:///{tmp_path / name}.db"
        schema.upgrade(url)
        return url

    return make


def place(url: str, *order_ids: int, **options: Any) -> None:
    engine = sa.create_engine(url)
    with Session(engine) as session, session.begin():
        for order_id in order_ids:
            outbox.publish(session, OrderPlaced(order_id=order_id), **options)
    engine.dispose()


def billing(slow: float = 0.0) -> Inbox:
    inbox = Inbox("billing")

    @inbox.handler("orders", OrderPlaced)
    def charge(event: OrderPlaced, ctx: Context) -> None:
        time.sleep(slow)
        ctx.publish(PaymentTaken(order_id=event.order_id))

    return inbox


def shipping(sent: list[int], slow: float = 0.0) -> Inbox:
    inbox = Inbox("shipping")

    @inbox.handler("payments", PaymentTaken)
    def send(event: PaymentTaken, ctx: Context) -> None:
        time.sleep(slow)
        sent.append(event.order_id)
        ctx.publish(ParcelSent(order_id=event.order_id))

    return inbox


def failing(times: Callable[[Context], bool], **options: Any) -> Inbox:
    inbox = Inbox("billing")

    def charge(event: OrderPlaced, ctx: Context) -> None:
        if times(ctx):
            raise RuntimeError("no stock")

    inbox.handler("orders", OrderPlaced, **options)(charge)
    return inbox


def test_a_chain_over_services_with_databases_of_their_own_is_followed_to_its_end(
    database: Callable[[str], str],
) -> None:
    shop, bank, depot = map(database, ("shop", "bank", "depot"))
    sent: list[int] = []
    place(shop, 1, 2, 3)
    kafka = MemoryKafka()
    report = run_until_quiet(App(shop), App(bank, [billing()]), App(depot, [shipping(sent)]), kafka=kafka)

    report.assert_well()
    assert sorted(sent) == [1, 2, 3]
    assert len(report.of("handled", "billing")) == len(report.of("handled", "shipping")) == 3
    assert sorted(event.order_id for event in report.published.of(ParcelSent)) == [1, 2, 3]
    assert_published(report.published, PaymentTaken, order_id=2)
    assert len(kafka.records("parcels")) == 3
    again = run_until_quiet(App(shop), App(bank, [billing()]), App(depot, [shipping(sent)]), kafka=kafka)
    assert (list(again.published), again.fates) == ([], [])


def test_slow_handlers_that_publish_on_are_waited_for(database: Callable[[str], str]) -> None:
    shop, sent = database("shop"), list[int]()
    place(shop, 1)
    report = run_until_quiet(App(shop, [billing(0.3), shipping(sent, 0.3)]), kafka=MemoryKafka())

    assert sent == [1]
    assert_published(report.published, ParcelSent, order_id=1)


class SlowKafka(MemoryKafka):
    """Takes its time to connect."""

    def publisher(self) -> Any:
        time.sleep(0.3)
        return super().publisher()

    def consumer(self, *given: Any, **named: Any) -> Any:
        time.sleep(0.6)
        return super().consumer(*given, **named)


def test_a_relay_that_is_slow_to_publish_is_waited_for(database: Callable[[str], str]) -> None:
    shop = database("shop")
    place(shop, 1)
    report = run_until_quiet(App(shop), kafka=SlowKafka())
    assert_published(report.published, OrderPlaced, order_id=1)


def test_a_group_that_is_slow_to_join_is_waited_for(database: Callable[[str], str]) -> None:
    shop = database("shop")
    place(shop, 1)
    report = run_until_quiet(App(shop, [billing()]), kafka=SlowKafka())
    assert_published(report.published, PaymentTaken, order_id=1)


def test_what_moves_on_while_it_looks_is_not_overlooked(
    database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outbox is settled when it is looked at, and the topic was empty before."""
    backlog = SqliteLog.backlog

    def slow(log: SqliteLog) -> Backlog:
        time.sleep(0.3)
        return backlog(log)

    monkeypatch.setattr(SqliteLog, "backlog", slow)
    shop = database("shop")
    place(shop, 1)
    report = run_until_quiet(App(shop, [billing()]), kafka=MemoryKafka())
    assert_published(report.published, PaymentTaken, order_id=1)


def test_what_a_handler_lets_expire_expires_by_the_clock(database: Callable[[str], str]) -> None:
    shop, sent = database("shop"), list[int]()
    clock = FakeClock(datetime.now(UTC) + timedelta(days=10))
    inbox = Inbox("billing")

    @inbox.handler("orders", OrderPlaced)
    def charge(event: OrderPlaced, ctx: Context) -> None:
        ctx.publish(PaymentTaken(order_id=event.order_id), expires_in=timedelta(hours=1))

    place(shop, 1)
    run_until_quiet(App(shop, [inbox, shipping(sent)]), kafka=MemoryKafka(), clock=clock)
    assert sent == [1]


def test_an_async_handler_is_run(database: Callable[[str], str]) -> None:
    shop, done = database("shop"), list[int]()
    inbox = Inbox("billing")

    @inbox.handler("orders", OrderPlaced)
    async def charge(event: OrderPlaced, ctx: AsyncContext) -> None:
        done.append(event.order_id)

    place(shop, 1, 2)
    run_until_quiet(App(shop, [inbox]), kafka=MemoryKafka()).assert_well()
    assert sorted(done) == [1, 2]


def test_attempts_come_to_their_end_at_once_on_a_clock_that_stands_still(database: Callable[[str], str]) -> None:
    """With waits of up to an hour between them."""
    shop, clock = database("shop"), FakeClock()
    began, real = clock.now(), time.monotonic()
    inbox = failing(lambda ctx: ctx.attempt < 6, attempts=7, immediate=2, base=1800, cap=3600)
    place(shop, 1)
    report = run_until_quiet(App(shop, [inbox]), kafka=MemoryKafka(), clock=clock)

    report.assert_well()
    assert [fate.attempts for fate in report.handled] == [6]
    assert clock.now() > began + timedelta(minutes=10)
    assert time.monotonic() - real < 10


def test_a_dead_letter_tells_its_error_and_is_published(database: Callable[[str], str]) -> None:
    shop, kafka = database("shop"), MemoryKafka()
    place(shop, 1, 2)
    report = run_until_quiet(App(shop, [failing(lambda ctx: ctx.key == b"1", attempts=3)]), kafka=kafka)

    [dead] = report.dead_letters
    assert (dead.group, dead.attempts, str(dead.error)) == ("billing", 3, "no stock")
    assert [fate.message_id for fate in report.handled] != [dead.message_id]
    assert len(report.published.on("orders.billing.dlq")) == 1
    assert len(kafka.records("orders.billing.dlq")) == 1
    with pytest.raises(
        AssertionError, match=r"1 messages did not get through:\n.*dead_lettered: RuntimeError: no stock"
    ):
        report.assert_well()


def test_a_key_behind_a_dead_letter_is_told_as_held(database: Callable[[str], str]) -> None:
    shop = database("shop")
    place(shop, 1, 1)
    inbox = failing(lambda ctx: True, attempts=1, on_dead_letter="wait")
    report = run_until_quiet(App(shop, [inbox]), kafka=MemoryKafka())

    assert [(held.group, held.key, held.next_attempt_at) for held in report.held] == [("billing", b"1", None)]


def test_on_the_machines_clock_what_is_held_for_later_is_told_and_not_waited_for(
    database: Callable[[str], str],
) -> None:
    shop = database("shop")
    place(shop, 1)
    inbox = failing(lambda ctx: True, attempts=9, immediate=1, base=86_000, cap=86_400)
    report = run_until_quiet(App(shop, [inbox]), kafka=MemoryKafka(), clock=SystemClock())

    [held] = report.held
    assert held.next_attempt_at is not None
    assert report.dead_letters == []


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_delayed_messages_go_when_the_test_moves_the_time(
    store: str, database: Callable[[str], str], request: pytest.FixtureRequest
) -> None:
    if store == "sqlite":
        shop = database("shop")
    else:
        shop = request.getfixturevalue("postroom_postgres").sqlalchemy_url
        schema.upgrade(shop)
    clock, kafka = FakeClock(), MemoryKafka()
    place(shop, 1, deliver_at=clock.now() + timedelta(hours=24))
    early = run_until_quiet(App(shop, [billing()]), kafka=kafka, clock=clock)
    clock.advance(timedelta(hours=24))
    late = run_until_quiet(App(shop, [billing()]), kafka=kafka, clock=clock)

    assert len(early.scheduled) == 1
    assert (list(early.published), early.fates) == ([], [])
    assert late.scheduled == []
    assert_published(late.published, PaymentTaken, order_id=1)


def test_what_a_handler_delays_and_is_due_is_followed(database: Callable[[str], str]) -> None:
    shop, clock = database("shop"), FakeClock()
    inbox = Inbox("billing")

    @inbox.handler("orders", OrderPlaced)
    def charge(event: OrderPlaced, ctx: Context) -> None:
        ctx.publish(PaymentTaken(order_id=event.order_id), deliver_at=clock.now())

    place(shop, 1)
    report = run_until_quiet(App(shop, [inbox]), kafka=MemoryKafka(), clock=clock)
    assert_published(report.published, PaymentTaken, order_id=1)


def test_a_deadline_passes_by_the_same_clock(database: Callable[[str], str]) -> None:
    shop, clock, kafka = database("shop"), FakeClock(), MemoryKafka()
    engine = sa.create_engine(shop)
    with Session(engine) as session, session.begin():
        Outbox(source="/shop", clock=clock).publish(session, OrderPlaced(order_id=1), expires_in=timedelta(hours=1))
    engine.dispose()
    clock.advance(timedelta(hours=2))
    report = run_until_quiet(App(shop, [billing()]), kafka=kafka, clock=clock)
    assert [fate.step for fate in report.fates] == ["expired"]


def test_a_rate_takes_the_clocks_time_and_not_ours(database: Callable[[str], str]) -> None:
    shop, clock = database("shop"), FakeClock()
    place(shop, *range(5))
    real, began = time.monotonic(), clock.monotonic()
    report = run_until_quiet(App(shop, [failing(lambda ctx: False, rate=1.0)]), kafka=MemoryKafka(), clock=clock)
    assert len(report.handled) == 5
    assert clock.monotonic() - began > 3.9
    assert time.monotonic() - real < 10


def test_what_kafka_refuses_is_told_as_parked(database: Callable[[str], str]) -> None:
    shop = database("shop")
    place(shop, 1, 1)
    report = run_until_quiet(App(shop), kafka=MemoryKafka(auto_create=False))

    assert list(report.published) == []
    first, behind = report.parked
    assert "create it" in str(first.error)
    assert behind.error is None or "create it" in behind.error
    with pytest.raises(AssertionError, match="is parked"):
        report.assert_well()


@pytest.mark.parametrize(
    ("step", "duplicates"), [("published", 0), ("read", 0), ("applied", 0), ("handled", 1), ("received", 0)]
)
def test_after_a_crash_at_a_step_the_next_run_goes_on_and_nothing_is_done_twice(
    database: Callable[[str], str], step: str, duplicates: int
) -> None:
    shop, kafka = database("shop"), MemoryKafka()
    engine = sa.create_engine(shop)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE payment (order_id integer)")
    inbox = Inbox("billing")

    @inbox.handler("orders", OrderPlaced)
    def charge(event: OrderPlaced, ctx: Context) -> None:
        ctx.session.execute(sa.text("INSERT INTO payment VALUES (:id)"), {"id": event.order_id})

    place(shop, 1)
    with pytest.raises(Crash):
        run_until_quiet(App(shop, [inbox]), kafka=kafka, observer=crash_at(step))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("postroom-")]
    report = run_until_quiet(App(shop, [inbox]), kafka=kafka)

    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT order_id FROM payment").scalars().all() == [1]
    engine.dispose()
    copies = 2 if step == "published" else 1
    assert len(kafka.records("orders")) == copies, "after a crash before the settling it is published again"
    assert len(report.duplicates) == (copies - 1) + duplicates


def test_an_outage_of_kafka_is_waited_for(database: Callable[[str], str], eventually: Callable[..., None]) -> None:
    shop, kafka = database("shop"), MemoryKafka()
    place(shop, 1)
    seen: list[str] = []

    def observe(step: str, /, **facts: Any) -> None:
        seen.append(step)
        if step == "read":
            kafka.pause()
            threading.Timer(0.3, kafka.start).start()

    run_until_quiet(App(shop, [billing()]), kafka=kafka, observer=observe).assert_well()
    assert "handled" in seen


def test_what_never_ends_is_told_with_its_place_and_the_last_error(database: Callable[[str], str]) -> None:
    shop = database("shop")
    place(shop, 7)
    inbox = Inbox("billing")

    @inbox.handler("orders", OrderPlaced)
    def charge(event: OrderPlaced, ctx: Context) -> None:
        raise Unavailable("The bank is away.")

    with pytest.raises(NotQuietError) as told:
        run_until_quiet(App(shop, [inbox]), kafka=MemoryKafka(), timeout=1.0)
    text = str(told.value)
    assert text.startswith("Not quiet after 1 s. Left to do:\n  billing: 1 unread of orders/")
    assert 'shop.order.placed on orders key 7: {"order_id":7}' in text
    assert "The last error of billing: Unavailable: The bank is away." in text


def test_what_ends_a_daemon_is_raised_at_once(tmp_path: Path) -> None:
    with pytest.raises(SchemaMissing):
        run_until_quiet(App(f"sqlite:///{tmp_path / 'empty.db'}", [billing()]), kafka=MemoryKafka())
    with pytest.raises(ConfigurationError, match="at least one App"):
        run_until_quiet(kafka=MemoryKafka())
    with pytest.raises(ConfigurationError, match=r"kafka must be a MemoryKafka, or what .* gives, not str"):
        run_until_quiet(App("sqlite:///x.db"), kafka="localhost:9092")  # type: ignore[arg-type]


def test_a_database_that_is_away_is_told_without_its_password() -> None:
    url = "postgresql://nobody:secret@127.0.0.1:1/x"
    with pytest.raises(NotQuietError, match="The database does not answer") as told:
        run_until_quiet(App(url, [billing()]), kafka=MemoryKafka(), timeout=0.2)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("which", ["broker", "mock"])
def test_on_postgresql_and_a_broker(
    which: str,
    request: pytest.FixtureRequest,
    postroom_postgres: Database,
    postroom_topic: Callable[[str], str],
) -> None:
    schema.upgrade(postroom_postgres.url)
    orders, payments = postroom_topic("orders"), postroom_topic("payments")

    def run(broker: Broker) -> Report:
        kafka: Kafka = connect(broker.options_for())
        first, second = Inbox(postroom_topic("billing")), Inbox(postroom_topic("shipping"))
        done: list[str] = []

        @first.handler(orders)
        def charge(received: Any, ctx: Context) -> None:
            if ctx.attempt < 4:
                raise RuntimeError("not yet")
            ctx.publish(Message(topic=payments, key="k", payload=b"{}", type="paid"))

        @second.handler(payments)
        def send(received: Any, ctx: Context) -> None:
            done.append(ctx.message_id)

        engine = sa.create_engine(postroom_postgres.sqlalchemy_url)
        with Session(engine) as session, session.begin():
            outbox.publish(session, Message(topic=orders, key="k", payload=b"{}", type="placed"))
        engine.dispose()
        report = run_until_quiet(App(postroom_postgres.sqlalchemy_url, [first, second]), kafka=kafka, timeout=60)
        assert len(done) == 1
        return report

    if which == "broker":
        report = run(request.getfixturevalue("postroom_real_kafka"))
    else:
        with kafka_broker(prefer="mock") as mock:
            report = run(mock)
    report.assert_well()
    assert [message.topic for message in report.published] == [orders, payments]
