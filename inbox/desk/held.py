"""A held message: one that failed and waits for its next attempt, or one that waits behind it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from ...messaging.dead_letter import replay_count
from ...messaging.errors import InvalidRecord
from ...messaging.headers import load
from .record import maybe, moment

State = Literal["retry", "behind", "dead-letter"]
_MAX_REPLAYS = 32_767  # what the column holds


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which held messages; None is any. ``group`` and ``type`` with the wildcards * and ?.

    ``error``: a part of it, in any case. ``since``, ``until``: when held, ``until`` exclusive.
    """

    group: str | None = None
    topic: str | None = None
    key: bytes | None = None
    type: str | None = None
    state: State | None = None
    error: str | None = None
    message_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Held(NamedTuple):
    """A row of ``inbox_held``. ``payload`` and ``headers`` (JSON) are None in a list; ``size`` is the payload's.

    ``state``: ``retry`` (its next attempt comes at ``next_attempt_at``), ``behind`` (it waits for one of its key), or
    ``dead-letter`` (it is one by now, and its key waits until it was replayed or the row is discarded).
    """

    id: int
    group: str
    topic: str
    partition: int
    offset: int
    message_id: str
    key: bytes | None
    type: str | None
    payload: bytes | None
    headers: str | None
    timestamp: datetime
    handler: str
    state: State
    attempts: int
    error: str | None
    first_failed_at: datetime | None
    next_attempt_at: datetime | None
    held_at: datetime
    size: int | None

    @classmethod
    def of(cls, row: Any) -> "Held":
        """From the table."""
        found = cls._make(row)
        return found._replace(
            timestamp=moment(found.timestamp),
            held_at=moment(found.held_at),
            first_failed_at=maybe(found.first_failed_at),
            next_attempt_at=maybe(found.next_attempt_at),
        )

    @property
    def place(self) -> str:
        """Topic, partition and offset."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    def pairs(self) -> tuple[list[tuple[str, bytes]], str | None]:
        """The record's headers, or what is wrong with them."""
        try:
            return list(load(self.headers or "[]")[0]), None
        except InvalidRecord as error:
            return [], f"{error} ({self.headers})"

    def closing(self) -> dict[str, Any]:
        """For the query ``inbox_close``: no delivery of it runs any more."""
        return {
            "group": self.group,
            "message_id": self.message_id,
            "outcome": "discarded",
            "topic": self.topic,
            "handler": self.handler or None,
            "attempts": self.attempts,
            "replays": min(replay_count(self.pairs()[0]), _MAX_REPLAYS),
        }
