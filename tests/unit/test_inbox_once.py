"""``inbox.once`` on SQLite, for every kind of target."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from postroom.inbox import Inbox
from postroom.messaging.errors import InvalidMessage, NotInTransaction, SchemaMissing, UsageError
from postroom.outbox import schema

inbox = Inbox("billing")


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    schema.upgrade(f"sqlite:///{tmp_path}/once.db")
    return sa.create_engine(f"sqlite:///{tmp_path}/once.db", poolclass=sa.NullPool)


def test_the_first_transaction_that_commits_is_first(engine: sa.Engine) -> None:
    message_id = uuid4()
    answers = []
    with Session(engine) as session, inbox.once(session, message_id) as first:
        answers.append(first)
        session.rollback()
    for _ in range(2):
        with Session(engine) as session, session.begin(), inbox.once(session, message_id) as first:
            answers.append(first)
    with engine.begin() as connection, inbox.once(connection, str(message_id)) as first:
        answers.append(first)
    with engine.begin() as connection, Inbox("shipping").once(connection, message_id) as first:
        answers.append(first)

    assert answers == [True, True, False, False, True]


def test_an_error_in_the_block_takes_the_row_along(engine: sa.Engine) -> None:
    with pytest.raises(ZeroDivisionError), Session(engine) as session, session.begin(), inbox.once(session, "1"):
        raise ZeroDivisionError
    with Session(engine) as session, session.begin(), inbox.once(session, "1") as first:
        assert first


def test_a_scoped_session_is_a_session(engine: sa.Engine) -> None:
    sessions = scoped_session(sessionmaker(engine))
    with sessions.begin(), inbox.once(sessions, "1") as first:
        assert first
    sessions.remove()


def test_async_targets(engine: sa.Engine) -> None:
    async def ask() -> list[bool]:
        aio = create_async_engine(engine.url.set(drivername="sqlite+aiosqlite"), poolclass=sa.NullPool)
        answers = []
        for _ in range(2):
            async with AsyncSession(aio) as session, session.begin(), inbox.once(session, "1") as first:
                answers.append(first)
        async with aio.begin() as connection, inbox.once(connection, "1") as first:
            answers.append(first)
        async with aio.begin() as connection, inbox.once(connection, "2") as first:
            answers.append(first)
        await aio.dispose()
        return answers

    assert asyncio.run(ask()) == [True, False, False, True]


def test_a_replayed_dead_letter_is_first_again_once(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO postroom_inbox (consumer_group, message_id, outcome, topic) "
            "VALUES ('billing', '1', 'dead-lettered', 't')"
        )
    answers = []
    for replays in (0, 1, 1, 2):
        with engine.begin() as connection, inbox.once(connection, "1", replays=replays) as first:
            answers.append(first)

    assert answers == [False, True, False, False]


@pytest.mark.parametrize("wrong", ["", None, 7, b"1"])
def test_what_is_no_message_id_is_refused(engine: sa.Engine, wrong: Any) -> None:
    with Session(engine) as session, pytest.raises(InvalidMessage, match="message_id"):
        inbox.once(session, wrong)


def test_what_is_no_transaction_is_refused(engine: sa.Engine, tmp_path: Path) -> None:
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(NotInTransaction),
        inbox.once(connection, "1"),
    ):
        pass
    with Session(engine, autobegin=False) as session, pytest.raises(NotInTransaction), inbox.once(session, "1"):
        pass
    with pytest.raises(UsageError, match="not on a str"), inbox.once("session", "1"):  # type: ignore[call-overload]
        pass
    empty = sa.create_engine(f"sqlite:///{tmp_path}/empty.db", poolclass=sa.NullPool)
    with empty.begin() as connection, pytest.raises(SchemaMissing), inbox.once(connection, "1"):
        pass


def test_a_database_whose_transactions_are_begun_by_an_event(engine: sa.Engine) -> None:
    """SQLAlchemy's recipe for savepoints on SQLite: the driver itself is in autocommit mode."""

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    answers = []
    for _ in range(2):
        with Session(engine) as session, session.begin(), inbox.once(session, "1") as first:
            answers.append(first)
    assert answers == [True, False]
