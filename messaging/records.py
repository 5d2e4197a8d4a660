"""What crosses the Kafka ports: records to send, records received, and where they stand."""

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
