"""The relay's hold on the log in PostgreSQL: a snapshot cursor for each shard, owned by lease.

A transaction's rows are new to the cursor when the statement's snapshot sees them and the cursor's
snapshot does not: ``xid`` at or above its xmax, or among those then in progress. So a commit that comes
late is not missed, whatever its xid or its position, and a transaction left open holds nothing back.
``docs/explanation/snapshot-log.md`` tells the whole of it.

Reading runs ahead: the cursors here move with each batch read, those in the table with each batch settled.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from typing import Any

import psycopg

from ..messaging.errors import ConfigurationError, Fenced
from .connection import Connector
from .entry import LogRow
from .log import BATCH_BYTES, Batch, Claim, Control, Holds, Refusal, Report, payload_bytes
from .names import Names, queries
from .question import Params

#: How often relays that are gone are looked for, in seconds.
_FORGET_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class _Cursor:
    """A shard's row of the cursor table. Paging a backlog: ``upto`` and the page's place; else None and 0."""

    shard: int
    epoch: int
    snapshot: str
    upto: str | None
    page_position: int
    page_end: int


class PostgresReader:
    """See ``log.LogReader``."""

    def __init__(self, conninfo: str, names: Names, owner: str, lease: float) -> None:
        self._database = Connector(conninfo, f"postroom relay {owner}", patience=max(lease, 1.0), lost=self.rewind)
        self._sql = queries(names, "postgres")
        self._owner = owner
        self._lease = lease
        self._cursors: dict[int, _Cursor] = {}
        self._forget_at = 0.0
        self._turn = 0
        self._ahead: tuple[_Cursor, int] | None = None
        self._polls: dict[int, str] = {}

    def claim(self, report: Report | None = None) -> Claim:
        told = {"owner": self._owner, "lease": self._lease, **asdict(report or Report())}
        with self._database.transaction() as connection:
            connection.execute(self._sql["report"], told)
            if time.monotonic() >= self._forget_at:
                connection.execute(self._sql["forget_relays"])
                self._forget_at = time.monotonic() + _FORGET_EVERY
            quota, others, total = _only(connection.execute(self._sql["share"], told))
            rows = connection.execute(self._sql["claim"], {**told, "quota": quota}).fetchall()
            control = Control.of(connection.execute(self._sql["control"]).fetchall())
        for row in rows:
            if row[6] != row[7]:
                self._cursors.clear()
                raise ConfigurationError(
                    "The tables came from another PostgreSQL cluster (a restore or an upgrade), where transaction ids "
                    "differ; run `postroom relay reset-cursor` once, then start the relay again."
                )
        stored = {row[0]: _Cursor(*row[:6]) for row in rows}
        for shard, cursor in self._cursors.items():
            if shard in stored and stored[shard].epoch == cursor.epoch:
                stored[shard] = cursor  # ours is ahead
        self._cursors = stored
        surplus = max(0, len(stored) - quota)
        return Claim(frozenset(stored), surplus, others, len(stored) / total, control)

    def holds(self) -> Holds:
        shards = sorted(self._cursors)
        with self._database.transaction() as connection:
            topics = [row[0] for row in connection.execute(self._sql["held_topics"], {"shards": shards})]
            keys = connection.execute(self._sql["held_keys"], {"shards": shards, "topics": topics}).fetchall()
        return Holds(frozenset(keys), frozenset(topics))

    def read(self, limit: int) -> Batch:
        cursor = self._next_to_page()
        if cursor is None:
            return self._poll(limit) if self._cursors else Batch([])
        batch = self._page(cursor, limit)
        if (following := self._next_to_page()) is not None:
            self._ask_page(following, limit)  # PostgreSQL looks for it while this one is published
        return batch

    def settle(self, batches: Sequence[Batch], refusals: Sequence[Refusal] = ()) -> None:
        moved = {cursor.shard: cursor for batch in batches for cursor in batch.moves or ()}
        if refusals:
            with self._database.transaction() as connection:
                for refusal in refusals:
                    params = {**refusal.row._asdict(), "error": refusal.error, "by_topic": refusal.by_topic}
                    connection.execute(self._sql["park"], params)
                self._move(connection, moved)
        elif moved:
            with self._database.autocommit() as connection:
                self._move(connection, moved)

    def rewind(self) -> None:
        self._cursors = {}
        self._ahead = None

    def checkpoint(self, refusals: Sequence[Refusal] = ()) -> None:
        self.settle([Batch([], list(self._cursors.values()))], refusals)

    def release(self, shards: Sequence[int] | None = None) -> None:
        released = {"owner": self._owner, "shards": None if shards is None else list(shards)}
        try:
            with self._database.transaction() as connection:
                connection.execute(self._sql["release"], released)
                if shards is None:
                    connection.execute(self._sql["sign_off"], released)
        except Exception:  # noqa: BLE001  the leases expire by themselves
            self._database.drop()
            shards = None
        self._cursors = {
            shard: cursor for shard, cursor in self._cursors.items() if shards is not None and shard not in shards
        }

    def close(self) -> None:
        self._database.close()

    def _move(self, connection: psycopg.Connection[Any], moved: dict[int, _Cursor]) -> None:
        """Write cursors. Those of lost shards stay as they are; that raises Fenced."""
        cursors = moved.values()
        updated = connection.execute(
            self._sql["settle"],
            {
                "owner": self._owner,
                "lease": self._lease,
                "shards": [cursor.shard for cursor in cursors],
                "epochs": [cursor.epoch for cursor in cursors],
                "snapshots": [cursor.snapshot for cursor in cursors],
                "uptos": [cursor.upto for cursor in cursors],
                "page_positions": [cursor.page_position for cursor in cursors],
                "page_ends": [cursor.page_end for cursor in cursors],
            },
        ).rowcount
        if updated < len(moved):
            raise Fenced(f"{len(moved) - updated} shards went to another relay; their batch was not settled.")

    def _poll(self, limit: int) -> Batch:
        """All shards in one statement, whatever their snapshots: afterwards they share one."""
        groups: dict[str, list[_Cursor]] = {}
        for cursor in self._cursors.values():
            groups.setdefault(cursor.snapshot, []).append(cursor)
        params: dict[str, Any] = {"limit": limit + 1, "bytes": BATCH_BYTES}
        for number, (snapshot, cursors) in enumerate(groups.items()):
            params[f"snapshot_{number}"] = snapshot
            params[f"shards_{number}"] = [cursor.shard for cursor in cursors]
        self._database.ask(self._sql["plan"], self._poll_of(len(groups)), params)
        (_, _, _, seen, *_), *found = self._database.answer(LogRow._make)
        if len(found) > limit or payload_bytes(found) > BATCH_BYTES:
            for cursors in groups.values():
                self._freeze(cursors)
            return self._page(self._cursors[min(self._cursors)], limit)
        moved = [_Cursor(cursor.shard, cursor.epoch, seen, None, 0, 0) for cursor in self._cursors.values()]
        self._cursors = {cursor.shard: cursor for cursor in moved}
        if not found:
            return Batch([])  # nothing to settle; the next poll asks for what this snapshot could not see
        found.sort(key=itemgetter(1))
        return Batch(found, moved)

    def _poll_of(self, groups: int) -> str:
        """The statement for so many groups, always the same text, so that it is prepared once."""
        if groups not in self._polls:
            parts = [self._sql["poll_new"].replace("#", str(number)) for number in range(groups)]
            self._polls[groups] = self._sql["poll"].replace("#", " UNION ALL ".join(parts))
        return self._polls[groups]

    def _freeze(self, cursors: Sequence[_Cursor]) -> None:
        """More than a batch: fix where the pages begin and end. ``cursors`` share a snapshot."""
        params: Params = {"shards": [cursor.shard for cursor in cursors], "snapshot": cursors[0].snapshot}
        self._database.ask(self._sql["plan"], self._sql["freeze"], params)
        [(upto, page_position, page_end)] = self._database.answer(tuple)
        for cursor in cursors:
            self._cursors[cursor.shard] = replace(cursor, upto=upto, page_position=page_position, page_end=page_end)

    def _next_to_page(self) -> _Cursor | None:
        """The shards with a backlog take turns; what was asked for ahead comes first, if it still stands."""
        if self._ahead is not None and self._cursors.get(self._ahead[0].shard) is self._ahead[0]:
            return self._ahead[0]
        paging = sorted(shard for shard, cursor in self._cursors.items() if cursor.upto is not None)
        if not paging:
            return None
        self._turn += 1
        return self._cursors[paging[self._turn % len(paging)]]

    def _ask_page(self, cursor: _Cursor, limit: int) -> None:
        params = {
            "shard": cursor.shard,
            "after": cursor.page_position,
            "end": cursor.page_end,
            "upto": cursor.upto,
            "snapshot": cursor.snapshot,
            "limit": limit,
            "bytes": BATCH_BYTES,
        }
        self._database.ask(self._sql["plan"], self._sql["page"], params)
        self._ahead = (cursor, limit)

    def _page(self, cursor: _Cursor, limit: int) -> Batch:
        if self._ahead is None or self._ahead[0] is not cursor or self._ahead[1] != limit:
            self._ask_page(cursor, limit)
        self._ahead = None
        rows = self._database.answer(LogRow._make)
        if len(rows) == limit or payload_bytes(rows) > BATCH_BYTES:
            moved = replace(cursor, page_position=rows[-1].position)
        else:
            assert cursor.upto is not None  # noqa: S101  only a shard that is being paged comes here
            moved = replace(cursor, snapshot=cursor.upto, upto=None, page_position=0, page_end=0)
        self._cursors[cursor.shard] = moved
        return Batch(rows, [moved])


def _only(cursor: psycopg.Cursor[Any]) -> Any:
    [row] = cursor.fetchall()
    return row
