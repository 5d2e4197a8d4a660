"""A Kafka in memory: no broker, no port, no thread; it passes the contract suites of the Kafka clients."""

from collections.abc import Sequence
from typing import Self

from ..messaging.ports import PartitionsHook
from ..messaging.records import ReceivedRecord
from .memory_clients import MemoryClusterInfo, MemoryConsumer, MemoryPublisher, MemoryReader, MemoryTopics
from .memory_cluster import Cluster


class MemoryKafka:
    """For what takes a ``kafka``, in one process: see ``messaging.ports.Kafka``. Nothing outlives the object.

        kafka = MemoryKafka()
        report = run_until_quiet(App(url, inboxes=[billing]), kafka=kafka)
        assert [record.value for record in kafka.records("payments")] == [...]

    ``partitions``: of a topic that is made on first use; with ``auto_create`` off there are none but those that
    ``topics().create`` makes. ``max_request_bytes``: the client's limit of a record. ``max_poll_seconds``: a member of
    a group that does not poll for so long is out. A record lands in the partition where Java's partitioner puts it.

    ``pause`` and ``stop`` are outages: what is sent meanwhile waits, and what is there stays. What it leaves out:
    transactions, authorisation, compression, retention and compaction, static members that keep their partitions
    after ``close``, and times: it answers at once. Thread-safe.
    """

    def __init__(
        self,
        *,
        partitions: int = 4,
        auto_create: bool = True,
        max_request_bytes: int = 1_048_576,
        max_poll_seconds: float = 300.0,
    ) -> None:
        self._cluster = Cluster(partitions)
        self._auto_create = auto_create
        self._most = max_request_bytes
        self._max_poll_seconds = max_poll_seconds

    def configured(
        self,
        *,
        auto_create: bool | None = None,
        max_request_bytes: int | None = None,
        max_poll_seconds: float | None = None,
    ) -> "MemoryKafka":
        """The same cluster as a client with other settings sees it."""
        other = MemoryKafka(
            auto_create=self._auto_create if auto_create is None else auto_create,
            max_request_bytes=max_request_bytes or self._most,
            max_poll_seconds=max_poll_seconds or self._max_poll_seconds,
        )
        other._cluster = self._cluster
        return other

    def records(self, topic: str) -> list[ReceivedRecord]:
        """All of a topic, partition by partition; none where there is no such topic."""
        with self._cluster.changed:
            known = self._cluster.topics.get(topic)
            return [] if known is None else [record for log in known.logs for record in log]

    def pause(self) -> None:
        """It does not answer any more, as a broker that hangs."""
        self._cluster.become("paused")

    def stop(self) -> None:
        """Nobody is there any more, as when the broker is down. What it has is kept."""
        self._cluster.become("down")

    def start(self) -> Self:
        """It answers again after ``pause`` or ``stop``, and takes what waited."""
        self._cluster.become("up")
        return self

    def publisher(self) -> MemoryPublisher:
        """See ``messaging.ports.Kafka``."""
        return MemoryPublisher(self._cluster, most=self._most, may_create=self._auto_create)

    def consumer(
        self,
        group: str,
        topics: Sequence[str],
        *,
        on_assigned: PartitionsHook,
        on_revoked: PartitionsHook,
        instance: str | None = None,
        cooperative: bool = False,
    ) -> MemoryConsumer:
        """See ``messaging.ports.Kafka``."""
        return MemoryConsumer(
            self._cluster,
            group,
            topics,
            on_assigned=on_assigned,
            on_revoked=on_revoked,
            instance=instance,
            cooperative=cooperative,
            max_poll_seconds=self._max_poll_seconds,
            may_create=self._auto_create,
        )

    def reader(self) -> MemoryReader:
        """See ``messaging.ports.Kafka``."""
        return MemoryReader(self._cluster)

    def topics(self) -> MemoryTopics:
        """See ``messaging.ports.Kafka``."""
        return MemoryTopics(self._cluster)

    def cluster(self) -> MemoryClusterInfo:
        """See ``messaging.ports.Kafka``."""
        return MemoryClusterInfo(self._cluster, makes_topics=self._auto_create)
