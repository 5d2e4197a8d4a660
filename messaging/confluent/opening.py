"""Whether a partition's broker knows a producer yet: until then it does not see that a record is missing.

A broker finds a gap by the sequence numbers that it has seen of a producer, and takes whatever comes first, though
that is the second record, since it refused the first (Kafka's ProducerStateManager). So what follows the first
record that a producer sends to a partition waits here for its answer. Brokers forget producers that have sent
nothing for a day (``producer.id.expiration.ms``), and topics get more partitions; so a topic is looked up and closed
anew from time to time.

That is so of records without a key too: they have no order to keep, but the answer to the second tells librdkafka
that the first one is there, which it then never sends again. Where each goes is said here, not by librdkafka, so that
nothing goes to a partition that nobody closed.
"""

import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..partitioner import positive_hash
from ..records import OutgoingRecord, Partition


class Waiting(NamedTuple):
    """A record that has not gone, where it goes, and whom to tell."""

    record: OutgoingRecord
    partition: int
    place: int
    answers: Any


class _Closed:
    """A partition that no record of this producer has reached for sure."""

    def __init__(self) -> None:
        self.first: weakref.ref[Any] | None = None
        self.waiting: deque[Waiting] = deque()

    @property
    def answered(self) -> bool:
        return self.first is not None and self.first() is None


class Openings:
    """What waits until the first record of its partition is answered."""

    def __init__(self) -> None:
        self._partitions: dict[str, tuple[int, Sequence[int]]] = {}
        self._closed: dict[Partition, _Closed] = {}
        #: Topics with partitions that are not open.
        self.topics: set[str] = set()
        #: How many records wait.
        self.waiting = 0

    def close(self, topic: str, partitions: int, led: Sequence[int] = ()) -> None:
        """Start anew with ``topic``, which has so many partitions; those that have a leader, or all. What waits goes
        on waiting."""
        numbers = range(partitions)
        self._partitions[topic] = partitions, led or numbers
        self.topics.add(topic)
        for partition in (Partition(topic, number) for number in numbers):
            closed = self._closed.get(partition)
            if closed is None or (closed.answered and not closed.waiting):
                self._closed[partition] = _Closed()

    def partition(self, topic: str, key: bytes | None, anywhere: float) -> int:
        """Where a record goes: by its key, else ``anywhere`` (0 to 1) among those that have a leader."""
        count, led = self._partitions[topic]
        return led[int(anywhere * len(led))] if key is None else positive_hash(key) % count

    def keep(self, record: OutgoingRecord, partition: int, place: int, answers: Any) -> bool:
        """Whether a record of one of ``topics`` has to wait; it does so here, then."""
        closed = self._closed.get(Partition(record.topic, partition))
        if closed is None or closed.first is None:
            return False
        if closed.answered and not closed.waiting:
            self._open(Partition(record.topic, partition))
            return False
        closed.waiting.append(Waiting(record, partition, place, answers))
        self.waiting += 1
        return True

    def sent(self, topic: str, partition: int, report: Any) -> None:
        """A record of one of ``topics`` went. ``report`` is gone with its answer, if nobody else keeps it."""
        if (closed := self._closed.get(Partition(topic, partition))) is not None:
            closed.first = weakref.ref(report)

    def next(self) -> Iterator[Waiting]:
        """What may go now, in its order. To be asked for the next when one has gone, and left off where one cannot."""
        for closed in self._closed.values():
            while closed.answered and closed.waiting:
                yield closed.waiting[0]
                closed.waiting.popleft()
                self.waiting -= 1

    def give_up(self) -> Iterator[Waiting]:
        """All that waits, no longer."""
        for closed in self._closed.values():
            yield from closed.waiting
            closed.waiting.clear()
        self.waiting = 0

    def _open(self, partition: Partition) -> None:
        del self._closed[partition]
        if not any(each.topic == partition.topic for each in self._closed):
            self.topics.discard(partition.topic)
