"""What daemons get in a test in place of a clock and a Kafka: the same, paced and watched."""

from collections.abc import Sequence
from threading import Event

from ..messaging.ports import Cluster, Consumer, Kafka, PartitionsHook, Publication, Publisher, TopicReader, Topics
from ..messaging.records import OutgoingRecord
from .clock import FakeClock

#: What a daemon waits between two looks, in seconds of real time.
_PAUSE = 0.003


class PacedClock:
    """A clock that stands still, for daemons: a pause between two looks passes in real time, and moves nothing."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.now = clock.now
        self.monotonic = clock.monotonic

    def wait(self, event: Event, timeout: float) -> bool:
        return event.wait(min(max(0.0, timeout), _PAUSE))


class WatchedKafka:
    """A Kafka that remembers what was sent. See ``ports.Kafka``."""

    def __init__(self, kafka: Kafka, sent: list[tuple[Sequence[OutgoingRecord], Publication]]) -> None:
        self._kafka = kafka
        self._sent = sent

    def publisher(self) -> Publisher:
        return WatchedPublisher(self._kafka.publisher(), self._sent)

    def consumer(
        self,
        group: str,
        topics: Sequence[str],
        *,
        on_assigned: PartitionsHook,
        on_revoked: PartitionsHook,
        instance: str | None = None,
        cooperative: bool = False,
    ) -> Consumer:
        hooks = {"on_assigned": on_assigned, "on_revoked": on_revoked}
        return self._kafka.consumer(group, topics, **hooks, instance=instance, cooperative=cooperative)

    def reader(self) -> TopicReader:
        return self._kafka.reader()

    def topics(self) -> Topics:
        return self._kafka.topics()

    def cluster(self) -> Cluster:
        return self._kafka.cluster()


class WatchedPublisher:
    """See ``ports.Publisher``."""

    def __init__(self, publisher: Publisher, sent: list[tuple[Sequence[OutgoingRecord], Publication]]) -> None:
        self._publisher = publisher
        self._sent = sent
        self.recover = publisher.recover
        self.close = publisher.close

    def send(self, records: Sequence[OutgoingRecord]) -> Publication:
        publication = self._publisher.send(records)
        self._sent.append((records, publication))
        return publication
