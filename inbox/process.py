"""One record: find its handler, run it in one transaction with the inbox row, or write its dead letter.

    received ─┬─ not_for_group ──────────────────────────────────────────────┐
              ├─ skipped (no handler) ───────────────────────────────────────┤
              ├─ poison: cannot be decoded, or dead-lettered when unhandled ─┐│
              │                                                             ▼│
              └─▶ attempt ─┬─ duplicate ──────────────────────▶ done ◀── dead_lettered
                   ▲       ├─ applied ─▶ handled ─────────────▶ done         ▲
                   │       ├─ outage: paused … resumed, the same attempt     │
                   └───────┴─ retried (wait, full jitter) ── attempts are used up

What this decides is the same for sync and async handlers; only ``Transactions`` differs.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..messaging.backoff import Backoff
from ..messaging.clock import Clock
from ..messaging.dead_letter import Failure
from ..messaging.errors import ConfigurationError, NotAuthorized, Poison, Unhandled, Verdict
from ..messaging.observer import Observer
from ..messaging.records import ReceivedRecord
from ..outbox import Event
from .call import call
from .context import AsyncContext, Context
from .dead_letters import bury
from .dedupe import Closing, close_message
from .delivery import Delivery
from .handlers import Handler, Received
from .inbox import Inbox
from .outage import Left, Outages, judge
from .settings import InboxSettings
from .transactions import Transactions

_NO_HANDLER = "(none)"


class Done(Enum):
    """How a delivery ended."""

    HANDLED = "handled"
    DUPLICATE = "duplicate"
    DEAD_LETTERED = "dead_lettered"
    SKIPPED = "skipped"
    NOT_FOR_GROUP = "not_for_group"


class Processor:
    """Processes records of one group, one at a time. Keeps nothing between records."""

    def __init__(
        self,
        inbox: Inbox,
        settings: InboxSettings,
        *,
        sync: Transactions,
        asynchronous: Transactions | None,
        observe: Observer,
        clock: Clock,
    ) -> None:
        self._inbox = inbox
        self._outbox = inbox.outbox()
        self._settings = settings
        self._sync = sync
        self._async = asynchronous
        self._outage_backoff = Backoff(settings.outage_base_seconds, settings.outage_cap_seconds)
        self._observe = observe
        self._clock = clock

    def process(self, record: ReceivedRecord, wait: Callable[[float], bool]) -> Done:
        """Bring ``record`` to an end that is committed, so that its offset may be.

        ``wait(seconds)`` is called between attempts and in outages; it says False when the record is to be left.
        Blocks through retries and outages. Raises Left (it stays unprocessed) and what ends the inbox:
        ConfigurationError, SchemaError, InvalidHandler.
        """
        delivery = Delivery.of(record)
        self._tell("received", delivery)
        done, facts = self._process(delivery, Outages(self._outage_backoff, self._observe, wait))
        self._tell(done.value, delivery, **facts)
        return done

    def _process(self, delivery: Delivery, outages: Outages) -> tuple[Done, Mapping[str, Any]]:
        if not delivery.is_for(self._inbox.group):
            return Done.NOT_FOR_GROUP, {}
        handler = self._inbox.find(delivery.topic, delivery.envelope.type)
        if handler is None:
            if self._inbox.on_unhandled == "skip":
                return Done.SKIPPED, {}
            group, type_ = self._inbox.group, delivery.envelope.type
            unhandled = Unhandled(f"Group {group!r} has no handler for type {type_!r} on {delivery.topic!r}.")
            return self._dead_letter(delivery, _NO_HANDLER, unhandled, outages)
        try:
            event = handler.decode(delivery)
        except Poison as poison:
            return self._dead_letter(delivery, handler.name, poison, outages)
        return self._attempt(delivery, handler, event, outages)

    def _attempt(
        self, delivery: Delivery, handler: Handler, event: Event | Received, outages: Outages
    ) -> tuple[Done, Mapping[str, Any]]:
        attempts = handler.attempts_by(self._settings)
        attempt = 1
        first_failed_at: datetime | None = None
        while True:
            try:
                applied = outages.through(partial(self._apply, delivery, handler, event, attempt))
            except Left:
                raise
            except Exception as error:
                verdict = judge(error)
                if verdict is Verdict.CRASH:
                    raise
                first_failed_at = first_failed_at or self._clock.now()
                if verdict is Verdict.DEAD_LETTER or attempt >= attempts:
                    return self._dead_letter(
                        delivery, handler.name, error, outages, attempts=attempt, first_failed_at=first_failed_at
                    )
                seconds = handler.backoff_by(self._settings).delay(attempt)
                self._tell("retried", delivery, attempt=attempt, error=error, seconds=seconds)
            else:
                facts = {"handler": handler.name, "attempt": attempt}
                return (Done.HANDLED if applied else Done.DUPLICATE), facts
            attempt += 1
            if not outages.wait(seconds):
                raise Left

    def _apply(self, delivery: Delivery, handler: Handler, event: Event | Received, attempt: int) -> bool:
        """One attempt in one transaction; False for a message that was closed before."""
        transactions = self._async if handler.is_async and self._async is not None else self._sync
        self._tell("attempt", delivery, handler=handler.name, attempt=attempt)
        closing = Closing(
            group=self._inbox.group,
            message_id=delivery.message_id,
            outcome="handled",
            topic=delivery.topic,
            handler=handler.name,
            attempts=attempt,
            replays=delivery.replays,
        )

        def work(session: Session, shown: Session | AsyncSession) -> bool:
            try:
                if not close_message(session.connection(), closing, self._inbox.names):
                    return False
            except NotAuthorized as error:  # no message's fault, so no message may pay for it
                raise ConfigurationError(str(error)) from error
            context: Context | AsyncContext
            if isinstance(shown, AsyncSession):
                context = AsyncContext.of(delivery, attempt, shown, self._outbox)
            else:
                context = Context.of(delivery, attempt, shown, self._outbox)
            call(handler, event, context, session, transactions.finish)
            self._tell("applied", delivery, handler=handler.name, attempt=attempt)
            return True

        return transactions.run(work)

    def _dead_letter(
        self,
        delivery: Delivery,
        handler: str,
        error: Exception,
        outages: Outages,
        *,
        attempts: int = 1,
        first_failed_at: datetime | None = None,
    ) -> tuple[Done, Mapping[str, Any]]:
        now = self._clock.now()
        failure = Failure(error, handler, attempts, first_failed_at or now, now)

        def work(session: Session, _: Session | AsyncSession) -> bool:
            return bury(
                session.connection(),
                delivery,
                self._inbox.group,
                failure,
                names=self._inbox.names,
                max_bytes=self._settings.dead_letter_max_bytes,
                before_commit=lambda: self._tell("condemned", delivery, error=error, attempts=attempts),
            )

        buried = outages.through(lambda: self._sync.run(work))
        if not buried:
            return Done.DUPLICATE, {"handler": handler, "attempt": attempts}
        return Done.DEAD_LETTERED, {"handler": handler, "attempts": attempts, "error": error}

    def _tell(self, step: str, delivery: Delivery, **facts: Any) -> None:
        partition = delivery.record.partition
        self._observe(
            step,
            topic=partition.topic,
            partition=partition.number,
            offset=delivery.record.offset,
            message_id=delivery.message_id,
            type=delivery.envelope.type,
            **facts,
        )
