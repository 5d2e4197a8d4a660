"""The log as it is retained, for those who look at it: by filter, by position, by id; and what operators did."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from .audit import Action
from .database import parse_url, translated
from .entry import LogRow
from .log import BATCH_BYTES
from .names import Names, queries
from .sqlite import stored_moment

State = Literal["waiting", "settled", "parked", "discarded"]
_PAGE = 500
#: Positions looked at in one statement: by index, fewer or more; where little is found, a partition from end to end.
_NARROW, _WIDE = 1_024, 65_536
PARTITION_SIZE = 1_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which messages; None is any. ``until`` is exclusive. ``copies``: those, too, that a replay made."""

    topic: str | None = None
    key: bytes | None = None
    type: str | None = None
    id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    state: State | None = None
    copies: bool = True


class Found(NamedTuple):
    """A row, the size of its payload (None for a tombstone), and its state.

    ``settled``: the cursor went past it, so Kafka has it. ``discarded``: refused by Kafka, and then by an operator.
    """

    row: LogRow
    size: int | None
    state: State


class Page(NamedTuple):
    """What a look found, and the position up to which (or, newest first, down to which) all was looked at."""

    found: list[Found]
    reached: int


class Scheduled(NamedTuple):
    """A delayed message. Its row has no shard and no position yet: both are 0."""

    row: LogRow
    due_at: datetime


class Archive:
    """Reads the log of one database. For one thread.

    Every method raises SchemaMissing, DatabaseUnavailable, NotAuthorized, ConfigurationError.
    """

    def __init__(self, url: str, names: Names | None = None) -> None:
        parsed = parse_url(url)
        self._sqlite = parsed.drivername == "sqlite"
        # Not prepared: the plan depends on which filters there are.
        libpq = {"connect_timeout": 5, "application_name": "postroom", "prepare_threshold": None}
        self._engine = sa.create_engine(parsed, pool_size=1, connect_args={} if self._sqlite else libpq)
        self._sql = queries(names or Names(), "sqlite" if self._sqlite else "postgres")

    def head(self) -> int:
        """The last position that was taken; 0 in an empty log."""
        with self._transaction() as connection:
            return int(connection.exec_driver_sql(self._sql["head"]).scalar_one())

    def pages(
        self, wanted: Wanted, *, after: int = 0, upto: int, newest: bool = False, payloads: bool = False
    ) -> Iterator[Page]:
        """What is wanted at positions over ``after`` and not over ``upto``, in order; in short statements.

        Without ``payloads`` they are None.
        """
        low, high, window = max(after, 0), upto, _NARROW
        limit = _PAGE // 5 if payloads else _PAGE
        while low < high:
            whole = window > _WIDE and wanted.key is None
            if whole:  # exactly one partition
                edge = (high if newest else low + 1) // PARTITION_SIZE * PARTITION_SIZE
                first, last = (max(low, edge - 1), high) if newest else (low, min(high, edge + PARTITION_SIZE - 1))
            else:
                first, last = (max(low, high - window), high) if newest else (low, min(high, low + window))
            found = self._look(wanted, (first, last), limit, newest=newest, payloads=payloads, whole=whole)
            if len(found) < limit:
                low, high = (low, first) if newest else (last, high)
                window = min(window * 4, PARTITION_SIZE) if len(found) < limit // 4 else window
            else:
                edge = found[-1].row.position
                low, high = (low, edge - 1) if newest else (edge, high)
                window = _NARROW
            if found and payloads:
                average = sum(each.size or 0 for each in found) // len(found)
                limit = min(max(BATCH_BYTES // max(average, 1), 10), _PAGE)
            yield Page(found, high if newest else low)

    def scan(self, wanted: Wanted, *, after: int = 0, upto: int, newest: bool = False) -> Iterator[Found]:
        """Likewise one by one, without payloads."""
        for page in self.pages(wanted, after=after, upto=upto, newest=newest):
            yield from page.found

    def count(self, wanted: Wanted, *, after: int = 0, upto: int) -> Iterator[tuple[Counter[str], int]]:
        """How many there are by topic, part by part; with each part the position up to which it was counted."""
        low = max(after, 0)
        query = self._sql["count_browsed"].replace("@", self._sql["browse"].rpartition("ORDER BY")[0])
        while low < upto:
            last = min(upto, (low + 1) // PARTITION_SIZE * PARTITION_SIZE + PARTITION_SIZE - 1)
            params = self._params(wanted, (low, last), payloads=False)
            with self._transaction() as connection:
                if not self._sqlite:
                    connection.exec_driver_sql(self._sql["scan_whole"])
                rows = connection.exec_driver_sql(query, params).fetchall()
            low = last
            yield Counter({topic: int(count) for topic, count in rows}), low

    def at(self, position: int) -> Found | None:
        """The whole message at a position."""
        found = self._look(Wanted(), (position - 1, position), 1, newest=False, payloads=True, whole=False)
        return found[0] if found else None

    def scheduled(self, message_id: str) -> Scheduled | None:
        """The delayed message of this id."""
        with self._transaction() as connection:
            row = connection.exec_driver_sql(self._sql["scheduled"], {"id": message_id}).fetchone()
        if row is None:
            return None
        *parts, created_at, due_at = row
        return Scheduled(LogRow._make((0, 0, *parts, moment_of(created_at))), moment_of(due_at))

    def actions(
        self, limit: int = 50, *, action: str | None = None, topic: str | None = None, position: int | None = None
    ) -> list[Action]:
        """What operators did, the latest first."""
        params = {"limit": limit, "action": action, "topic": topic, "position": position}
        with self._transaction() as connection:
            rows = connection.exec_driver_sql(self._sql["outbox_actions"], params).fetchall()
        return [replace(Action(*row[2:]), id=row[0], at=moment_of(row[1])) for row in rows]

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def _look(
        self, wanted: Wanted, between: tuple[int, int], limit: int, *, newest: bool, payloads: bool, whole: bool
    ) -> list[Found]:
        query = self._sql["browse"].replace("#", "DESC" if newest else "ASC")
        params = {**self._params(wanted, between, payloads=payloads), "limit": limit}
        with self._transaction() as connection:
            if not self._sqlite:
                connection.exec_driver_sql(self._sql["scan_whole" if whole else "plan"])
            rows = connection.exec_driver_sql(query, params).fetchall()
        return [Found(LogRow._make((*row[:8], moment_of(row[8]))), row[9], row[10]) for row in rows]

    def _params(self, wanted: Wanted, between: tuple[int, int], *, payloads: bool) -> dict[str, Any]:
        params: dict[str, Any] = {name: getattr(wanted, name) for name in Wanted.__slots__}
        if self._sqlite:
            params |= {name: params[name] and stored_moment(params[name]) for name in ("since", "until")}
        return {**params, "after": between[0], "upto": between[1], "payloads": payloads}

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with translated(), self._engine.begin() as connection:
            yield connection


def moment_of(value: datetime | str) -> datetime:
    """A time as the database gives it; SQLite has it as a text."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value
