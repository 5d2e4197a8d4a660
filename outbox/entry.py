"""A row of the log: as it is written, and as the relay reads it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from ..messaging.envelope import wire_headers
from ..messaging.errors import InvalidRecord
from ..messaging.headers import HeaderPairs, dump_object, dump_pairs, first, load
from ..messaging.message import Message, check_key, check_topic
from ..messaging.records import OutgoingRecord


@dataclass(frozen=True, slots=True)
class Entry:
    """A row to write. ``headers`` is JSON (see ``messaging.headers``); with ``due_at`` it waits until then."""

    id: UUID
    topic: str
    key: bytes | None
    type: str
    payload: bytes | None
    headers: str
    due_at: datetime | None = None

    @classmethod
    def of(cls, message: Message, headers: Mapping[str, str], due_at: datetime | None = None) -> "Entry":
        """What an application publishes: the relay adds the CloudEvents attributes."""
        key = check_key(message.key)
        return cls(message.id, message.topic, key, message.type, message.payload, dump_object(headers), due_at)

    @classmethod
    def forwarded(  # noqa: PLR0917  a row has so many columns
        cls,
        message_id: UUID,
        topic: str,
        key: bytes | None,
        type_: str,
        payload: bytes | None,
        headers: HeaderPairs,
    ) -> "Entry":
        """What is passed on byte for byte: ``headers`` are complete, the relay adds none."""
        return cls(message_id, check_topic(topic), key, type_, payload, dump_pairs(headers))


class LogRow(NamedTuple):
    """A row as the relay reads it. ``id`` is the UUID's text, ``headers`` the JSON as it is stored."""

    shard: int
    position: int
    id: str
    topic: str
    key: bytes | None
    type: str
    payload: bytes | None
    headers: str
    created_at: datetime

    @property
    def correlation_id(self) -> str:
        """As its record will have it: its own, else its id."""
        try:
            return first(load(self.headers)[0], "correlation_id") or self.id
        except InvalidRecord:
            return self.id

    def record(self) -> OutgoingRecord:
        """The Kafka record."""
        headers = wire_headers(self.id, self.type, self.created_at, self.key, self.headers)
        return OutgoingRecord(self.topic, self.key, self.payload, headers)
