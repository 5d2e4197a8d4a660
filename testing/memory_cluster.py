"""The state of a Kafka in memory: topics, their records, consumer groups, and whether it answers."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Condition, RLock
from typing import Protocol

from ..messaging.errors import (
    ConfigurationError,
    InvalidMessage,
    InvalidRecord,
    KafkaUnavailable,
    RecordTooLarge,
    UnknownTopic,
)
from ..messaging.message import check_topic
from ..messaging.partitioner import positive_hash
from ..messaging.ports import DEFAULT
from ..messaging.records import OutgoingRecord, Partition, ReceivedRecord

#: Kafka's settings of a topic with their defaults. Of these, max.message.bytes and cleanup.policy have an effect here.
TOPIC_SETTINGS = {
    "cleanup.policy": "delete",
    "compression.type": "producer",
    "delete.retention.ms": "86400000",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "min.compaction.lag.ms": "0",
    "min.insync.replicas": "1",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
    "segment.ms": "604800000",
    "unclean.leader.election.enable": "false",
}
#: What a record takes beside key, value and headers, roughly, in bytes.
_OVERHEAD = 70
AWAY = "Kafka does not answer (the memory cluster is {}); it goes on when it is back."


class Delivers(Protocol):
    """A publisher that may have records waiting."""

    def deliver(self) -> None:
        """Append what waits. Under the cluster's lock."""


class Joined(Protocol):
    """A member of a group. ``seen``: when it polled last, by ``time.monotonic``."""

    topics: Sequence[str]
    seen: float
    max_poll_seconds: float
    instance: str | None


@dataclass
class Topic:
    """Records by partition, and the settings in effect."""

    logs: list[list[ReceivedRecord]]
    config: dict[str, str]


@dataclass
class Group:
    """Who has which partition, who is to have it, how far the group has read; ``members`` in the order of joining."""

    members: list[Joined] = field(default_factory=list)
    owner: dict[Partition, Joined] = field(default_factory=dict)
    target: dict[Partition, Joined] = field(default_factory=dict)
    committed: dict[Partition, int] = field(default_factory=dict)
    generation: int = 0

    def leave(self, member: Joined) -> None:
        """It has nothing any more."""
        self.members = [each for each in self.members if each is not member]
        self.owner = {partition: owner for partition, owner in self.owner.items() if owner is not member}

    def share_out(self, partitions: Iterable[Partition]) -> None:
        """Decide anew who is to have what: each topic evenly over those that read it, most of it where it was."""
        target: dict[Partition, Joined] = {}
        by_topic: dict[str, list[Partition]] = {}
        for partition in partitions:
            by_topic.setdefault(partition.topic, []).append(partition)
        for topic, parts in by_topic.items():
            readers = [member for member in self.members if topic in member.topics]
            quota = {id(reader): (len(parts) + n) // len(readers) for n, reader in enumerate(reversed(readers))}
            rest = []
            for part in sorted(parts):
                had = self.owner.get(part)
                if had is not None and quota.get(id(had), 0) > 0:
                    quota[id(had)] -= 1
                    target[part] = had
                else:
                    rest.append(part)
            for part in rest:
                taker = next((reader for reader in readers if quota[id(reader)] > 0), None)
                if taker is not None:
                    quota[id(taker)] -= 1
                    target[part] = taker
        if target != self.target:
            self.target = target
            self.generation += 1


class Cluster:
    """One broker's worth of state. Everything is done under ``changed``, which also tells of every change."""

    def __init__(self, partitions: int) -> None:
        self.changed = Condition(RLock())
        self.topics: dict[str, Topic] = {}
        self.groups: dict[str, Group] = {}
        self.state = "up"
        self._partitions = partitions
        self._publishers: list[Delivers] = []

    def become(self, state: str) -> None:
        """``up``, ``paused``: it does not answer, or ``down``: nobody is there."""
        with self.changed:
            self.state = state
            if state == "up":
                for publisher in list(self._publishers):
                    publisher.deliver()
            self.changed.notify_all()

    def joins(self, publisher: Delivers) -> None:
        """It is told when the cluster is back."""
        self._publishers.append(publisher)

    def leaves(self, publisher: Delivers) -> None:
        """It is told no more."""
        self._publishers = [each for each in self._publishers if each is not publisher]

    def reach(self, seconds: float = 5.0) -> None:
        """Wait until it answers, at the most for so long. Raises KafkaUnavailable, at once where nobody is there."""
        self.changed.wait_for(lambda: self.state != "paused", seconds)
        if self.state != "up":
            raise KafkaUnavailable(AWAY.format(self.state))

    def create(self, name: str, partitions: int, replication: int, config: Mapping[str, str]) -> bool:
        """See ``ports.Topics``."""
        if name in self.topics:
            return False
        try:
            check_topic(name)
        except InvalidMessage as error:
            raise ConfigurationError(f"Kafka refuses these settings of a topic ({error})") from None
        wrong = None
        if replication not in (DEFAULT, 1):
            wrong = f"replication {replication}, and there is one broker"
        elif partitions != DEFAULT and partitions < 1:
            wrong = f"{partitions} partitions"
        for setting, value in config.items():
            default = TOPIC_SETTINGS.get(setting)
            if default is None:
                wrong = f"there is no setting {setting!r}"
            elif default.lstrip("-").isdigit() and not value.lstrip("-").isdigit():
                wrong = f"{setting} must be a number, not {value!r}"
        if wrong is not None:
            raise ConfigurationError(f"Kafka refuses these settings of a topic ({wrong}).")
        count = self._partitions if partitions == DEFAULT else partitions
        self.topics[name] = Topic([[] for _ in range(count)], {**TOPIC_SETTINGS, **config})
        self.changed.notify_all()
        return True

    def append(self, record: OutgoingRecord, *, most: int, may_create: bool, turn: int) -> None:
        """Put it at the end of its partition; ``turn`` chooses one for what has no key. Raises Refused."""
        size = _size(record)
        if size > most:
            raise RecordTooLarge(f"A record of {size} bytes is over the client's limit of {most}; send less.")
        try:
            check_topic(record.topic)
        except InvalidMessage as error:
            raise UnknownTopic(str(error)) from None
        if record.topic not in self.topics:
            if not may_create:
                raise UnknownTopic(f"Kafka knows no topic {record.topic!r}; create it.")
            self.create(record.topic, DEFAULT, DEFAULT, {})
        topic = self.topics[record.topic]
        if size > int(topic.config["max.message.bytes"]):
            raise RecordTooLarge(
                f"Kafka refuses a record of {size} bytes on {record.topic!r}; raise max.message.bytes, or send less."
            )
        if record.key is None and "compact" in topic.config["cleanup.policy"]:
            raise InvalidRecord(f"The topic {record.topic!r} is compacted, and takes no record without a key.")
        number = (turn if record.key is None else positive_hash(record.key)) % len(topic.logs)
        log = topic.logs[number]
        place = Partition(record.topic, number)
        headers = [(name, value or b"") for name, value in record.headers]
        log.append(ReceivedRecord(place, len(log), record.key, record.value, headers, datetime.now(UTC)))
        self.changed.notify_all()

    def join(self, name: str, member: Joined) -> Group:
        """It takes part from its next poll on; another one of its instance is out."""
        group = self.groups.setdefault(name, Group())
        for other in [each for each in group.members if member.instance and each.instance == member.instance]:
            group.leave(other)
        group.members.append(member)
        self.changed.notify_all()
        return group

    def look_after(self, group: Group) -> None:
        """Members that were silent for too long are out; new partitions find somebody."""
        now = time.monotonic()
        for member in [each for each in group.members if now - each.seen > each.max_poll_seconds]:
            group.leave(member)
        before = group.generation
        read = sorted({topic for member in group.members for topic in member.topics if topic in self.topics})
        group.share_out(Partition(topic, n) for topic in read for n in range(len(self.topics[topic].logs)))
        if group.generation != before:
            self.changed.notify_all()


def _size(record: OutgoingRecord) -> int:
    headers = sum(len(name.encode()) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers + _OVERHEAD
