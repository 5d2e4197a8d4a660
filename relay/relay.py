"""The relay: reads the log, publishes to Kafka, settles.

    claim ──▶ read ──▶ publish ──▶ settle ──▶ read …
      ▲         │          │           │
      └─────────┴── fenced / unavailable: nothing is burned, start over from the cursors

Observer steps, with their facts:

    claimed       shards                       the shards owned changed
    read          count, positions             a batch was read
    published     count, positions             Kafka acknowledged them
    interrupted   count, error                 publishing stopped in the middle and is taken up
    parked        topic, id, position, error   Kafka refused a message for good
    settled       count, parked                the cursors moved past a batch
    unparked      count                        parked messages were published after all
    moved_due     count                        delayed messages went into the log
    waiting       seconds                      Kafka has not acknowledged for so long
    paused        error, seconds               a dependency is away; the next try comes after so long
    resumed                                    it is back
    fenced        error                        a lease was lost
    stopping, stopped                          in phases: finish what is in flight, settle, release, close
"""

import os
import socket
from collections.abc import Sequence
from uuid import uuid4

from ..messaging.backoff import Backoff
from ..messaging.clock import Clock, SystemClock
from ..messaging.errors import DatabaseUnavailable, Fenced, Interrupted, Unavailable
from ..messaging.lifecycle import Service
from ..messaging.observer import Observer, unobserved
from ..messaging.ports import Kafka, Publication, Publisher
from ..outbox.log import Batch, LogStore, Refusal
from .delivery import Delivery, Held
from .settings import RelaySettings

_PARTITIONS_EVERY = 30.0
_WAIT_STEP = 0.1
_TELL_WAITING_EVERY = 5.0


class Relay(Service):
    """A relay on a thread of its own: see ``Service`` for its life.

    It runs for ever: an outage of Kafka or the database only pauses it. ``join`` raises what it cannot go
    on with: ConfigurationError, SchemaError, NotAuthorized on the database. Several relays on one log share
    its shards by lease.
    """

    def __init__(
        self,
        store: LogStore,
        kafka: Kafka,
        *,
        settings: RelaySettings | None = None,
        observer: Observer = unobserved,
        clock: Clock | None = None,
        owner: str | None = None,
    ) -> None:
        super().__init__("postroom-relay")
        self.settings = settings or RelaySettings()
        self.owner = owner or f"{socket.gethostname()[:40]}:{os.getpid()}:{uuid4().hex[:8]}"
        self._store = store
        self._kafka = kafka
        self._observe = observer
        self._clock = clock or SystemClock()
        self._reader = store.reader(self.owner, self.settings.lease_seconds)
        self._backoff = Backoff(self.settings.backoff_base_seconds, self.settings.backoff_cap_seconds)
        self._hold = self.settings.on_refused == "park-key"
        self._delivery = Delivery(hold=self._hold, observe=observer, wait=self._wait_for)
        self._publisher: Publisher | None = None
        self._shards: frozenset[int] = frozenset()
        self._lease_ends = 0.0
        self._heartbeat_at = 0.0
        self._upkeep_at = 0.0
        self._partitions_at = 0.0
        self._idle = 0.0
        self._failures = 0
        self._give_up_at: float | None = None

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._cycle()
                except Unavailable as error:
                    self._pause(error)
                except Fenced as error:
                    self._observe("fenced", error=error)
                    self._drop_publisher(0)
                    self._heartbeat_at = 0.0
                except Interrupted as error:
                    if not self._stopping.is_set():
                        self._pause(error)
        finally:
            self._observe("stopping")
            self._drop_publisher(0)
            self._reader.release()
            self._reader.close()
            self._store.close()
            self._observe("stopped")

    def _cycle(self) -> None:
        self._heartbeat()
        if not self._shards:
            self._rest()
            return
        self._upkeep()
        batch = self._reader.read(self.settings.batch_size)
        if batch.caught_up:
            self._healthy()
            self._rest()
            return
        self._idle = 0.0
        refusals: Sequence[Refusal] = ()
        if batch.rows:
            self._observe("read", count=len(batch.rows), positions=(batch.rows[0].position, batch.rows[-1].position))
            refusals = self._delivery.deliver(batch.rows, self._ready_publisher)
        self._settle(batch, refusals)
        self._healthy()

    def _settle(self, batch: Batch, refusals: Sequence[Refusal]) -> None:
        self._reader.settle(batch, refusals)
        self._delivery.acknowledged.difference_update([row.position for row in batch.rows])
        if batch.rows:
            self._observe("settled", count=len(batch.rows), parked=len(refusals))

    def _heartbeat(self) -> None:
        """Renew the leases, take free ones. Raises Fenced when one was lost."""
        now = self._clock.monotonic()
        if now < self._heartbeat_at:
            return
        claimed = self._reader.claim()
        if claimed != self._shards:
            # First what waits behind parked messages: without knowing it, the new shards must not be read.
            self._delivery.held = self._held_keys()
            self._observe("claimed", shards=sorted(claimed))
        lost, self._shards = self._shards - claimed, claimed
        self._lease_ends = now + self.settings.lease_seconds
        self._heartbeat_at = now + self.settings.lease_seconds / 3
        if lost:
            raise Fenced(f"The lease of {len(lost)} shards ran out and another relay took them.")

    def _upkeep(self) -> None:
        now = self._clock.monotonic()
        if now < self._upkeep_at:
            return
        self._upkeep_at = now + self.settings.upkeep_seconds
        if 0 in self._shards:  # one relay, so that the order in which messages are due is kept
            if moved := self._store.move_due():
                self._observe("moved_due", count=moved)
            if now >= self._partitions_at:
                self._partitions_at = now + _PARTITIONS_EVERY
                self._store.add_partitions()
        self._release_parked()

    def _release_parked(self) -> None:
        """Publish what an operator asked for, with what waited behind it, in order."""
        ready = [parked for parked in self._store.releasable() if parked.row.shard in self._shards]
        if ready:
            rows = [parked.row for parked in ready]
            released = {(row.topic, row.key) for row in rows if row.key is not None}
            refusals = self._delivery.deliver(rows, self._ready_publisher, released)
            again = {refusal.row.position for refusal in refusals}
            published = [row.position for row in rows if row.position not in again]
            self._reader.settle(Batch([]), refusals)
            self._store.discard(published)
            self._delivery.acknowledged.difference_update(published)
            self._observe("unparked", count=len(published))
        self._delivery.held = self._held_keys()

    def _held_keys(self) -> Held:
        return self._store.held_keys() if self._hold else frozenset()

    def _ready_publisher(self) -> Publisher:
        """The publisher, if the lease still stands: what is sent after it ended could be sent twice."""
        if self._clock.monotonic() >= self._lease_ends:
            raise Fenced("The lease ran out before the batch was published.")
        if self._publisher is None:
            self._publisher = self._kafka.publisher()
        return self._publisher

    def _wait_for(self, publication: Publication) -> None:
        """Until Kafka has answered for each record, keeping the lease. Raises Fenced, Interrupted (stopping)."""
        began = told = self._clock.monotonic()
        while not publication.wait(_WAIT_STEP):
            now = self._clock.monotonic()
            if now - told >= _TELL_WAITING_EVERY:
                told = now
                self._observe("waiting", seconds=round(now - began, 1))
            if self._stopping.is_set():
                self._give_up_at = self._give_up_at or now + self.settings.shutdown_seconds
                if now >= self._give_up_at:
                    raise Interrupted("Kafka did not answer before the relay had to stop.")
            try:
                self._heartbeat()
            except DatabaseUnavailable:
                if now >= self._lease_ends:
                    raise Fenced("The lease ran out while neither Kafka nor the database answered.") from None

    def _drop_publisher(self, timeout: float) -> None:
        if self._publisher is not None:
            self._publisher.close(timeout)
            self._publisher = None

    def _rest(self) -> None:
        settings = self.settings
        self._idle = min(max(self._idle * 2, settings.poll_min_seconds), settings.poll_max_seconds)
        self._clock.wait(self._stopping, self._idle)

    def _pause(self, error: Exception) -> None:
        self._failures += 1
        delay = self._backoff.delay(self._failures)
        self._observe("paused", error=error, seconds=round(delay, 3))
        self._clock.wait(self._stopping, delay)

    def _healthy(self) -> None:
        if self._failures:
            self._failures = 0
            self._observe("resumed")
