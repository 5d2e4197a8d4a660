"""The relay: reads the log, publishes to Kafka, settles; reading, publishing and settling overlap.

    heartbeat ──▶ read ──▶ take off ──▶ land ──▶ settle ──▶ …      one thread; Kafka's client has its own
        │          │          │          │         │
        └──────────┴── fenced / unavailable: nothing is burned, begin again from the cursors

A circuit breaker stands before Kafka and the database: what is away pauses the relay (open), after a random
wait one message is tried (half-open), and when that is settled all goes on (closed).

Observer steps, with their facts:

    claimed       shards                       the shards owned changed
    read          count, positions             a batch was read
    published     count, positions, topics,    Kafka acknowledged them: so many of each topic; seconds since some of
                  latencies                    them, spread evenly, were written
    in_doubt      count                        so many may be published twice: no answer came before the lease was
                                               lost or a connection given up, or another relay settles them
    interrupted   count, error                 publishing failed in the middle and is sorted out
    parked        topic, id, correlation_id,   Kafka refused a message for good
                  position, error
    settled       count, parked                the cursors moved past so many
    unparked      count                        parked messages were published after all
    moved_due     count                        delayed messages went into the log
    pruned        parts                        what the retention no longer holds was dropped
    inbox_pruned  parts                        likewise of the inbox: days, and old rows
    transaction_open  pid, application, …      somebody's open transaction keeps its messages waiting
    not_allowed   duty, error                  the database does not let the relay do a duty
    waiting       seconds                      Kafka has not acknowledged for so long
    paused        error, seconds               a dependency is away; the next try comes after so long
    resumed                                    it is back
    held_back     reason                       an operator paused the relay
    stepped_aside error                        its shards were left to relays that reach Kafka
    fenced        error                        a lease was lost
    stopping, stopped                          in phases: finish what is in flight, settle, release, close
"""

import os
import socket
from collections.abc import Callable
from uuid import uuid4

from ..messaging.backoff import Backoff
from ..messaging.clock import Clock, SystemClock
from ..messaging.errors import Fenced, Interrupted, KafkaUnavailable, Unavailable
from ..messaging.health import Health
from ..messaging.lifecycle import Service
from ..messaging.observer import Crash, Observer, unobserved
from ..messaging.ports import Kafka, Publication
from ..messaging.rate import Meter, TokenBucket
from ..outbox.log import BATCH_BYTES, MAX_SHARDS, LogStore, Report
from .breaker import Breaker
from .delivery import Delivery
from .lease import Lease
from .link import Link
from .parked import Parked
from .rest import Rest
from .settings import OnRefused, RelaySettings
from .upkeep import Upkeep

_WAIT_STEP = 0.1
#: While batches that were not full are on their way, what comes meanwhile gathers, at the most for so long, in
#: seconds: behind one of them, behind several. Else a slow broker would get ever more and ever smaller requests.
_GATHER = 0.002, 0.02
_TELL_WAITING_EVERY = 5.0
_CHECKPOINT_EVERY = 30.0
#: The in-flight window's other bound: large messages must not fill the memory.
_WINDOW_BYTES = 4 * BATCH_BYTES


class Relay(Service):
    """A relay on a thread of its own: see ``Service`` for its life.

    It runs for ever: an outage of Kafka or the database only pauses it. ``join`` raises what it cannot go
    on with: ConfigurationError, SchemaError, NotAuthorized on the database. Several relays on one log share
    its shards by lease. ``health`` answers probes.
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
        self.settings = settings = settings or RelaySettings()
        self.owner = owner or f"{socket.gethostname()[:40]}:{os.getpid()}:{uuid4().hex[:8]}"
        self._clock = clock = clock or SystemClock()
        self.health = Health(
            stuck_seconds=settings.stuck_seconds,
            hung_seconds=max(60.0, 4 * settings.lease_seconds, 2 * settings.backoff_cap_seconds),
            clock=clock,
        )
        self._store = store
        self._observe = observer
        self._reader = store.reader(self.owner, settings.lease_seconds)
        self._lease = Lease(self._reader, settings.lease_seconds, clock)
        self._link = Link(kafka, self._lease)
        self._rest = Rest(settings, clock, self._stopping, store.waker() if settings.listen else None)
        self._breaker = Breaker(Backoff(settings.backoff_base_seconds, settings.backoff_cap_seconds), clock)
        self._delivery = Delivery(self._policy, observer, clock)
        self._parked = Parked(store, self._reader, self._delivery, owner=self.owner, observe=observer, clock=clock)
        self._upkeep = Upkeep(store, settings, observer, clock)
        self._bucket = TokenBucket(clock)
        self._checkpoint_at = 0.0
        self._settle_at: float | None = None
        self._able = True
        self._told_waiting = 0.0
        self._published = 0
        self._meter = Meter(clock)
        self._gather = False
        self._give_up_at: float | None = None

    def _run(self) -> None:
        crashed = False
        try:
            while not self._stopping.is_set():
                self.health.beat()
                self._guarded_cycle(self._cycle)
            self.health.became("stopping")
            self._observe("stopping")
            self._guarded_cycle(self._finish)
        except Crash:
            crashed = True
            raise
        finally:
            self._link.drop()
            if not crashed:
                self._reader.release()
            self._reader.close()
            self._rest.close()
            self._store.close()
            self.health.became("stopped")
            if not crashed:
                self._observe("stopped")

    def _guarded_cycle(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Fenced as error:
            self._observe("fenced", error=error)
            self.health.became("fenced", str(error))
            self._begin_again()
        except (Unavailable, Interrupted) as error:
            self._begin_again()
            if not self._stopping.is_set():
                self._pause(error)

    def _cycle(self) -> None:
        self._heartbeat()
        if seconds := self._breaker.open_for():
            self._clock.wait(self._stopping, min(_WAIT_STEP, seconds))
            return
        if not self._able:
            self._probe()
            return
        if not self._lease.claim.shards:
            others = self._lease.others
            self.health.became("standby", f"{others} others have the shards" if others else "for leases to run out")
            self._rest.next()
            return
        if 0 in self._lease.claim.shards:
            self._upkeep.run()
        self._land()
        claim = self._lease.claim
        if claim.surplus and not self._delivery.acknowledged:  # else it would be published again
            self._hand_over()
        elif claim.control.paused is not None:
            self._hold_back(claim.control.paused)
        else:
            if self._parked.due:
                self._release_parked()
            self._go_on()

    def _go_on(self) -> None:
        """Read the next batch and hand it to Kafka, if there is room for it."""
        claim, settings = self._lease.claim, self.settings
        control = claim.control
        batch_size = 1 if self._breaker.probing else control.batch_size or settings.batch_size
        self._bucket.limit(None if control.rate is None else max(control.rate * claim.share, 0.001))
        batch_size = min(batch_size, settings.max_in_flight)
        limit = self._bucket.available(batch_size)
        # Not less than a batch: what was asked for ahead holds for one size.
        full = self._delivery.unsettled + batch_size > settings.max_in_flight
        if limit <= 0 or full or self._delivery.unsettled_bytes >= _WINDOW_BYTES:
            self._await_answer(_WAIT_STEP if control.rate is None else settings.poll_max_seconds)
            return
        if self._gather and self._delivery.flights:
            self._gather = False
            self._await_answer(_GATHER[len(self._delivery.flights) > 1])
            return
        batch = self._reader.read(limit)
        self._gather = 0 < len(batch.rows) < limit
        if batch.caught_up:
            if not self._delivery.idle:
                self._await_answer(settings.poll_min_seconds)
                return
            self._healthy()
            self.health.became("running", "caught up")
            self.health.waiting(work=False)
            self._checkpoint()
            self._rest.next()
            return
        self._rest.begin()
        self.health.waiting(work=True)
        if batch.rows:
            self._observe("read", count=len(batch.rows), positions=(batch.rows[0].position, batch.rows[-1].position))
            self._bucket.take(len(batch.rows))
        self._delivery.take_off(batch, self._link.ready)

    def _land(self) -> None:
        """Note what Kafka acknowledged, and settle it when it is time."""
        delivery = self._delivery
        if not delivery.land():
            delivery.sort_out(self._link.ready, self._wait_for)
        if not delivery.landed:
            self._look_for_silence()
            return
        now = self._clock.monotonic()
        if self._settle_at is None:
            self._settle_at = now + self.settings.settle_seconds
        landed = sum(len(flight.batch.rows) for flight in delivery.landed)
        if now >= self._settle_at or landed >= self.settings.batch_size or delivery.stopped:
            self._settle()

    def _settle(self) -> None:
        delivery = self._delivery
        if not delivery.landed:
            return
        self._parked.stop_topics()
        refusals = [refusal for flight in delivery.landed for refusal in flight.refusals]
        batches = [flight.batch for flight in delivery.landed]
        self._reader.settle(batches, refusals)
        count = sum(len(batch.rows) for batch in batches)
        self._settle_at = None
        delivery.settled()
        if count:
            self._published += count - len(refusals)
            self.health.progressed()
            self.health.became("running")
            self._observe("settled", count=count, parked=len(refusals))
            self._healthy()

    def _drain(self) -> None:
        """Settle all that is in the air."""
        while not self._delivery.idle:
            if self._delivery.flights and (publication := self._delivery.flights[0].publication) is not None:
                self._wait_for(publication)
            self._settle_at = 0.0
            self._land()

    def _heartbeat(self) -> None:
        """Renew the leases, learn what operators ask. Raises Fenced when a lease was lost."""
        if not self._lease.due:
            return
        rate = self._meter.rate(self._published)
        report = Report(self._able, self.health.state, self.health.detail, self._published, rate)
        before = self._lease.renew(report, self._parked.learn)
        claim = self._lease.claim
        if claim.shards - before.shards:
            self._parked.hurry()
        if claim.shards != before.shards:
            self._observe("claimed", shards=sorted(claim.shards))
        if (claim.control.topics, claim.control.revision) != (before.control.topics, before.control.revision):
            self._parked.hurry()
        self._delivery.keep(claim.shards)
        if lost := before.shards - claim.shards:
            raise Fenced(f"The lease of {len(lost)} shards ran out and another relay took them.")

    def _hand_over(self) -> None:
        """Another relay has less than its share: settle all, and leave it some shards."""
        self._drain()
        self._lease.hand_over()
        self._observe("claimed", shards=sorted(self._lease.claim.shards))

    def _hold_back(self, reason: str) -> None:
        """An operator wants nothing published."""
        self._drain()
        if self.health.state != "paused":
            self._observe("held_back", reason=reason)
        self.health.became("paused", f"by an operator: {reason}")
        self._clock.wait(self._stopping, _WAIT_STEP)

    def _release_parked(self) -> None:
        """Publish what operators let go; know anew what must wait."""
        self._drain()
        shards, limit = self._lease.claim.shards, self.settings.batch_size
        published = self._parked.release(shards, limit, self._link.ready, self._wait_for)
        if published is not None:
            self._published += published
            self.health.progressed()

    def _await_answer(self, seconds: float) -> None:
        """Wait for Kafka, or only for time to pass."""
        flights = self._delivery.flights
        if flights and (publication := flights[0].publication) is not None:
            publication.wait(seconds)
        elif self._settle_at is None:
            self._clock.wait(self._stopping, seconds)
        else:
            self._clock.wait(self._stopping, max(0.0, min(seconds, self._settle_at - self._clock.monotonic())))

    def _wait_for(self, publication: Publication) -> None:
        """Until Kafka has answered, keeping the lease. Raises Fenced, KafkaUnavailable, Interrupted (stopping)."""
        while not publication.wait(_WAIT_STEP):
            self.health.beat()
            self._look_for_silence()
            if self._past_shutdown():
                raise Interrupted("Kafka did not answer before the relay had to stop.")
            self._heartbeat()

    def _look_for_silence(self) -> None:
        """Tell when Kafka does not answer; after a while leave the shards to relays that it may answer."""
        flights = self._delivery.flights
        if not flights:
            return
        now = self._clock.monotonic()
        silent = now - max(flights[0].began, self._delivery.last_answer)
        if silent >= _TELL_WAITING_EVERY and now - self._told_waiting >= _TELL_WAITING_EVERY:
            self._told_waiting = now
            self.health.became(self.health.state, f"Kafka has not answered for {silent:.0f} s")
            self._observe("waiting", seconds=round(silent, 1))
        if silent >= self.settings.step_aside_seconds and self._lease.others and not self._stopping.is_set():
            self._breaker.away_since = now - silent
            self._link.drop()
            raise KafkaUnavailable(f"Kafka has not answered for {silent:.0f} s.")

    def _begin_again(self) -> None:
        """Nothing of ours is sure any more: begin from the cursors, but send nothing that Kafka has."""
        self._delivery.abandon(self._resolve)
        self._reader.rewind()
        self._lease.give_up()
        self._settle_at = None
        self._link.doubt()

    def _resolve(self, publication: Publication) -> bool:
        """Wait for an answer while the lease lasts; then it is given up."""
        while not publication.wait(_WAIT_STEP):
            self.health.beat()
            if not self._lease.stands or self._past_shutdown():
                self._link.drop()
                return publication.wait(_WAIT_STEP)
        return True

    def _finish(self) -> None:
        """Settle what is in the air, as far as Kafka answers in time."""
        self._give_up_at = self._clock.monotonic() + self.settings.shutdown_seconds
        try:
            while self._delivery.acknowledged and not self._past_shutdown():
                self._cycle()  # Kafka has these already; unsettled, the next relay would publish them again
            self._drain()
        except Interrupted:
            self._delivery.land()
            self._settle()

    def _past_shutdown(self) -> bool:
        if not self._stopping.is_set():
            return False
        now = self._clock.monotonic()
        self._give_up_at = self._give_up_at or now + self.settings.shutdown_seconds
        return now >= self._give_up_at

    def _checkpoint(self) -> None:
        """Nothing is in flight: let the cursors in the database follow, so that old partitions can be dropped."""
        self._delivery.acknowledged.clear()
        now = self._clock.monotonic()
        if now >= self._checkpoint_at:
            self._checkpoint_at = now + _CHECKPOINT_EVERY
            self._reader.checkpoint()

    def _pause(self, error: Exception) -> None:
        """Open the breaker. The lease is kept meanwhile, as far as the database answers."""
        of_kafka = isinstance(error, KafkaUnavailable | Interrupted)
        seconds = self._breaker.open(of_kafka=of_kafka)
        self.health.became("unavailable", str(error))
        self._observe("paused", error=error, seconds=round(seconds, 3))
        if not of_kafka:
            self._clock.wait(self._stopping, seconds)  # a heartbeat would only fail, too
        elif self._able and self._lease.others and self._breaker.away_for() >= self.settings.step_aside_seconds:
            self._able = False
            self._link.drop()
            self._reader.release(sorted(range(MAX_SHARDS)))
            self._observe("stepped_aside", error=error)

    def _probe(self) -> None:
        """Having stepped aside, see whether Kafka answers again."""
        self._link.probe()
        self._able = True
        self._lease.hurry()
        self._healthy()

    def _healthy(self) -> None:
        if self._breaker.close():
            self._observe("resumed")

    def _policy(self, topic: str) -> OnRefused:
        return self.settings.on_refused_by_topic.get(topic, self.settings.on_refused)
