"""The dead letter: a record of a dead-letter topic, what its headers tell, whoever wrote it, and where it stands."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid5

from ..messaging.dead_letter import OURS, REPLAY_COUNT, replay_headers, replays_before
from ..messaging.envelope import parse_timestamp, storable_id
from ..messaging.errors import InvalidMessage
from ..messaging.fingerprint import digest, normalised
from ..messaging.headers import HeaderPairs, first
from ..messaging.message import check_type
from ..messaging.records import ReceivedRecord
from ..outbox.entry import Entry
from .families import FOREIGN, Diagnosis, by_name, diagnose
from .states import State

_PLACE = re.compile(r"([A-Za-z0-9._-]{1,249})/(\d{1,10})/(\d{1,19})")
_IDS = UUID("3f0b7c5e-5a55-5d0e-9a83-6c0f4f1f7a11")
_FRAME = re.compile(r"^\s*at ([\w.$<>/]+)\(|^  File \"([^\"]+)\", line \d+, in (\S+)", re.MULTILINE)
_LONGEST = 255  # of what stands in an index
_LONGEST_MESSAGE = 1_000
_MOST_REPLAYS = 1_000_000
#: What both databases can hold and give back in any time zone.
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC) + timedelta(2), datetime.max.replace(tzinfo=UTC) - timedelta(2)
UNKNOWN_TYPE = "unknown"
_REPLAYED = {OURS + "replay_count", REPLAY_COUNT}


class Place(NamedTuple):
    """Where a dead letter stands in Kafka, written ``topic/partition/offset``."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Place | None":
        """The place that ``text`` names; None where it is none."""
        match = _PLACE.fullmatch(text)
        if match is None or int(match[2]) >= 2**31 or int(match[3]) >= 2**63:  # what the columns hold
            return None
        return cls(match[1], int(match[2]), int(match[3]))


class DeadLetter(NamedTuple):
    """One dead letter. What its headers do not tell is None.

    ``id``: in the ledger; 0 before it is there. ``dead_letter_topic``, ``partition``, ``offset``: its own place, and
    ``incarnation`` counts how often that topic was made anew; below zero it was imported, or edited in the ledger.
    ``family``: who wrote it (see ``families``). ``topic``, ``topic_partition``, ``topic_offset`` and ``group``: where
    the message was consumed, and by whom. ``message_id``: the CloudEvents id, else the original place. ``inbox_id``:
    as the group's inbox knows it. ``deliveries``: attempts made. ``replays``: before it died this time. ``size``: of
    the payload, in bytes. ``order_…``: the place of the message's first death, which orders its key.
    ``follows``: the letter that died before it, or that it was edited from. ``rounds``: replays since it first died
    or was released, of which the last ``same_failures`` ended in the same failure. ``payload`` and ``headers`` are
    None in lists.
    """

    id: int
    dead_letter_topic: str
    partition: int
    offset: int
    incarnation: int
    written_at: datetime
    family: str
    message_id: str
    inbox_id: str
    key: bytes | None
    type: str | None
    topic: str | None
    topic_partition: int | None
    topic_offset: int | None
    group: str | None
    error: str | None
    message: str | None
    handler: str | None
    deliveries: int | None
    first_failed_at: datetime | None
    failed_at: datetime
    fingerprint: str
    replays: int
    expires_at: datetime | None
    size: int | None
    order_partition: int
    order_offset: int
    state: State = State.DEAD
    state_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    plan_id: int | None = None
    ordinal: int | None = None
    follows: int | None = None
    rounds: int = 0
    same_failures: int = 0
    masked: bool = False
    forgotten_at: datetime | None = None
    payload: bytes | None = None
    headers: HeaderPairs | None = None

    @classmethod
    def of(cls, record: ReceivedRecord, incarnation: int = 0) -> "DeadLetter":
        """Read a record of a dead-letter topic. Never raises."""
        headers = record.headers
        names = by_name(headers)
        found = diagnose(headers, names)
        own_topic, own_partition = record.partition
        if found.topic is None or found.partition is None or found.offset is None:
            original, order = f"{own_topic}/{own_partition}/{record.offset}", (own_partition, record.offset)
        else:
            original, order = f"{found.topic}/{found.partition}/{found.offset}", (found.partition, found.offset)
        message_id = storable_id(_text(names, "ce_id") or original)
        return cls(
            0,
            own_topic,
            own_partition,
            record.offset,
            incarnation,
            _moment(record.timestamp),
            found.family,
            message_id,
            _short(found.inbox_id) or message_id,
            record.key,
            _short(_text(names, "ce_type")),
            _short(found.topic),
            found.partition,
            found.offset,
            found.group if _short(found.group) == found.group else None,  # a part of it would name another group
            _short(found.error),
            _storable(found.message, _LONGEST_MESSAGE),
            _short(found.handler),
            found.deliveries,
            found.first_failed_at and _moment(found.first_failed_at),
            _moment(found.last_failed_at or record.timestamp),
            _short(found.fingerprint) or _fingerprint(found),
            min(replays_before(headers), _MOST_REPLAYS) if _REPLAYED & names.keys() else 0,
            (deadline := parse_timestamp(_text(names, "expires_at"))) and _moment(deadline),
            None if record.value is None else len(record.value),
            *order,
            payload=record.value,
            headers=headers,
        )

    @property
    def place(self) -> Place:
        """Where it stands in Kafka."""
        return Place(self.dead_letter_topic, self.partition, self.offset)

    @property
    def original(self) -> Place | None:
        """Where it was consumed, if that is known whole."""
        if self.topic is None or self.topic_partition is None or self.topic_offset is None:
            return None
        return Place(self.topic, self.topic_partition, self.topic_offset)

    @property
    def stack(self) -> str | None:
        """Where it failed; None in lists, too."""
        return diagnose(self.headers).stack if self.headers else None

    def replayed(self, group: str | None, replaces: str | None = None) -> Entry:
        """What a replay publishes: the original record without the traces of its failure, for ``group`` alone.

        A record without an id gets its own here: were the replay published twice, consumers would know it.
        ``replaces``: the inbox id of the message that it was edited from. Raises InvalidMessage where the original
        topic is unknown or no legal name.
        """
        if self.topic is None or self.headers is None:
            raise InvalidMessage(f"The original topic of {self.place} is unknown.")
        headers = [
            (name.replace("\x00", "�"), value)  # the table's JSON knows no U+0000
            for name, value in replay_headers(self.headers, group, replaces)
            if not name.startswith(FOREIGN)
        ]
        if not first(headers, "ce_id"):  # none, or one that nobody can read
            headers = [(name, value) for name, value in headers if name != "ce_id"]
            headers.append(("ce_id", self.message_id.encode()))
        return Entry.forwarded(self._entry_id(), self.topic, self.key, self._entry_type(), self.payload, headers)

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


def known_id(message_id: str) -> str:
    """As the ledger has it."""
    return storable_id(message_id.encode(errors="replace").decode())


def _fingerprint(found: Diagnosis) -> str:
    """Of another producer's failure: class, place and handler, and the message without numbers, ids, quoted parts."""
    frame = _FRAME.search(found.stack or "")
    place = next(filter(None, frame.groups()), "") if frame else ""
    return digest(found.error or "", place, found.handler or "", normalised(found.message or ""))


def _text(names: Mapping[str, bytes], name: str) -> str | None:
    """The header's text; None where it is missing, empty, or no UTF-8."""
    try:
        return names.get(name, b"").decode() or None
    except UnicodeDecodeError:
        return None


def _moment(moment: datetime) -> datetime:
    return min(max(moment, _EARLIEST), _LATEST)


def _short(text: str | None) -> str | None:
    return _storable(text, _LONGEST) if text else None


def _storable(text: str | None, limit: int) -> str | None:
    """``text`` as PostgreSQL can hold it, and no longer than ``limit`` characters."""
    if text is None or (text.isascii() and text.isprintable() and len(text) <= limit):
        return text
    return text.replace("\x00", "�").encode(errors="replace").decode()[:limit]
