"""P1: a message is in the log if and only if the caller's transaction committed, through every way to publish."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from postroom.messaging.errors import InvalidMessage, NotInTransaction, SchemaMissing, UsageError
from postroom.outbox import Event, Message, Names, Outbox, schema
from postroom.outbox.database import open_store, parse_url
from postroom.testing.postgres import Database

OUTBOX = Outbox(source="/shop")


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="new")


class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: int


@pytest.fixture(params=["postgres", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        database: Database = request.getfixturevalue("postroom_postgres")
        url = database.url
    else:
        url = f"sqlite:///{tmp_path / 'shop.db'}"
    schema.upgrade(url)
    return url


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(parse_url(url))
    if engine.dialect.name == "sqlite":
        honest_savepoints(engine)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def honest_savepoints(engine: sa.Engine) -> None:
    """SQLAlchemy's recipe for SQLite: the driver must not begin transactions on its own."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")


@pytest.fixture
def logged(url: str) -> Callable[[], list[int]]:
    """The order ids in the log, in the order of their positions."""

    def read() -> list[int]:
        engine = sa.create_engine(parse_url(url))
        table = Names().table("outbox", "sqlite" if engine.dialect.name == "sqlite" else "postgres")
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(f"SELECT payload FROM {table} ORDER BY position").scalars().all()
        engine.dispose()
        return [OrderPlaced.model_validate_json(payload).order_id for payload in rows]

    return read


def orders(engine: sa.Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.scalars(sa.select(Order.id).order_by(Order.id)))


def place(session: Session, number: int) -> None:
    session.add(Order(id=number))
    OUTBOX.publish(session, OrderPlaced(order_id=number))


def test_a_committed_session_publishes_in_the_order_of_the_calls(
    engine: sa.Engine, logged: Callable[[], list[int]]
) -> None:
    with Session(engine) as session:
        for number in (3, 1, 2):
            place(session, number)
        assert logged() == []
        session.commit()
        place(session, 4)
        session.commit()

    assert logged() == [3, 1, 2, 4]


def test_publish_returns_the_message_id(engine: sa.Engine, url: str) -> None:
    with Session(engine) as session, session.begin():
        message_id = OUTBOX.publish(session, OrderPlaced(order_id=1))
    store = open_store(url)
    reader = store.reader("test", 60)
    reader.claim()

    assert [UUID(row.id) for row in reader.read(10).rows] == [message_id]
    reader.close()
    store.close()


@pytest.mark.parametrize("end", ["rollback", "close", "exception"])
def test_a_session_that_does_not_commit_publishes_nothing(
    engine: sa.Engine, logged: Callable[[], list[int]], end: str
) -> None:
    with suppress(KeyError), Session(engine) as session:
        place(session, 1)
        if end == "rollback":
            session.rollback()
            place(session, 2)
            session.commit()
        if end == "exception":
            raise KeyError

    assert logged() == ([2] if end == "rollback" else [])
    assert orders(engine) == logged()


def test_a_session_with_nothing_but_messages_publishes_them(engine: sa.Engine, logged: Callable[[], list[int]]) -> None:
    with Session(engine) as session:
        OUTBOX.publish(session, OrderPlaced(order_id=1))
        session.commit()

    assert logged() == [1]


def test_savepoints_take_their_messages_along(engine: sa.Engine, logged: Callable[[], list[int]]) -> None:
    with Session(engine) as session, session.begin():
        place(session, 1)
        with suppress(KeyError), session.begin_nested():
            place(session, 2)
            with session.begin_nested():
                place(session, 3)
            raise KeyError
        with session.begin_nested():
            place(session, 4)
            with suppress(KeyError), session.begin_nested():
                place(session, 5)
                raise KeyError
            place(session, 6)
        place(session, 7)

    assert logged() == [1, 4, 6, 7]
    assert orders(engine) == [1, 4, 6, 7]


def test_a_savepoint_released_goes_with_the_outer_rollback(engine: sa.Engine, logged: Callable[[], list[int]]) -> None:
    with Session(engine) as session:
        with session.begin_nested():
            place(session, 1)
        session.rollback()
        session.commit()

    assert logged() == []


def test_commit_from_within_a_savepoint_publishes_all(engine: sa.Engine, logged: Callable[[], list[int]]) -> None:
    with Session(engine) as session:
        place(session, 1)
        session.begin_nested()
        place(session, 2)
        session.commit()

    assert logged() == [1, 2]


@pytest.mark.parametrize("hook", ["before_flush", "after_flush", "before_commit"])
@pytest.mark.parametrize("published_before", [False, True])
def test_messages_published_from_hooks_of_the_commit_are_in(
    engine: sa.Engine, logged: Callable[[], list[int]], hook: str, published_before: bool
) -> None:
    with Session(engine) as session:
        event.listen(session, hook, lambda session, *_: OUTBOX.publish(session, OrderPlaced(order_id=9)), once=True)
        if published_before:
            OUTBOX.publish(session, OrderPlaced(order_id=1))
        session.add(Order(id=1))
        session.commit()

    assert logged() == ([1, 9] if published_before else [9])


def test_a_hook_that_publishes_without_any_change_of_rows_is_in(
    engine: sa.Engine, logged: Callable[[], list[int]]
) -> None:
    with Session(engine) as session:
        session.add(Order(id=1))
        session.commit()
        order = session.get_one(Order, 1)
        session.commit()

        @event.listens_for(session, "before_flush")
        def publish(session: Session, *_: Any) -> None:
            order.state = "new"  # dirty at first sight, clean at second: no statement is sent
            OUTBOX.publish(session, OrderPlaced(order_id=9))

        order.state = "new"
        session.commit()

    assert logged() == [9]


def test_the_insert_is_the_last_statement_before_commit(engine: sa.Engine) -> None:
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2].split()[0:3]))
    event.listen(engine, "commit", lambda _: statements.append("COMMIT"))
    with Session(engine) as session, session.begin():
        OUTBOX.publish(session, OrderPlaced(order_id=1))
        session.execute(sa.insert(Order).values(id=1))
        OUTBOX.publish(session, OrderPlaced(order_id=2))
        session.add(Order(id=2))

    wrote = [" ".join(words) for words in statements if words[0] == "INSERT"]
    assert len(wrote) == 3, "two orders, and one statement for both messages"
    assert "orders" in wrote[0]
    assert "orders" in wrote[1]
    assert "outbox" in wrote[2]


def test_a_failed_commit_publishes_nothing_and_the_session_goes_on(
    engine: sa.Engine, logged: Callable[[], list[int]]
) -> None:
    with Session(engine) as session:
        place(session, 1)
        session.commit()
        place(session, 1)
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()
        session.rollback()
        place(session, 2)
        session.commit()

    assert logged() == [1, 2]


def test_without_the_tables_the_whole_transaction_fails(engine: sa.Engine) -> None:
    outbox = Outbox(source="/shop", names=Names(schema="elsewhere"))
    with Session(engine) as session:
        session.add(Order(id=1))
        outbox.publish(session, OrderPlaced(order_id=1))
        with pytest.raises(SchemaMissing, match="postroom init"):
            session.commit()
        session.rollback()
        session.add(Order(id=2))
        session.commit()

    with Session(engine) as session:
        session.add(Order(id=3))
        outbox.publish(session, OrderPlaced(order_id=3))
        with pytest.raises(SchemaMissing, match="postroom init"):
            session.commit()
    assert orders(engine) == [2], "also where nobody calls rollback()"


def test_a_scoped_session_publishes(engine: sa.Engine, logged: Callable[[], list[int]]) -> None:
    scoped = scoped_session(sessionmaker(engine))
    place(scoped(), 1)
    OUTBOX.publish(scoped, OrderPlaced(order_id=2))
    scoped.commit()
    scoped.remove()

    assert logged() == [1, 2]


@pytest.mark.parametrize("mode", ["create_savepoint", "rollback_only", "conditional_savepoint"])
@pytest.mark.parametrize("committed", [True, False])
def test_a_session_inside_somebody_elses_transaction_publishes_with_that(
    engine: sa.Engine, logged: Callable[[], list[int]], mode: Any, committed: bool
) -> None:
    with engine.connect() as connection, connection.begin() as transaction:
        with Session(connection, join_transaction_mode=mode) as session:
            place(session, 1)
            session.commit()
            place(session, 2)
            session.commit()
        assert logged() == []
        if not committed:
            transaction.rollback()

    assert logged() == ([1, 2] if committed else [])


def test_several_sessions_do_not_mix(engine: sa.Engine, logged: Callable[[], list[int]]) -> None:
    with Session(engine) as first:
        OUTBOX.publish(first, OrderPlaced(order_id=1))
        with Session(engine) as second:
            OUTBOX.publish(second, OrderPlaced(order_id=2))
            second.commit()
        assert logged() == [2]
        first.rollback()

    assert logged() == [2]


def test_a_session_that_begins_nothing_by_itself_must_be_begun(engine: sa.Engine) -> None:
    with Session(engine, autobegin=False) as session, pytest.raises(NotInTransaction, match="begin"):
        OUTBOX.publish(session, OrderPlaced(order_id=1))


def test_a_session_in_autocommit_mode_is_told_so(url: str, logged: Callable[[], list[int]]) -> None:
    engine = sa.create_engine(parse_url(url), isolation_level="AUTOCOMMIT")
    with Session(engine) as session:
        OUTBOX.publish(session, OrderPlaced(order_id=1))
        with pytest.raises(NotInTransaction, match="autocommit"):
            session.commit()
    engine.dispose()

    assert logged() == []


def test_a_core_connection_writes_at_the_call(engine: sa.Engine, logged: Callable[[], list[int]]) -> None:
    with engine.connect() as connection:
        OUTBOX.publish(connection, OrderPlaced(order_id=1))
        connection.commit()
        OUTBOX.publish(connection, OrderPlaced(order_id=2))
        connection.rollback()
        OUTBOX.publish(connection, OrderPlaced(order_id=3))
        with connection.begin_nested() as savepoint:
            OUTBOX.publish(connection, OrderPlaced(order_id=4))
            savepoint.rollback()
        connection.commit()

    assert logged() == [1, 3]


@pytest.mark.parametrize("target", [None, "session", 5, object()])
def test_a_target_of_the_wrong_kind_is_told_so(target: Any) -> None:
    with pytest.raises(UsageError, match="Cannot publish on a"):
        OUTBOX.publish(target, OrderPlaced(order_id=1))


@pytest.mark.parametrize("message", [None, {"order_id": 1}, OrderPlaced])
def test_a_message_of_the_wrong_kind_is_told_so(engine: sa.Engine, message: Any) -> None:
    with Session(engine) as session, pytest.raises(InvalidMessage, match="Publish an Event or a Message"):
        OUTBOX.publish(session, message)


# --- psycopg, and what is asynchronous: PostgreSQL ---


@pytest.fixture
def database(postroom_postgres: Database) -> Database:
    schema.upgrade(postroom_postgres.url)
    engine = sa.create_engine(parse_url(postroom_postgres.url))
    Base.metadata.create_all(engine)
    engine.dispose()
    return postroom_postgres


def in_log(database: Database) -> list[str]:
    with psycopg.connect(database.url) as connection:
        rows = connection.execute("SELECT convert_from(payload, 'utf8') FROM postroom.outbox ORDER BY position")
        return [row[0] for row in rows]


def text(payload: str) -> Message:
    return Message(topic="t", key="k", payload=payload.encode(), type="x")


def test_psycopg_connections_and_cursors_publish_at_the_call(database: Database) -> None:
    with psycopg.connect(database.url) as connection, connection.cursor() as cursor:
        OUTBOX.publish(connection, text("1"))
        cursor.execute("SELECT 42")
        OUTBOX.publish(cursor, text("2"))
        assert cursor.fetchone() == (42,), "the caller's result is untouched"
        connection.commit()
        OUTBOX.publish(connection, text("3"))
        connection.rollback()
        with suppress(KeyError), connection.transaction():
            OUTBOX.publish(connection, text("4"))
            raise KeyError
        with connection.transaction():
            OUTBOX.publish(connection, text("5"))

    assert in_log(database) == ["1", "2", "5"]


def test_a_psycopg_connection_in_autocommit_needs_a_transaction(database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        with pytest.raises(NotInTransaction, match="autocommit"):
            OUTBOX.publish(connection, text("1"))
        with connection.transaction():
            OUTBOX.publish(connection, text("2"))

    assert in_log(database) == ["2"]


def test_asynchronous_psycopg(database: Database) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(database.url) as connection:
            await OUTBOX.publish_async(connection, text("1"))
            await connection.commit()
            async with connection.cursor() as cursor:
                await OUTBOX.publish_async(cursor, text("2"))
            await connection.rollback()
            with pytest.raises(UsageError, match="publish_async"):
                OUTBOX.publish(connection, text("3"))  # type: ignore[arg-type]
            await connection.set_autocommit(True)
            with pytest.raises(NotInTransaction):
                await OUTBOX.publish_async(connection, text("4"))

    asyncio.run(main())
    assert in_log(database) == ["1"]


def test_asynchronous_sqlalchemy(database: Database) -> None:
    async def main() -> None:
        engine = create_async_engine(parse_url(database.url))
        async with engine.connect() as connection:
            await OUTBOX.publish_async(connection, text("1"))
            await connection.rollback()
            await OUTBOX.publish_async(connection, text("2"))
            await connection.commit()
            with pytest.raises(UsageError, match="publish_async"):
                OUTBOX.publish(connection, text("3"))  # type: ignore[arg-type]
        async with AsyncSession(engine) as session, session.begin():
            OUTBOX.publish(session, text("4"))
            session.add(Order(id=1))
            with suppress(KeyError):
                async with session.begin_nested():
                    OUTBOX.publish(session, text("5"))
                    raise KeyError
            async with session.begin_nested():
                OUTBOX.publish(session, text("6"))
        async with async_sessionmaker(engine)() as session:
            event.listen(
                session.sync_session, "after_flush", lambda session, _: OUTBOX.publish(session, text("7")), once=True
            )
            session.add(Order(id=2))
            await session.commit()
            OUTBOX.publish(session, text("8"))
            await session.rollback()
            await OUTBOX.publish_async(session, text("9"))
            await session.commit()
        await engine.dispose()

    asyncio.run(main())
    assert in_log(database) == ["2", "4", "6", "7", "9"]


def test_two_phase_commit(database: Database) -> None:
    engine = sa.create_engine(parse_url(database.url))
    with Session(engine, twophase=True) as session:
        place(session, 1)
        session.prepare()
        assert in_log(database) == []
        session.commit()
        place(session, 2)
        session.prepare()
        session.rollback()
    engine.dispose()

    assert in_log(database) == ['{"order_id":1}']


def test_an_isolation_level_of_serializable_publishes(database: Database) -> None:
    engine = sa.create_engine(parse_url(database.url), isolation_level="SERIALIZABLE")
    with Session(engine) as session:
        place(session, 1)
        session.commit()
    engine.dispose()

    assert in_log(database) == ['{"order_id":1}']


def test_many_messages_of_one_transaction_keep_their_order(database: Database) -> None:
    engine = sa.create_engine(parse_url(database.url))
    with Session(engine) as session, session.begin():
        for number in range(2_500):
            OUTBOX.publish(session, text(str(number)))
    engine.dispose()

    assert in_log(database) == [str(number) for number in range(2_500)]


def test_publishing_works_while_no_partition_is_left(database: Database) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute("SELECT setval('postroom.outbox_position', 4000001)")
        OUTBOX.publish(connection, text("beyond"))
    store = open_store(database.url)
    store.add_partitions()
    with psycopg.connect(database.url) as connection:
        OUTBOX.publish(connection, text("after"))
    reader = store.reader("test", 60)
    reader.claim()

    assert [row.payload for row in reader.read(10).rows] == [b"beyond", b"after"]
    reader.close()
    store.close()


def test_partitions_are_added_beside_an_open_writer(database: Database) -> None:
    store = open_store(database.url)
    with psycopg.connect(database.url) as connection:
        connection.execute("SELECT setval('postroom.outbox_position', 2000001)")
        connection.commit()
        OUTBOX.publish(connection, text("open"))
        store.add_partitions()
        with psycopg.connect(database.url) as other:
            OUTBOX.publish(other, text("beside"))
    store.close()
    with psycopg.connect(database.url) as connection:
        found = connection.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = 'postroom.outbox'::regclass")
        assert (found.fetchone() or [0])[0] == 1 + 7

    assert in_log(database) == ["open", "beside"]
