"""One attempt at messages of one handler, in one transaction: their inbox rows, what the handler does, results."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..messaging.clock import Clock, SystemClock
from ..messaging.correlation import inheriting
from ..messaging.errors import ConfigurationError, NotAuthorized
from ..messaging.tracing import Consumed, processing
from ..outbox import Event
from ..outbox.write import fetch_query
from .call import call
from .context import AsyncContext, BatchContext, Context
from .dedupe import Closing, close_message, close_messages, keep_result, outcome
from .delivery import Delivery
from .handlers import Handler, Received
from .inbox import Inbox
from .policy import Policy
from .transactions import Transactions

#: A larger result is not kept, in bytes of JSON.
MAX_RESULT = 65_536


@dataclass(frozen=True, slots=True)
class Try:
    """A message and what its handler is called with. ``attempt``: 1, 2, …"""

    delivery: Delivery
    event: Event | Received
    attempt: int


class Tell(Protocol):
    """Tells an observer's step of a message."""

    def __call__(self, step: str, delivery: Delivery, /, **facts: Any) -> None: ...


class Attempts:
    """Makes attempts for one inbox. Thread-safe."""

    def __init__(
        self,
        inbox: Inbox,
        sync: Transactions,
        asynchronous: Transactions | None,
        tell: Tell,
        clock: Clock | None = None,
    ) -> None:
        self._inbox = inbox
        self._clock = clock or SystemClock()
        self._outbox = inbox.outbox(self._clock)
        self._sync = sync
        self._async = asynchronous
        self._tell = tell

    def make(
        self,
        handler: Handler,
        policy: Policy,
        tries: Sequence[Try],
        also: Callable[[sa.Connection], object] | None = None,
    ) -> list[bool]:
        """Commit them all, or nothing; False for those that were closed before.

        ``also`` does what belongs to the same transaction. Blocks. Raises what the handler raises, and what ``call``
        and the database do.
        """
        transactions = self._async if handler.is_async and self._async is not None else self._sync

        def work(session: Session, shown: Session | AsyncSession) -> list[bool]:
            connection = session.connection()
            fresh = self._close(connection, handler, tries)
            if policy.timeout is not None and connection.dialect.name == "postgresql":
                milliseconds = {"milliseconds": str(int(policy.timeout * 1000) or 1)}
                fetch_query(connection, "inbox_statement_timeout", milliseconds, self._inbox.names)

            def finish(returned: object) -> object:
                return transactions.finish(returned, policy.timeout)

            if handler.batch:
                new = [each for each, first in zip(tries, fresh, strict=True) if first]
                if new:
                    self._call_batch(handler, new, session, shown, finish)
            else:
                for each, first in zip(tries, fresh, strict=True):
                    self._call(handler, each, session, shown, finish, duplicate=not first)
            if also is not None:
                also(connection)
            return fresh

        return transactions.run(work)

    def _close(self, connection: sa.Connection, handler: Handler, tries: Sequence[Try]) -> list[bool]:
        closings = [self.closing(each.delivery, handler, each.attempt) for each in tries]
        try:
            opened = close_messages(connection, closings, self._inbox.names)
        except NotAuthorized as error:  # no message's fault, so no message may pay for it
            raise ConfigurationError(str(error)) from error
        return [closing.message_id in opened for closing in closings]

    def closing(self, delivery: Delivery, handler: Handler, attempt: int) -> Closing:
        """The row that closes a message as handled."""
        return Closing(
            group=self._inbox.group,
            message_id=delivery.message_id,
            outcome="handled",
            topic=delivery.topic,
            handler=handler.name,
            attempts=attempt,
            replays=delivery.replays,
        )

    def expire(self, connection: sa.Connection, delivery: Delivery, handler: Handler) -> bool:
        """Close a message that came too late; False where it was closed before."""
        closing = Closing(
            group=self._inbox.group,
            message_id=delivery.message_id,
            outcome="expired",
            topic=delivery.topic,
            handler=handler.name,
            attempts=0,
            replays=delivery.replays,
        )
        return close_message(connection, closing, self._inbox.names)

    def _call(
        self,
        handler: Handler,
        each: Try,
        session: Session,
        shown: Session | AsyncSession,
        finish: Callable[[object], object],
        *,
        duplicate: bool,
    ) -> None:
        if duplicate and not handler.duplicates:
            return
        before = None
        if duplicate:
            stored = outcome(session.connection(), self._inbox.group, each.delivery.message_id, self._inbox.names)
            before = stored.value if stored is not None else None
        context = self._context(each, shown, duplicate=duplicate, before=before)
        with inheriting(context.inherited):
            returned, seconds = self._timed(
                handler, [each], partial(call, handler, each.event, context, session, finish)
            )
        if not duplicate:
            if returned is not None:
                self._keep(session.connection(), each.delivery, handler, returned)
            self._tell("applied", each.delivery, handler=handler.name, attempt=each.attempt, seconds=seconds)

    def _call_batch(
        self,
        handler: Handler,
        tries: Sequence[Try],
        session: Session,
        shown: Session | AsyncSession,
        finish: Callable[[object], object],
    ) -> None:
        contexts = [self._context(each, shown) for each in tries]
        batch: BatchContext[Any] = BatchContext(messages=contexts, session=shown)
        # Of several stories none is told by what is published beside a message's own context.
        with inheriting(contexts[0].inherited if len(contexts) == 1 else {}):
            events = [each.event for each in tries]
            _, seconds = self._timed(handler, tries, partial(call, handler, events, batch, session, finish))
        for each in tries:
            self._tell("applied", each.delivery, handler=handler.name, attempt=each.attempt, seconds=seconds)

    def _timed(self, handler: Handler, tries: Sequence[Try], run: Callable[[], object]) -> tuple[object, float]:
        """What ``run`` returns, and how many seconds it took for each message. Tells of what it raises."""
        consumed = [
            Consumed(each.delivery.record, each.delivery.message_id, each.delivery.correlation_id, each.attempt)
            for each in tries
        ]
        began = self._clock.monotonic()
        try:
            with processing(self._inbox.group, handler.name, consumed):
                returned = run()
        except Exception as error:
            seconds = (self._clock.monotonic() - began) / len(tries)
            for each in tries:
                self._tell(
                    "raised", each.delivery, handler=handler.name, attempt=each.attempt, seconds=seconds, error=error
                )
            raise
        return returned, (self._clock.monotonic() - began) / len(tries)

    def _context(
        self, each: Try, shown: Session | AsyncSession, *, duplicate: bool = False, before: Any = None
    ) -> Context | AsyncContext:
        known = {"duplicate": duplicate, "outcome": before}
        if isinstance(shown, AsyncSession):
            return AsyncContext.of(each.delivery, each.attempt, shown, self._outbox, **known)
        return Context.of(each.delivery, each.attempt, shown, self._outbox, **known)

    def _keep(self, connection: sa.Connection, delivery: Delivery, handler: Handler, returned: object) -> None:
        try:
            text = json.dumps(returned, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            text = None
        if text is None or "\\u0000" in text or len(text) > MAX_RESULT:
            self._tell("result_not_kept", delivery, handler=handler.name, returned=type(returned).__name__)
            return
        keep_result(connection, self._inbox.group, delivery.message_id, text, self._inbox.names)
