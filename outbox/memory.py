"""The log in memory, for unit tests: it passes the same contract suite as the databases."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import RLock

from ..messaging.errors import Fenced
from .entry import Entry, LogRow
from .log import Batch, LogReader, ParkedRow, Refusal


@dataclass
class MemoryLog:
    """See ``log.LogStore``. One shard; thread-safe; nothing outlives the object."""

    rows: list[LogRow] = field(default_factory=list)
    settled: int = 0
    owner: str | None = None
    epoch: int = 0
    lease_until: float = 0.0
    _scheduled: list[Entry] = field(default_factory=list)
    _parked: dict[int, ParkedRow] = field(default_factory=dict)
    lock: RLock = field(default_factory=RLock)

    def reader(self, owner: str, lease: float) -> LogReader:
        return MemoryReader(self, owner, lease)

    def append(self, entries: Sequence[Entry]) -> None:
        with self.lock:
            for entry in entries:
                if entry.due_at is not None:
                    self._scheduled.append(entry)
                    continue
                place = (0, len(self.rows) + 1, str(entry.id), entry.topic, entry.key, entry.type)
                self.rows.append(LogRow(*place, entry.payload, entry.headers, datetime.now(UTC)))

    def park(self, refusals: Sequence[Refusal]) -> None:
        """Put them beside the log."""
        now = datetime.now(UTC)
        self._parked |= {row.position: ParkedRow(row, error, now, False) for row, error in refusals}

    def parked(self, limit: int = 1000) -> Sequence[ParkedRow]:
        with self.lock:
            return [self._parked[position] for position in sorted(self._parked)][:limit]

    def releasable(self, limit: int = 1000) -> Sequence[ParkedRow]:
        with self.lock:
            blocked = {(p.row.topic, p.row.key) for p in self._parked.values() if p.error is not None and not p.retry}
            ready = [p for p in self.parked() if (p.retry if p.row.key is None else _key(p.row) not in blocked)]
            return ready[:limit]

    def held_keys(self) -> frozenset[tuple[str, bytes]]:
        with self.lock:
            return frozenset((p.row.topic, p.row.key) for p in self._parked.values() if p.row.key is not None)

    def request_retry(self, positions: Sequence[int]) -> int:
        with self.lock:
            known = [position for position in positions if position in self._parked]
            self._parked |= {position: self._parked[position]._replace(retry=True) for position in known}
            return len(known)

    def discard(self, positions: Sequence[int]) -> int:
        with self.lock:
            return sum(self._parked.pop(position, None) is not None for position in positions)

    def move_due(self, limit: int = 1000) -> int:
        with self.lock:
            now = datetime.now(UTC)
            due = sorted((e for e in self._scheduled if e.due_at and e.due_at <= now), key=lambda e: str(e.due_at))
            for entry in due[:limit]:
                self._scheduled.remove(entry)
                self.append([Entry(entry.id, entry.topic, entry.key, entry.type, entry.payload, entry.headers)])
            return len(due[:limit])

    def add_partitions(self) -> None:
        """There are none."""

    def backlog(self) -> tuple[int, float]:
        with self.lock:
            waiting = self.rows[self.settled :]
            age = (datetime.now(UTC) - waiting[0].created_at).total_seconds() if waiting else 0.0
            return len(waiting), age

    def close(self) -> None:
        """Nothing is open."""


class MemoryReader:
    """See ``log.LogReader``."""

    def __init__(self, log: MemoryLog, owner: str, lease: float) -> None:
        self._log = log
        self._owner = owner
        self._lease = lease
        self._epoch: int | None = None

    def claim(self) -> frozenset[int]:
        log = self._log
        with log.lock:
            now = time.monotonic()
            if log.owner not in (None, self._owner) and log.lease_until >= now:
                self._epoch = None
                return frozenset()
            if log.owner != self._owner:
                log.epoch += 1
            log.owner, log.lease_until = self._owner, now + self._lease
            self._epoch = log.epoch
            return frozenset({0})

    def read(self, limit: int) -> Batch:
        if self._epoch is None and not self.claim():
            return Batch([])
        with self._log.lock:
            rows = self._log.rows[self._log.settled : self._log.settled + limit]
        return Batch(rows, (self._epoch, rows[-1].position)) if rows else Batch([])

    def settle(self, batch: Batch, refusals: Sequence[Refusal] = ()) -> None:
        log = self._log
        with log.lock:
            if batch.moves is not None:
                epoch, position = batch.moves
                if (log.owner, log.epoch) != (self._owner, epoch):
                    raise Fenced("The log went to another relay; the batch was not settled.")
                log.settled = position
                log.lease_until = time.monotonic() + self._lease
            log.park(refusals)

    def release(self) -> None:
        with self._log.lock:
            if self._log.owner == self._owner:
                self._log.owner = None
        self._epoch = None

    def close(self) -> None:
        """Nothing is open."""


def _key(row: LogRow) -> tuple[str, bytes | None]:
    return row.topic, row.key
