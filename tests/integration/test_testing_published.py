"""What a transaction will publish, as a user's test sees it: on both databases, every kind of target."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from postroom.messaging.errors import SchemaMissing, UsageError
from postroom.outbox import Event, Message, Names, Outbox, schema
from postroom.testing import Messages, assert_not_published, assert_published, published
from postroom.testing.postgres import Database

outbox = Outbox(source="/shop")


class OrderPlaced(Event, topic="orders", key="order_id", type="shop.order.placed"):
    order_id: int
    cents: int = 0


class OrderPaid(Event, topic="payments", key="order_id", type="shop.order.paid"):
    order_id: int


@pytest.fixture(params=["postgres", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postroom_postgres").sqlalchemy_url
    schema.upgrade(url)
    return str(url)


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":  # SQLAlchemy's recipe for savepoints
        sa.event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    yield engine
    engine.dispose()


def place(target: Any, order_id: int, **options: Any) -> None:
    outbox.publish(target, OrderPlaced(order_id=order_id, cents=order_id * 100), **options)


def ids(messages: Messages) -> list[int]:
    return [event.order_id for event in messages.of(OrderPlaced)]


def count(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        table = Names().table("outbox", "sqlite" if engine.dialect.name == "sqlite" else "postgres")
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def test_what_a_session_only_remembers_until_its_commit_is_seen(engine: sa.Engine) -> None:
    with Session(engine) as session:
        with published(session) as messages:
            outbox.publish(
                session, OrderPlaced(order_id=7, cents=990), headers={"tenant": "a"}, correlation_id="checkout"
            )
        session.rollback()

    [message] = messages
    assert (message.topic, message.key, message.type) == ("orders", b"7", "shop.order.placed")
    assert message.event(OrderPlaced) == OrderPlaced(order_id=7, cents=990)
    assert message.json == {"order_id": 7, "cents": 990}
    assert message.headers["tenant"] == "a"
    assert message.headers["correlation_id"] == "checkout"
    assert message.headers["ce_source"] == "/shop"
    assert message.deliver_at is None
    assert count(engine) == 0


def test_a_delayed_message_tells_when_it_is_due(engine: sa.Engine) -> None:
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    for commit in (False, True):
        with Session(engine) as session:
            with published(session) as messages:
                place(session, 1, deliver_at=due)
                place(session, 2)
                if commit:
                    session.commit()
            session.rollback()
        assert {
            event.order_id: message.deliver_at for message in messages for event in [message.event(OrderPlaced)]
        } == {
            1: due,
            2: None,
        }


def test_a_released_savepoint_publishes_and_a_rolled_back_one_does_not(engine: sa.Engine) -> None:
    with Session(engine) as session:
        with published(session) as messages:
            with session.begin_nested():
                place(session, 1)
            undone = session.begin_nested()
            place(session, 2)
            undone.rollback()
            with session.begin_nested():
                place(session, 3)
                inner = session.begin_nested()
                place(session, 4)
                inner.rollback()
        session.rollback()

    assert ids(messages) == [1, 3]


def test_only_what_is_done_in_the_block_is_seen(engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        place(session, 1)
    with Session(engine) as session:
        place(session, 2)
        place(session, 3, deliver_at=datetime.now(UTC) + timedelta(hours=1))
        with published(session) as messages:
            place(session, 4)
        place(session, 5)

    assert ids(messages) == [4]


def test_in_an_outer_transaction_that_is_rolled_back_commits_of_the_code_under_test_are_seen(engine: sa.Engine) -> None:
    """The classic pattern: the session joins the test's transaction; its commits only release savepoints."""
    with engine.connect() as connection:
        outer = connection.begin()
        session = Session(connection, join_transaction_mode="create_savepoint")
        with published(session) as messages:
            place(session, 1)
            session.commit()
            place(session, 2)
            session.rollback()
            place(session, 3)
            session.commit()
            place(session, 4)
        session.close()
        outer.rollback()

    assert ids(messages) == [1, 3, 4]
    assert count(engine) == 0


def test_it_begins_no_transaction_that_the_code_under_test_wants_to_begin(engine: sa.Engine) -> None:
    with Session(engine) as session:
        with published(session) as messages:
            with session.begin():
                place(session, 1)
            assert not session.in_transaction()
        assert not session.in_transaction()
    with engine.connect() as connection:
        with published(connection) as more, connection.begin():
            place(connection, 2)
        assert not connection.in_transaction()

    assert (ids(messages), ids(more)) == ([1], [2])
    assert count(engine) == 2


def test_on_a_connection_savepoints_count_as_well(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        with published(connection) as messages:
            place(connection, 1)
            with connection.begin_nested() as savepoint:
                place(connection, 2)
                savepoint.rollback()
            with connection.begin_nested():
                place(connection, 3)
        connection.rollback()

    assert ids(messages) == [1, 3]


def test_a_scoped_session_is_a_session(engine: sa.Engine) -> None:
    sessions = scoped_session(sessionmaker(engine))
    with published(sessions) as messages:
        place(sessions, 1)
    sessions.remove()

    assert ids(messages) == [1]


def test_asynchronous_targets(url: str) -> None:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        parsed = parsed.set(drivername="sqlite+aiosqlite")

    async def run() -> None:
        engine = create_async_engine(parsed)
        async with AsyncSession(engine) as session:
            async with published(session) as messages:
                place(session, 1)
                undone = await session.begin_nested()
                place(session, 2)
                await undone.rollback()
            await session.rollback()
            assert ids(messages) == [1]
            with pytest.raises(UsageError, match="async with published"), published(session):
                pass
        async with engine.connect() as connection:
            async with published(connection) as messages:
                await outbox.publish_async(connection, OrderPlaced(order_id=3))
            await connection.rollback()
            assert ids(messages) == [3]
        await engine.dispose()

    asyncio.run(run())


def test_a_psycopg_connection_with_rows_as_it_likes(postroom_postgres: Database) -> None:
    schema.upgrade(postroom_postgres.url)
    with psycopg.connect(postroom_postgres.url, row_factory=dict_row) as connection:
        with published(connection) as messages, connection.transaction(force_rollback=True):
            place(connection, 1)
        assert ids(messages) == []
        with published(connection) as messages:
            place(connection, 2)
            with connection.transaction(force_rollback=True):
                place(connection, 3)
        connection.rollback()
        assert ids(messages) == [2]

    async def run() -> list[int]:
        async with await psycopg.AsyncConnection.connect(postroom_postgres.url) as connection:
            async with published(connection) as messages:
                await outbox.publish_async(connection, OrderPlaced(order_id=4))
            await connection.rollback()
        return ids(messages)

    assert asyncio.run(run()) == [4]


def test_an_error_in_the_block_is_the_error(engine: sa.Engine) -> None:
    with pytest.raises(ZeroDivisionError), Session(engine) as session, published(session):
        raise ZeroDivisionError


def test_without_tables_it_says_so(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(SchemaMissing, match="postroom init"), Session(engine) as session, published(session):
        pass
    engine.dispose()


def test_other_targets_are_refused() -> None:
    with pytest.raises(UsageError, match=r"Cannot see what a builtins.str publishes"):
        published("postgresql://")  # type: ignore[arg-type]


def test_tables_elsewhere_are_found_by_the_outbox(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    elsewhere = Outbox(source="/shop", names=Names(schema="mail"))
    schema.upgrade(url, elsewhere.names)
    engine = sa.create_engine(url)
    with Session(engine) as session:
        with published(session, outbox=elsewhere) as messages:
            elsewhere.publish(session, OrderPlaced(order_id=1))
        session.commit()
    engine.dispose()
    assert ids(messages) == [1]


@pytest.fixture
def three(tmp_path: Path) -> Messages:
    url = f"sqlite:///{tmp_path / 'three.db'}"
    schema.upgrade(url)
    engine = sa.create_engine(url)
    with Session(engine) as session, published(session) as messages:
        place(session, 1)
        place(session, 2)
        outbox.publish(session, Message(topic="orders", key="k", payload=b"\xff", type="shop.order.placed"))
        outbox.publish(session, Message(topic="audit", payload=b"{}", type="shop.order.placed"))
    engine.dispose()
    return messages


def test_the_one_with_these_values_is_found_and_returned(three: Messages) -> None:
    assert assert_published(three, OrderPlaced, order_id=2) == OrderPlaced(order_id=2, cents=200)
    assert_not_published(three, OrderPlaced, order_id=3)
    assert_not_published(three, OrderPaid)
    assert len(three.on("audit")) == 1
    assert len(three[1:]) == 3


def test_what_is_there_instead_is_told(three: Messages) -> None:
    with pytest.raises(AssertionError) as told:
        assert_published(three, OrderPlaced, order_id=2, cents=5)
    assert str(told.value).splitlines() == [
        "Wanted one OrderPlaced(order_id=2, cents=5); published: 0.",
        "Of 4 in all:",
        '  1. shop.order.placed on orders key 1: {"order_id":1,"cents":100}',
        "       order_id is 1, not 2",
        "       cents is 100, not 5",
        '  2. shop.order.placed on orders key 2: {"order_id":2,"cents":200}',
        "       cents is 200, not 5",
        "  3. shop.order.placed on orders key k: \\xff",
        "       The payload is not JSON: Invalid JSON: expected value at line 1 column 1.",
        "  4. shop.order.placed on audit: {}",
        "       its topic is audit, not orders",
    ]
    with pytest.raises(AssertionError, match=r"Wanted one OrderPlaced\(\); published: 2"):
        assert_published(three, OrderPlaced)
    with pytest.raises(AssertionError, match=r"Wanted none OrderPlaced\(order_id=1\); published: 1"):
        assert_not_published(three, OrderPlaced, order_id=1)
    with pytest.raises(AssertionError, match="Nothing is published at all"):
        assert_published(Messages(), OrderPaid)
    with pytest.raises(TypeError, match="OrderPlaced has no field 'total'; it has order_id, cents"):
        assert_published(three, OrderPlaced, total=5)
