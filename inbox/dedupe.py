"""Once per (group, message id): the inbox row, written in the transaction whose effects it guards."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from typing import Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from ..messaging.errors import InvalidMessage, NotInTransaction, UsageError
from ..outbox.names import Names
from ..outbox.write import run_query
from .delivery import storable_id

SyncTarget = Session | scoped_session[Session] | sa.Connection
AsyncTarget = AsyncSession | async_scoped_session[AsyncSession] | AsyncConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What closes a message for a group. ``replays``: of the delivery that does it."""

    group: str
    message_id: str
    outcome: Literal["handled", "dead-lettered"]
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


@contextmanager
def once(target: SyncTarget, closing: Closing, names: Names) -> Iterator[bool]:
    """Whether this is the first time; see ``Inbox.once``."""
    yield close_message(_connection(target), closing, names)


@asynccontextmanager
async def once_async(target: AsyncTarget, closing: Closing, names: Names) -> AsyncIterator[bool]:
    """The same for what is asynchronous."""
    if isinstance(target, async_scoped_session):
        target = target.registry()
    if isinstance(target, AsyncSession):
        yield await target.run_sync(lambda session: close_message(_connection(session), closing, names))
    else:
        yield await target.run_sync(close_message, closing, names)


def checked_id(message_id: object) -> str:
    """A message id as the table holds it. Raises InvalidMessage."""
    if isinstance(message_id, UUID):
        return str(message_id)
    if not isinstance(message_id, str) or not message_id:
        raise InvalidMessage(f"message_id must be a text that is not empty, or a UUID, not {message_id!r}.")
    return storable_id(message_id)


def _connection(target: SyncTarget) -> sa.Connection:
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
