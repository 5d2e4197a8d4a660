"""Handlers that run twice: what they leave in the database the second time is found, and nothing else is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from postroom.inbox import AsyncContext, Context, Inbox
from postroom.messaging.errors import UsageError
from postroom.outbox import Event, Message, schema
from postroom.testing import assert_idempotent


class OrderPlaced(Event, topic="orders", key="order_id", type="shop.order.placed"):
    order_id: int


class PaymentTaken(Event, topic="payments", key="order_id", type="billing.payment.taken"):
    order_id: int


ORDER = OrderPlaced(order_id=7)
ACCOUNT = "INSERT INTO account (id, balance, note) VALUES (1, 100, 'new')"


@pytest.fixture(params=["postgres", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'billing.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postroom_postgres").sqlalchemy_url
    schema.upgrade(url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE account (id integer PRIMARY KEY, balance integer, note text)")
        connection.exec_driver_sql("CREATE TABLE payment (order_id integer, cents integer)")
        connection.exec_driver_sql(ACCOUNT)
    engine.dispose()
    return str(url)


def inbox_of(function: Callable[[OrderPlaced, Context], object], **options: Any) -> Inbox:
    inbox = Inbox("billing")
    inbox.handler("orders", OrderPlaced, **options)(function)
    return inbox


def pay(event: OrderPlaced, ctx: Context) -> None:
    ctx.session.execute(sa.text("INSERT INTO payment VALUES (:id, 990)"), {"id": event.order_id})
    ctx.session.execute(sa.text("UPDATE account SET balance = balance - 10, note = 'touched'"))
    ctx.publish(PaymentTaken(order_id=event.order_id))


def pay_once(event: OrderPlaced, ctx: Context) -> None:
    found = ctx.session.execute(sa.text("SELECT 1 FROM payment WHERE order_id = :id"), {"id": event.order_id}).first()
    if found is None:
        pay(event, ctx)


def failure(*args: Any, **options: Any) -> list[str]:
    with pytest.raises(AssertionError) as told:
        assert_idempotent(*args, **options)
    return str(told.value).splitlines()


def rows(url: str, table: str) -> int:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        count = int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())
    engine.dispose()
    return count


def test_what_a_handler_does_in_its_transaction_the_inbox_does_once(url: str) -> None:
    assert_idempotent(inbox_of(pay), ORDER, database_url=url)
    assert rows(url, "payment") == 1


def test_past_the_inbox_every_row_and_message_that_comes_again_is_told(url: str) -> None:
    told = failure(inbox_of(pay), ORDER, database_url=url, past_inbox=True)

    assert told[0].endswith(
        "pay is not idempotent: delivered again when the inbox had forgotten the message, it changed the database."
    )
    assert told[1:] == [
        "  account: the row id=1 changed: balance was 90, is 80",
        "  payment: the row order_id=7, cents=990 (the same for the 2. time) was added: order_id=7, cents=990",
        '  published again: billing.payment.taken on payments key 7: {"order_id":7}',
    ]


def test_a_handler_that_looks_first_passes_past_the_inbox(url: str) -> None:
    assert_idempotent(inbox_of(pay_once), ORDER, database_url=url, past_inbox=True)


def test_what_may_differ_is_left_out(url: str) -> None:
    inbox = inbox_of(pay)
    given: dict[str, Any] = {"database_url": url, "past_inbox": True}
    assert failure(inbox, ORDER, **given, tables=["account"], ignore=["account.balance"])[1:] == [
        '  published again: billing.payment.taken on payments key 7: {"order_id":7}'
    ]
    assert_idempotent(inbox, ORDER, **given, tables=["account"], ignore=["balance"], ignore_published=True)


def test_what_is_done_beside_the_transaction_is_found(url: str) -> None:
    engine = sa.create_engine(url)

    def beside(event: OrderPlaced, ctx: Context) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO payment VALUES (1, 1)")

    if engine.dialect.name == "sqlite":
        pytest.skip("a second connection cannot write while the first one does")
    told = failure(inbox_of(beside), ORDER, database_url=url)
    engine.dispose()
    assert (
        "it does something beside ctx.session. Run, and rolled back as by a crash, it changed the database." in told[0]
    )
    assert told[1] == "  payment: the row order_id=1, cents=1 was added: order_id=1, cents=1"


def test_a_handler_that_asked_for_duplicates_is_called_for_one(url: str) -> None:
    def log(event: OrderPlaced, ctx: Context) -> None:
        ctx.session.execute(sa.text("DELETE FROM account" if ctx.duplicate else "SELECT 1"))

    told = failure(inbox_of(log, duplicates=True), ORDER, database_url=url)
    assert "delivered again, as a duplicate, it changed the database." in told[0]
    assert told[1:] == ["  account: the row id=1 was removed"]


def test_an_async_handler_is_run(url: str) -> None:
    inbox = Inbox("billing")

    @inbox.handler("orders", OrderPlaced)
    async def charge(event: OrderPlaced, ctx: AsyncContext) -> None:
        await ctx.session.execute(sa.text("INSERT INTO payment VALUES (:id, 990)"), {"id": event.order_id})

    assert_idempotent(inbox, ORDER, database_url=url)
    assert "payment: the row" in failure(inbox, OrderPlaced(order_id=8), database_url=url, past_inbox=True)[1]


def test_a_function_is_run_twice(url: str) -> None:
    engine, inbox, message = sa.create_engine(url), Inbox("billing"), Message(topic="t", payload=b"1", type="t")

    def careless() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO payment VALUES (1, 1)")

    def careful() -> None:
        with Session(engine) as session, session.begin(), inbox.once(session, message.id) as first:
            if first:
                session.execute(sa.text("INSERT INTO payment VALUES (1, 1)"))

    assert_idempotent(careful, database_url=url)
    told = failure(careless, database_url=url)
    engine.dispose()
    assert told[0].endswith("careless is not idempotent: run a second time, it changed the database.")


def test_what_cannot_be_is_refused_in_a_sentence(url: str) -> None:
    inbox = inbox_of(pay)
    wrong: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((inbox, PaymentTaken(order_id=1)), {}, "no handler for type 'billing.payment.taken' on 'payments'"),
        ((inbox,), {}, "Give the message"),
        ((inbox, b"{}"), {}, "must be an Event, a Message or a ReceivedRecord, not bytes"),
        ((lambda: None,), {"past_inbox": True}, "a function without arguments alone"),
        ((inbox, ORDER), {"tables": ["acount"]}, r"There is no table 'acount'; there are account, payment\."),
        ((inbox, ORDER), {"ignore": ["when"]}, "There is no column 'when' to ignore in account, payment"),
    ]
    for given, options, told in wrong:
        with pytest.raises(UsageError, match=told):
            assert_idempotent(*given, database_url=url, **options)
    assert rows(url, "payment") == 0


def test_what_the_handler_raises_is_raised(url: str) -> None:
    def broken(event: OrderPlaced, ctx: Context) -> None:
        raise RuntimeError("no stock")

    with pytest.raises(RuntimeError, match="no stock"):
        assert_idempotent(inbox_of(broken), ORDER, database_url=url)
