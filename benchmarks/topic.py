"""A topic under measurement: how much is in it, and at the end what, in which order, and when it was appended."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  its stub leaves them out

from .process import MeasurementError
from .workload import PARTITIONS

_REQUEST_SECONDS = 15.0
_SILENCE_SECONDS = 20.0


@dataclass
class Contents:
    """What was read back. Times are LogAppendTime in milliseconds, by the broker's clock."""

    messages: int = 0
    duplicate_times: list[int] = field(default_factory=list)
    """When what was there already was appended again."""
    out_of_order: int = 0
    """First deliveries that came after a later one of their key."""
    misplaced: int = 0
    """Without their key, or in another partition than the key's first one."""
    record_bytes: int = 0
    times: list[int] = field(default_factory=list)
    first_seen: dict[int, int] = field(default_factory=dict)
    """When each id was first appended."""

    def lost(self, written: int) -> int:
        """How many of ``written`` messages are not there."""
        return written - len(self.first_seen)

    def facts(self, written: int) -> dict[str, Any]:
        """The counts, for the results."""
        return {
            "lost": self.lost(written),
            "duplicates": len(self.duplicate_times),
            "out_of_order": self.out_of_order,
            "misplaced": self.misplaced,
            "bytes_per_record": round(self.record_bytes / max(1, self.messages)),
        }


def steady_rate(times: list[int]) -> int | None:
    """Messages a second between the 5 % and the 95 % message: neither start nor end count."""
    count = len(times)
    if count < 20:
        return None
    ordered = sorted(times)
    elapsed = ordered[int(count * 0.95) - 1] - ordered[int(count * 0.05)]
    return round(count * 0.9 / max(0.001, elapsed / 1000))


class Topic:
    """A topic of its own for a measurement, timestamps by the broker."""

    def __init__(self, bootstrap_servers: str, name: str) -> None:
        self.name = name
        self._servers = bootstrap_servers
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers})
        self._ends = {TopicPartition(name, number): OffsetSpec.latest() for number in range(PARTITIONS)}

    def create(self) -> None:
        """Six partitions, LogAppendTime."""
        topic = NewTopic(self.name, PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"})
        for future in self._admin.create_topics([topic]).values():
            future.result(_REQUEST_SECONDS)

    def drop(self) -> None:
        """Its files are gone a minute later."""
        for future in self._admin.delete_topics([self.name]).values():
            future.result(_REQUEST_SECONDS)

    def count(self) -> int:
        """How many records it holds, by one request."""
        found = self._admin.list_offsets(self._ends, request_timeout=_REQUEST_SECONDS)
        return sum(future.result(_REQUEST_SECONDS).offset for future in found.values())

    def consumer(self, **options: Any) -> Consumer:
        """A consumer at the beginning of every partition."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": f"bench-{uuid4().hex}",
                "enable.auto.commit": False,
                **options,
            }
        )
        consumer.assign([TopicPartition(self.name, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
        return consumer

    def read(self) -> Contents:
        """Every record there is. Raises MeasurementError when the broker stops giving them."""
        total, contents, order = self.count(), Contents(), _Order()
        consumer = self.consumer(**{"fetch.max.bytes": 50_000_000, "queued.max.messages.kbytes": 200_000})
        read, heard = 0, time.monotonic()
        try:
            while read < total:
                for message in consumer.consume(5_000, 0.5):
                    if message.error() is None:
                        read, heard = read + 1, time.monotonic()
                        _take(message, contents, order)
                if time.monotonic() - heard > _SILENCE_SECONDS:
                    raise MeasurementError(f"only {read} of {total} records could be read back")
        finally:
            consumer.close()
        return contents


@contextmanager
def fresh_topic(bootstrap_servers: str, name: str) -> Iterator[Topic]:
    """Made, and dropped at the end."""
    topic = Topic(bootstrap_servers, f"{name}-{uuid4().hex[:6]}")
    topic.create()
    try:
        yield topic
    finally:
        topic.drop()


@dataclass
class _Order:
    last: dict[str, int] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)


def payload(message: Message) -> dict[str, Any]:
    """The body; some systems wrap it into a JSON text once more."""
    found: Any = json.loads(message.value() or b"{}")
    value: dict[str, Any] = json.loads(found) if isinstance(found, str) else found
    return value


def _take(message: Message, contents: Contents, order: _Order) -> None:
    value = payload(message)
    number, key, sequence = value["id"], value["key"], value["seq"]
    if number < 0:
        return  # a warm-up's
    appended, own_key = message.timestamp()[1], message.key()
    headers: Any = message.headers() or []
    contents.messages += 1
    contents.times.append(appended)
    contents.record_bytes += len(message.value() or b"") + len(own_key or b"")
    contents.record_bytes += sum(len(name) + len(held or b"") for name, held in headers)
    partition = order.partitions.setdefault(key, message.partition() or 0)
    if own_key is None or own_key.decode().strip('"') != key or partition != message.partition():
        contents.misplaced += 1
    if number in contents.first_seen:
        contents.duplicate_times.append(appended)
        return
    contents.first_seen[number] = appended
    if sequence < order.last.get(key, 0):
        contents.out_of_order += 1
    else:
        order.last[key] = sequence
