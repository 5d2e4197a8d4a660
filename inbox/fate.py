"""What the ends of messages have in common: verdicts, breakers, dead letters, and what is told of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from ..messaging.backoff import Backoff
from ..messaging.clock import Clock
from ..messaging.dead_letter import Failure
from ..messaging.errors import PostroomError, Unhandled, Verdict
from ..messaging.observer import Observer
from .dead_letters import bury
from .delivery import Delivery
from .gate import Gate
from .handlers import Handler
from .held import MAX_ERROR, HeldTable, Hold
from .inbox import Inbox
from .lanes import Lanes
from .limit import DeadLetterLimit, LimitReached
from .outage import is_transient, judge
from .policy import Policy
from .settings import InboxSettings
from .transactions import Transactions

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that failed: which one it was, and when the first one did."""

    error: Exception
    attempts: int
    first_failed_at: datetime


class Fates:
    """One inbox's. Thread-safe."""

    def __init__(
        self,
        inbox: Inbox,
        settings: InboxSettings,
        lanes: Lanes,
        gates: Mapping[Handler, Gate],
        *,
        transactions: Transactions,
        observe: Observer,
        clock: Clock,
    ) -> None:
        self.inbox = inbox
        self.settings = settings
        self.lanes = lanes
        self.gates = gates
        self.clock = clock
        self.observe = observe
        self.held = HeldTable(inbox.group, inbox.names)
        self.limit = DeadLetterLimit(inbox.group, inbox.names)
        self.outage = Backoff(settings.outage_base_seconds, settings.outage_cap_seconds)
        self._transactions = transactions

    def transaction(self, work: Callable[[sa.Connection], T]) -> T:
        """``work`` in a transaction of its own. Blocks."""
        return self._transactions.run(lambda session, _: work(session.connection()))

    def policy(self, handler: Handler) -> Policy:
        """What holds for it now."""
        return self.gates[handler].policy

    def verdict(self, handler: Handler, error: Exception) -> Verdict:
        """CRASH, PAUSE, DEAD_LETTER or RETRY."""
        verdict = judge(error)
        if verdict is Verdict.CRASH:
            return verdict
        if isinstance(error, handler.pause_on):
            return Verdict.PAUSE
        if isinstance(error, handler.dead_letter_on):
            return Verdict.DEAD_LETTER
        foreign = not isinstance(error, PostroomError) and not is_transient(error)
        if verdict is Verdict.RETRY and handler.retry_on and foreign and not isinstance(error, handler.retry_on):
            return Verdict.DEAD_LETTER
        return verdict

    def pauses(self, handler: Handler, error: Exception) -> None:
        """Something said that it is away."""
        with self.lanes.lock:
            seconds = self.gates[handler].breaker.unavailable()
        if seconds is not None:
            self.observe("paused", handler=handler.name, error=error, seconds=seconds)

    def breaks(self, handler: Handler, delivery: Delivery, error: Exception, *, first: bool) -> bool:
        """A message failed, ``first`` or again: whether something seems to be away, so that nobody has to pay."""
        with self.lanes.lock:
            breaker = self.gates[handler].breaker
            seconds = breaker.failed(delivery.message_id, self.gates[handler].policy, first=first)
            is_open = breaker.is_open
        if seconds is not None:
            self.observe("paused", handler=handler.name, error=error, seconds=seconds)
        return is_open

    def succeeded(self, handler: Handler, deliveries: Sequence[Delivery]) -> None:
        """What they need is there."""
        failures = 0
        with self.lanes.lock:
            for delivery in deliveries:
                failures += self.gates[handler].breaker.succeeded(delivery.message_id)
        self._resumed(handler, failures)

    def undecided(self, handler: Handler) -> None:
        """A message died of itself."""
        with self.lanes.lock:
            failures = self.gates[handler].breaker.undecided()
        self._resumed(handler, failures)

    def is_expired(self, delivery: Delivery) -> bool:
        """Whether it came too late to be worth anything."""
        deadline = delivery.envelope.expires_at
        return deadline is not None and deadline <= self.clock.now()

    def unhandled(self, delivery: Delivery) -> Failed:
        """Nobody is there for it, and that is not to be passed over."""
        group, type_ = self.inbox.group, delivery.envelope.type
        error = Unhandled(f"Group {group!r} has no handler for type {type_!r} on {delivery.topic!r}.")
        return Failed(error, 1, self.clock.now())

    def burying(self, handler: Handler, work: Callable[[sa.Connection], bool]) -> bool | None:
        """``work``, which writes a dead letter, in a transaction; None where the handler is at its limit of them.

        Then nothing was written, and the handler is paused, here at once and for all. Raises as ``transaction`` does.
        """
        most = self.policy(handler).dead_letters_per_minute
        if most and self.gates[handler].paused == self.limit.reason(handler.name, most):
            return None
        try:
            return self.transaction(work)
        except LimitReached:
            self._limit(handler, most)
            return None

    def write_dead_letter(
        self, connection: sa.Connection, delivery: Delivery, handler: Handler, failed: Failed
    ) -> bool:
        """Close the message and write its dead letter; False where it was closed before. Only in ``burying``."""
        failure = Failure(failed.error, handler.name, failed.attempts, failed.first_failed_at, self.clock.now())
        most = self.policy(handler).dead_letters_per_minute
        return bury(
            connection,
            delivery,
            self.inbox.group,
            failure,
            names=self.inbox.names,
            max_bytes=self.settings.dead_letter_max_bytes,
            check=lambda: self.limit.check(connection, handler.name, most),
            before_commit=lambda: self.tell("condemned", delivery, error=failed.error, attempts=failed.attempts),
        )

    @staticmethod
    def blocker(delivery: Delivery, handler: str, failed: Failed) -> Hold:
        """What a key waits for behind its dead letter."""
        return Hold(
            delivery=delivery,
            state="dead-letter",
            handler=handler,
            attempts=failed.attempts,
            error=told(failed.error),
            first_failed_at=failed.first_failed_at,
        )

    def tell_buried(self, delivery: Delivery, handler: str, failed: Failed, *, buried: bool) -> None:
        """After the commit."""
        if buried:
            self.tell("dead_lettered", delivery, handler=handler, attempts=failed.attempts, error=failed.error)
        else:
            self.tell("duplicate", delivery, handler=handler, attempt=failed.attempts)

    def tell(self, step: str, delivery: Delivery, /, **facts: Any) -> None:
        """A step of a message."""
        partition = delivery.record.partition
        self.observe(
            step,
            topic=partition.topic,
            partition=partition.number,
            offset=delivery.record.offset,
            message_id=delivery.message_id,
            type=delivery.envelope.type,
            correlation_id=delivery.correlation_id,
            sent_at=delivery.envelope.time,
            **facts,
        )

    def _limit(self, handler: Handler, most: int) -> None:
        try:
            pause = self.transaction(lambda c: self.limit.pause(c, handler.name, most))
        except Exception as error:
            verdict = self.verdict(handler, error)
            if verdict is Verdict.CRASH:
                raise
            if verdict is Verdict.PAUSE:
                self.pauses(handler, error)
            return  # the next dead letter tries again
        if pause is None:
            return  # an operator let it go on meanwhile
        with self.lanes.lock:
            was = self.gates[handler].paused
            for each, gate in self.gates.items():
                if each.name == handler.name:
                    gate.paused = pause.reason
        if pause.written:
            self.observe("limited", handler=handler.name, limit=most, reason=pause.reason)
        elif was != pause.reason:
            self.observe("held_back", handler=handler.name, reason=pause.reason)

    def _resumed(self, handler: Handler, failures: int) -> None:
        if failures:
            self.observe("resumed", handler=handler.name, failures=failures)


def told(error: Exception) -> str:
    """An error as it stands in the table."""
    return f"{type(error).__name__}: {error}"[:MAX_ERROR]
