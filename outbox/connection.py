"""The relay's and the tools' connections to PostgreSQL: made when needed, and anew after they broke."""

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.pq import TransactionStatus

from ..messaging.errors import DatabaseUnavailable
from .database import translated
from .question import Params, Prepared, Question, Row

_CONNECT_TIMEOUT = 5
_LOOK = 0.5
#: psycopg prepares a statement after so many runs.
_PREPARE_AFTER = 3


class Connector:
    """A connection that is made when needed. For one thread.

    ``patience``: seconds after which a transaction that gets no answer is given up. TCP alone would wait for
    ever for a server that is frozen, and with it everything that has to stop in time. ``lost`` is called when
    the connection broke.
    """

    def __init__(
        self, conninfo: str, application: str, patience: float, lost: Callable[[], None] = lambda: None
    ) -> None:
        self._conninfo = conninfo
        self._application = application[:63]
        self.patience = patience
        self._lost = lost
        self._connection: psycopg.Connection[Any] | None = None
        self._prepare_after: int | None = _PREPARE_AFTER
        self._prepared: Prepared = {}
        self._question: Question | None = None
        self._overdue_at = float("inf")
        self._closed = Event()
        self._guard: Thread | None = None

    @contextmanager
    def transaction(self, patience: float | None = None) -> Iterator[psycopg.Connection[Any]]:
        """One transaction. Raises DatabaseUnavailable and what else ``database.translated`` knows."""
        with self.autocommit(patience) as connection, connection.transaction():
            yield connection

    @contextmanager
    def autocommit(self, patience: float | None = None) -> Iterator[psycopg.Connection[Any]]:
        """The connection, each statement a transaction of its own."""
        with self._guarded(patience) as connection:
            if self._question is not None:
                self._question.collect()
            yield connection

    def ask(self, settings: str, query: str, params: Params) -> None:
        """Send a query that only reads, in a transaction with ``settings``; ``answer`` has what it found.

        One at a time: what was asked before is forgotten. Raises as ``autocommit`` does.
        """
        with self.autocommit() as connection:
            prepared = None if self._prepare_after is None else self._prepared
            self._question = Question(connection, settings, query, params, prepared)

    def answer(self, make: Callable[[Sequence[Any]], Row]) -> list[Row]:
        """What was asked for, each row by ``make``. Raises as ``autocommit`` does."""
        with self._guarded(None):
            question, self._question = self._question, None
            if question is None:
                raise psycopg.OperationalError("the connection is lost")
            return question.rows(make)

    @contextmanager
    def _guarded(self, patience: float | None) -> Iterator[psycopg.Connection[Any]]:
        with translated():
            connection = self._ready()
            self._overdue_at = time.monotonic() + (self.patience if patience is None else patience)
            try:
                yield connection
            except (pg.InvalidSqlStatementName, pg.DuplicatePreparedStatement) as error:
                # A pooler that hands each transaction another server knows no prepared statements.
                self._prepare_after = None
                self.drop()
                raise DatabaseUnavailable("The pooler keeps no prepared statements; going on without.") from error
            except psycopg.Error as error:
                if isinstance(error, psycopg.OperationalError) or self._is_amid():
                    self.drop()
                raise
            finally:
                self._overdue_at = float("inf")

    def _is_amid(self) -> bool:
        """Whether a transaction was left open: a question's, which failed."""
        return self._connection is not None and self._connection.pgconn.transaction_status != TransactionStatus.IDLE

    def drop(self) -> None:
        """Close the connection; the next transaction makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._question = None
        self._prepared = {}
        self._lost()

    def close(self) -> None:
        """Close for good. Does not raise."""
        self._closed.set()
        self.drop()

    def _ready(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._conninfo,
                autocommit=True,
                connect_timeout=_CONNECT_TIMEOUT,
                application_name=self._application,
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=3,
                tcp_user_timeout=15_000,
            )
            self._connection.prepare_threshold = self._prepare_after
            # psycopg numbers its statements from 0. Behind a pooler that passes the names on, another client's
            # statement may have that number on the server that it chose, and would be run in place of ours.
            self._connection._prepared._prepared_idx = secrets.randbits(60)  # noqa: SLF001  no public word for it
            if self._guard is None:
                self._guard = Thread(target=self._watch, name="postroom-patience", daemon=True)
                self._guard.start()
        return self._connection

    def _watch(self) -> None:
        """Cut the connection under a statement that is overdue: the driver then raises, on its own thread."""
        while not self._closed.wait(_LOOK):
            connection = self._connection
            if time.monotonic() > self._overdue_at and connection is not None:
                self._overdue_at = float("inf")
                with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)
