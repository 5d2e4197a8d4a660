"""Messages of a SQLAlchemy session: remembered until the commit, then written as its last statement.

A message's position must be taken after the transaction's row locks, or two transactions that serialise
on a row could get their positions the other way round. So ``publish`` on a session only remembers. The
INSERT runs in the connection's ``commit`` (or two-phase ``prepare``) event, after every flush and every
hook. Each message remembers the chain of session transactions it was published in; when one of them rolls
back, a savepoint for example, the message goes with it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util.concurrency import in_greenlet

from ..messaging.errors import NotInTransaction
from .entry import Entry
from .names import Names
from .pipeline import is_over, write_and_commit
from .write import write_sqlalchemy

_KEY = "postroom.outbox"


def remember(session: Session, entry: Entry, names: Names, bind: sa.Engine | None) -> None:
    """Write ``entry`` when the session commits. Raises NotInTransaction."""
    if not session.in_transaction():
        if not session.autobegin:
            raise NotInTransaction("The session has no transaction and begins none by itself; call session.begin().")
        session.begin()
    buffers = session.info.setdefault(_KEY, {})
    if names not in buffers:
        buffers[names] = _Buffer(session, names, bind)
    buffers[names].add(entry)


def remembered(session: Session, names: Names) -> list[Entry]:
    """What the session would write at its commit, as things stand."""
    buffer: _Buffer | None = session.info.get(_KEY, {}).get(names)
    return [] if buffer is None else buffer.entries


class _Buffer:
    """The messages of one session for one place of the tables."""

    def __init__(self, session: Session, names: Names, bind: sa.Engine | None) -> None:
        self._session = session
        self._names = names
        self._bind = bind
        self._entries: list[tuple[Entry, tuple[SessionTransaction, ...]]] = []
        self._connection: sa.Connection | None = None

    @property
    def entries(self) -> list[Entry]:
        """What is not written yet."""
        return [entry for entry, _ in self._entries]

    def add(self, entry: Entry) -> None:
        self._entries.append((entry, self._chain()))
        if self._connection is None and (in_greenlet() or not self._dialect().is_async):
            # Also when called from a hook in the middle of a commit, where before_commit is already over.
            self._attach()

    def _chain(self) -> tuple[SessionTransaction, ...]:
        chain: list[SessionTransaction] = []
        transaction = self._session.get_nested_transaction() or self._session.get_transaction()
        while transaction is not None:
            chain.append(transaction)
            transaction = transaction.parent
        return tuple(chain)

    def _bind_arguments(self) -> dict[str, Any]:
        return {"bind": self._bind} if self._bind is not None else {}

    def _dialect(self) -> sa.Dialect:
        return self._session.get_bind(**self._bind_arguments()).dialect

    def _attach(self) -> None:
        self._connection = connection = self._session.connection(bind_arguments=self._bind_arguments())
        event.listen(connection, "commit", self._at_commit)
        if self._session.twophase:
            event.listen(connection, "prepare_twophase", self._at_prepare)

    def _detach(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None or connection.closed:
            return  # the usual end: nobody uses the connection object again
        event.remove(connection, "commit", self._at_commit)
        if event.contains(connection, "prepare_twophase", self._at_prepare):
            event.remove(connection, "prepare_twophase", self._at_prepare)

    def _at_commit(self, connection: sa.Connection) -> None:
        with _unusable_after_failure(connection):
            entries = self._take()
            # What other listeners do after this one must be before the COMMIT.
            last = [*connection.dispatch.commit][-1] == self._at_commit
            if entries and not (last and write_and_commit(connection, entries, self._names)):
                write_sqlalchemy(connection, entries, self._names)

    def _at_prepare(self, connection: sa.Connection, _xid: object) -> None:
        with _unusable_after_failure(connection):
            self._write(connection)

    def _take(self) -> list[Entry]:
        entries = self.entries
        self._entries.clear()
        return entries

    def _write(self, connection: sa.Connection) -> None:
        if entries := self._take():
            write_sqlalchemy(connection, entries, self._names)

    def before_commit(self) -> None:
        if self._entries and self._connection is None:
            self._attach()

    def after_commit(self) -> None:
        """No commit event came: the connection's transaction is somebody else's, and the session joined it."""
        if self._entries and self._connection is not None:
            self._write(self._connection)

    def rolled_back(self, transaction: SessionTransaction) -> None:
        self._entries = [kept for kept in self._entries if transaction not in kept[1]]

    def ended(self) -> None:
        self._entries.clear()
        self._detach()


@contextmanager
def _unusable_after_failure(connection: sa.Connection) -> Iterator[None]:
    """SQLAlchemy takes a commit that failed for the end of the transaction, and gives the connection back to its pool
    without a rollback. So the connection must not be used again, unless the transaction has ended."""
    try:
        yield
    except BaseException:
        if not connection.invalidated and not is_over(connection):
            connection.invalidate()
        raise


def _buffers(session: Session) -> Iterable[_Buffer]:
    found: dict[Names, _Buffer] = session.info.get(_KEY, {})
    return found.values()


# On all sessions, since a session's own listeners cannot be added while it is calling them.


@event.listens_for(Session, "before_commit")
def _before_commit(session: Session) -> None:
    for buffer in _buffers(session):
        if not session.in_nested_transaction():
            buffer.before_commit()


@event.listens_for(Session, "after_commit")
def _after_commit(session: Session) -> None:
    for buffer in _buffers(session):
        if not session.in_nested_transaction():
            buffer.after_commit()


@event.listens_for(Session, "after_soft_rollback")
def _after_rollback(session: Session, rolled_back: SessionTransaction) -> None:
    for buffer in _buffers(session):
        buffer.rolled_back(rolled_back)


@event.listens_for(Session, "after_transaction_end")
def _after_end(session: Session, ended: SessionTransaction) -> None:
    for buffer in _buffers(session):
        if ended.parent is None:
            buffer.ended()
