"""Is a handler idempotent? It runs again, and the database must not show it."""

from collections.abc import Callable, Collection
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from ..inbox import Inbox, InboxSettings
from ..inbox.attempt import Attempts, Try
from ..inbox.delivery import Delivery
from ..inbox.handlers import Handler
from ..inbox.transactions import AsyncTransactions, SyncTransactions
from ..messaging.clock import Clock
from ..messaging.envelope import wire_headers
from ..messaging.errors import UsageError
from ..messaging.message import Message
from ..messaging.records import Partition, ReceivedRecord
from ..outbox.database import parse_url
from ..outbox.event import Event
from ..outbox.names import Names
from ..outbox.write import run_query
from .snapshot import Snapshot, Watched, differences
from .transaction import published

#: So many differences are told.
_TOLD = 20


class _RolledBack(Exception):
    """The transaction is not to be committed, as if the process had died before."""


def assert_idempotent(
    what: Inbox | Callable[[], object],
    message: Event | Message | ReceivedRecord | None = None,
    *,
    database_url: str,
    past_inbox: bool = False,
    tables: Collection[str] | None = None,
    ignore: Collection[str] = (),
    ignore_published: bool = False,
    clock: Clock | None = None,
) -> None:
    """The handler of ``message`` in the inbox ``what`` does nothing more when it runs again.

        assert_idempotent(inbox, OrderPlaced(order_id=7), database_url=url)
        assert_idempotent(inbox, OrderPlaced(order_id=7), database_url=url, past_inbox=True, ignore=["updated_at"])

    It runs as after a crash before the commit: what the handler did in its transaction is rolled back, and what it did
    beside it must not show. Then it runs to its end, and is delivered again: only a handler that asked for duplicates
    is called. ``past_inbox``: it is delivered once more when the inbox has forgotten the message, as after the
    retention, so that the handler runs to its end again. After each, the tables are compared with those before.

    ``what`` may be a function without arguments, for consumers with ``inbox.once`` or of another kind: it runs twice.

    ``tables``: those to compare, by default all of the database but Postroom's own. ``ignore``: columns that may
    differ, as ``column`` or ``table.column``. What is published again is told, too, unless ``ignore_published``: it
    goes out under a new id. What the handler does elsewhere, in files or by other services, is not seen here. The
    database keeps what the handler did.

    Raises AssertionError, which tells each row that was added, changed or removed; UsageError; what the handler raises.
    """
    names = what.names if isinstance(what, Inbox) else Names()
    with ExitStack() as stack:
        engine = sa.create_engine(parse_url(database_url), poolclass=sa.NullPool)
        watched = Watched(engine, names, tables, ignore)
        check = _Check(engine, watched, names, published_counts=not ignore_published)
        if not isinstance(what, Inbox):
            if message is not None or past_inbox or not callable(what):
                raise UsageError("Give an Inbox and a message, or a function without arguments alone.")
            what()
            check.again(what, f"{getattr(what, '__qualname__', what)} is not idempotent: run a second time,")
            return
        if message is None:
            raise UsageError("Give the message that the inbox's handler is to get: an Event, a Message or a record.")
        runs = _Runs(what, _record(what, message), database_url, clock, stack)
        told = f"{runs.handler.name} is not idempotent:"
        check.again(runs.crash, f"{told} it does something beside ctx.session. Run, and rolled back as by a crash,")
        runs.run()
        check.again(runs.run, f"{told} delivered again, as a duplicate,")
        if past_inbox:
            runs.forget(engine)
            check.again(runs.run, f"{told} delivered again when the inbox had forgotten the message,")


class _Check:
    """Compares the database before and after."""

    def __init__(self, engine: sa.Engine, watched: Watched, names: Names, *, published_counts: bool) -> None:
        self._engine = engine
        self._watched = watched
        self._outbox_names = names
        self._published_counts = published_counts

    def again(self, run: Callable[[], object], told: str) -> None:
        """Raises AssertionError where ``run`` changes something."""
        before: Snapshot = self._watched.look()
        with self._engine.connect() as connection, published(connection, names=self._outbox_names) as messages:
            run()
        lines = list(differences(before, self._watched.look()))
        if self._published_counts:
            lines += [f"published again: {message}" for message in messages]
        if lines:
            more = [f"… and {len(lines) - _TOLD} more"] if len(lines) > _TOLD else []
            raise AssertionError("\n  ".join([f"{told} it changed the database.", *lines[:_TOLD], *more]))


class _Runs:
    """Runs the handler of one message, each time in a transaction of its own, with the inbox's row as always."""

    def __init__(
        self, inbox: Inbox, record: ReceivedRecord, database_url: str, clock: Clock | None, stack: ExitStack
    ) -> None:
        delivery = Delivery.of(record)
        handler = inbox.find(delivery.topic, delivery.envelope.type)
        if handler is None:
            raise UsageError(
                f"The inbox of group {inbox.group!r} has no handler for type {delivery.envelope.type!r} on "
                f"{delivery.topic!r}."
            )
        self.handler: Handler = handler
        self._inbox = inbox
        self._delivery = handler.known_as(delivery)
        self._attempts = Attempts(
            inbox,
            stack.enter_context(closing(SyncTransactions(database_url, "postroom testing"))),
            stack.enter_context(closing(AsyncTransactions(database_url, "postroom testing")))
            if handler.is_async
            else None,
            _untold,
            clock,
        )

    def run(self) -> None:
        """Once, to its commit."""
        self._make(None)

    def crash(self) -> None:
        """Once, up to its commit."""

        def die(_: sa.Connection) -> None:
            raise _RolledBack

        try:
            self._make(die)
        except _RolledBack:
            return

    def forget(self, engine: sa.Engine) -> None:
        """The inbox knows the message no more."""
        params = {"group": self._inbox.group, "message_id": self._delivery.message_id}
        with engine.begin() as connection:
            run_query(connection, "inbox_forget", params, self._inbox.names)

    def _make(self, also: Callable[[sa.Connection], Any] | None) -> None:
        handler, policy = self.handler, self.handler.policy_by(InboxSettings())
        self._attempts.make(handler, policy, [Try(self._delivery, handler.decode(self._delivery), 1)], also)


def _untold(step: str, delivery: Delivery, /, **facts: Any) -> None:
    """Nobody listens."""


def _record(inbox: Inbox, message: Event | Message | ReceivedRecord) -> ReceivedRecord:
    """As it would come from Kafka."""
    if isinstance(message, ReceivedRecord):
        return message
    if not isinstance(message, Event | Message):
        raise UsageError(f"The message must be an Event, a Message or a ReceivedRecord, not {type(message).__name__}.")
    entry, now = inbox.outbox().entry(message), datetime.now(UTC)
    headers = wire_headers(str(entry.id), entry.type, now, entry.key, entry.headers)
    return ReceivedRecord(Partition(entry.topic, 0), 0, entry.key, entry.payload, headers, now)
