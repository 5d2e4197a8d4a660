"""The inbox runs: polls the group's topics, processes record by record, commits offsets.

    check tables ─▶ join the group ─▶ poll ─▶ process each record ─▶ commit offsets ─▶ poll …
                          ▲                                                │
                          └──── Kafka away: leave, wait, join again ◀──────┘

Observer steps, with their facts. Those of a record also have topic, partition, offset, message_id, type:

    assigned           partitions                  the group gave these partitions to this member
    revoked            partitions                  it took them away; records in hand of them are dropped
    received           (record)                    a record is about to be processed
    attempt            (record) handler, attempt   its handler is about to be tried
    applied            (record) handler, attempt   the handler returned; nothing is committed yet
    handled            (record) handler, attempt   its transaction is committed; its offset is not yet
    duplicate          (record) handler, attempt   it was closed before; nothing was done
    skipped            (record)                    the group has no handler for its type
    not_for_group      (record)                    a replay for another group
    retried            (record) attempt, error,    an attempt failed; the next one comes after so long
                       seconds
    condemned          (record) attempts, error    inbox row and dead letter are written, not committed
    dead_lettered      (record) handler, attempts, they are committed; the offset is not yet
                       error
    left               (record)                    a stop or a rebalance came before an end; delivered again
    paused             error, seconds              a dependency is away; the next try comes after so long
    resumed            failures                    it is back
    kafka_unavailable  error, seconds              no broker answers; the next try comes after so long
    committed          offsets                     the next offset to read by partition is stored in Kafka
    not_committed      offsets, error              it is not; these records come again, as duplicates
    stopped                                        the group is left, connections are closed
"""

from contextlib import ExitStack, closing, suppress
from functools import partial

from ..messaging.backoff import Backoff
from ..messaging.clock import Clock, SystemClock
from ..messaging.errors import ConfigurationError
from ..messaging.lifecycle import Service
from ..messaging.observer import Observer, unobserved
from ..messaging.ports import Kafka
from ..outbox import schema
from ..outbox.database import parse_url
from .assignment import InHand
from .inbox import Inbox
from .member import KAFKA_AWAY, Member
from .outage import Left, ObserverFailed, Outages, unmistakable
from .process import Processor
from .settings import InboxSettings
from .transactions import AsyncTransactions, SyncTransactions


class InboxRunner(Service):
    """Runs an inbox on a thread of its own: see ``Service`` for its life.

    Each message's handler, its inbox row and what it publishes are one transaction on ``database_url``
    (PostgreSQL, or SQLite in a file); offsets are committed after it. So a message that is delivered again
    is found to be a duplicate. Records are processed one after the other. For several processes, start one
    runner in each: the group shares the partitions.

    An outage of Kafka, of the database, or of what a handler says is ``Unavailable``, pauses it, for ever.
    ``stop`` lets the handler that runs come to its end; a message between two attempts is left for later.
    ``join`` raises what it cannot go on with: ConfigurationError, SchemaError, InvalidHandler, NotAuthorized
    (of Kafka), and what the observer raises.
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
        self.settings = settings or InboxSettings()
        if not inbox.topics:
            raise ConfigurationError(f"The inbox of group {inbox.group!r} has no handlers; is their module imported?")
        for handler in inbox.handlers:
            handler.backoff_by(self.settings)
        parse_url(database_url)
        self._url = database_url
        self._kafka = kafka
        self._observe = unmistakable(observer)
        self._clock = clock or SystemClock()
        self._failures = 0  # of Kafka, in a row
        self._backoff = Backoff(self.settings.outage_base_seconds, self.settings.outage_cap_seconds)

    def _run(self) -> None:
        try:
            self._serve()
            self._observe("stopped")
        except ObserverFailed as failed:
            raise failed.args[0] from None

    def _serve(self) -> None:
        tables = partial(schema.check, self._url, self.inbox.names)
        try:
            Outages(self._backoff, self._observe, self._sleep).through(tables)
        except Left:
            return
        application = f"postroom inbox {self.inbox.group}"[:63]
        with ExitStack() as stack:
            sync = stack.enter_context(closing(SyncTransactions(self._url, application)))
            asynchronous = None
            if any(handler.is_async for handler in self.inbox.handlers):
                asynchronous = stack.enter_context(closing(AsyncTransactions(self._url, application)))
            processor = Processor(
                self.inbox,
                self.settings,
                sync=sync,
                asynchronous=asynchronous,
                observe=self._observe,
                clock=self._clock,
            )
            while not self._stopping.is_set():
                if error := self._take_part(processor):
                    self._failures += 1
                    seconds = self._backoff.delay(self._failures)
                    self._observe("kafka_unavailable", error=error, seconds=seconds)
                    self._sleep(seconds)

    def _take_part(self, processor: Processor) -> Exception | None:
        """Be a member of the group until the stop, or until Kafka is away, which it returns as an error."""
        try:
            member = Member(self._kafka, self.inbox.group, self.inbox.topics, self._observe, self._clock)
        except KAFKA_AWAY as error:
            return error
        with closing(member):
            try:
                return self._consume(member, processor)
            finally:
                member.commit()

    def _consume(self, member: Member, processor: Processor) -> Exception | None:
        while not self._stopping.is_set():
            item = member.take()
            if item is None:
                try:
                    member.poll(self.settings.poll_timeout_seconds, self.settings.max_poll_records)
                except KAFKA_AWAY as error:
                    return error
                self._failures = 0
                continue
            try:
                processor.process(item.record, partial(self._wait, member, item))
            except Left:
                partition, offset, *_ = item.record
                self._observe("left", topic=partition.topic, partition=partition.number, offset=offset)
            else:
                member.finish(item)
            if member.silence > self.settings.keep_alive_seconds:
                self._keep_alive(member)
        return None

    def _wait(self, member: Member, item: InHand, seconds: float) -> bool:
        """Wait while the group hears from us; False when the record is to be left."""
        until = self._clock.monotonic() + seconds
        while True:
            left = until - self._clock.monotonic()
            if self._stopping.is_set() or not member.owns(item):
                return False
            if left <= 0:
                return True
            self._sleep(min(left, self.settings.keep_alive_seconds))
            if member.silence > self.settings.keep_alive_seconds:
                self._keep_alive(member)

    def _keep_alive(self, member: Member) -> None:
        # While Kafka is away there is nobody to tell; the next poll finds out, and starts over.
        with suppress(*KAFKA_AWAY):
            member.keep_alive(self.settings.max_poll_records)

    def _sleep(self, seconds: float) -> bool:
        return not self._clock.wait(self._stopping, seconds)
