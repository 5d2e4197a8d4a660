"""What becomes of the messages in hand: handled, tried again, held, dead-lettered.

    take ─▶ expired? ─▶ decode ─▶ attempt ─┬─ applied ───────────────────────────────────────▶ handled
                          │                ├─ closed before ─────────────────────────────────▶ duplicate
                          │                ├─ something is away: the breaker opens, nothing is counted ─▶ again
                          │                ├─ failed in a batch: each of it alone ──▶ again
                          │                ├─ failed: a short wait in hand ──▶ again
                          │                ├─ failed more often: into the table, its key behind it ──▶ held
                          └─ poison ───────┴─ attempts are used up ─┬────────────────────────▶ dead_lettered
                                                                    └─ too many of them: the handler is paused ─▶ again

Runs on workers' threads, one job at a time each. What is decided is committed before the job ends, or given back.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa

from ..messaging.errors import HandlerCrashed, Poison, Verdict
from .attempt import Attempts, Try
from .begun import BegunTable
from .fate import Failed, Fates, told
from .handlers import NOBODY, Handler
from .held import Hold
from .lane import Item, Job, Kind, Lane
from .policy import Policy
from .shelf import Shelf

Given = Sequence[tuple[Lane, Item]]


class Processor:
    """Does jobs. Thread-safe; what must be kept between jobs is in the lanes and in the database."""

    def __init__(self, fates: Fates, attempts: Attempts, begun: BegunTable) -> None:
        self._fates = fates
        self._lanes = fates.lanes
        self._attempts = attempts
        self._begun = begun
        self._shelf = Shelf(fates, attempts)

    def run(self, job: Job) -> None:
        """Do it. Raises what ends the inbox: ConfigurationError, SchemaError, InvalidHandler."""
        began = self._fates.clock.monotonic()
        try:
            if job.kind is Kind.RUN:
                self._batch(job)
            elif job.kind is Kind.SHELVE:
                self._shelf.shelve(job.lanes[0])
            else:
                self._shelf.drain(job.lanes[0])
        finally:
            self._lanes.done(job, (self._fates.clock.monotonic() - began) / max(1, len(job.items)))

    def _batch(self, job: Job) -> None:
        handler = job.handler
        assert handler is not None  # noqa: S101  for the type checker
        policy = self._fates.policy(handler)
        pending: list[tuple[Lane, Item, Try]] = []
        self._again([(lane, item) for lane, item in job.items if lane.dropped])
        items = [(lane, item) for lane, item in job.items if not lane.dropped]
        while items:
            lane, item = items.pop(0)
            behind = [each for own, each in items if own is lane]
            fate = self._before(item, policy)
            if isinstance(fate, Try):
                pending.append((lane, item, fate))
                continue
            goes_on = self._expire(lane, item, behind) if fate is None else self._bury(lane, item, fate, policy, behind)
            if not goes_on:
                items = [(own, each) for own, each in items if own is not lane]
        if pending:
            self._attempt(handler, policy, pending)

    def _before(self, item: Item, policy: Policy) -> Try | Failed | None:
        """What is to be tried, or why it never will; None for what came too late."""
        fates, delivery, handler = self._fates, item.delivery, item.handler
        if item.condemned is not None:
            return item.condemned
        if fates.is_expired(delivery):
            return None
        if handler is NOBODY:
            return fates.unhandled(delivery)
        if item.suspect and item.crashes >= max(1, policy.attempts - 1):
            crashes = item.crashes + 1  # the one that made it a suspect was not counted
            error = HandlerCrashed(f"The process ended {crashes} times while it handled this message.")
            return Failed(error, crashes, fates.clock.now())
        try:
            event = handler.decode(delivery)
        except Poison as poison:
            return Failed(poison, item.attempts + 1, fates.clock.now())
        return Try(delivery, event, item.attempts + 1)

    def _attempt(self, handler: Handler, policy: Policy, pending: Sequence[tuple[Lane, Item, Try]]) -> None:
        given = [(lane, item) for lane, item, _ in pending]
        try:
            for _, item, each in pending:
                if item.suspect:
                    self._count(item, each)
                self._fates.tell("attempt", item.delivery, handler=handler.name, attempt=each.attempt)
            fresh = self._attempts.make(handler, policy, [each for *_, each in pending])
        except Exception as error:
            verdict = self._fates.verdict(handler, error)
            if verdict is Verdict.CRASH:
                raise
            if verdict is Verdict.PAUSE:
                self._give_back(handler, given, verdict, error)
            elif len(pending) > 1:
                for _, item in given:
                    item.alone = True
                self._fates.observe("batch_failed", handler=handler.name, count=len(pending), error=error)
                self._again(given)
            else:
                [(lane, item)] = given
                self._failed(lane, item, error, verdict, policy)
            return
        self._succeeded(policy, pending, fresh)

    def _succeeded(self, policy: Policy, pending: Sequence[tuple[Lane, Item, Try]], fresh: Sequence[bool]) -> None:
        self._fates.succeeded(pending[0][1].handler, [item.delivery for _, item, _ in pending])
        for (lane, item, each), first in zip(pending, fresh, strict=True):
            step = "handled" if first else "duplicate"
            self._fates.tell(step, item.delivery, handler=item.handler.name, attempt=each.attempt)
            if not first and policy.on_dead_letter == "wait":
                self._lanes.holding(lane, 0.0)  # it may be a dead letter by now that its key waits for
        self._lanes.finished([item for _, item, _ in pending])

    def _count(self, item: Item, each: Try) -> None:
        """What a crash interrupted is tried alone, and the try is counted before it begins."""
        partition, offset = item.delivery.record.partition, item.delivery.record.offset
        self._fates.transaction(lambda c: self._begun.suspect(c, partition, offset, each.attempt))

    def _failed(self, lane: Lane, item: Item, error: Exception, verdict: Verdict, policy: Policy) -> None:
        """An attempt at a message alone failed, and nothing said that it was away."""
        handler, fates = item.handler, self._fates
        if verdict is Verdict.RETRY and fates.breaks(handler, item.delivery, error, first=item.attempts == 0):
            self._again([(lane, item)])
            return
        item.attempts += 1
        item.first_failed_at = item.first_failed_at or fates.clock.now()
        failed = Failed(error, item.attempts, item.first_failed_at)
        if verdict is Verdict.DEAD_LETTER or item.attempts >= policy.attempts:
            if verdict is Verdict.DEAD_LETTER:
                fates.undecided(handler)
            self._bury(lane, item, failed, policy, [])
            return
        seconds = policy.backoff.delay(item.attempts)
        fates.tell("retried", item.delivery, attempt=item.attempts, error=error, seconds=seconds)
        if item.attempts < policy.immediate:
            self._again([(lane, item)], seconds)
        else:
            self._put_aside(lane, item, failed, seconds)

    def _put_aside(self, lane: Lane, item: Item, failed: Failed, seconds: float) -> None:
        """Into the table, and its key behind it."""
        if lane.dropped:  # another member has it, and would not know of the row
            self._again([(lane, item)])
            return
        rest = [] if lane.id.key is None else self._lanes.rest_of(lane)
        first = Hold(
            delivery=item.delivery,
            state="retry",
            handler=item.handler.name,
            attempts=failed.attempts,
            error=told(failed.error),
            first_failed_at=failed.first_failed_at,
            next_attempt_at=self._fates.clock.now() + timedelta(seconds=seconds),
        )
        holds = [first, *map(Hold.behind, rest)]
        try:
            self._fates.transaction(lambda c: self._fates.held.hold(c, holds))
        except Exception as error:  # noqa: BLE001  judged
            self._give_back(
                item.handler,
                [(lane, each) for each in (item, *rest)],
                self._fates.verdict(item.handler, error),
                error,
            )
            self._lanes.holding(lane, 0.0)  # they may be there: the commit's answer may have been what was lost
            return
        self._lanes.holding(lane, seconds)
        self._fates.tell(
            "held",
            item.delivery,
            handler=item.handler.name,
            attempts=failed.attempts,
            behind=len(rest),
            seconds=seconds,
        )
        self._lanes.finished([item, *rest])

    def _bury(self, lane: Lane, item: Item, failed: Failed, policy: Policy, behind: Sequence[Item]) -> bool:
        """Write the dead letter. False where those ``behind`` it were dealt with: held, or given back with it."""
        fates, name = self._fates, item.handler.name
        if lane.dropped:
            self._again([(lane, each) for each in (item, *behind)])
            return False
        waits = policy.on_dead_letter == "wait" and lane.id.key is not None
        rest = [*behind, *self._lanes.rest_of(lane)] if waits else []
        given = [(lane, each) for each in (item, *(rest or behind))]

        def work(connection: sa.Connection) -> bool:
            buried = fates.write_dead_letter(connection, item.delivery, item.handler, failed)
            if waits and buried:
                fates.held.hold(connection, [fates.blocker(item.delivery, name, failed), *map(Hold.behind, rest)])
            return buried

        try:
            buried = fates.burying(item.handler, work)
        except Exception as error:  # noqa: BLE001  judged
            item.condemned = failed
            self._give_back(item.handler, given, fates.verdict(item.handler, error), error)
            return False
        if buried is None:  # no attempt is used up: the cause may be gone when the handler goes on
            item.condemned, item.attempts = None, min(item.attempts, failed.attempts - 1)
            self._again(given)
            return False
        if waits and buried:
            self._lanes.holding(lane, None)
        elif waits:
            self._lanes.again(lane, rest)
            self._lanes.holding(lane, 0.0)  # closed before: its key may wait for it in the table
        fates.tell_buried(item.delivery, name, failed, buried=buried)
        self._lanes.finished([item, *rest] if waits and buried else [item])
        return not waits

    def _expire(self, lane: Lane, item: Item, behind: Sequence[Item]) -> bool:
        """Close what came too late. As for ``_bury``."""
        fates = self._fates
        try:
            expired = fates.transaction(lambda c: self._attempts.expire(c, item.delivery, item.handler))
        except Exception as error:  # noqa: BLE001  judged
            given = [(lane, each) for each in (item, *behind)]
            self._give_back(item.handler, given, fates.verdict(item.handler, error), error)
            return False
        facts = {} if expired else {"attempt": 0}
        fates.tell("expired" if expired else "duplicate", item.delivery, handler=item.handler.name, **facts)
        self._lanes.finished([item])
        return True

    def _give_back(self, handler: Handler, given: Given, verdict: Verdict, error: Exception) -> None:
        """Nothing of it is counted; it comes again when what was away is back. Raises ``error`` if it ends us."""
        if verdict is Verdict.CRASH:
            raise error
        seconds = 0.0
        if verdict is Verdict.PAUSE:
            self._fates.pauses(handler, error)
        else:
            seconds = self._fates.outage.delay(1)
        self._again(given, seconds)

    def _again(self, given: Given, seconds: float = 0.0) -> None:
        by_lane: defaultdict[int, list[tuple[Lane, Item]]] = defaultdict(list)
        for lane, item in given:
            by_lane[id(lane)].append((lane, item))
        for pairs in by_lane.values():
            self._lanes.again(pairs[0][0], [item for _, item in pairs], seconds)
