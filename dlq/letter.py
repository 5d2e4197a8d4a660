"""The dead letter: a record of a dead-letter topic, and what its headers tell, whoever wrote it."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid5

from ..messaging.dead_letter import replay_headers, replays_before
from ..messaging.errors import InvalidMessage
from ..messaging.headers import HeaderPairs, first
from ..messaging.message import check_type
from ..messaging.records import ReceivedRecord
from ..outbox.entry import Entry
from .families import FOREIGN, diagnose

_PLACE = re.compile(r"([A-Za-z0-9._-]{1,249})/(\d{1,10})/(\d{1,19})")
_IDS = UUID("3f0b7c5e-5a55-5d0e-9a83-6c0f4f1f7a11")
UNKNOWN_TYPE = "unknown"


class Place(NamedTuple):
    """Where a dead letter stands: its name for people and scripts, ``topic/partition/offset``."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Place | None":
        """The place that ``text`` names; None where it is none."""
        match = _PLACE.fullmatch(text)
        return cls(match[1], int(match[2]), int(match[3])) if match else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One dead letter. What its headers do not tell is None.

    ``headers``: all of the record's. ``family``: who wrote it (see ``families``). ``original_…`` and ``group``:
    where it was consumed, and by whom. ``message_id``: the CloudEvents id, else its original place, as the
    inbox knows it. ``timestamp``: of the record in the dead-letter topic. ``deliveries``: attempts made.
    ``replay_count``: how often it was replayed before it died this time.
    """

    place: Place
    family: str
    message_id: str
    type: str | None
    key: bytes | None
    payload: bytes | None
    headers: HeaderPairs
    timestamp: datetime
    original_topic: str | None
    original_partition: int | None
    original_offset: int | None
    group: str | None
    error: str | None
    message: str | None
    stack: str | None
    handler: str | None
    deliveries: int | None
    first_failed_at: datetime | None
    last_failed_at: datetime | None
    fingerprint: str | None
    replay_count: int

    @classmethod
    def of(cls, record: ReceivedRecord) -> "DeadLetter":
        """Read a record of a dead-letter topic. Never raises."""
        found = diagnose(record.headers)
        place = Place(*record.partition, record.offset)
        known = None not in (found.topic, found.partition, found.offset)
        return cls(
            place=place,
            family=found.family,
            message_id=first(record.headers, "ce_id")
            or (f"{found.topic}/{found.partition}/{found.offset}" if known else str(place)),
            type=first(record.headers, "ce_type"),
            key=record.key,
            payload=record.value,
            headers=record.headers,
            timestamp=record.timestamp,
            original_topic=found.topic,
            original_partition=found.partition,
            original_offset=found.offset,
            group=found.group,
            error=found.error,
            message=found.message,
            stack=found.stack,
            handler=found.handler,
            deliveries=found.deliveries,
            first_failed_at=found.first_failed_at,
            last_failed_at=found.last_failed_at,
            fingerprint=found.fingerprint,
            replay_count=replays_before(record.headers),
        )

    @property
    def failed_at(self) -> datetime:
        """The last failure; when it was written, where that is not told."""
        return self.last_failed_at or self.timestamp

    def replayed(self) -> Entry:
        """What a replay publishes: the original record, without the traces of its failure.

        A record without an id gets its own here: were the replay published twice, consumers would know it.
        Raises InvalidMessage where the original topic is unknown or no legal name.
        """
        if self.original_topic is None:
            raise InvalidMessage(f"The original topic of {self.place} is unknown.")
        headers = [
            (name.replace("\x00", "�"), value)  # the table's JSON knows no U+0000
            for name, value in replay_headers(self.headers, self.group)
            if not name.startswith(FOREIGN)
        ]
        if first(headers, "ce_id") is None:
            headers.append(("ce_id", self.message_id.encode()))
        return Entry.forwarded(
            self._entry_id(), self.original_topic, self.key, self._entry_type(), self.payload, headers
        )

    def _entry_id(self) -> UUID:
        """The row's id, a UUID; the headers keep the message id as it is."""
        try:
            return UUID(self.message_id)
        except ValueError:
            return uuid5(_IDS, self.message_id)

    def _entry_type(self) -> str:
        try:
            return check_type(self.type)
        except InvalidMessage:
            return UNKNOWN_TYPE
