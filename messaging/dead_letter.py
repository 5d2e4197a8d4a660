"""The dead letter on the wire: the failed record as it was, and headers that tell what happened to it.

Key, value and headers of the original stay byte for byte. Added are Kafka's own names for a dead letter
(KIP-1191, ``__dlq.errors.…``), so that other tools can read it, and ours under ``postroom_dlq_``. They are
written once: ``strip`` takes them off, so that a message that dies again never grows.
"""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from .envelope import timestamp
from .fingerprint import digest, normalised
from .headers import HeaderPairs, first
from .records import ReceivedRecord

MAX_STACK = 8_000
MAX_MESSAGE = 1_000
KIP_1191 = "__dlq.errors."
OURS = "postroom_dlq_"
#: The id of its inbox row, where that is not the record's own (ce_id).
INBOX_ID = OURS + "inbox_id"
#: On a replayed record: how often it was replayed, and the only group that shall run it again.
REPLAY_COUNT = "postroom_replay_count"
REPLAY_GROUP = "postroom_replay_group"
#: On the replay of a dead letter that was edited, which has a new id: the one under which that message died.
REPLAY_OF = "postroom_replay_of"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a message died. ``attempts`` were made; the times are those of the first and the last failure."""

    error: BaseException
    handler: str
    attempts: int
    first_at: datetime
    last_at: datetime


def dead_letter_topic(topic: str, group: str) -> str:
    """The dead letters of one group on one topic."""
    return f"{topic}.{group}.dlq"


def dead_letter_headers(
    record: ReceivedRecord, group: str, failure: Failure, inbox_id: str | None = None
) -> list[tuple[str, bytes]]:
    """The headers of ``record``'s dead letter: its own, those of earlier deaths replaced by this one's.

    ``inbox_id``: under which its inbox knows the message.
    """
    topic, partition = record.partition
    text = str(failure.error)[:MAX_MESSAGE]
    diagnosis = {
        KIP_1191 + "topic": topic,
        KIP_1191 + "partition": str(partition),
        KIP_1191 + "offset": str(record.offset),
        KIP_1191 + "group": group,
        KIP_1191 + "delivery.count": str(failure.attempts),
        KIP_1191 + "message": text,
        OURS + "exception": _class_name(failure.error),
        OURS + "stack": _stack(failure.error),
        OURS + "handler": failure.handler,
        OURS + "first_failed_at": timestamp(failure.first_at),
        OURS + "last_failed_at": timestamp(failure.last_at),
        OURS + "fingerprint": fingerprint(failure.error, failure.handler),
        OURS + "replay_count": str(replay_count(record.headers)),
    }
    if inbox_id is not None and inbox_id != first(record.headers, "ce_id"):
        diagnosis[INBOX_ID] = inbox_id
    return [
        *strip(record.headers),
        *((name, value.encode(errors="replace")) for name, value in diagnosis.items()),
    ]


def strip(headers: HeaderPairs) -> list[tuple[str, bytes]]:
    """``headers`` without what a death or a replay added."""
    added = (KIP_1191, OURS)
    return [
        (name, value)
        for name, value in headers
        if not name.startswith(added) and name not in (REPLAY_COUNT, REPLAY_GROUP, REPLAY_OF)
    ]


def replay_headers(headers: HeaderPairs, group: str | None, replaces: str | None = None) -> list[tuple[str, bytes]]:
    """The headers of a dead letter's replay, meant for ``group`` alone (any group, where it is unknown).

    ``replaces``: for a replay under a new id, the one under which the message died (its ``INBOX_ID``, else its ce_id).
    """
    count = replays_before(headers) + 1
    told = [(REPLAY_COUNT, str(count).encode())]
    if group is not None:
        told.append((REPLAY_GROUP, group.encode()))
    if replaces is not None:
        told.append((REPLAY_OF, replaces.encode()))
    return [*strip(headers), *told]


def replay_count(headers: HeaderPairs) -> int:
    """How often this record was replayed; 0 for a first delivery."""
    return _number(first(headers, REPLAY_COUNT))


def replays_before(headers: HeaderPairs) -> int:
    """How often a dead letter's message was replayed. Another producer's dead letter carries the replay's header."""
    return max(_number(first(headers, OURS + "replay_count")), replay_count(headers))


def fingerprint(error: BaseException, handler: str) -> str:
    """The same for the same failure at the same place: 16 hex digits of class, place and handler.

    The place is the innermost frame of the traceback, without its line number, so that an edit above it
    changes nothing. The message counts without its numbers, ids and quoted parts.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].name}" if frames else ""
    return digest(_class_name(error), place, handler, normalised(str(error)))


def _stack(error: BaseException) -> str:
    """The end of the traceback: where it happened counts more than how one got there."""
    text = "".join(traceback.format_exception(error))
    return text if len(text) <= MAX_STACK else "…" + text[-MAX_STACK:]


def _class_name(error: BaseException) -> str:
    kind: Sequence[str] = (type(error).__module__, type(error).__qualname__)
    return ".".join(part for part in kind if part != "builtins")


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else 0
