"""Rows and records in few bytes: what of them is compared."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from hashlib import blake2b, sha256
from typing import NamedTuple
from uuid import UUID

from ...messaging.dead_letter import REPLAY_COUNT
from ...messaging.envelope import REPLAY, parse_timestamp
from ...messaging.errors import InvalidRecord
from ...messaging.headers import HeaderPairs, first
from ...messaging.partitioner import positive_hash
from ...messaging.records import ReceivedRecord
from ..entry import LogRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UUID_BYTES = 16


class State(IntEnum):
    """Of a row, as the log had it when it was read."""

    WAITING = 0
    SETTLED = 1
    PARKED = 2
    DISCARDED = 3


class Logged(NamedTuple):
    """A row. Times are microseconds since 1970, hashes have 16 bytes.

    ``id``: the record's (``ce_id``). ``home``: what the key's partition follows from; None without a key. ``content``:
    key and payload. ``whole``: these and the headers, but for the mark of a replay; ``mark``: of which replay it is,
    empty for none. ``retried``: an operator had it published again after Kafka refused it.
    """

    id: bytes
    position: int
    key: bytes | None
    content: bytes
    whole: bytes
    mark: bytes
    created: int
    home: int | None
    state: State
    tombstone: bool
    retried: bool


class Stored(NamedTuple):
    """A record, likewise. ``id`` is empty where it tells none; ``time``: Kafka's; ``told``: its own, or Kafka's."""

    id: bytes
    partition: int
    offset: int
    key: bytes | None
    content: bytes
    whole: bytes
    mark: bytes
    time: int
    told: int


def logged_of(row: LogRow, payload_hash: bytes | None, state: State, *, retried: bool) -> Logged:
    """``row`` without its payload, of which there is the SHA-256 (None for a tombstone)."""
    try:
        headers: HeaderPairs = row.record().headers
    except InvalidRecord:  # it is parked, or was discarded
        headers = []
    content = _content(row.key, payload_hash)
    return Logged(
        message_id(first(headers, "ce_id") or row.id),
        row.position,
        _hash(row.key),
        content,
        _whole(content, headers),
        _mark(headers),
        micros(row.created_at),
        None if row.key is None else positive_hash(row.key),
        state,
        payload_hash is None,
        retried,
    )


def stored_of(record: ReceivedRecord) -> Stored:
    """``record`` without its value."""
    headers, time = record.headers, micros(record.timestamp)
    content = _content(record.key, None if record.value is None else sha256(record.value).digest())
    told = parse_timestamp(first(headers, "ce_time"))
    given = first(headers, "ce_id")
    return Stored(
        b"" if given is None else message_id(given),
        record.partition.number,
        record.offset,
        _hash(record.key),
        content,
        _whole(content, headers),
        _mark(headers),
        time,
        time if told is None else micros(told),
    )


def message_id(text: str) -> bytes:
    """16 bytes: the UUID, or the hash of what is none."""
    try:
        return UUID(text).bytes
    except ValueError:
        return blake2b(text.encode(errors="replace"), digest_size=_UUID_BYTES).digest()


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def _hash(value: bytes | None) -> bytes | None:
    return None if value is None else blake2b(value, digest_size=_UUID_BYTES).digest()


def _content(key: bytes | None, payload_hash: bytes | None) -> bytes:
    return _of(key, payload_hash)


def _whole(content: bytes, headers: HeaderPairs) -> bytes:
    return _of(content, [(name, bytes(value)) for name, value in headers if name != REPLAY])


def _mark(headers: Iterable[tuple[str, bytes]]) -> bytes:
    marks = [(name, bytes(value)) for name, value in headers if name in (REPLAY, REPLAY_COUNT)]
    return _of(marks) if marks else b""


def _of(*values: object) -> bytes:
    """A hash of literals, which their representation tells apart."""
    return blake2b(repr(values).encode(), digest_size=16).digest()
