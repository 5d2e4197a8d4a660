"""The log's tables on PostgreSQL, as operators and the relay's upkeep use them. Reading: ``postgres_reader``."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from ..messaging.errors import DatabaseUnavailable
from .audit import Action, inbox_action, limits
from .connection import Connector
from .entry import Entry, LogRow
from .log import BATCH_BYTES, Backlog, Control, Forgotten, LogReader, OpenTransaction, ParkedRow, Part, Waker
from .names import Names, queries
from .postgres_reader import PostgresReader
from .write import write_psycopg

PARTITION_SIZE = 1_000_000
PARTITIONS_AHEAD = 4
INBOX_DAYS_AHEAD = 7
_PATIENCE = 60.0
#: So many messages of each shard are counted; see the query `backlog`.
_COUNTED = 10_000
_ALL_PARTS = 1_000_000
#: So many rows the function deletes at once.
_INBOX_ROWS = 10_000


class PostgresLog:
    """See ``log.LogStore``."""

    def __init__(self, conninfo: str, names: Names) -> None:
        self._conninfo = conninfo
        self._names = names
        self._database = Connector(conninfo, "postroom", _PATIENCE)
        self._sql = queries(names, "postgres")

    def reader(self, owner: str, lease: float) -> LogReader:
        # What a relay does here besides is done on the thread that keeps its leases: longer would cost them.
        self._database.patience = min(self._database.patience, lease)
        return PostgresReader(self._conninfo, self._names, owner, lease)

    def waker(self) -> Waker:
        return PostgresWaker(self._conninfo, f"{self._names.schema}_{self._names.tables.get('outbox', 'outbox')}")

    def append(self, entries: Sequence[Entry], action: Action | None = None) -> int:
        with self._database.transaction() as connection:
            write_psycopg(connection, entries, self._names)
            return self._note(connection, action) if action is not None else 0

    def parked(
        self,
        limit: int = 1000,
        *,
        after: int = 0,
        topic: str | None = None,
        key: bytes | None = None,
        refused: bool | None = None,
    ) -> Sequence[ParkedRow]:
        params = {"limit": limit, "after": after, "topic": topic, "key": key, "refused": refused}
        return self._parked("parked", params)

    def releasable(self, shards: frozenset[int], limit: int = 1000) -> Sequence[ParkedRow]:
        return self._parked("releasable", {"shards": sorted(shards), "limit": limit, "bytes": BATCH_BYTES})

    def request_retry(self, positions: Sequence[int], actor: str = "", reason: str | None = None) -> int:
        params = {"positions": list(positions), "actor": actor, "reason": reason}
        return self._changed("retry_parked", params, revise=True)

    def discard(self, positions: Sequence[int], actor: str = "", reason: str | None = None) -> int:
        params = {"positions": list(positions), "actor": actor, "reason": reason}
        return self._changed("discard_parked", params, revise=True)

    def unpark(self, positions: Sequence[int]) -> None:
        self._changed("delete_parked", {"positions": list(positions)})

    def move_due(self, limit: int = 1000, *, now: datetime | None = None) -> int:
        return self._changed("move_due", {"limit": limit, "now": now})

    def add_partitions(self) -> None:
        self._changed("add_partitions", {"ahead": PARTITIONS_AHEAD, "size": PARTITION_SIZE})

    def prune(self, keep: timedelta, *, dry_run: bool = False, actor: str | None = None) -> Sequence[str]:
        if dry_run:
            return [part.name for part in self.parts(keep) if part.why is None]
        dropped: list[str] = []
        while True:  # one by one: a drop holds up everyone who publishes until its transaction ends
            with self._database.transaction() as connection:
                parts = self._parts(connection, keep, dry=False, most=1)
                if not parts or parts[0].why is not None:
                    return dropped
                if actor is not None:
                    self._note(connection, Action(actor, "prune", reason=f"{parts[0].name}, older than {keep}"))
            dropped.append(parts[0].name)

    def parts(self, keep: timedelta) -> Sequence[Part]:
        with self._database.transaction() as connection:
            return self._parts(connection, keep, dry=True, most=_ALL_PARTS)

    def add_inbox_partitions(self) -> None:
        self._changed("add_inbox_partitions", {"ahead": INBOX_DAYS_AHEAD})

    def prune_inbox(self, keep: timedelta, *, dry_run: bool = False, actor: str | None = None) -> Sequence[Forgotten]:
        rest = f"{self._names.tables.get('inbox', 'inbox')}_other"
        forgotten: list[Forgotten] = []
        while True:  # day by day: a drop holds up everyone who consumes until its transaction ends
            with self._database.transaction() as connection:
                connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
                rows = connection.execute(self._sql["prune_inbox"], {"keep": keep, "dry": dry_run}).fetchall()
                for part, messages in rows:
                    forgotten.append(Forgotten(part, messages, part == rest and messages >= _INBOX_ROWS))
                    if actor is not None and not dry_run:
                        told = (
                            f"{part}, {messages} rows, older than {keep}"
                            if part == rest
                            else f"{part}, older than {keep}"
                        )
                        connection.execute(self._sql["note_inbox"], inbox_action(actor, "prune", reason=told))
            if dry_run or not rows or rows[-1][0] == rest:
                return forgotten

    def backlog(self) -> Backlog:
        with self._database.transaction() as connection:
            connection.execute(self._sql["plan"])
            row = connection.execute(self._sql["backlog"], {"most": _COUNTED}).fetchone()
        return Backlog(*row) if row else Backlog(0, 0.0)

    def open_transactions(self, older_than: float) -> Sequence[OpenTransaction]:
        with self._database.transaction() as connection:
            rows = connection.execute(self._sql["open_transactions"], {"age": older_than}).fetchall()
        return [OpenTransaction(*row) for row in rows]

    def control(self) -> Control:
        with self._database.transaction() as connection:
            return Control.of(connection.execute(self._sql["control"]).fetchall())

    def pause(self, topic: str | None, reason: str, actor: str) -> bool:
        return self._changed("pause", {"topic": topic or "", "reason": reason, "actor": actor}) > 0

    def resume(self, topic: str | None, actor: str) -> bool:
        return self._changed("resume", {"topic": topic or "", "actor": actor}, revise=True) > 0

    def limit(self, rate: float | None, batch_size: int | None, actor: str) -> bool:
        params = {"rate": rate, "batch_size": batch_size, "actor": actor, "told": limits(rate, batch_size)}
        return self._changed("limit", params) > 0

    def notifies(self) -> bool:
        """Whether commits tell listening relays."""
        with self._database.transaction() as connection:
            return self._notifies(connection)

    def notify(self, actor: str, *, on: bool) -> bool:
        """Let commits tell listening relays, or not; False where that was so already.

        Waits up to 2 seconds for transactions that hold the log, and publishers wait meanwhile. Raises
        DatabaseUnavailable when one does not end.
        """
        try:
            with self._database.transaction() as connection:
                connection.execute("SET LOCAL lock_timeout = '2s'")
                if self._notifies(connection) == on:
                    return False
                connection.execute(self._sql["notify_on" if on else "notify_off"])
                self._note(connection, Action(actor, "notify", reason="on" if on else "off"))
                return True
        except DatabaseUnavailable as error:
            if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                raise
            held = [f"pid {each.pid}, {each.application or each.user}" for each in self.open_transactions(0)[:3]]
            told = f" ({'; '.join(held)})" if held else ""
            raise DatabaseUnavailable(
                f"Nothing was switched: an open transaction holds the log; try again when it has ended{told}."
            ) from error

    def reset_cursor(self) -> int:
        """After a restore into another cluster: make what was not settled the next batch; rows retained.

        Writes every row that is retained, however long that takes.
        """
        with self._database.transaction(patience=float("inf")) as connection:
            retained = connection.execute(self._sql["reset_cursor"]).rowcount
            connection.execute(self._sql["anchor_cursor"])
        return retained

    def close(self) -> None:
        self._database.close()

    def _notifies(self, connection: psycopg.Connection[Any]) -> bool:
        row = connection.execute(self._sql["notify_state"]).fetchone()
        return bool(row and row[0])

    def _parts(self, connection: psycopg.Connection[Any], keep: timedelta, *, dry: bool, most: int) -> list[Part]:
        # What the function looks at must include what was committed while it waited.
        connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        params = {"keep": keep, "dry": dry, "most": most}
        return [Part(*row) for row in connection.execute(self._sql["prune"], params)]

    def _note(self, connection: psycopg.Connection[Any], action: Action) -> int:
        if action.id:
            connection.execute(self._sql["note_progress"], action.params())
            return action.id
        row = connection.execute(self._sql["note"], action.params()).fetchone()
        return int(row[0]) if row else 0

    def _parked(self, query: str, params: dict[str, Any]) -> list[ParkedRow]:
        with self._database.transaction() as connection:
            rows = connection.execute(self._sql[query], params).fetchall()
        return [ParkedRow(LogRow._make(row[:9]), *row[9:]) for row in rows]

    def _changed(self, query: str, params: dict[str, Any], *, revise: bool = False) -> int:
        with self._database.transaction() as connection:
            changed = connection.execute(self._sql[query], params).rowcount
            if revise:
                connection.execute(self._sql["revise"])
            return changed


class PostgresWaker:
    """See ``log.Waker``: LISTEN on a connection of its own, which no pooler in transaction mode may stand before."""

    def __init__(self, conninfo: str, channel: str) -> None:
        self._conninfo = conninfo
        self._listen = sql.SQL("LISTEN {}").format(sql.Identifier(channel))
        self._connection: psycopg.Connection[Any] | None = None

    def wait(self, seconds: float) -> bool:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(
                    self._conninfo, autocommit=True, connect_timeout=5, application_name="postroom relay (listening)"
                )
                self._connection.execute(self._listen)
                return True  # what came before is found by the poll
            return any(True for _ in self._connection.notifies(timeout=seconds, stop_after=1))
        except psycopg.Error:
            self.close()
            time.sleep(seconds)  # the poll goes on at its own pace
            return False

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
