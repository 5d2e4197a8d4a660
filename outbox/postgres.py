"""The log on PostgreSQL: read by a snapshot cursor, ordered by position, settled by one UPDATE.

A transaction's rows are new to the cursor when the statement's snapshot sees them and the cursor's
snapshot does not: ``xid`` at or above its xmax, or among those then in progress. So a commit that comes
late is not missed, whatever its xid or its position, and a transaction left open holds nothing back.
``docs/explanation/snapshot-log.md`` tells the whole of it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import psycopg

from ..messaging.errors import ConfigurationError, Fenced
from .database import translated
from .entry import Entry, LogRow
from .log import Batch, LogReader, ParkedRow, Refusal
from .names import Names, queries

T = TypeVar("T")
PARTITION_SIZE = 1_000_000
PARTITIONS_AHEAD = 4
_CONNECT_TIMEOUT = 5


class _Database:
    """A connection that is made when needed, and anew after it broke."""

    def __init__(self, conninfo: str, application: str) -> None:
        self._conninfo = conninfo
        self._application = application
        self._connection: psycopg.Connection[Any] | None = None

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """One transaction. Raises DatabaseUnavailable and what else ``database.translated`` knows."""
        with translated():
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(
                    self._conninfo,
                    autocommit=True,
                    connect_timeout=_CONNECT_TIMEOUT,
                    application_name=self._application,
                    keepalives_idle=5,
                    keepalives_interval=2,
                    keepalives_count=3,
                    tcp_user_timeout=15_000,
                )
            try:
                with self._connection.transaction():
                    yield self._connection
            except psycopg.OperationalError:
                self.close()
                raise

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.closed

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass(frozen=True, slots=True)
class _Cursor:
    """A shard's row of the cursor table."""

    shard: int
    epoch: int
    snapshot: str
    upto: str | None
    page_position: int
    page_end: int


class PostgresReader:
    """See ``log.LogReader``."""

    def __init__(self, conninfo: str, names: Names, owner: str, lease: float) -> None:
        self._database = _Database(conninfo, f"postroom relay {owner}"[:63])
        self._sql = queries(names, "postgres")
        self._owner = owner
        self._lease = lease
        self._cursors: dict[int, _Cursor] = {}
        self._turn = 0

    def claim(self) -> frozenset[int]:
        with self._database.transaction() as connection:
            rows = connection.execute(self._sql["claim"], {"owner": self._owner, "lease": self._lease}).fetchall()
        for row in rows:
            if row[6] != row[7]:
                self._cursors.clear()
                raise ConfigurationError(
                    "The tables came from another PostgreSQL cluster (a restore or an upgrade), where transaction ids "
                    "differ; run `postroom relay reset-cursor` once, then start the relay again."
                )
        self._cursors = {row[0]: _Cursor(*row[:6]) for row in rows}
        return frozenset(self._cursors)

    def read(self, limit: int) -> Batch:
        if not self._database.connected or not self._cursors:
            self.claim()  # after a fail-over the cursors may have gone back in time
        paging = sorted(shard for shard, cursor in self._cursors.items() if cursor.upto is not None)
        if paging:
            self._turn += 1
            return self._page(self._cursors[paging[self._turn % len(paging)]], limit)
        return self._poll(limit)

    def settle(self, batch: Batch, refusals: Sequence[Refusal] = ()) -> None:
        moved: Sequence[_Cursor] = batch.moves or ()
        with self._database.transaction() as connection:
            for refusal in refusals:
                connection.execute(self._sql["park"], {**refusal.row._asdict(), "error": refusal.error})
            updated = connection.execute(
                self._sql["settle"],
                {
                    "owner": self._owner,
                    "lease": self._lease,
                    "shards": [cursor.shard for cursor in moved],
                    "epochs": [cursor.epoch for cursor in moved],
                    "snapshots": [cursor.snapshot if cursor.upto is None else None for cursor in moved],
                    "page_positions": [cursor.page_position for cursor in moved],
                },
            ).rowcount
            if updated < len(moved):
                raise Fenced(f"{len(moved) - updated} shards went to another relay; their batch was not settled.")
        self._cursors.update((cursor.shard, cursor) for cursor in moved)

    def release(self) -> None:
        self._cursors.clear()
        try:
            with self._database.transaction() as connection:
                connection.execute(self._sql["release"], {"owner": self._owner})
        except Exception:  # noqa: BLE001  the leases expire by themselves
            self._database.close()

    def close(self) -> None:
        self._database.close()

    def _poll(self, limit: int) -> Batch:
        """All shards in one statement, whatever their snapshots: afterwards they share one."""
        groups: dict[str, list[_Cursor]] = {}
        for cursor in self._cursors.values():
            groups.setdefault(cursor.snapshot, []).append(cursor)
        sql = [self._sql["poll_snapshot"]]
        params: dict[str, Any] = {"limit": limit + 1}
        for number, (snapshot, cursors) in enumerate(groups.items()):
            sql.append(self._sql["poll_new"].replace("#", str(number)))
            params[f"snapshot_{number}"] = snapshot
            params[f"shards_{number}"] = [cursor.shard for cursor in cursors]
        statement = " UNION ALL ".join(sql)
        (_, _, _, seen, *_), *found = self._planned(
            lambda connection: connection.execute(statement, params, binary=True).fetchall()
        )
        if len(found) > limit:
            frozen = [cursor for cursors in groups.values() for cursor in self._freeze(cursors)]
            return self._page(frozen[0], limit)
        moved = [replace(cursor, snapshot=seen) for cursor in self._cursors.values()]
        if not found:
            # Nothing to settle; the next poll asks for what this snapshot could not see.
            self._cursors = {cursor.shard: cursor for cursor in moved}
            return Batch([])
        return Batch(sorted(map(LogRow._make, found), key=lambda row: row.position), moved)

    def _freeze(self, cursors: Sequence[_Cursor]) -> Sequence[_Cursor]:
        """More than a batch: fix where the pages begin and end. ``cursors`` share a snapshot.

        The table's snapshot may be older than the one that empty polls moved on to in memory; between the
        two there were no rows, so another owner would page the same.
        """
        params = {
            "shards": [cursor.shard for cursor in cursors],
            "epochs": [cursor.epoch for cursor in cursors],
            "owner": self._owner,
            "snapshot": cursors[0].snapshot,
        }
        rows = self._planned(lambda connection: connection.execute(self._sql["freeze"], params).fetchall())
        if len(rows) < len(cursors):
            raise Fenced(f"{len(cursors) - len(rows)} shards went to another relay.")
        by_shard = {row[0]: row[1:] for row in rows}
        frozen = []
        for cursor in cursors:
            upto, page_position, page_end = by_shard[cursor.shard]
            frozen.append(replace(cursor, upto=upto, page_position=page_position, page_end=page_end))
            self._cursors[cursor.shard] = frozen[-1]
        return frozen

    def _page(self, cursor: _Cursor, limit: int) -> Batch:
        params = {
            "shard": cursor.shard,
            "after": cursor.page_position,
            "end": cursor.page_end,
            "upto": cursor.upto,
            "snapshot": cursor.snapshot,
            "limit": limit,
        }
        found = self._planned(lambda connection: connection.execute(self._sql["page"], params, binary=True).fetchall())
        rows = [LogRow._make(row) for row in found]
        if len(rows) == limit:
            return Batch(rows, [replace(cursor, page_position=rows[-1].position)])
        assert cursor.upto is not None  # noqa: S101  only a shard that is being paged comes here
        return Batch(rows, [replace(cursor, snapshot=cursor.upto, upto=None, page_position=0)])

    def _planned(self, run: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Run in a transaction with the planner settings that the log's queries depend on."""
        with self._database.transaction() as connection:
            connection.execute(self._sql["plan"])
            return run(connection)


class PostgresLog:
    """See ``log.LogStore``."""

    def __init__(self, conninfo: str, names: Names) -> None:
        self._conninfo = conninfo
        self._names = names
        self._database = _Database(conninfo, "postroom")
        self._sql = queries(names, "postgres")

    def reader(self, owner: str, lease: float) -> LogReader:
        return PostgresReader(self._conninfo, self._names, owner, lease)

    def append(self, entries: Sequence[Entry]) -> None:
        from .write import write_psycopg  # noqa: PLC0415

        with self._database.transaction() as connection:
            write_psycopg(connection, entries, self._names)

    def parked(self, limit: int = 1000) -> Sequence[ParkedRow]:
        return self._parked("parked", limit)

    def releasable(self, limit: int = 1000) -> Sequence[ParkedRow]:
        return self._parked("releasable", limit)

    def held_keys(self) -> frozenset[tuple[str, bytes]]:
        with self._database.transaction() as connection:
            return frozenset(connection.execute(self._sql["held_keys"]).fetchall())

    def request_retry(self, positions: Sequence[int]) -> int:
        return self._changed("retry_parked", {"positions": list(positions)})

    def discard(self, positions: Sequence[int]) -> int:
        return self._changed("delete_parked", {"positions": list(positions)})

    def move_due(self, limit: int = 1000) -> int:
        return self._changed("move_due", {"limit": limit})

    def add_partitions(self) -> None:
        self._changed("add_partitions", {"ahead": PARTITIONS_AHEAD, "size": PARTITION_SIZE})

    def backlog(self) -> tuple[int, float]:
        with self._database.transaction() as connection:
            row = connection.execute(self._sql["backlog"]).fetchone()
        return row or (0, 0.0)

    def reset_cursor(self) -> int:
        """After a restore into another cluster: make what was not settled the next batch; rows retained."""
        with self._database.transaction() as connection:
            retained = connection.execute(self._sql["reset_cursor"]).rowcount
            connection.execute(self._sql["anchor_cursor"])
        return retained

    def close(self) -> None:
        self._database.close()

    def _parked(self, query: str, limit: int) -> list[ParkedRow]:
        with self._database.transaction() as connection:
            rows = connection.execute(self._sql[query], {"limit": limit}).fetchall()
        return [ParkedRow(LogRow._make(row[:9]), *row[9:]) for row in rows]

    def _changed(self, query: str, params: dict[str, Any]) -> int:
        with self._database.transaction() as connection:
            return connection.execute(self._sql[query], params).rowcount
