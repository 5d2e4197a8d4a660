"""The wire format: CloudEvents 1.0 in Kafka's binary mode, and what goes along.

Header names follow the CloudEvents Kafka protocol binding 1.0 (attributes as ``ce_…``, the data's media
type as ``content-type``) and W3C Trace Context (``traceparent``, ``tracestate``).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from uuid import UUID, uuid5

from .dataschema import HEADER, version_of
from .headers import HeaderPairs, first, load
from .records import ReceivedRecord

JSON = "application/json"
#: Headers that the toolkit writes itself; an application cannot set them.
RESERVED = frozenset({"ce_specversion", "ce_id", "ce_type", "ce_time", "ce_source"})
#: The header by which a handler may know a message (``by_idempotency_key``).
IDEMPOTENCY_KEY = "idempotency_key"
#: The header of a copy that `outbox replay` made: the time and id of the replay.
REPLAY = "postroom_replay"
#: Headers that go from a consumed message into what its handler publishes.
PROPAGATED = ("correlation_id", "traceparent", "tracestate", "expires_at")

MAX_ID_LENGTH = 255
#: Of ids that are made from other names.
IDS = UUID("8f6c1c0e-6a0b-5c53-9f0e-3c1a2d1b7e44")
_SPECVERSION = ("ce_specversion", b"1.0")


def wire_headers(
    message_id: str, type_: str, created_at: datetime, key: bytes | None, stored: str
) -> list[tuple[str, bytes]]:
    """The headers of an outbox row as they stand in the record. ``stored`` is the row's JSON.

    A message begins a correlation of its own unless it has one. Headers that were forwarded complete (see
    ``headers.dump_pairs``) stay as they are.
    """
    pairs, complete = load(stored)
    if complete:
        return list(pairs)
    encoded_id = message_id.encode()
    attributes = [_SPECVERSION, ("ce_id", encoded_id), _type(type_), ("ce_time", timestamp(created_at).encode())]
    if key and (subject := _subject(key)) and ("ce_subject" not in stored or first(pairs, "ce_subject") is None):
        attributes.append(subject)
    if "correlation_id" not in stored or not first(pairs, "correlation_id"):
        attributes.append(("correlation_id", encoded_id))
    attributes += pairs
    return attributes


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, as CloudEvents wants it."""
    text = moment.isoformat()
    if not text.endswith("+00:00"):
        text = moment.astimezone(UTC).isoformat()
    return text[:-6] + "Z"


def parse_timestamp(text: str | None) -> datetime | None:
    """The moment, or None for what is no RFC 3339 timestamp with a time zone."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def storable_id(message_id: str) -> str:
    """``message_id``, or a UUID in its stead where a table cannot hold it: too long, or control characters."""
    if len(message_id) <= MAX_ID_LENGTH and message_id.isprintable():
        return message_id
    return str(uuid5(IDS, message_id))


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a record says of itself. ``id`` falls back to the record's place, ``type`` to ``None``."""

    id: str
    type: str | None
    source: str | None
    time: datetime
    correlation_id: str | None
    causation_id: str | None
    expires_at: datetime | None
    headers: HeaderPairs

    @classmethod
    def of(cls, record: ReceivedRecord) -> "Envelope":
        """Read the headers of any producer's record; foreign ones have no ``ce_id``."""
        headers = record.headers
        return cls(
            id=first(headers, "ce_id") or f"{record.partition.topic}/{record.partition.number}/{record.offset}",
            type=first(headers, "ce_type"),
            source=first(headers, "ce_source"),
            time=parse_timestamp(first(headers, "ce_time")) or record.timestamp,
            correlation_id=first(headers, "correlation_id"),
            causation_id=first(headers, "causation_id"),
            expires_at=parse_timestamp(first(headers, "expires_at")),
            headers=headers,
        )

    @property
    def version(self) -> int:
        """The version of the payload's schema; 1 for what names none."""
        return version_of(first(self.headers, HEADER))

    def header(self, name: str) -> str | None:
        """The text of the first header of that name."""
        return first(self.headers, name)


@lru_cache(maxsize=4096)
def _type(type_: str) -> tuple[str, bytes]:
    return "ce_type", type_.encode()


@lru_cache(maxsize=16_384)
def _subject(key: bytes) -> tuple[str, bytes] | None:
    """The key, where it is a printable text."""
    try:
        return ("ce_subject", key) if key.decode().isprintable() else None
    except UnicodeDecodeError:
        return None
