"""What a transaction will publish, without publishing it."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from ..messaging.errors import UsageError
from ..outbox.database import translated
from ..outbox.names import Names, queries
from ..outbox.outbox import Outbox
from ..outbox.session import remembered
from ..outbox.write import fetch_query
from .messages import Messages, PublishedMessage

Target = (
    Session
    | scoped_session[Session]
    | AsyncSession
    | async_scoped_session[AsyncSession]
    | sa.Connection
    | AsyncConnection
    | psycopg.Connection[Any]
    | psycopg.AsyncConnection[Any]
)


class _Seen(NamedTuple):
    """``head``: the last position that was taken; ``messages``: by id, written ones first."""

    head: int
    messages: dict[str, PublishedMessage]


class published(Messages):  # noqa: N801  it is used as a function
    """The messages that ``target``'s transaction will publish if it commits, of what is done in the block.

        with published(session) as messages:
            place_order(session)
        assert_published(messages, OrderPlaced, total=Decimal("9.90"))

    ``target``: a SQLAlchemy ``Session``, ``scoped_session`` or ``Connection``, or a psycopg ``Connection``; with
    ``async with`` an ``AsyncSession`` or ``AsyncConnection``. What a session only remembers until it commits is among
    them, what a savepoint rolled back is not. A commit inside the block does no harm, so it works in the pattern of an
    outer transaction that the test rolls back. ``outbox`` or ``names``: where the tables are, if not in their usual
    place.

    It fills at the end of the block and begins and ends no transaction. What other transactions commit meanwhile is
    among it, too: give each test a database, or a transaction, of its own. Raises UsageError, SchemaMissing,
    DatabaseUnavailable.
    """

    def __init__(self, target: Target, *, outbox: Outbox | None = None, names: Names | None = None) -> None:
        super().__init__()
        if isinstance(target, scoped_session | async_scoped_session):
            target = target.registry()
        kinds = Session | AsyncSession | sa.Connection | AsyncConnection | psycopg.Connection | psycopg.AsyncConnection
        if not isinstance(target, kinds):
            raise UsageError(
                f"Cannot see what a {type(target).__module__}.{type(target).__name__} publishes; give the SQLAlchemy "
                "Session or Connection, or the psycopg Connection, that the code under test gets."
            )
        self._target = target
        self._names = names or (outbox.names if outbox is not None else Names())
        self._bind = outbox.bind if outbox is not None else None
        self._before = _Seen(0, {})

    def __enter__(self) -> Messages:
        self._before = self._look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._fill(self._look(self._before.head))

    async def __aenter__(self) -> Messages:
        self._before = await self._look_async()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._fill(await self._look_async(self._before.head))

    def _fill(self, seen: _Seen) -> None:
        self._messages = [message for id_, message in seen.messages.items() if id_ not in self._before.messages]

    def _look(self, after: int | None = None) -> _Seen:
        target = self._target
        if isinstance(target, Session):
            return self._of_session(target, after)
        if isinstance(target, sa.Connection):
            return self._of_connection(target, after)
        if isinstance(target, psycopg.Connection):
            return self._of_psycopg(target, after)
        raise UsageError(f"Write `async with published(…)` for a {type(target).__name__}.")

    async def _look_async(self, after: int | None = None) -> _Seen:
        target = self._target
        if isinstance(target, AsyncSession):
            return await target.run_sync(self._of_session, after)
        if isinstance(target, AsyncConnection):
            return await target.run_sync(self._of_connection, after)
        if isinstance(target, psycopg.AsyncConnection):
            return await self._of_psycopg_async(target, after)
        return self._look(after)

    def _of_session(self, session: Session, after: int | None) -> _Seen:
        bind: dict[str, Any] = {} if self._bind is None else {"bind": self._bind}
        if session.in_transaction():
            seen = self._of_connection(session.connection(bind_arguments=bind), after)
        else:  # begin nothing: the code under test may want to
            held = session.get_bind(**bind)
            if isinstance(held, sa.Engine):
                with held.connect() as connection:
                    seen = self._of_connection(connection, after)
            else:
                seen = self._of_connection(held, after)
        entries = map(PublishedMessage.of_entry, remembered(session, self._names))
        return seen._replace(messages=seen.messages | {entry.id: entry for entry in entries})

    def _of_connection(self, connection: sa.Connection, after: int | None) -> _Seen:
        begun = connection.in_transaction()
        try:
            return _seen(lambda query, params: fetch_query(connection, query, params, self._names), after)
        finally:
            if not begun and connection.in_transaction():
                connection.rollback()

    def _of_psycopg(self, connection: psycopg.Connection[Any], after: int | None) -> _Seen:
        idle = connection.info.transaction_status is TransactionStatus.IDLE
        sql = queries(self._names, "postgres")

        def fetch(query: str, params: dict[str, Any]) -> list[tuple[Any, ...]]:
            with translated(), connection.cursor(row_factory=tuple_row) as cursor:
                return cursor.execute(sql[query].encode(), params).fetchall()

        try:
            return _seen(fetch, after)
        finally:
            if idle:
                connection.rollback()

    async def _of_psycopg_async(self, connection: psycopg.AsyncConnection[Any], after: int | None) -> _Seen:
        idle = connection.info.transaction_status is TransactionStatus.IDLE
        sql = queries(self._names, "postgres")
        found: dict[str, list[tuple[Any, ...]]] = {}
        try:
            async with connection.cursor(row_factory=tuple_row) as cursor:
                for query in ("head", "written"):
                    params = {"after": after if after is not None else found.get("head", [(0,)])[0][0]}
                    with translated():
                        await cursor.execute(sql[query].encode(), params if query == "written" else {})
                        found[query] = await cursor.fetchall()
        finally:
            if idle:
                await connection.rollback()
        return _seen(lambda query, _: found[query], after)


def _seen(fetch: Callable[[str, dict[str, Any]], list[tuple[Any, ...]]], after: int | None) -> _Seen:
    [(head,)] = fetch("head", {})
    rows = map(PublishedMessage.of_row, fetch("written", {"after": head if after is None else after}))
    return _Seen(int(head), {message.id: message for message in rows})
