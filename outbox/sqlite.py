"""The log on SQLite: for development, tests and programs on one machine.

SQLite lets one transaction write at a time, so positions are in the order of commits, and the cursor is
simply the last position settled. There is one shard.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ..messaging.envelope import timestamp
from ..messaging.errors import Fenced
from .audit import Action, inbox_action, limits
from .database import translated
from .entry import Entry, LogRow
from .log import (
    Backlog,
    Batch,
    Claim,
    Control,
    Forgotten,
    Holds,
    LogReader,
    OpenTransaction,
    ParkedRow,
    Part,
    Refusal,
    Report,
    within,
)
from .names import Names, queries
from .schema import open_sqlite
from .write import sqlite_params

_INBOX_ROWS = 10_000


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

    def claim(self, report: Report | None = None) -> Claim:
        report = report or Report()
        params = {"owner": self._owner, "lease": self._lease, "now": time.time(), **asdict(report)}
        with self._database.transaction() as connection:
            connection.execute(self._sql["report"], params)
            connection.execute(self._sql["forget_relays"], params)
            row = connection.execute(self._sql["claim"], params).fetchone()
            [others] = connection.execute(self._sql["others"], params).fetchone()
            control = Control.of(connection.execute(self._sql["control"]))
        if row is None:
            self._epoch = None
            return Claim(frozenset(), 0, others, 0.0, control)
        if row[0] != self._epoch:
            self._epoch, self._position = row
        return Claim(frozenset({0}), 0 if report.able or not others else 1, others, 1.0, control)

    def holds(self) -> Holds:
        with self._database.transaction() as connection:
            topics = frozenset(row[0] for row in connection.execute(self._sql["held_topics"]))
            keys = frozenset(key for key in connection.execute(self._sql["held_keys"]) if key[0] not in topics)
        return Holds(keys, topics)

    def read(self, limit: int) -> Batch:
        if self._epoch is None:
            return Batch([])
        with self._database.transaction() as connection:
            cursor = connection.execute(self._sql["page"], {"after": self._position, "limit": limit})
            found = within(map(_row, cursor))
        if not found:
            return Batch([])
        self._position = found[-1].position
        return Batch(found, (self._epoch, self._position))

    def settle(self, batches: Sequence[Batch], refusals: Sequence[Refusal] = ()) -> None:
        with self._database.transaction() as connection:
            for refusal in refusals:
                params = {**refusal.row._asdict(), "error": refusal.error, "by_topic": refusal.by_topic}
                params["created_at"] = timestamp(refusal.row.created_at)
                connection.execute(self._sql["park"], params)
            for batch in batches:
                if batch.moves is None:
                    continue
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

    def rewind(self) -> None:
        self._epoch = None

    def checkpoint(self, refusals: Sequence[Refusal] = ()) -> None:
        if refusals:  # the cursor is a position, and always up to date
            self.settle([Batch([], (self._epoch, self._position))], refusals)

    def release(self, shards: Sequence[int] | None = None) -> None:
        if shards is not None and 0 not in shards:
            return
        self._epoch = None
        try:
            with self._database.transaction() as connection:
                connection.execute(self._sql["release"], {"owner": self._owner})
                if shards is None:
                    connection.execute(self._sql["sign_off"], {"owner": self._owner})
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

    def append(self, entries: Sequence[Entry], action: Action | None = None) -> int:
        with self._database.transaction() as connection:
            for entry in entries:
                query = "append" if entry.due_at is None else "schedule"
                connection.execute(self._sql[query], sqlite_params(entry))
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

    def waker(self) -> None:
        """SQLite tells nobody of a commit."""

    def releasable(self, shards: frozenset[int], limit: int = 1000) -> Sequence[ParkedRow]:
        return self._parked("releasable", {"limit": limit}) if 0 in shards else []

    def request_retry(self, positions: Sequence[int], actor: str = "", reason: str | None = None) -> int:
        return self._each("retry_parked", positions, Action(actor, "retry", messages=1, reason=reason))

    def discard(self, positions: Sequence[int], actor: str = "", reason: str | None = None) -> int:
        return self._each("discard_parked", positions, Action(actor, "discard", messages=1, reason=reason))

    def unpark(self, positions: Sequence[int]) -> None:
        with self._database.transaction() as connection:
            connection.executemany(self._sql["delete_parked"], [{"position": position} for position in positions])

    def move_due(self, limit: int = 1000, *, now: datetime | None = None) -> int:
        due = {"now": timestamp(now or datetime.now(UTC)), "limit": limit}
        with self._database.transaction() as connection:
            rows = connection.execute(self._sql["due"], due).fetchall()
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

    def prune(self, keep: timedelta, *, dry_run: bool = False, actor: str | None = None) -> Sequence[str]:
        before = {"before": stored_moment(datetime.now(UTC) - keep)}
        with self._database.transaction() as connection:
            [count, *_] = connection.execute(self._sql["prunable"], before).fetchone()
            if count and not dry_run:
                connection.execute(self._sql["prune"], before)
                if actor is not None:
                    self._note(connection, Action(actor, "prune", messages=count, reason=f"older than {keep}"))
        return [f"{count} rows"] if count else []

    def parts(self, keep: timedelta) -> Sequence[Part]:
        before = {"before": stored_moment(datetime.now(UTC) - keep)}
        with self._database.transaction() as connection:
            row = connection.execute(self._sql["prunable"], before).fetchone()
        count, newest, young, unsettled = row
        gone = [Part(f"{count} rows", None, datetime.fromisoformat(newest))] if count else []
        why = "young" if young else "unsettled"
        return [*gone, *([Part(f"{young or unsettled} rows", why)] if young or unsettled else [])]

    def add_inbox_partitions(self) -> None:
        """SQLite has none."""

    def prune_inbox(self, keep: timedelta, *, dry_run: bool = False, actor: str | None = None) -> Sequence[Forgotten]:
        before = {"before": stored_moment(datetime.now(UTC) - keep), "limit": _INBOX_ROWS}
        with self._database.transaction() as connection:
            if dry_run:
                [count] = connection.execute(self._sql["prunable_inbox"], before).fetchone()
            else:
                count = connection.execute(self._sql["prune_inbox"], before).rowcount
            if count and actor is not None and not dry_run:
                told = f"{count} rows, older than {keep}"
                connection.execute(self._sql["note_inbox"], inbox_action(actor, "prune", reason=told))
        return [Forgotten("rows", count, count >= _INBOX_ROWS)] if count else []

    def open_transactions(self, older_than: float) -> Sequence[OpenTransaction]:
        """A writer keeps all others out; there is nothing that could wait unseen."""
        del older_than
        return []

    def control(self) -> Control:
        with self._database.transaction() as connection:
            return Control.of(connection.execute(self._sql["control"]))

    def pause(self, topic: str | None, reason: str, actor: str) -> bool:
        params = {"topic": topic or "", "reason": reason, "actor": actor}
        return self._changed("pause", params, Action(actor, "pause", topic, reason=reason))

    def resume(self, topic: str | None, actor: str) -> bool:
        return self._changed("resume", {"topic": topic or ""}, Action(actor, "resume", topic), revise=True)

    def limit(self, rate: float | None, batch_size: int | None, actor: str) -> bool:
        params = {"rate": rate, "batch_size": batch_size, "actor": actor}
        return self._changed("limit", params, Action(actor, "limit", reason=limits(rate, batch_size)))

    def backlog(self) -> Backlog:
        with self._database.transaction() as connection:
            count, age, exact = connection.execute(self._sql["backlog"]).fetchone()
        return Backlog(count, max(0.0, age), bool(exact))

    def close(self) -> None:
        self._database.close()

    def _parked(self, query: str, params: dict[str, Any]) -> list[ParkedRow]:
        with self._database.transaction() as connection:
            rows = connection.execute(self._sql[query], params).fetchall()
        return [
            ParkedRow(_row(row[:9]), row[9], datetime.fromisoformat(row[10]), bool(row[11]), bool(row[12]))
            for row in rows
        ]

    def _each(self, query: str, positions: Sequence[int], action: Action) -> int:
        changed = 0
        with self._database.transaction() as connection:
            connection.execute(self._sql["revise"])
            for position in positions:
                row = connection.execute(self._sql[query], {"position": position}).fetchone()
                if row is not None:
                    topic, position_, id_ = row
                    self._note(connection, replace(action, topic=topic, position=position_, message_id=id_))
                    changed += 1
        return changed

    def _changed(self, query: str, params: dict[str, Any], action: Action, *, revise: bool = False) -> bool:
        with self._database.transaction() as connection:
            if revise:
                connection.execute(self._sql["revise"])
            changed = connection.execute(self._sql[query], params).rowcount > 0
            if changed:
                self._note(connection, action)
        return changed

    def _note(self, connection: sqlite3.Connection, action: Action) -> int:
        if action.id:
            connection.execute(self._sql["note_progress"], action.params())
            return action.id
        [id_] = connection.execute(self._sql["note"], action.params()).fetchone()
        return int(id_)


def stored_moment(moment: datetime) -> str:
    """As SQLite writes it, so that the texts compare."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _row(row: tuple[Any, ...]) -> LogRow:
    return LogRow._make((*row[:8], datetime.fromisoformat(row[8])))
