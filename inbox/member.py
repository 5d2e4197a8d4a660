"""One membership in a consumer group."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..messaging.clock import Clock
from ..messaging.errors import KafkaUnavailable
from ..messaging.observer import Observer
from ..messaging.ports import Kafka, PartitionsHook
from ..messaging.records import Partition
from .arrivals import Arrivals
from .assignment import InHand
from .lanes import Lanes
from .outage import KAFKA_AWAY

#: How long a client may try to commit, or a little more: its request, and a session of the group until it finds out.
_COMMIT_SECONDS = 60.0


class Polled(NamedTuple):
    """What a poll brought: records, and the partitions that came and went since the last one."""

    records: Sequence[InHand]
    came: Sequence[Partition]
    went: Sequence[Partition]


class Member:
    """Polls, and commits what is done before each poll. For one thread.

    Partitions are only ever taken away inside a poll, so with the commit before it there is little left to
    commit when that happens. (Inside a rebalance kafka-python 3 cannot: its hooks run on the thread that would
    have to send the commit.) What workers finish meanwhile comes again elsewhere, and is found to be a duplicate.
    """

    def __init__(
        self,
        kafka: Kafka,
        group: str,
        topics: Sequence[str],
        lanes: Lanes,
        *,
        observe: Observer,
        clock: Clock,
        on_revoked: PartitionsHook,
        instance: str | None,
        cooperative: bool,
        ask_every: float,
        beat: Callable[[float], None],
    ) -> None:
        """Join the group. ``on_revoked`` is called inside the client, ``beat`` before what may take so many seconds.

        Raises KafkaUnavailable, ConfigurationError.
        """
        self.arrivals = Arrivals(clock, ask_every)
        self.placed = False
        """Whether the group said which partitions are ours; maybe none."""
        self._observe = observe
        self._beat = beat
        self._clock = clock
        self._lanes = lanes
        self._tell_revoked = on_revoked
        self._changes: list[tuple[str, Sequence[Partition]]] = []
        self._consumer = kafka.consumer(
            group,
            topics,
            on_assigned=self._on_assigned,
            on_revoked=self._on_revoked,
            instance=instance,
            cooperative=cooperative,
        )
        self._polled_at = clock.monotonic()

    def poll(self, timeout: float, max_records: int, paused: Sequence[Partition]) -> Polled:
        """Commit, then wait for records of all but the paused partitions, for up to ``timeout`` seconds.

        Raises KAFKA_AWAY.
        """
        self.commit()
        self._consumer.pause_only(paused)
        records = self._consumer.poll(timeout, max_records)
        self._polled_at = self._clock.monotonic()
        if self._changes:
            self.arrivals.heard()
        taken, gone = self._tell_changes()
        self.arrivals.went(gone)
        self.arrivals.came([*taken, *{record.partition for record in records}])
        return Polled(self._lanes.receive(records), taken, gone)

    def look(self, paused: Sequence[Partition]) -> None:
        """Ask the brokers, now and then, whether more waits of partitions of which nothing comes."""
        self.arrivals.look(self._consumer.lag, paused)

    @property
    def silence(self) -> float:
        """Seconds since the last poll."""
        return self._clock.monotonic() - self._polled_at

    def commit(self) -> None:
        """Commit what is done. Blocks. What cannot be committed is delivered again, and found to be a duplicate.

        While Kafka is known to be away, nothing is tried: each try may take as long as a session of the group.
        """
        offsets = self._lanes.uncommitted()
        if not offsets or self.arrivals.away is not None:
            return
        self._beat(_COMMIT_SECONDS)
        try:
            self._consumer.commit(offsets)
        except KAFKA_AWAY as error:
            if isinstance(error, KafkaUnavailable):
                self.arrivals.failed(error)
            self._observe("not_committed", offsets=offsets, error=error)
        else:
            self.arrivals.heard()
            self._lanes.committed(offsets)
            self._observe("committed", offsets=offsets)

    def close(self) -> None:
        """Leave the group. Does not raise, and commits nothing."""
        self._consumer.close()
        self._tell_changes()
        self._lanes.revoke(self._lanes.partitions)

    def _on_assigned(self, partitions: Sequence[Partition]) -> None:
        self._lanes.assign(partitions)
        self.placed = True
        self._changes.append(("assigned", partitions))

    def _on_revoked(self, partitions: Sequence[Partition]) -> None:
        self._lanes.revoke(partitions)
        self._tell_revoked(partitions)
        self.placed = self.placed and bool(self._lanes.partitions)
        self._changes.append(("revoked", partitions))

    def _tell_changes(self) -> tuple[list[Partition], list[Partition]]:
        """Here, and not in the hooks, which run inside the client. What came and what went."""
        changes, self._changes = self._changes, []
        came: list[Partition] = []
        went: list[Partition] = []
        for step, partitions in changes:
            if partitions:
                self._observe(step, partitions=partitions)
                (came if step == "assigned" else went).extend(partitions)
        return came, went
