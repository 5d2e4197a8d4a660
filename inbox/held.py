"""Messages that wait in the table: failed ones, those of their keys behind them, and keys behind a dead letter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from ..messaging.dead_letter import replay_count
from ..messaging.envelope import parse_timestamp, timestamp
from ..messaging.headers import dump_pairs, load
from ..messaging.records import Partition, ReceivedRecord
from ..outbox.names import Names
from ..outbox.write import fetch_query, run_query
from .delivery import Delivery
from .lane import Item, LaneId

State = Literal["retry", "behind", "dead-letter"]
MAX_ERROR = 1_000
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class HeldRow:
    """The first message of a key in the table."""

    id: int
    delivery: Delivery
    state: State
    attempts: int
    first_failed_at: datetime | None
    next_attempt_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A message to hold."""

    delivery: Delivery
    state: State
    handler: str = ""
    attempts: int = 0
    error: str | None = None
    first_failed_at: datetime | None = None
    next_attempt_at: datetime | None = None

    @classmethod
    def behind(cls, item: Item) -> "Hold":
        """A message that waits for one before it."""
        attempts = 0 if item.condemned is not None else item.attempts
        return cls(
            delivery=item.delivery,
            state="behind",
            handler=item.handler.name,
            attempts=attempts,
            first_failed_at=item.first_failed_at,
        )


class HeldTable:
    """One group's rows. Each method works in the caller's transaction."""

    def __init__(self, group: str, names: Names) -> None:
        self._group = group
        self._names = names

    def hold(self, connection: sa.Connection, holds: Sequence[Hold]) -> None:
        """Put them there. One that is there already stays as it is."""
        for hold in holds:
            record = hold.delivery.record
            params = {
                "group": self._group,
                "topic": record.partition.topic,
                "partition": record.partition.number,
                "offset": record.offset,
                "message_id": hold.delivery.message_id,
                "key": record.key,
                "type": hold.delivery.type_or_unknown(),
                "payload": record.value,
                "headers": dump_pairs(_storable(record)),
                "timestamp": self._moment(connection, record.timestamp),
                "handler": hold.handler,
                "state": hold.state,
                "attempts": hold.attempts,
                "error": _text(hold.error),
                "first_failed_at": self._moment(connection, hold.first_failed_at),
                "next_attempt_at": self._moment(connection, hold.next_attempt_at),
            }
            run_query(connection, "hold", params, self._names)

    def heads(self, connection: sa.Connection) -> Mapping[LaneId, datetime | None]:
        """Each key that waits, with the time at which its first message is due; None: not by itself."""
        found: dict[LaneId, datetime | None] = {}
        rows = fetch_query(connection, "held_heads", {"group": self._group}, self._names)
        for topic, partition, found_key, offset, state, due in rows:
            key = None if found_key is None else bytes(found_key)
            lane = LaneId(Partition(topic, partition), key, offset if key is None else -1)
            # What was behind one that is gone is due.
            found[lane] = None if state == "dead-letter" else (_time(due) or LONG_AGO)
        return found

    def first(self, connection: sa.Connection, lane: LaneId) -> HeldRow | None:
        """The next of a key."""
        params = {
            "group": self._group,
            "topic": lane.partition.topic,
            "partition": lane.partition.number,
            "key": lane.key,
            "offset": None if lane.offset < 0 else lane.offset,
        }
        rows = fetch_query(connection, "held_next", params, self._names)
        if not rows:
            return None
        row_id, offset, key, payload, headers, stamp, state, attempts, first_failed, due = rows[0]
        pairs, _ = load(headers)
        record = ReceivedRecord(
            lane.partition,
            offset,
            None if key is None else bytes(key),
            None if payload is None else bytes(payload),
            pairs,
            _time(stamp) or LONG_AGO,
        )
        return HeldRow(row_id, Delivery.of(record), state, attempts, _time(first_failed), _time(due))

    def begin(self, connection: sa.Connection, row: HeldRow, attempt: int) -> bool:
        """Count an attempt, before it begins; False where the row is gone."""
        return run_query(connection, "held_begin", {"id": row.id, "attempt": attempt}, self._names) == 1

    def failed(
        self,
        connection: sa.Connection,
        row: HeldRow,
        *,
        attempts: int,
        error: str | None,
        handler: str,
        first_failed_at: datetime | None,
        next_attempt_at: datetime | None,
        state: State = "retry",
    ) -> None:
        """It stays, for later."""
        params = {
            "id": row.id,
            "state": state,
            "attempts": attempts,
            "error": _text(error),
            "handler": handler,
            "first_failed_at": self._moment(connection, first_failed_at),
            "next_attempt_at": self._moment(connection, next_attempt_at),
        }
        run_query(connection, "held_failed", params, self._names)

    def done(self, connection: sa.Connection, row_id: int) -> bool:
        """It waits no more; False where it was gone already."""
        return run_query(connection, "held_done", {"id": row_id}, self._names) == 1

    def reopen(self, connection: sa.Connection, delivery: Delivery, handler: str) -> bool:
        """Put a replay where the dead letter is that its key waits for; False where none does, or not for this one.

        A replay that was edited has an id of its own, and tells which message it replaces. One with another topic or
        key replaces nothing here.
        """
        record = delivery.record
        params: dict[str, Any] = {
            "group": self._group,
            "topic": delivery.topic,
            "key": record.key,
            "message_id": delivery.message_id,
            "replaces": delivery.replaces,
        }
        rows = fetch_query(connection, "held_dead_letter", params, self._names)
        if not rows or replay_count(load(rows[0][2])[0]) >= delivery.replays:
            return False  # a replay that died already, delivered again
        row_id, died_as, _ = rows[0]
        params = {
            "id": row_id,
            "message_id": delivery.message_id if delivery.has_id else died_as,
            "payload": record.value,
            "headers": dump_pairs(_storable(record)),
            "timestamp": self._moment(connection, record.timestamp),
            "type": delivery.type_or_unknown(),
            "handler": handler,
        }
        return run_query(connection, "held_reopen", params, self._names) == 1

    @staticmethod
    def _moment(connection: sa.Connection, moment: datetime | None) -> Any:
        if moment is None or connection.dialect.name != "sqlite":
            return moment
        return timestamp(moment)


def _time(value: Any) -> datetime | None:
    return parse_timestamp(value) if isinstance(value, str) else value


def _text(error: str | None) -> str | None:
    return None if error is None else error[:MAX_ERROR].replace("\x00", "�")


def _storable(record: ReceivedRecord) -> list[tuple[str, bytes]]:
    return [(name.replace("\x00", "�"), value) for name, value in record.headers]  # jsonb knows no U+0000
