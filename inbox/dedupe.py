"""Once per (group, message id): the inbox row, written in the transaction whose effects it guards."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from ..messaging.envelope import storable_id
from ..messaging.errors import InvalidMessage, NotInTransaction, UsageError
from ..outbox.names import Names
from ..outbox.write import fetch_query, run_query

SyncTarget = Session | scoped_session[Session] | sa.Connection
AsyncTarget = AsyncSession | async_scoped_session[AsyncSession] | AsyncConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What closes a message for a group. ``replays``: of the delivery that does it."""

    group: str
    message_id: str
    outcome: Literal["handled", "dead-lettered", "expired"]
    topic: str
    handler: str | None
    attempts: int
    replays: int


def close_message(connection: sa.Connection, closing: Closing, names: Names) -> bool:
    """Write the inbox row; False where the message was closed before.

    Two transactions with one message: the second waits here for the first to end. Raises NotInTransaction,
    SchemaMissing, DatabaseUnavailable and what else ``run_query`` does.
    """
    return run_query(connection, "inbox_close", asdict(closing), names) == 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a message was closed. ``value``: what its handler returned, as JSON has it."""

    outcome: str
    value: Any
    processed_at: datetime
    replays: int


def close_messages(connection: sa.Connection, closings: Sequence[Closing], names: Names) -> set[str]:
    """Write the rows of several messages of one handler that are to be handled; the ids of those that were open."""
    first = closings[0]
    if len(closings) == 1 or connection.dialect.name == "sqlite":
        return {closing.message_id for closing in closings if close_message(connection, closing, names)}
    params = {
        "group": first.group,
        "topic": first.topic,
        "handler": first.handler,
        "message_ids": [closing.message_id for closing in closings],
        "attempts": [closing.attempts for closing in closings],
        "replays": [closing.replays for closing in closings],
    }
    return {row[0] for row in fetch_query(connection, "inbox_close_many", params, names)}


def keep_result(connection: sa.Connection, group: str, message_id: str, result: str, names: Names) -> None:
    """Store what the handler returned, as JSON."""
    run_query(connection, "inbox_result", {"group": group, "message_id": message_id, "result": result}, names)


def outcome(connection: sa.Connection, group: str, message_id: str, names: Names) -> Outcome | None:
    """How a message was closed, if it was. Raises SchemaMissing, DatabaseUnavailable."""
    rows = fetch_query(connection, "inbox_outcome", {"group": group, "message_id": message_id}, names)
    if not rows:
        return None
    told, replays, result, processed_at = rows[0]
    if isinstance(processed_at, str):
        processed_at = datetime.fromisoformat(processed_at)
    return Outcome(told, None if result is None else json.loads(result), processed_at, replays)


@contextmanager
def once(target: SyncTarget, closing: Closing, names: Names) -> Iterator[bool]:
    """Whether this is the first time; see ``Inbox.once``."""
    yield close_message(connection_of(target), closing, names)


@asynccontextmanager
async def once_async(target: AsyncTarget, closing: Closing, names: Names) -> AsyncIterator[bool]:
    """The same for what is asynchronous."""
    if isinstance(target, async_scoped_session):
        target = target.registry()
    if isinstance(target, AsyncSession):
        yield await target.run_sync(lambda session: close_message(connection_of(session), closing, names))
    else:
        yield await target.run_sync(close_message, closing, names)


async def outcome_async(target: AsyncTarget, group: str, message_id: str, names: Names) -> Outcome | None:
    """The same as ``outcome`` for what is asynchronous."""
    if isinstance(target, async_scoped_session):
        target = target.registry()
    if isinstance(target, AsyncSession):
        return await target.run_sync(lambda session: outcome(connection_of(session), group, message_id, names))
    return await target.run_sync(outcome, group, message_id, names)


def checked_id(message_id: object) -> str:
    """A message id as the table holds it. Raises InvalidMessage."""
    if isinstance(message_id, UUID):
        return str(message_id)
    if not isinstance(message_id, str) or not message_id:
        raise InvalidMessage(f"message_id must be a text that is not empty, or a UUID, not {message_id!r}.")
    return storable_id(message_id)


def connection_of(target: SyncTarget) -> sa.Connection:
    if isinstance(target, scoped_session):
        target = target.registry()
    if isinstance(target, sa.Connection):
        return target
    if not isinstance(target, Session):
        raise UsageError(
            f"inbox.once() works on a SQLAlchemy Session or Connection, or their async ones, "
            f"not on a {type(target).__name__}."
        )
    if not target.in_transaction() and not target.autobegin:
        raise NotInTransaction("The session has no transaction and begins none by itself; call session.begin().")
    return target.connection()
