"""The ports to Kafka. Everything outside ``messaging/`` talks to these, never to a client library."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from .errors import PostroomError
from .records import Brokers, Copies, OutgoingRecord, Partition, ReceivedRecord

#: For ``Topics.create``.
DEFAULT = -1
PartitionsHook = Callable[[Sequence[Partition]], None]


class Publication(Protocol):
    """Records on their way. Thread-safe."""

    def wait(self, timeout: float) -> bool:
        """Block up to ``timeout`` seconds; say whether each record is acknowledged or has an error.

        ``wait(0)`` is cheap.
        """

    def errors(self) -> Mapping[int, PostroomError]:
        """What was not acknowledged, by index in what was sent; complete once ``wait`` said yes.

        Refused: Kafka will never take it. Interrupted: it may or may not be there; send it again.
        """


class Publisher(Protocol):
    """Sends records in order and waits for every in-sync replica (``acks=all``, idempotent).

    Guarantee: per partition, no record is appended after one of an earlier place that failed, also across
    publications. At the first failure the publisher halts: nothing more is sent, answers to what had gone are
    still heard, and all later records come back as Interrupted, those of every later ``send`` too, until
    ``recover``. The client retries what can be retried for as long as it takes. One thread sends and recovers;
    ``close`` may be called from any.
    """

    def send(self, records: Sequence[OutgoingRecord]) -> Publication:
        """Hand over ``records``; others may still be on their way.

        Blocks for a topic seen for the first time, never for an acknowledgement. Raises KafkaUnavailable, and
        then nothing of it was handed over.
        """

    def recover(self) -> None:
        """Take up sending after a halt, once every publication has resolved; else do nothing.

        Raises KafkaUnavailable, ConfigurationError; the publisher is still halted then.
        """

    def close(self, timeout: float) -> None:
        """Give up what is in flight after ``timeout`` seconds: it is Interrupted, and what is sent later too.

        Does not raise.
        """


class Consumer(Protocol):
    """A member of a consumer group. Offsets are committed by hand. For one thread."""

    def poll(self, timeout: float, max_records: int) -> Sequence[ReceivedRecord]:
        """Records in order per partition; empty after ``timeout`` seconds. Raises KafkaUnavailable."""

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """The next offset to read, per partition. Blocks. Raises KafkaUnavailable, Fenced (partition lost)."""

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from there. Does nothing for a partition that is not assigned any more."""

    def pause_only(self, partitions: Sequence[Partition]) -> None:
        """Fetch nothing from these, and again from every other."""

    def lag(self, partitions: Sequence[Partition], timeout: float) -> Mapping[Partition, int]:
        """How many offsets lie between what was polled and the end, of those that are assigned.

        The brokers are asked. What is never polled does not count: markers of transactions, aborted records, and all
        behind a transaction that is open. Where a poll has not found out yet at which offset reading begins, all
        offsets count. Blocks for up to ``timeout`` seconds, and as long as a fetch may wait. Raises KafkaUnavailable.
        """

    def close(self) -> None:
        """Leave the group. Commits nothing. Does not raise."""


class TopicReader(Protocol):
    """Reads topics without a group, for tools. For one thread."""

    def offsets(self, topic: str) -> Mapping[int, tuple[int, int]]:
        """First and next offset by partition. Raises UnknownTopic, KafkaUnavailable."""

    def offsets_at(self, topic: str, moment: datetime) -> Mapping[int, int]:
        """By partition the first offset whose record is not older than ``moment``; the next offset where none is.

        By the records' timestamps. The mock cluster knows none, and has the next offset for all. Raises UnknownTopic,
        KafkaUnavailable.
        """

    def read(
        self, topic: str, start: Mapping[int, int] | None = None, end: Mapping[int, int] | None = None
    ) -> Iterator[ReceivedRecord]:
        """From ``start`` (or the first offset) to before ``end``, and no further than the end as it is now.

        What Kafka deletes meanwhile is left out. Raises UnknownTopic, KafkaUnavailable.
        """

    def close(self) -> None:
        """Does not raise."""


class Topics(Protocol):
    """What an administrator asks of the cluster."""

    def partitions(self) -> Mapping[str, int]:
        """Number of partitions by topic. Raises KafkaUnavailable."""

    def create(self, topic: str, partitions: int, replication: int, config: Mapping[str, str]) -> bool:
        """Create it; False where it exists, and then it stays as it is.

        DEFAULT for ``partitions`` or ``replication``: as the brokers' settings say. Blocks until the cluster knows
        it. Raises NotAuthorized, ConfigurationError (Kafka refuses these settings), KafkaUnavailable.
        """

    def committed(self, group: str, topics: Sequence[str]) -> Mapping[Partition, int]:
        """The next offset that ``group`` reads, for the partitions where it ever committed one."""

    def close(self) -> None:
        """Does not raise."""

    def configuration(self, topics: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """The settings in effect, the brokers' defaults among them, by topic and in Kafka's names.

        A topic that is not there, or whose settings we may not read, is left out. Raises KafkaUnavailable, also
        where the brokers know no such question.
        """


class Cluster(Protocol):
    """What one asks of the cluster itself to judge whether it keeps what it acknowledges. Changes nothing."""

    def brokers(self) -> Brokers:
        """Those that are up. Raises KafkaUnavailable."""

    def defaults(self) -> Mapping[str, str]:
        """The settings of one broker, in Kafka's names, without those that are secret.

        Raises KafkaUnavailable, also where the brokers know no such question, and NotAuthorized.
        """

    def copies(self, topics: Sequence[str]) -> Mapping[str, Copies]:
        """By topic; one that is not there, or that we may not see, is left out. Raises KafkaUnavailable."""

    def members(self, group: str) -> int:
        """How many members a group has now; 0 also where there is no such group.

        Raises KafkaUnavailable, NotAuthorized.
        """

    def close(self) -> None:
        """Does not raise."""


class Kafka(Protocol):
    """A way to reach a cluster. Building each part connects, and raises KafkaUnavailable."""

    def publisher(self) -> Publisher:
        """A new idempotent producer."""

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
        """A new member of ``group``. The hooks run inside ``poll`` and ``close``.

        ``on_assigned`` is called with none, too: others have the partitions. Until then the group makes up its mind.
        ``instance``: static membership under this name. ``cooperative``: only partitions that move are revoked.
        """

    def reader(self) -> TopicReader:
        """A new reader."""

    def topics(self) -> Topics:
        """A new administrator's client."""

    def cluster(self) -> Cluster:
        """A new client for questions about the cluster."""
