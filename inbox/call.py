"""Calling a handler, so that what it did is what will be committed."""

import asyncio
import inspect
from collections.abc import Callable

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from sqlalchemy.orm import Session

from ..messaging.errors import InvalidHandler, UsageError
from .handlers import Handler

#: What ends a thread or a task, not an Exception. From a handler it shall not end the inbox.
_EXITS = (SystemExit, KeyboardInterrupt, asyncio.CancelledError)


class HandlerExited(Exception):
    """A handler raised SystemExit or the like. It counts as a failed attempt."""


def call(
    handler: Handler, event: object, context: object, session: Session, finish: Callable[[object], object]
) -> object:
    """Run ``handler`` inside ``session``'s transaction, up to the flush; what it returns. ``finish`` awaits it.

    Blocks. Raises what the handler raises; HandlerExited; UsageError where it left a transaction that would not
    commit its work; InvalidHandler where it did nothing, for want of ``async def``.
    """
    transaction = session.get_transaction()
    try:
        returned = finish(handler.function(event, context))
    except _EXITS as error:
        raise HandlerExited(f"The handler raised {type(error).__name__}: {error}") from error
    _require_sync(handler, returned)
    if session.get_transaction() is not transaction or transaction is None or not transaction.is_active:
        raise UsageError(
            "The handler ended the inbox's transaction; leave commit and rollback to the inbox, and use "
            "session.begin_nested() around a part that may fail."
        )
    session.flush()
    _require_sound(session.connection())
    return returned


def _require_sync(handler: Handler, returned: object) -> None:
    """A sync handler that hands back a coroutine has done nothing; recording it as handled would lose it."""
    if handler.is_async or not inspect.isawaitable(returned):
        return
    if inspect.iscoroutine(returned):
        returned.close()
    raise InvalidHandler(f"{handler.name} returned an awaitable instead of doing its work; define it with async def.")


def _require_sound(connection: sa.Connection) -> None:
    """PostgreSQL answers the COMMIT of a failed transaction with a rollback, and no driver complains."""
    driver_connection = connection.connection.driver_connection
    if (
        isinstance(driver_connection, psycopg.Connection | psycopg.AsyncConnection)
        and driver_connection.info.transaction_status is TransactionStatus.INERROR
    ):
        raise UsageError(
            "The handler went on after a database error, so PostgreSQL would roll back all of its work; use "
            "session.begin_nested() around a part that may fail."
        )
