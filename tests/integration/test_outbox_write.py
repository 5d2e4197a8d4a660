"""How messages are written: every form of the INSERT writes the same, and one sent with its COMMIT is as atomic."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from postroom.messaging.errors import DatabaseUnavailable, SchemaMissing
from postroom.outbox import Message, Outbox, schema
from postroom.outbox.database import parse_url
from postroom.outbox.pipeline import write_and_commit
from postroom.testing.postgres import Database

OUTBOX = Outbox(source="/shop")
Publish = Callable[[Database, list[Message], datetime | None], None]

TRICKY = [
    Message(topic="t", key=b"\x00\xff\\'%s", payload=bytes(range(256)) * 4, type="Ünï \\ ' \" %s %(id)s $1"),
    Message(topic="t", key="k", payload=None, type="tombstone"),
    Message(topic="t", key=None, payload=b"", type="keyless"),
    Message(topic="t", key="", payload=b"\\x00", type="x", headers={"a'\"\\": "é ☃ \U0001f600 \n\\u0000 %s", "b": ""}),
]


@pytest.fixture
def database(postroom_postgres: Database) -> Database:
    schema.upgrade(postroom_postgres.url)
    with psycopg.connect(postroom_postgres.url) as connection:
        connection.execute("CREATE TABLE business (id integer)")
    return postroom_postgres


@pytest.fixture
def engine(database: Database) -> Iterator[sa.Engine]:
    engine = sa.create_engine(parse_url(database.url))
    yield engine
    engine.dispose()


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each commit with messages, whether INSERT and COMMIT went together; a failure leaves a True behind."""
    seen: list[bool] = []

    def spy(*args: Any) -> bool:
        seen.append(True)
        seen[-1] = write_and_commit(*args)
        return seen[-1]

    monkeypatch.setattr("postroom.outbox.session.write_and_commit", spy)
    return seen


def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.url) as connection:
        return connection.execute(query.encode()).fetchall()


def business(database: Database) -> list[int]:
    return [row[0] for row in rows(database, "SELECT id FROM business ORDER BY id")]


def payloads(database: Database) -> list[bytes]:
    return [row[0] for row in rows(database, "SELECT payload FROM postroom.outbox ORDER BY position")]


def message(payload: str, **fields: Any) -> Message:
    return Message(topic="t", key="k", payload=payload.encode(), type="x", **fields)


def place(session: Session, number: int) -> None:
    session.execute(sa.text("INSERT INTO business VALUES (:id)"), {"id": number})
    OUTBOX.publish(session, message(str(number)))


def by_session(database: Database, messages: list[Message], due: datetime | None, **options: Any) -> None:
    engine = sa.create_engine(parse_url(database.url), **options)
    with Session(engine) as session, session.begin():
        session.execute(sa.text("SELECT 1"))
        for each in messages:
            OUTBOX.publish(session, each, deliver_at=due)
    engine.dispose()


def by_echoing_session(database: Database, messages: list[Message], due: datetime | None) -> None:
    by_session(database, messages, due, echo=True)


def by_latin_session(database: Database, messages: list[Message], due: datetime | None) -> None:
    """The driver must be left to encode text (what Latin-1 does not know stays out)."""
    known = [each for each in messages if str(each.headers).isascii()]
    assert len(known) < len(messages)
    by_session(database, known, due, connect_args={"client_encoding": "latin1"})
    by_session(database, [each for each in messages if each not in known], due)


def by_connection(database: Database, messages: list[Message], due: datetime | None) -> None:
    engine = sa.create_engine(parse_url(database.url))
    with engine.begin() as connection:
        for each in messages:
            OUTBOX.publish(connection, each, deliver_at=due)
    engine.dispose()


def by_psycopg(database: Database, messages: list[Message], due: datetime | None) -> None:
    with psycopg.connect(database.url) as connection:
        for each in messages:
            OUTBOX.publish(connection, each, deliver_at=due)


def by_async_session(database: Database, messages: list[Message], due: datetime | None) -> None:
    async def main() -> None:
        engine = create_async_engine(parse_url(database.url))
        async with AsyncSession(engine) as session, session.begin():
            for each in messages:
                OUTBOX.publish(session, each, deliver_at=due)
        await engine.dispose()

    asyncio.run(main())


def by_arrays(database: Database, messages: list[Message], due: datetime | None) -> None:
    """Among so many others that they go as arrays."""
    by_session(database, messages + [message("other") for _ in range(20)], due)


@pytest.mark.parametrize("due", [None, datetime(2030, 1, 2, 3, 4, 5, 6789, tzinfo=UTC)])
@pytest.mark.parametrize("count", [1, len(TRICKY)])
@pytest.mark.parametrize(
    "publish",
    [by_session, by_echoing_session, by_latin_session, by_connection, by_psycopg, by_async_session, by_arrays],
)
def test_every_form_writes_the_same_columns(
    database: Database, publish: Publish, count: int, due: datetime | None
) -> None:
    for start in range(0, len(TRICKY), count):
        batch = TRICKY[start : start + count]
        if publish is by_latin_session and count == 1:
            by_session(database, batch, due)
        else:
            publish(database, batch, due)

    table, column = ("outbox", "NULL::timestamptz") if due is None else ("outbox_scheduled", "due_at")
    found = rows(
        database,
        f"SELECT id, topic, key, type, payload, headers, {column} FROM postroom.{table} "
        "WHERE payload IS DISTINCT FROM 'other' ORDER BY id",
    )
    expected = [
        (m.id, m.topic, m.key, m.type, m.payload, {"ce_source": "/shop", **m.headers}, due)
        for m in sorted(TRICKY, key=lambda m: m.id)
    ]
    assert found == expected


@pytest.mark.parametrize("count", [1, 2, 8, 9, 1001])
@pytest.mark.parametrize("echo", [False, True])
def test_positions_follow_the_order_of_the_calls(database: Database, count: int, echo: bool) -> None:
    by_session(database, [message(str(n), id=UUID(int=count - n)) for n in range(count)], None, echo=echo)

    assert payloads(database) == [str(n).encode() for n in range(count)]


def test_a_few_messages_go_with_the_commit(database: Database, engine: sa.Engine, together: list[bool]) -> None:
    with Session(engine) as session:
        for number in range(3):
            place(session, number)
            session.commit()
            assert business(database) == list(range(number + 1))
    with psycopg.connect(database.url) as other:
        (idle,) = other.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        ).fetchone() or (None,)

    assert together == [True, True, True]
    assert payloads(database) == [b"0", b"1", b"2"]
    assert idle == 0


def break_insert(database: Database, how: str) -> None:
    raising = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} END $$; "
    trigger = "CREATE {} TRIGGER t {} INSERT ON postroom.outbox {} FOR EACH ROW EXECUTE FUNCTION f()"
    statements = {
        "constraint": "ALTER TABLE postroom.outbox ADD CHECK (payload IS NULL) NOT VALID",
        "trigger": raising.format("RAISE unique_violation USING MESSAGE = 'no';") + trigger.format("", "BEFORE", ""),
        "at commit": raising.format("RAISE unique_violation USING MESSAGE = 'no';")
        + trigger.format("CONSTRAINT", "AFTER", "DEFERRABLE INITIALLY DEFERRED"),
        "killed": raising.format("PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN new;")
        + trigger.format("", "BEFORE", ""),
        "killed at commit": raising.format("PERFORM pg_terminate_backend(pg_backend_pid()); RETURN new;")
        + trigger.format("CONSTRAINT", "AFTER", "DEFERRABLE INITIALLY DEFERRED"),
        "dropped": "DROP TABLE postroom.outbox",
    }
    with psycopg.connect(database.url) as connection:
        connection.execute(statements[how].encode())


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("constraint", sa.exc.IntegrityError),
        ("trigger", sa.exc.IntegrityError),
        ("at commit", sa.exc.IntegrityError),
        ("killed", DatabaseUnavailable),
        ("killed at commit", (DatabaseUnavailable, sa.exc.OperationalError)),
        ("dropped", SchemaMissing),
    ],
)
def test_what_the_server_refuses_takes_the_whole_transaction_along(
    database: Database, together: list[bool], how: str, error: type[Exception], echo: bool
) -> None:
    engine = sa.create_engine(parse_url(database.url), echo=echo)
    with Session(engine) as session:
        place(session, 1)
        session.commit()
        break_insert(database, how)
        place(session, 2)
        with pytest.raises(error):
            session.commit()
        session.rollback()
        session.execute(sa.text("INSERT INTO business VALUES (3)"))
        session.commit()
    with Session(engine) as session:
        place(session, 4)
        with pytest.raises(error):
            session.commit()  # and nobody calls rollback()
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO business VALUES (5)"))
    engine.dispose()

    assert together == [not echo] + ([True, True] if not echo else [False, False])
    assert business(database) == [1, 3, 5]
    if how != "dropped":
        assert payloads(database) == [b"1"]


@pytest.mark.parametrize("how", ["trigger", "at commit"])
def test_errors_read_as_those_of_sqlalchemy(database: Database, engine: sa.Engine, how: str) -> None:
    break_insert(database, how)
    with Session(engine) as session:
        place(session, 1)
        with pytest.raises(sa.exc.IntegrityError) as raised:
            session.commit()

    assert isinstance(raised.value.orig, psycopg.errors.UniqueViolation)
    assert raised.value.connection_invalidated is False
    if how == "trigger":
        assert raised.value.statement is not None
        assert raised.value.statement.startswith("INSERT INTO")


def test_a_commit_that_failed_costs_no_connection(database: Database, engine: sa.Engine) -> None:
    break_insert(database, "at commit")
    pids = set()
    with Session(engine) as session:
        for _ in range(3):
            pids.add(session.scalar(sa.text("SELECT pg_backend_pid()")))
            OUTBOX.publish(session, message("1"))
            with pytest.raises(sa.exc.IntegrityError):
                session.commit()
            session.rollback()

    assert len(pids) == 1


def test_a_transaction_that_had_failed_before_is_not_committed(
    database: Database, engine: sa.Engine, together: list[bool]
) -> None:
    with Session(engine) as session:
        place(session, 1)
        driver: Any = session.connection().connection.dbapi_connection
        with pytest.raises(psycopg.errors.DivisionByZero):
            driver.execute("SELECT 1 / 0")  # behind SQLAlchemy's back
        with pytest.raises(sa.exc.DBAPIError):
            session.commit()
        session.rollback()
        place(session, 2)
        session.commit()

    assert together == [False, True]
    assert business(database) == [2]
    assert payloads(database) == [b"2"]


def test_what_other_listeners_do_at_the_commit_is_in_the_same_transaction(
    database: Database, engine: sa.Engine, together: list[bool]
) -> None:
    with Session(engine) as session:
        place(session, 1)

        @event.listens_for(session.connection(), "commit")
        def fails_after_ours(connection: sa.Connection) -> None:
            connection.exec_driver_sql("SELECT 1 / 0")

        with pytest.raises(sa.exc.DataError):
            session.commit()
        session.rollback()

    assert together == []
    assert business(database) == []
    assert payloads(database) == []


def test_who_handles_errors_sees_them(database: Database, engine: sa.Engine) -> None:
    seen = []
    event.listen(engine, "handle_error", lambda context: seen.append(context.original_exception))
    break_insert(database, "trigger")
    with Session(engine) as session:
        place(session, 1)
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()

    assert [type(error) for error in seen] == [psycopg.errors.UniqueViolation]


def test_a_large_payload_goes_with_the_commit(database: Database, engine: sa.Engine, together: list[bool]) -> None:
    large = [message("x" * 900_000) for _ in range(8)]
    with Session(engine) as session, session.begin():
        session.execute(sa.text("SELECT 1"))
        for each in large:
            OUTBOX.publish(session, each)

    assert together == [True]
    assert payloads(database) == [each.payload for each in large]


def test_savepoints_and_delayed_messages_beside_each_other(database: Database, engine: sa.Engine) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    with Session(engine) as session, session.begin():
        place(session, 1)
        savepoint = session.begin_nested()
        place(session, 2)
        savepoint.rollback()
        OUTBOX.publish(session, message("later"), deliver_at=later)
        with session.begin_nested():
            place(session, 3)

    assert payloads(database) == [b"1", b"3"]
    assert rows(database, "SELECT payload, due_at FROM postroom.outbox_scheduled") == [(b"later", later)]


def test_a_connection_outlives_its_sessions(database: Database, engine: sa.Engine) -> None:
    with engine.connect() as connection:
        for number in range(3):
            with Session(connection) as session:
                place(session, number)
                session.commit()
            connection.commit()
        assert list(connection.dispatch.commit) == [], "no listener is left behind"

    assert payloads(database) == [b"0", b"1", b"2"]


def test_a_driver_that_is_already_in_a_pipeline_is_left_alone(
    database: Database, engine: sa.Engine, together: list[bool]
) -> None:
    with Session(engine) as session:
        place(session, 1)
        driver: Any = session.connection().connection.dbapi_connection
        with driver.pipeline():
            session.commit()

    assert together == [False]
    assert payloads(database) == [b"1"]


def test_reading_after_the_commit_begins_a_new_transaction(database: Database, engine: sa.Engine) -> None:
    with closing(Session(engine)) as session:
        place(session, 1)
        session.commit()
        assert session.scalar(sa.text("SELECT count(*) FROM business")) == 1
        session.execute(sa.text("INSERT INTO business VALUES (2)"))
        session.rollback()

    assert business(database) == [1]
