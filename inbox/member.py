"""One membership in a consumer group."""

from collections.abc import Sequence

from ..messaging.clock import Clock
from ..messaging.errors import Fenced, Interrupted, Unavailable
from ..messaging.observer import Observer
from ..messaging.ports import Kafka
from ..messaging.records import Partition, ReceivedRecord
from .assignment import Assignment, InHand

#: What the port raises when the group or the cluster is out of reach. Nothing is lost by starting over.
KAFKA_AWAY = (Unavailable, Interrupted, Fenced)


class Member:
    """Polls, and commits what is done before each poll. For one thread.

    Partitions are only ever taken away inside a poll, so with the commit before it there is nothing left to
    commit when that happens. (Inside a rebalance kafka-python 3 cannot: its hooks run on the thread that would
    have to send the commit.)
    """

    def __init__(self, kafka: Kafka, group: str, topics: Sequence[str], observe: Observer, clock: Clock) -> None:
        """Join the group. Raises KafkaUnavailable, ConfigurationError."""
        self._observe = observe
        self._clock = clock
        self._assignment = Assignment()
        self._changes: list[tuple[str, Sequence[Partition]]] = []
        self._consumer = kafka.consumer(group, topics, on_assigned=self._on_assigned, on_revoked=self._on_revoked)
        self._polled_at = clock.monotonic()

    def poll(self, timeout: float, max_records: int) -> None:
        """Commit, then wait for records, for up to ``timeout`` seconds. Raises KAFKA_AWAY."""
        self.commit()
        self._consumer.pause_only([])
        self._receive(self._consumer.poll(timeout, max_records))

    def keep_alive(self, max_records: int) -> None:
        """Tell the group that we live, and take part in its rebalances. Raises KAFKA_AWAY.

        Records of a partition that comes in the middle of it are taken in hand.
        """
        self.commit()
        self._consumer.pause_only(self._assignment.partitions)
        self._receive(self._consumer.poll(0, max_records))

    @property
    def silence(self) -> float:
        """Seconds since the last poll."""
        return self._clock.monotonic() - self._polled_at

    def take(self) -> InHand | None:
        """The next record in hand."""
        return self._assignment.take()

    def owns(self, item: InHand) -> bool:
        """Whether it is still this member's to process."""
        return self._assignment.owns(item)

    def finish(self, item: InHand) -> None:
        """Its offset may be committed."""
        self._assignment.finish(item)

    def commit(self) -> None:
        """Commit what is done. Blocks. What cannot be committed is delivered again, and found to be a duplicate."""
        offsets = self._assignment.uncommitted()
        if not offsets:
            return
        try:
            self._consumer.commit(offsets)
        except KAFKA_AWAY as error:
            self._observe("not_committed", offsets=offsets, error=error)
        else:
            self._assignment.committed(offsets)
            self._observe("committed", offsets=offsets)

    def close(self) -> None:
        """Leave the group. Does not raise, and commits nothing."""
        self._consumer.close()
        self._tell_changes()

    def _receive(self, records: Sequence[ReceivedRecord]) -> None:
        self._polled_at = self._clock.monotonic()
        self._tell_changes()
        self._assignment.receive(records)

    def _on_assigned(self, partitions: Sequence[Partition]) -> None:
        self._assignment.assign(partitions)
        self._changes.append(("assigned", partitions))

    def _on_revoked(self, partitions: Sequence[Partition]) -> None:
        self._assignment.revoke(partitions)
        self._changes.append(("revoked", partitions))

    def _tell_changes(self) -> None:
        """Here, and not in the hooks, which run inside the client."""
        changes, self._changes = self._changes, []
        for step, partitions in changes:
            if partitions:
                self._observe(step, partitions=partitions)
