"""The keys that wait in the table: what comes for them is put behind, and when one is due its first is tried.

shelve: messages in hand ──▶ the table                  a replay takes the place of the dead letter its key waits for
drain:  the table's first ──▶ attempt ─┬─ handled ──▶ the next one … until the key has none left, and goes on
                                       ├─ failed ──▶ stays, for later
                                       ├─ attempts are used up ──▶ dead_lettered, or its key waits for that
                                       └─ too many dead letters: the handler is paused, and it stays
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

import sqlalchemy as sa

from ..messaging.errors import HandlerCrashed, Poison, Verdict
from .attempt import Attempts, Try
from .fate import Failed, Fates, told
from .handlers import NOBODY, Handler
from .held import HeldRow, Hold
from .lane import Item, Lane
from .policy import Policy

#: Of a key so many go in one job, so that others have their turn.
_DRAINED_AT_ONCE = 10
#: How long a key waits for a handler that may not begin, in seconds.
_LOOK_AGAIN = 0.5
Close = Callable[[sa.Connection], bool]


class Known(NamedTuple):
    """What could not be written of a row, since the database was away: its attempts, and whether they were its last."""

    row: int
    attempts: int
    failed: Failed | None = None


class Shelf:
    """Thread-safe; a lane is with one thread at a time."""

    def __init__(self, fates: Fates, attempts: Attempts) -> None:
        self._fates = fates
        self._lanes = fates.lanes
        self._attempts = attempts

    def shelve(self, lane: Lane) -> None:
        """Put what is in hand for a key that waits behind it. Raises what ends the inbox."""
        items = self._lanes.rest_of(lane)
        if not items:
            return  # they were revoked meanwhile
        held = self._fates.held

        def work(connection: sa.Connection) -> list[Item]:
            behind = [each for each in items if not self._answers(connection, each)]
            held.hold(connection, list(map(Hold.behind, behind)))
            return behind

        try:
            behind = self._fates.transaction(work)
        except Exception as error:
            if self._judged(items[0].handler, error) is Verdict.CRASH:
                raise
            self._lanes.again(lane, items, _LOOK_AGAIN)
            return
        for item in behind:
            self._fates.tell("shelved", item.delivery, handler=item.handler.name)
        self._lanes.finished(items)
        self._lanes.holding(lane, 0.0)

    def drain(self, lane: Lane) -> None:
        """Try the first of a key that is due, and the next ones. Raises what ends the inbox."""
        for _ in range(_DRAINED_AT_ONCE):
            if lane.dropped:
                return
            try:
                row = self._fates.transaction(lambda c: self._fates.held.first(c, lane.id))
            except Exception as error:
                if self._fates.verdict(NOBODY, error) is Verdict.CRASH:
                    raise
                self._lanes.holding(lane, self._fates.outage.delay(1))
                return
            if row is None:
                self._lanes.drained(lane)
                return
            wait = self._wait(row)
            if wait is None or wait > 0:
                self._lanes.holding(lane, wait)
                return
            if not self._try(lane, row):
                return
        self._lanes.holding(lane, 0.0)

    def _wait(self, row: HeldRow) -> float | None:
        """Seconds until it is due; None: not by itself."""
        if row.state == "dead-letter":
            return None
        if row.next_attempt_at is None:
            return 0.0
        return max(0.0, (row.next_attempt_at - self._fates.clock.now()).total_seconds())

    def _try(self, lane: Lane, row: HeldRow) -> bool:
        """One attempt at the first of a key; whether the next one may follow."""
        fates, delivery = self._fates, row.delivery
        handler = fates.inbox.find(delivery.topic, delivery.envelope.type) or NOBODY
        if handler is NOBODY and fates.inbox.on_unhandled == "skip":
            return self._end(lane, NOBODY, row, lambda _: True, "skipped")
        delivery = handler.known_as(delivery)
        row = replace(row, delivery=delivery)
        if not self._lanes.enter(handler):
            self._lanes.holding(lane, _LOOK_AGAIN)
            return False
        began = fates.clock.monotonic()
        try:
            if handler is NOBODY:
                return self._bury(lane, row, NOBODY, fates.unhandled(delivery), fates.policy(NOBODY))
            if fates.is_expired(delivery):
                return self._end(lane, handler, row, lambda c: self._attempts.expire(c, delivery, handler), "expired")
            return self._attempt(lane, row, handler)
        finally:
            self._lanes.leave(handler, fates.clock.monotonic() - began)

    def _attempt(self, lane: Lane, row: HeldRow, handler: Handler) -> bool:
        fates, policy = self._fates, self._fates.policy(handler)
        known = lane.known
        if known is not None and known.row == row.id:
            if known.failed is not None and row.attempts == known.attempts:
                return self._bury(lane, replace(row, attempts=known.attempts - 1), handler, known.failed, policy)
            row = replace(row, attempts=min(row.attempts, known.attempts))  # an operator may have set it back
        if row.attempts >= policy.attempts:  # counted before it began, and the process did not live to tell
            crashed = HandlerCrashed("The process ended while it handled this message, and its attempts are used up.")
            return self._bury(lane, row, handler, self._failed(row, crashed, row.attempts), policy)
        attempt = row.attempts + 1
        try:
            event = handler.decode(row.delivery)
        except Poison as poison:
            return self._bury(lane, row, handler, self._failed(row, poison, attempt), policy)
        try:
            if not fates.transaction(lambda c: fates.held.begin(c, row, attempt)):
                return True  # somebody took it away
            fates.tell("attempt", row.delivery, handler=handler.name, attempt=attempt)
            [fresh] = self._attempts.make(
                handler, policy, [Try(row.delivery, event, attempt)], lambda c: fates.held.done(c, row.id)
            )
        except Exception as error:
            verdict = fates.verdict(handler, error)
            if verdict is Verdict.CRASH:
                raise
            return self._after_failure(lane, row, handler, error, verdict)
        fates.succeeded(handler, [row.delivery])
        fates.tell("handled" if fresh else "duplicate", row.delivery, handler=handler.name, attempt=attempt)
        return True

    def _after_failure(self, lane: Lane, row: HeldRow, handler: Handler, error: Exception, verdict: Verdict) -> bool:
        fates, policy = self._fates, self._fates.policy(handler)
        attempts = row.attempts + 1
        if verdict is Verdict.PAUSE:
            fates.pauses(handler, error)
            self._stays(lane, row, handler, error, attempts=row.attempts, seconds=_LOOK_AGAIN)
            return False
        if verdict is Verdict.RETRY and fates.breaks(handler, row.delivery, error, first=row.attempts == 0):
            self._stays(lane, row, handler, error, attempts=row.attempts, seconds=_LOOK_AGAIN)
            return False
        if verdict is Verdict.DEAD_LETTER or attempts >= policy.attempts:
            if verdict is Verdict.DEAD_LETTER:
                fates.undecided(handler)
            return self._bury(lane, row, handler, self._failed(row, error, attempts), policy)
        seconds = policy.backoff.delay(attempts)
        fates.tell("retried", row.delivery, attempt=attempts, error=error, seconds=seconds)
        self._stays(lane, row, handler, error, attempts=attempts, seconds=seconds)
        return False

    def _stays(
        self, lane: Lane, row: HeldRow, handler: Handler, error: Exception, *, attempts: int, seconds: float
    ) -> None:
        """It is tried again after so many seconds. ``attempts`` are its own, not those that an outage interrupted."""
        fates = self._fates
        now = fates.clock.now()
        try:
            fates.transaction(
                lambda c: fates.held.failed(
                    c,
                    row,
                    attempts=attempts,
                    error=told(error),
                    handler=handler.name,
                    first_failed_at=now,
                    next_attempt_at=now + timedelta(seconds=seconds),
                )
            )
        except Exception as another:
            if self._judged(handler, another) is Verdict.CRASH:
                raise
            lane.known = Known(row.id, attempts)
        self._lanes.holding(lane, seconds)

    def _bury(self, lane: Lane, row: HeldRow, handler: Handler, failed: Failed, policy: Policy) -> bool:
        """Write the dead letter; whether the next of its key may follow. Where it stays, it has ``row.attempts``."""
        fates = self._fates
        waits = policy.on_dead_letter == "wait" and lane.id.key is not None

        def work(connection: sa.Connection) -> bool:
            buried = fates.write_dead_letter(connection, row.delivery, handler, failed)
            if waits and buried:
                fates.held.failed(
                    connection,
                    row,
                    attempts=failed.attempts,
                    error=told(failed.error),
                    handler=handler.name,
                    first_failed_at=failed.first_failed_at,
                    next_attempt_at=None,
                    state="dead-letter",
                )
            else:
                fates.held.done(connection, row.id)
            return buried

        try:
            buried = fates.burying(handler, work)
        except Exception as error:
            if self._judged(handler, error) is Verdict.CRASH:
                raise
            lane.known = Known(row.id, failed.attempts, failed)
            self._lanes.holding(lane, fates.outage.delay(1))
            return False
        if buried is None:
            self._stays(lane, row, handler, failed.error, attempts=row.attempts, seconds=_LOOK_AGAIN)
            return False
        fates.tell_buried(row.delivery, handler.name, failed, buried=buried)
        if waits and buried:
            self._lanes.holding(lane, None)
            return False
        return True

    def _end(self, lane: Lane, handler: Handler, row: HeldRow, close: Close, step: str) -> bool:
        """It needs no attempt."""
        fates = self._fates

        def work(connection: sa.Connection) -> bool:
            closed = close(connection)
            fates.held.done(connection, row.id)
            return closed

        try:
            closed = fates.transaction(work)
        except Exception as error:
            if fates.verdict(handler, error) is Verdict.CRASH:
                raise
            self._lanes.holding(lane, fates.outage.delay(1))
            return False
        facts = {} if closed else {"attempt": row.attempts}
        fates.tell(step if closed else "duplicate", row.delivery, handler=handler.name, **facts)
        return True

    def _answers(self, connection: sa.Connection, item: Item) -> bool:
        """Whether ``item`` is a replay of the dead letter that its key waits for: it takes that one's place."""
        delivery = item.delivery
        return delivery.replays > 0 and self._fates.held.reopen(connection, delivery, item.handler.name)

    def _failed(self, row: HeldRow, error: Exception, attempts: int) -> Failed:
        return Failed(error, attempts, row.first_failed_at or self._fates.clock.now())

    def _judged(self, handler: Handler, error: Exception) -> Verdict:
        """The verdict; what is away opens the breaker."""
        verdict = self._fates.verdict(handler, error)
        if verdict is Verdict.PAUSE:
            self._fates.pauses(handler, error)
        return verdict
