"""The inbox runs: polls the group's topics, hands messages to workers, commits offsets.

    check tables ─▶ join the group ─▶ poll ─▶ note what begins ─▶ lanes ══▶ workers ─▶ commit offsets ─▶ poll …
                          ▲                                                                  │
                          └──────────── Kafka away: leave, wait, join again ◀────────────────┘

One thread polls, whatever the workers do, so that a slow handler costs no membership. Observer steps, with their
facts; workers tell theirs from their own threads. Those of a message also have topic, partition, offset, message_id,
type, correlation_id, sent_at:

    assigned           partitions                  the group gave these partitions to this member
    revoked            partitions                  it took them away; what was not begun of them is dropped
    received           (message)                   it was polled
    attempt            (message) handler, attempt  its handler is about to be tried
    applied            (message) handler,          the handler returned; nothing is committed yet. Of a batch, each
                       attempt, seconds            message has its share of the seconds
    raised             (message) handler,          the handler raised, or did not end in time
                       attempt, seconds, error
    handled            (message) handler, attempt  its transaction is committed; its offset is not yet
    duplicate          (message) handler, attempt  it was closed before; nothing was done
    expired            (message) handler           it came too late; recorded, not run
    skipped            (message)                   the group has no handler for its type
    not_for_group      (message)                   a replay for another group
    batch_failed       handler, count, error       one of so many failed; they are tried one by one
    retried            (message) attempt, error,   an attempt failed; the next one comes after so long
                       seconds
    held               (message) handler,          it waits in the table for that, and so many of its key behind it
                       attempts, behind, seconds
    shelved            (message) handler           it waits in the table behind one of its key
    condemned          (message) attempts, error   inbox row and dead letter are written, not committed
    dead_lettered      (message) handler,          they are committed; the offset is not yet
                       attempts, error
    result_not_kept    (message) handler, returned what the handler returned, of this type, is no JSON, or too large
    paused             error, seconds, handler     something is away; the next try comes after so long
    resumed            failures | reason, handler  it is back, or an operator lets it go on
    limited            handler, limit, reason      too many of its messages died within a minute: it is paused for all
    held_back          handler, reason             an operator paused the handler, or its limit elsewhere did
    policy_changed     handler, policy             an operator changed how it is treated
    policy_refused     handler, error              what an operator wants cannot be; it stays as it was
    overdue            (message) handler, seconds  a handler takes longer than its timeout; the first of a batch
    kafka_unavailable  error, seconds              no broker answers; the next try comes after so long
    committed          offsets                     the next offset to read by partition is stored in Kafka
    not_committed      offsets, error              it is not; these records come again, as duplicates
    stopped                                        the group is left, connections are closed
"""

import os
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from uuid import uuid4

from ..messaging.backoff import Backoff
from ..messaging.clock import Clock, SystemClock
from ..messaging.errors import ConfigurationError, Verdict
from ..messaging.health import Health
from ..messaging.lifecycle import Service
from ..messaging.observer import Crash, Observer, together, unobserved
from ..messaging.ports import Kafka
from ..messaging.records import Partition
from ..outbox import schema
from ..outbox.database import parse_url
from .attempt import Attempts
from .begun import FEW, BegunTable
from .control import Control
from .fate import Fates
from .gate import Gate
from .handlers import NOBODY
from .inbox import Inbox
from .intake import Intake
from .lanes import Lanes
from .member import Member, Polled
from .obedience import Obedience
from .outage import KAFKA_AWAY, Left, ObserverFailed, Outages, judge, unmistakable
from .process import Processor
from .settings import InboxSettings
from .transactions import AsyncTransactions, SyncTransactions
from .vitals import Vitals
from .workers import Workers

_WAIT_STEP = 0.1
#: While some partitions are full, others are polled so long at a time, in seconds.
_SHORT_POLL = 0.02
#: A member that was frozen beyond its session may put a message aside that is another's by then.
_LOOK_AT_HELD_EVERY = 60.0
#: How long a partition may bring nothing until the brokers are asked whether it has more, in seconds.
_ASK_EVERY = 10.0
_MOST_BYTES = 64 * 1024 * 1024
#: However long an outage lasts, probes hear from the loop so often, in seconds.
_BEAT = 5.0


class InboxRunner(Service):
    """Runs an inbox on a thread of its own: see ``Service`` for its life.

    Each message's handler, its inbox row and what it publishes are one transaction on ``database_url``
    (PostgreSQL, or SQLite in a file); offsets are committed after it. So a message that is delivered again
    is found to be a duplicate. ``settings.concurrency`` workers handle messages of different keys beside each
    other; those of one key stay in order. For several processes, start one runner in each: the group shares the
    partitions.

    An outage of Kafka, of the database, or of what a handler says is ``Unavailable``, pauses it, for ever.
    ``stop`` lets the handlers that run come to their end; what was not begun is left for later.
    ``join`` raises what it cannot go on with: ConfigurationError, SchemaError, InvalidHandler, NotAuthorized
    (of Kafka), and what the observer raises. ``health`` answers probes.
    What can be checked without a connection is checked here: raises ConfigurationError.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        database_url: str,
        kafka: Kafka,
        settings: InboxSettings | None = None,
        observer: Observer = unobserved,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(f"postroom-inbox-{inbox.group}")
        self.inbox = inbox
        self.settings = settings = settings or InboxSettings()
        if not inbox.topics:
            raise ConfigurationError(f"The inbox of group {inbox.group!r} has no handlers; is their module imported?")
        parse_url(database_url)
        self._url = database_url
        self._kafka = kafka
        self._clock = clock = clock or SystemClock()
        self._often = settings.stuck_seconds / 4
        """The loop comes round at least so often, and asks Kafka no more often."""
        self.health = Health(
            stuck_seconds=settings.stuck_seconds,
            hung_seconds=max(60.0, 2 * settings.poll_timeout_seconds, 2 * settings.keep_alive_seconds),
            clock=clock,
        )
        self._failures = 0  # of Kafka, in a row
        self._backoff = Backoff(settings.outage_base_seconds, settings.outage_cap_seconds)
        self._gates = {
            handler: Gate(
                handler.policy_by(settings),
                clock,
                self._backoff,
                workers=settings.concurrency,
                adaptive=handler.adaptive,
            )
            for handler in (*inbox.handlers, NOBODY)
        }
        self._lanes = Lanes(
            clock, self._gates, batch_size=settings.batch_size, most=settings.max_in_hand, most_bytes=_MOST_BYTES
        )
        self._vitals = Vitals(self.health, self._lanes, self._gates, clock, self._often)
        self._observe = unmistakable(together(self._vitals, observer))
        self._control = Control()
        self._obedience = Obedience(self._gates, self._lanes, settings, self._observe)
        self._control_at = 0.0
        self._heads_at = 0.0
        self._workers: Workers | None = None
        self._crashed = False
        self._begun = BegunTable(
            inbox.group, inbox.names, f"{socket.gethostname()[:40]}:{os.getpid()}:{uuid4().hex[:8]}"
        )

    @property
    def in_hand(self) -> int:
        """Messages that were polled and are not finished, and keys in the table that will be tried again."""
        return self._lanes.in_hand

    @property
    def partitions(self) -> Sequence[Partition]:
        """Those that this member of the group has."""
        return self._lanes.partitions

    @property
    def due_in(self) -> float | None:
        """Seconds, by its clock, until something that waits is tried: another attempt, or what a rate or a breaker
        holds up. None where nothing waits for time."""
        return self._lanes.due_in

    @property
    def busy(self) -> int:
        """Workers that do something now."""
        return self._workers.busy if self._workers is not None else 0

    def stop(self) -> None:
        """Ask it to end: nothing more begins, what runs comes to its end."""
        super().stop()
        self._lanes.close()

    def _run(self) -> None:
        try:
            self._serve()
            self._observe("stopped")
        except ObserverFailed as failed:
            raise failed.args[0] from None
        finally:
            self._lanes.close()
            self.health.became("stopped")

    def _serve(self) -> None:
        settings = self.settings
        tables = partial(schema.check, self._url, self.inbox.names)
        outages = Outages(self._backoff, self._observe, self._sleep)
        try:
            outages.through(tables)
        except Left:
            return
        application = f"postroom inbox {self.inbox.group}"[:63]
        with ExitStack() as stack:
            sync = stack.enter_context(closing(SyncTransactions(self._url, application, settings.concurrency)))
            asynchronous = None
            if any(handler.is_async for handler in self.inbox.handlers):
                asynchronous = stack.enter_context(
                    closing(AsyncTransactions(self._url, application, settings.concurrency))
                )
            self._fates = fates = Fates(
                self.inbox,
                settings,
                self._lanes,
                self._gates,
                transactions=sync,
                observe=self._observe,
                clock=self._clock,
            )
            attempts = Attempts(self.inbox, sync, asynchronous, fates.tell, self._clock)
            processor = Processor(fates, attempts, self._begun)
            self._intake = Intake(fates, self._lanes, self._begun, self._clock)
            workers = Workers(settings.concurrency, self._lanes, processor.run, self._clock, self._name)
            self._workers = workers
            try:
                while not self._stopping.is_set():
                    if error := self._take_part(workers):
                        self._failures += 1
                        seconds = self._backoff.delay(self._failures)
                        self._observe("kafka_unavailable", error=error, seconds=seconds)
                        self._sleep(seconds)
            finally:
                self._lanes.close()
                while not workers.join(_WAIT_STEP):
                    self._vitals.beat()
                workers.check()

    def _take_part(self, workers: Workers) -> Exception | None:
        """Be a member of the group until the stop, or until Kafka is away, which it returns as an error."""
        settings = self.settings
        try:
            member = Member(
                self._kafka,
                self.inbox.group,
                self.inbox.topics,
                self._lanes,
                observe=self._observe,
                clock=self._clock,
                on_revoked=self._end_begun,
                instance=settings.instance_id,
                cooperative=settings.cooperative,
                ask_every=min(_ASK_EVERY, self._often),
                beat=self._vitals.beat,
            )
        except KAFKA_AWAY as error:
            return error
        with closing(member):
            try:
                return self._consume(member, workers)
            except Crash:
                self._crashed = True
                raise
            finally:
                if not self._crashed:
                    self._leave(member, workers)

    def _consume(self, member: Member, workers: Workers) -> Exception | None:
        settings = self.settings
        while not self._stopping.is_set():
            workers.check()
            self._look_after(workers)
            records = self._bound()
            self._lanes.room.clear()  # before it is asked what is full
            paused = self._paused()
            member.look(paused)
            self._vitals.look(member, workers)
            keep_alive = min(settings.keep_alive_seconds, self._often)
            try:
                if paused and len(paused) == len(self._lanes.partitions):
                    if member.silence < keep_alive:
                        member.commit()
                        self._clock.wait(self._lanes.room, keep_alive)
                        self._lanes.wake()
                        continue
                    timeout = 0.0
                else:
                    timeout = min(settings.poll_timeout_seconds, _SHORT_POLL if paused else self._often)
                polled = member.poll(timeout, records, paused)
            except KAFKA_AWAY as error:
                return error
            self._failures = 0
            backlog = deque([polled])
            with suppress(Left):
                self._intake.take(backlog, Outages(self._backoff, self._observe, partial(self._wait, member, backlog)))
            self._lanes.wake()
        return None

    def _bound(self) -> int:
        """How many records may come at once; and let the lanes know how many may be in hand."""
        settings = self.settings
        in_hand, at_once = settings.max_in_hand, settings.max_poll_records
        # With the first partitions records come, before the table was asked what a crash left of these.
        if not self._lanes.partitions or self._intake.few_at_a_time:
            in_hand, at_once = min(in_hand, FEW // 2), min(at_once, FEW // 2)
        self._lanes.most = in_hand
        return at_once

    def _paused(self) -> Sequence[Partition]:
        """The partitions to fetch nothing of: full ones, and those of topics whose handlers may not begin."""
        with self._lanes.lock:
            shut = {handler: gate.is_shut for handler, gate in self._gates.items() if handler is not NOBODY}
        of_topic: dict[str, bool] = {}
        for handler, is_shut in shut.items():
            of_topic[handler.topic] = of_topic.get(handler.topic, True) and is_shut
        full = set(self._lanes.full())
        return [part for part in self._lanes.partitions if part in full or of_topic.get(part.topic, False)]

    def _look_after(self, workers: Workers) -> None:
        """Learn what operators ask, and tell of handlers that take too long."""
        for job, handler, seconds in workers.overdue(lambda handler: self._gates[handler].policy.timeout):
            [(_, first), *_] = job.items
            self._fates.tell("overdue", first.delivery, handler=handler.name, seconds=round(seconds, 3))
        now = self._clock.monotonic()
        if now < self._control_at:
            return
        self._control_at = now + self.settings.control_seconds
        inbox, revision = self.inbox, self._control.revision
        try:
            control = self._fates.transaction(lambda c: Control.read(c, inbox.group, inbox.names))
            look = control.revision != revision or now >= self._heads_at
            held = self._fates.transaction(self._fates.held.heads) if look else None
        except Exception as error:
            if judge(error) is Verdict.CRASH:
                raise
            if judge(error) is Verdict.PAUSE:
                self._vitals.database(error)
            return  # it is as it was, until the database answers
        self._vitals.database(None)
        if held is not None:
            self._heads_at = now + _LOOK_AT_HELD_EVERY
            self._intake.hold(held)
        if control != self._control or self._obedience.differs(control):
            self._control = control
            self._obedience.obey(control)

    def _leave(self, member: Member, workers: Workers) -> None:
        """Let what runs come to its end, as far as we are to stop, and commit."""
        if self._stopping.is_set() or workers.failed:
            self.health.became("stopping")
            self._lanes.close()
            while not workers.join(_WAIT_STEP):
                self._vitals.beat()
                if member.silence > self.settings.keep_alive_seconds:
                    with suppress(*KAFKA_AWAY):
                        member.poll(0, 1, self._lanes.partitions)
        member.look(self._lanes.partitions)  # it may be back
        member.commit()
        self._intake.clear_suspects()
        self._end_begun(self._lanes.partitions)

    def _end_begun(self, partitions: Sequence[Partition]) -> None:
        if not self._crashed:
            self._intake.end(partitions)

    def _wait(self, member: Member, backlog: deque[Polled], seconds: float) -> bool:
        """Wait while the group hears from us; False when we are to stop."""
        until = self._clock.monotonic() + seconds
        while True:
            left = until - self._clock.monotonic()
            if self._stopping.is_set():
                return False
            if left <= 0:
                return True
            self._sleep(min(left, self.settings.keep_alive_seconds))
            if member.silence > self.settings.keep_alive_seconds:
                # While Kafka is away there is nobody to tell; the next poll finds out, and starts over.
                with suppress(*KAFKA_AWAY):
                    backlog.append(member.poll(0, self.settings.max_poll_records, self._lanes.partitions))

    def _sleep(self, seconds: float) -> bool:
        until = self._clock.monotonic() + seconds
        while True:
            self._vitals.beat()
            left = until - self._clock.monotonic()
            if self._clock.wait(self._stopping, min(left, _BEAT)):
                return False
            if left <= _BEAT:
                return True
