"""What talks to a Kafka in memory: publisher, consumer, reader, administrator. See ``messaging.ports``."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from ..messaging.errors import Fenced, Interrupted, KafkaUnavailable, PostroomError, Refused, UnknownTopic
from ..messaging.ports import PartitionsHook
from ..messaging.records import Brokers, Copies, OutgoingRecord, Partition, ReceivedRecord
from .memory_cluster import AWAY, Cluster, Group

#: For how long a publisher does not ask again for a topic that was not there, in seconds, as the real clients do.
_REMEMBERED = 5.0
#: A member looks so often whether others have left, in seconds.
_LOOK = 0.05


class MemoryPublication:
    """See ``ports.Publication``."""

    def __init__(self, cluster: Cluster, count: int) -> None:
        self._cluster = cluster
        self._open = count
        self._errors: dict[int, PostroomError] = {}

    def wait(self, timeout: float) -> bool:
        with self._cluster.changed:
            return self._cluster.changed.wait_for(lambda: self._open == 0, timeout)

    def errors(self) -> Mapping[int, PostroomError]:
        with self._cluster.changed:
            return dict(self._errors)

    def resolve(self, index: int, error: PostroomError | None) -> None:
        """Under the cluster's lock."""
        self._open -= 1
        if error is not None:
            self._errors[index] = error


class MemoryPublisher:
    """See ``ports.Publisher``."""

    def __init__(self, cluster: Cluster, *, most: int, may_create: bool) -> None:
        self._cluster = cluster
        self._most = most
        self._may_create = may_create
        self._queue: deque[tuple[MemoryPublication, int, OutgoingRecord]] = deque()
        self._halted = False
        self._closed = False
        self._turn = 0
        self._known: set[str] = set()
        self._unknown: dict[str, float] = {}
        with cluster.changed:
            cluster.reach()
            cluster.joins(self)

    def send(self, records: Sequence[OutgoingRecord]) -> MemoryPublication:
        with self._cluster.changed:
            topics = {record.topic for record in records}
            if not self._halted and not self._closed and topics - self._known:
                self._cluster.reach()
            self._known |= topics
            publication = MemoryPublication(self._cluster, len(records))
            self._queue += [(publication, index, record) for index, record in enumerate(records)]
            self._turn += 1
            self.deliver()
            return publication

    def deliver(self) -> None:
        """Append what waits, as far as the cluster answers."""
        while self._queue and (self._halted or self._closed or self._cluster.state == "up"):
            publication, index, record = self._queue.popleft()
            publication.resolve(index, self._append(record))
        self._cluster.changed.notify_all()

    def recover(self) -> None:
        with self._cluster.changed:
            if self._halted and not self._queue:
                self._cluster.reach()
                self._halted = False

    def close(self, timeout: float) -> None:
        with self._cluster.changed:
            self._cluster.changed.wait_for(lambda: not self._queue, timeout)
            self._closed = True
            self.deliver()
            self._cluster.leaves(self)

    def _append(self, record: OutgoingRecord) -> PostroomError | None:
        if self._closed:
            return Interrupted("The publisher is closed.")
        if self._halted:
            return Interrupted("The publisher has halted at an earlier record.")
        try:
            if self._unknown.get(record.topic, 0.0) > time.monotonic():
                raise UnknownTopic(f"Kafka knew no topic {record.topic!r} a moment ago; create it.")
            self._cluster.append(record, most=self._most, may_create=self._may_create, turn=self._turn)
        except Refused as error:
            if error.of_topic:
                self._unknown.setdefault(record.topic, time.monotonic() + _REMEMBERED)
            self._halted = True
            return error
        self._unknown.pop(record.topic, None)
        return None


class MemoryConsumer:
    """See ``ports.Consumer``."""

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        topics: Sequence[str],
        *,
        on_assigned: PartitionsHook,
        on_revoked: PartitionsHook,
        instance: str | None,
        cooperative: bool,
        max_poll_seconds: float,
        may_create: bool,
    ) -> None:
        self.topics = topics
        self.seen = time.monotonic()
        self.max_poll_seconds = max_poll_seconds
        self.instance = instance
        self._cluster = cluster
        self._name = group
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._cooperative = cooperative
        self._may_create = may_create
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._generation = -1
        with cluster.changed:
            cluster.reach()
            self._group: Group = cluster.join(group, self)

    def poll(self, timeout: float, max_records: int) -> Sequence[ReceivedRecord]:
        cluster, until = self._cluster, time.monotonic() + timeout
        while True:
            self._keep_up()
            with cluster.changed:
                records = self._fetch(max_records) if cluster.state == "up" else []
                left = until - time.monotonic()
                if records or left <= 0:
                    return records
                if cluster.state == "down":
                    raise KafkaUnavailable(AWAY.format("down"))
                cluster.changed.wait(min(left, _LOOK))

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        if not offsets:
            return
        with self._cluster.changed:
            self._cluster.reach()
            if any(self._group.owner.get(partition) is not self for partition in offsets):
                raise Fenced("The group gave the partition to another member.")
            self._group.committed.update(offsets)
            self._cluster.changed.notify_all()

    def seek(self, partition: Partition, offset: int) -> None:
        if partition in self._positions:
            self._positions[partition] = offset

    def pause_only(self, partitions: Sequence[Partition]) -> None:
        self._paused = set(partitions)

    def lag(self, partitions: Sequence[Partition], timeout: float) -> Mapping[Partition, int]:
        with self._cluster.changed:
            self._cluster.reach(timeout)
            ours = [part for part in partitions if part in self._positions]
            topics = self._cluster.topics
            return {part: len(topics[part.topic].logs[part.number]) - self._positions[part] for part in ours}

    def close(self) -> None:
        with suppress(Exception):
            self._give_up(list(self._positions))
        with self._cluster.changed:
            self._group.leave(self)
            self._cluster.look_after(self._group)
            self._cluster.changed.notify_all()

    def _keep_up(self) -> None:
        """Give up what is another's, and take what is free and ours. The hooks run outside the lock: they may block."""
        group = self._group
        with self._cluster.changed:
            self.seen = time.monotonic()
            if self._cluster.state != "up":
                return
            if self not in group.members:  # silent for too long, or another has our instance
                lost = list(self._positions)
                group = self._group = self._cluster.join(self._name, self)
            else:
                lost = []
            for topic in self.topics:
                if self._may_create:
                    self._cluster.create(topic, -1, -1, {})
            self._cluster.look_after(group)
            changed = group.generation != self._generation
            self._generation = group.generation
            if changed:
                kept = {part for part in self._positions if group.target.get(part) is self}
                lost = lost or [part for part in self._positions if not (self._cooperative and part in kept)]
        if lost:
            self._give_up(lost)
        with self._cluster.changed:
            came = [part for part, to in group.target.items() if to is self and part not in group.owner]
            for part in came:
                group.owner[part] = self
                self._positions[part] = group.committed.get(part, 0)
        if came or changed:  # with none, too: others have them
            self._on_assigned(came)

    def _give_up(self, partitions: list[Partition]) -> None:
        if partitions:
            self._on_revoked(partitions)
        with self._cluster.changed:
            for part in partitions:
                self._positions.pop(part, None)
                if self._group.owner.get(part) is self:
                    del self._group.owner[part]
            self._cluster.changed.notify_all()

    def _fetch(self, most: int) -> list[ReceivedRecord]:
        """What follows in the partitions that are not paused; the one that gave first is last the next time."""
        found: list[ReceivedRecord] = []
        for part in list(self._positions):
            position = self._positions[part]
            if part in self._paused or len(found) >= most:
                continue
            records = self._cluster.topics[part.topic].logs[part.number][position : position + most - len(found)]
            if records:
                del self._positions[part]
                self._positions[part] = position + len(records)
                found += records
        return found


class MemoryReader:
    """See ``ports.TopicReader``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        with cluster.changed:
            cluster.reach()

    def offsets(self, topic: str) -> Mapping[int, tuple[int, int]]:
        return {number: (0, len(log)) for number, log in enumerate(self._logs(topic))}

    def offsets_at(self, topic: str, moment: datetime) -> Mapping[int, int]:
        return {
            number: next((record.offset for record in log if record.timestamp >= moment), len(log))
            for number, log in enumerate(self._logs(topic))
        }

    def read(
        self, topic: str, start: Mapping[int, int] | None = None, end: Mapping[int, int] | None = None
    ) -> Iterator[ReceivedRecord]:
        for number, log in enumerate(self._logs(topic)):
            yield from log[(start or {}).get(number, 0) : (end or {}).get(number)]

    def close(self) -> None:
        """Nothing is open."""

    def _logs(self, topic: str) -> list[list[ReceivedRecord]]:
        """As they are now."""
        with self._cluster.changed:
            self._cluster.reach()
            if topic not in self._cluster.topics:
                raise UnknownTopic(f"Kafka knows no topic {topic!r}; check the name.")
            return [list(log) for log in self._cluster.topics[topic].logs]


class MemoryTopics:
    """See ``ports.Topics``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        with cluster.changed:
            cluster.reach()

    def partitions(self) -> Mapping[str, int]:
        with self._cluster.changed:
            self._cluster.reach()
            return {name: len(topic.logs) for name, topic in self._cluster.topics.items()}

    def create(self, topic: str, partitions: int, replication: int, config: Mapping[str, str]) -> bool:
        with self._cluster.changed:
            self._cluster.reach()
            return self._cluster.create(topic, partitions, replication, config)

    def committed(self, group: str, topics: Sequence[str]) -> Mapping[Partition, int]:
        with self._cluster.changed:
            self._cluster.reach()
            known = self._cluster.groups.get(group, Group()).committed
            return {part: offset for part, offset in known.items() if part.topic in topics}

    def close(self) -> None:
        """Nothing is open."""

    def configuration(self, topics: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        with self._cluster.changed:
            self._cluster.reach()
            known = self._cluster.topics
            return {name: dict(known[name].config) for name in topics if name in known}


class MemoryClusterInfo:
    """See ``ports.Cluster``: one broker, of which there is nothing else to tell."""

    def __init__(self, cluster: Cluster, *, makes_topics: bool) -> None:
        self._cluster = cluster
        self._makes_topics = makes_topics
        with cluster.changed:
            cluster.reach()

    def brokers(self) -> Brokers:
        with self._cluster.changed:
            self._cluster.reach()
            return Brokers(1, None)

    def defaults(self) -> Mapping[str, str]:
        with self._cluster.changed:
            self._cluster.reach()
            return {"auto.create.topics.enable": str(self._makes_topics).lower(), "min.insync.replicas": "1"}

    def copies(self, topics: Sequence[str]) -> Mapping[str, Copies]:
        with self._cluster.changed:
            self._cluster.reach()
            return {name: Copies(1, 1, 0) for name in topics if name in self._cluster.topics}

    def members(self, group: str) -> int:
        with self._cluster.changed:
            self._cluster.reach()
            return len(self._cluster.groups.get(group, Group()).members)

    def close(self) -> None:
        """Nothing is open."""
