"""The log on SQLite: for development, tests and programs on one machine.

SQLite lets one transaction write at a time, so positions are in the order of commits, and the cursor is
simply the last position settled. There is one shard.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from ..messaging.envelope import timestamp
from ..messaging.errors import Fenced
from .database import translated
from .entry import Entry, LogRow
from .log import Batch, LogReader, ParkedRow, Refusal
from .names import Names, queries
from .schema import open_sqlite
from .write import sqlite_params


class _Database:
    """A connection that is made when needed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One writing transaction."""
        with translated():
            if self._connection is None:
                self._connection = open_sqlite(self._path)
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class SqliteReader:
    """See ``log.LogReader``."""

    def __init__(self, path: str, names: Names, owner: str, lease: float) -> None:
        self._database = _Database(path)
        self._sql = queries(names, "sqlite")
        self._owner = owner
        self._lease = lease
        self._epoch: int | None = None
        self._position = 0

    def claim(self) -> frozenset[int]:
        params = {"owner": self._owner, "lease": self._lease, "now": time.time()}
        with self._database.transaction() as connection:
            row = connection.execute(self._sql["claim"], params).fetchone()
        if row is None:
            self._epoch = None
            return frozenset()
        self._epoch, self._position = row
        return frozenset({0})

    def read(self, limit: int) -> Batch:
        if self._epoch is None and not self.claim():
            return Batch([])
        with self._database.transaction() as connection:
            rows = connection.execute(self._sql["page"], {"after": self._position, "limit": limit}).fetchall()
        found = [_row(row) for row in rows]
        return Batch(found, (self._epoch, found[-1].position)) if found else Batch([])

    def settle(self, batch: Batch, refusals: Sequence[Refusal] = ()) -> None:
        with self._database.transaction() as connection:
            for refusal in refusals:
                params = {**refusal.row._asdict(), "error": refusal.error}
                params["created_at"] = timestamp(refusal.row.created_at)
                connection.execute(self._sql["park"], params)
            if batch.moves is None:
                return
            epoch, position = batch.moves
            moved = {
                "owner": self._owner,
                "epoch": epoch,
                "position": position,
                "lease": self._lease,
                "now": time.time(),
            }
            if connection.execute(self._sql["settle"], moved).rowcount == 0:
                raise Fenced("The log went to another relay; the batch was not settled.")
        self._position = position

    def release(self) -> None:
        self._epoch = None
        try:
            with self._database.transaction() as connection:
                connection.execute(self._sql["release"], {"owner": self._owner})
        except Exception:  # noqa: BLE001  the lease expires by itself
            self._database.close()

    def close(self) -> None:
        self._database.close()


class SqliteLog:
    """See ``log.LogStore``."""

    def __init__(self, path: str, names: Names) -> None:
        self._path = path
        self._names = names
        self._database = _Database(path)
        self._sql = queries(names, "sqlite")

    def reader(self, owner: str, lease: float) -> LogReader:
        return SqliteReader(self._path, self._names, owner, lease)

    def append(self, entries: Sequence[Entry]) -> None:
        with self._database.transaction() as connection:
            for entry in entries:
                query = "append" if entry.due_at is None else "schedule"
                connection.execute(self._sql[query], sqlite_params(entry))

    def parked(self, limit: int = 1000) -> Sequence[ParkedRow]:
        return self._parked("parked", limit)

    def releasable(self, limit: int = 1000) -> Sequence[ParkedRow]:
        return self._parked("releasable", limit)

    def held_keys(self) -> frozenset[tuple[str, bytes]]:
        with self._database.transaction() as connection:
            return frozenset(connection.execute(self._sql["held_keys"]).fetchall())

    def request_retry(self, positions: Sequence[int]) -> int:
        return self._each("retry_parked", positions)

    def discard(self, positions: Sequence[int]) -> int:
        return self._each("delete_parked", positions)

    def move_due(self, limit: int = 1000) -> int:
        with self._database.transaction() as connection:
            rows = connection.execute(
                self._sql["due"], {"now": timestamp(datetime.now(UTC)), "limit": limit}
            ).fetchall()
            for id_, topic, key, type_, payload, headers in rows:
                params = {
                    "id": id_,
                    "topic": topic,
                    "key": key,
                    "type": type_,
                    "payload": payload,
                    "headers": headers,
                }
                connection.execute(self._sql["append"], params)
                connection.execute(self._sql["delete_scheduled"], {"id": id_})
        return len(rows)

    def add_partitions(self) -> None:
        """SQLite has none."""

    def backlog(self) -> tuple[int, float]:
        with self._database.transaction() as connection:
            count, age = connection.execute(self._sql["backlog"]).fetchone()
        return count, max(0.0, age)

    def close(self) -> None:
        self._database.close()

    def _parked(self, query: str, limit: int) -> list[ParkedRow]:
        with self._database.transaction() as connection:
            rows = connection.execute(self._sql[query], {"limit": limit}).fetchall()
        return [ParkedRow(_row(row[:9]), row[9], datetime.fromisoformat(row[10]), bool(row[11])) for row in rows]

    def _each(self, query: str, positions: Sequence[int]) -> int:
        with self._database.transaction() as connection:
            return sum(connection.execute(self._sql[query], {"position": each}).rowcount for each in positions)


def _row(row: tuple[Any, ...]) -> LogRow:
    return LogRow._make((*row[:8], datetime.fromisoformat(row[8])))
