"""Numbers about the tables, for the commands that print them. Each call is one short transaction."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, overload

import sqlalchemy as sa

from ..outbox.database import parse_url, translated
from ..outbox.names import Names, queries


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard's cursor. ``lease_seconds`` is what is left; below 0 the lease is over. None: never."""

    shard: int
    owner: str | None
    epoch: int
    lease_seconds: float | None
    settled_seconds_ago: float | None


@dataclass(frozen=True, slots=True)
class Instance:
    """A relay, as it told last. ``alive_seconds``: for how long its word counts; below 0 it is gone."""

    owner: str
    up_seconds: float
    seen_seconds_ago: float
    alive_seconds: float
    able: bool
    state: str
    detail: str
    published: int
    rate: float


@dataclass(frozen=True, slots=True)
class Controls:
    """What operators asked for, and who did; ``topic`` is empty for all topics."""

    topic: str
    paused: str | None
    paused_at: datetime | None
    paused_by: str | None
    rate: float | None
    batch_size: int | None
    limited_at: datetime | None
    limited_by: str | None


@dataclass(frozen=True, slots=True)
class Parked:
    """Parked messages of a topic: refused, waiting behind those of their key, to be retried, and for the topic."""

    topic: str
    refused: int
    waiting: int
    retrying: int
    waiting_for_topic: int


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Delayed messages."""

    count: int
    next_in_seconds: float | None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Messages that a group closed."""

    group: str
    topic: str
    outcome: str
    count: int
    last_seconds_ago: float


@dataclass(frozen=True, slots=True)
class Held:
    """Held messages of a group, a topic and a state; since when the oldest is."""

    group: str
    topic: str
    state: str
    count: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True)
class Dead:
    """Dead letters of a group and a state, or a fingerprint. ``group`` is empty where it is unknown."""

    group: str
    label: str
    count: int


class Statistics:
    """Raises DatabaseUnavailable, SchemaMissing, ConfigurationError, NotAuthorized.

    ``patience``: a query is given up after so many seconds, on PostgreSQL.
    """

    def __init__(self, url: str, names: Names, *, patience: float | None = None) -> None:
        parsed = parse_url(url)
        dialect = "sqlite" if parsed.drivername == "sqlite" else "postgres"
        connect_args = {} if dialect == "sqlite" else {"connect_timeout": 5, "application_name": "postroom"}
        self._engine = sa.create_engine(parsed, poolclass=sa.NullPool, connect_args=connect_args)
        self._sql = queries(names, dialect)
        limited = patience if dialect == "postgres" else None
        self._limit = f"SET LOCAL statement_timeout = {int(limited * 1000)}" if limited else None

    def shards(self) -> list[Shard]:
        """Who owns what."""
        return [Shard(*row) for row in self._rows("relay_status")]

    def instances(self) -> list[Instance]:
        """The relays that were heard of in the last minutes."""
        rows = self._rows("relay_instances")
        return [replace(Instance(*row), able=bool(row[4])) for row in rows]

    def controls(self) -> list[Controls]:
        """Of all topics first, then of each that is paused."""
        rows = self._rows("relay_controls")
        found = [Controls(*row) for row in rows]
        return [replace(c, paused_at=_moment(c.paused_at), limited_at=_moment(c.limited_at)) for c in found]

    def unsettled(self) -> tuple[int, int]:
        """Rows that a reset of the cursor would publish, and all rows. PostgreSQL only."""
        [(unsettled, retained)] = self._rows("unsettled_rows")
        return unsettled, retained

    def parked(self) -> list[Parked]:
        """By topic."""
        return [Parked(*row) for row in self._rows("parked_stats")]

    def scheduled(self) -> Scheduled:
        """All of them."""
        [row] = self._rows("scheduled_stats")
        return Scheduled(*row)

    def inbox(self) -> list[Outcomes]:
        """By group, topic and outcome."""
        return [Outcomes(*row) for row in self._rows("inbox_stats")]

    def held(self) -> list[Held]:
        """By group, topic and state."""
        rows = self._rows("desk_held_stats")
        return [Held(group, topic, state, count, _moment(at)) for group, topic, state, count, at, _ in rows]

    def dead_letters(self) -> list[Dead]:
        """By group and state, as the ledger knows them."""
        return [Dead(*row) for row in self._rows("dead_letter_stats")]

    def fingerprints(self, top: int) -> list[Dead]:
        """Those that are to be looked after by group and fingerprint: the ``top`` ones, and the rest without a name."""
        return [Dead(*row) for row in self._rows("dead_letter_fingerprints", {"top": top})]

    def ledger_age(self) -> float | None:
        """Seconds since the ledger was brought up to date; None: never."""
        [(age,)] = self._rows("dead_letter_age")
        return age if age is None else float(age)

    def oldest_transaction(self) -> float:
        """For how many seconds the oldest transaction of the database holds vacuum back; 0 where there is none."""
        [(age,)] = self._rows("oldest_transaction")
        return float(age)

    def log_bytes(self) -> int:
        """What the log takes, with its indexes; on SQLite the whole file."""
        [(size,)] = self._rows("log_size")
        return int(size)

    def answer(self, sql: str, params: dict[str, Any] | None = None) -> list[Any]:
        """The rows of any other query, in the driver's parameters."""
        with translated(), self._engine.connect() as connection:
            if self._limit is not None:
                connection.exec_driver_sql(self._limit)
            return [tuple(row) for row in connection.exec_driver_sql(sql, params)]

    def _rows(self, query: str, params: dict[str, Any] | None = None) -> list[Any]:
        return self.answer(self._sql[query], params)


@overload
def _moment(value: datetime | str) -> datetime: ...
@overload
def _moment(value: None) -> None: ...
def _moment(value: datetime | str | None) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else value
