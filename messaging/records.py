"""What crosses the Kafka ports: records to send, records received, and where they stand."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from .headers import HeaderPairs


class OutgoingRecord(NamedTuple):
    """A record as it goes to Kafka; the partition follows from the key, as Java's default partitioner has it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.number}"


class ReceivedRecord(NamedTuple):
    """A record as it came from Kafka. A header without a value has the value ``b""``."""

    partition: Partition
    offset: int
    key: bytes | None
    value: bytes | None
    headers: HeaderPairs
    timestamp: datetime


class Brokers(NamedTuple):
    """The brokers that are up. ``version``: Kafka's, as far as the client can tell by what it understands."""

    number: int
    version: str | None


class Copies(NamedTuple):
    """How a topic is copied, each number that of the partition that has the fewest.

    ``replicas``: the copies that there should be; ``in_sync``: those that are up to date; ``leaderless``: partitions
    that nobody can write to now.
    """

    replicas: int
    in_sync: int
    leaderless: int

    @classmethod
    def of(cls, partitions: Iterable[tuple[int, int, bool]]) -> "Copies":
        """From the replicas, those in sync, and whether there is a leader, of each partition."""
        replicas, in_sync, led = zip(*partitions, strict=True)
        return cls(min(replicas), min(in_sync), led.count(False))
