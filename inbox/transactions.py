"""Database transactions around messages, for sync and for async handlers.

The inbox's own work is written once, against a sync ``Session``. For an async handler it runs in a greenlet
of SQLAlchemy's inside the event loop, where that session is the inner one of the handler's ``AsyncSession``.
"""

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from threading import Thread
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from ..messaging.errors import ConfigurationError, HandlerTimeout
from ..outbox.database import parse_url

T = TypeVar("T")
#: Gets the session to work with, and the one to show the handler.
Work = Callable[[Session, Session | AsyncSession], T]
_CLOSE_SECONDS = 5.0
#: An absent server is noticed within these times, not after the hours that TCP would take.
_LIBPQ = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


class Transactions(Protocol):
    """Runs work in transactions. Thread-safe: each of ``workers`` threads has a connection."""

    def run(self, work: Work[T]) -> T:
        """``work``'s result, after the commit; rolled back if it raises. Blocks."""

    def finish(self, returned: object, timeout: float | None = None) -> object:
        """What a handler came to, given what calling it returned. Only inside ``work``.

        Raises HandlerTimeout when it did not come to its end within ``timeout`` seconds, where it can be cancelled.
        """

    def close(self) -> None:
        """Close the connections. Does not raise."""


class SyncTransactions:
    """On the calling thread."""

    def __init__(self, url: str, application: str, workers: int = 1) -> None:
        parsed = parse_url(url)
        self._engine = sa.create_engine(
            parsed, pool_size=workers + 1, max_overflow=0, connect_args=_connect_args(parsed, application)
        )

    def run(self, work: Work[T]) -> T:
        with Session(self._engine) as session, session.begin():
            return work(session, session)

    def finish(self, returned: object, timeout: float | None = None) -> object:  # noqa: ARG002  a thread goes on
        return returned

    def close(self) -> None:
        self._engine.dispose()


class AsyncTransactions:
    """On an event loop with a thread of its own, so that what handlers leave running there goes on."""

    def __init__(self, url: str, application: str, workers: int = 1) -> None:
        parsed = parse_url(url)
        if parsed.drivername == "sqlite":
            if importlib.util.find_spec("aiosqlite") is None:
                raise ConfigurationError("Async handlers on SQLite need the package aiosqlite; install it.")
            parsed = parsed.set(drivername="sqlite+aiosqlite")
        self._engine: AsyncEngine = create_async_engine(
            parsed, pool_size=workers, max_overflow=0, connect_args=_connect_args(parsed, application)
        )
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._serve, name=f"{application} loop", daemon=True)
        self._thread.start()

    def run(self, work: Work[T]) -> T:
        return self._wait_for(self._run(work))

    def finish(self, returned: object, timeout: float | None = None) -> object:
        if not isinstance(returned, Awaitable):
            return returned
        return await_only(returned if timeout is None else _within(returned, timeout))

    def close(self) -> None:
        try:
            self._wait_for(self._shut_down())
        finally:
            self._closing = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _serve(self) -> None:
        while not self._closing:
            with suppress(SystemExit, KeyboardInterrupt):  # of a task that a handler left behind; it ends the task
                self._loop.run_forever()

    async def _run(self, work: Work[T]) -> T:
        async with AsyncSession(self._engine, expire_on_commit=False) as session, session.begin():
            return await session.run_sync(lambda inner: work(inner, session))

    async def _shut_down(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
        await self._engine.dispose()
        await self._loop.shutdown_asyncgens()

    def _wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


async def _within(returned: Awaitable[T], seconds: float) -> T:
    try:
        async with asyncio.timeout(seconds) as limit:
            return await returned
    except TimeoutError as error:
        if limit.expired():
            raise HandlerTimeout(f"The handler took longer than {seconds:g} s.") from error
        raise


def _connect_args(url: sa.URL, application: str) -> dict[str, object]:
    if url.get_backend_name() != "postgresql":
        return {}
    ours = {**_LIBPQ, "application_name": application}
    return {name: value for name, value in ours.items() if name not in url.query}
