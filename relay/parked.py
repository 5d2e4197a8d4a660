"""What the relay does about parked messages: it publishes those that operators let go, and knows what must wait."""

from collections.abc import Callable

from ..messaging.clock import Clock
from ..messaging.observer import Observer
from ..messaging.ports import Publisher
from ..outbox.log import Batch, LogReader, LogStore
from .delivery import Delivery, Wait

#: Seconds.
_LOOK_EVERY = 60.0


class Parked:
    """For one thread. ``owner``: in whose name topics are made to stand still."""

    def __init__(
        self, store: LogStore, reader: LogReader, delivery: Delivery, *, owner: str, observe: Observer, clock: Clock
    ) -> None:
        self._store = store
        self._reader = reader
        self._delivery = delivery
        self._owner = owner
        self._observe = observe
        self._clock = clock
        self._look_at = 0.0

    @property
    def due(self) -> bool:
        """It is time to look what operators let go."""
        return self._clock.monotonic() >= self._look_at

    def hurry(self) -> None:
        """Look at once."""
        self._look_at = 0.0

    def learn(self) -> None:
        """Have the delivery know what must wait."""
        self._delivery.hold(self._reader.holds())

    def stop_topics(self) -> None:
        """Make the topics stand still whose policy is to stop at a refused message, before it is settled."""
        for topic, reason in self._delivery.stopped.items():
            self._store.pause(topic, reason, self._owner)

    def release(self, shards: frozenset[int], limit: int, publisher: Callable[[], Publisher], wait: Wait) -> int | None:
        """Publish what was let go, with what waited behind it, in order; learn anew what must wait.

        How many were published of at most ``limit``, or None where there were none to publish. Only with nothing
        in flight. Raises what ``publisher`` and ``wait`` raise, and DatabaseUnavailable.
        """
        delivery = self._delivery
        self._look_at = self._clock.monotonic() + _LOOK_EVERY
        rows = [parked.row for parked in self._store.releasable(shards, limit)]
        count = None
        if rows:
            delivery.take_off(Batch(rows), publisher, free=True)
            flight = delivery.flights[-1]
            if flight.publication is not None:
                wait(flight.publication)
            if not delivery.land():
                delivery.sort_out(publisher, wait)
            self.stop_topics()
            self._reader.checkpoint(flight.refusals)
            again = {refusal.row.position for refusal in flight.refusals}
            published = [row.position for row in rows if row.position not in again]
            self._store.unpark(published)
            delivery.settled()
            count = len(published)
            self._observe("unparked", count=count)
            self.hurry()  # there may be more
        self.learn()
        return count
