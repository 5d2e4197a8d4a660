"""The log in memory, for unit tests: it passes the same contract suite as the databases."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from threading import RLock

from ..messaging.errors import Fenced
from .audit import Action, limits
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


@dataclass
class MemoryLog:
    """See ``log.LogStore``. One shard; thread-safe; nothing outlives the object. ``actions``: what was recorded."""

    rows: list[LogRow] = field(default_factory=list)
    settled: int = 0
    owner: str | None = None
    epoch: int = 0
    lease_until: float = 0.0
    _scheduled: list[Entry] = field(default_factory=list)
    _parked: dict[int, ParkedRow] = field(default_factory=dict)
    _control: Control = field(default_factory=Control)
    actions: list[Action] = field(default_factory=list)
    lock: RLock = field(default_factory=RLock)

    def reader(self, owner: str, lease: float) -> LogReader:
        return MemoryReader(self, owner, lease)

    def append(self, entries: Sequence[Entry], action: Action | None = None) -> int:
        with self.lock:
            for entry in entries:
                if entry.due_at is not None:
                    self._scheduled.append(entry)
                    continue
                place = (0, len(self.rows) + 1, str(entry.id), entry.topic, entry.key, entry.type)
                self.rows.append(LogRow(*place, entry.payload, entry.headers, datetime.now(UTC)))
            return self._note(action) if action is not None else 0

    def park(self, refusals: Sequence[Refusal]) -> None:
        """Put them beside the log."""
        now = datetime.now(UTC)
        self._parked |= {row.position: ParkedRow(row, error, now, False, topic) for row, error, topic in refusals}

    def parked(
        self,
        limit: int = 1000,
        *,
        after: int = 0,
        topic: str | None = None,
        key: bytes | None = None,
        refused: bool | None = None,
    ) -> Sequence[ParkedRow]:
        with self.lock:
            found = (self._parked[position] for position in sorted(self._parked) if position > after)
            return [
                p
                for p in found
                if topic in (None, p.row.topic) and key in (None, p.row.key) and refused in (None, p.error is not None)
            ][:limit]

    def releasable(self, shards: frozenset[int], limit: int = 1000) -> Sequence[ParkedRow]:
        with self.lock:
            if 0 not in shards:
                return []
            blocked = self._blocked()
            ready = [p for p in self.parked(len(self._parked)) if p.row.topic not in self._control.topics]
            return [
                p for p in ready if (p.retry or p.error is None if p.row.key is None else _key(p.row) not in blocked)
            ][:limit]

    def request_retry(self, positions: Sequence[int], actor: str = "", reason: str | None = None) -> int:
        with self.lock:
            known = [position for position in positions if position in self._parked]
            for position in known:
                self._parked[position] = self._parked[position]._replace(retry=True)
                self._note_row(actor, "retry", self._parked[position].row, reason)
            self._revise()
            return len(known)

    def discard(self, positions: Sequence[int], actor: str = "", reason: str | None = None) -> int:
        with self.lock:
            known = [position for position in dict.fromkeys(positions) if position in self._parked]
            for position in known:
                self._note_row(actor, "discard", self._parked.pop(position).row, reason)
            self._revise()
            return len(known)

    def unpark(self, positions: Sequence[int]) -> None:
        with self.lock:
            for position in positions:
                self._parked.pop(position, None)

    def holds(self) -> Holds:
        """Of the one shard."""
        with self.lock:
            blocked = self._blocked()
            draining = {p.row.topic for p in self._parked.values() if p.by_topic and _key(p.row) not in blocked}
            topics = frozenset(self._control.topics) | draining
            keys = {(p.row.topic, p.row.key) for p in self._parked.values() if p.row.key is not None}
            return Holds(frozenset(key for key in keys if key[0] not in topics), topics)

    def control(self) -> Control:
        with self.lock:
            return self._control

    def pause(self, topic: str | None, reason: str, actor: str) -> bool:
        with self.lock:
            if topic is None:
                wanted = replace(self._control, paused=reason)
            else:
                wanted = replace(self._control, topics={**self._control.topics, topic: reason})
            return self._become(wanted, Action(actor, "pause", topic, reason=reason))

    def resume(self, topic: str | None, actor: str) -> bool:
        with self.lock:
            if topic is None:
                wanted = replace(self._control, paused=None)
            else:
                left = {name: why for name, why in self._control.topics.items() if name != topic}
                wanted = replace(self._control, topics=left)
            changed = self._become(wanted, Action(actor, "resume", topic))
            self._revise()
            return changed

    def limit(self, rate: float | None, batch_size: int | None, actor: str) -> bool:
        with self.lock:
            wanted = replace(self._control, rate=rate, batch_size=batch_size)
            return self._become(wanted, Action(actor, "limit", reason=limits(rate, batch_size)))

    def waker(self) -> None:
        """It tells nobody."""

    def prune(self, keep: timedelta, *, dry_run: bool = False, actor: str | None = None) -> Sequence[str]:
        """Positions are places in the list, so nothing is dropped."""
        del keep, dry_run, actor
        return []

    def parts(self, keep: timedelta) -> Sequence[Part]:
        """The one part, which is written to."""
        del keep
        return [Part("memory", "head")]

    def add_inbox_partitions(self) -> None:
        """There is no inbox."""

    def prune_inbox(self, keep: timedelta, *, dry_run: bool = False, actor: str | None = None) -> Sequence[Forgotten]:
        """There is no inbox."""
        del keep, dry_run, actor
        return []

    def open_transactions(self, older_than: float) -> Sequence[OpenTransaction]:
        """There are none."""
        del older_than
        return []

    def _blocked(self) -> set[tuple[str, bytes | None]]:
        refused = (p for p in self._parked.values() if p.error is not None and not p.retry)
        return {_key(p.row) for p in refused if p.row.key is not None}

    def _become(self, wanted: Control, action: Action) -> bool:
        changed = wanted != self._control
        if changed:
            self._control = wanted
            self._note(action)
        return changed

    def _note_row(self, actor: str, done: str, row: LogRow, reason: str | None) -> None:
        self._note(Action(actor, done, row.topic, row.position, row.id, 1, reason))

    def _note(self, action: Action) -> int:
        if action.id:
            before = self.actions[action.id - 1]
            more = before.messages + action.messages
            self.actions[action.id - 1] = replace(before, position=action.position, messages=more)
            return action.id
        self.actions.append(replace(action, id=len(self.actions) + 1, at=datetime.now(UTC)))
        return len(self.actions)

    def _revise(self) -> None:
        self._control = replace(self._control, revision=self._control.revision + 1)

    def move_due(self, limit: int = 1000, *, now: datetime | None = None) -> int:
        with self.lock:
            now = now or datetime.now(UTC)
            due = sorted((e for e in self._scheduled if e.due_at and e.due_at <= now), key=lambda e: str(e.due_at))
            for entry in due[:limit]:
                self._scheduled.remove(entry)
                self.append([Entry(entry.id, entry.topic, entry.key, entry.type, entry.payload, entry.headers)])
            return len(due[:limit])

    def add_partitions(self) -> None:
        """There are none."""

    def backlog(self) -> Backlog:
        with self.lock:
            waiting = self.rows[self.settled :]
            age = (datetime.now(UTC) - waiting[0].created_at).total_seconds() if waiting else 0.0
            return Backlog(len(waiting), age)

    def close(self) -> None:
        """Nothing is open."""


class MemoryReader:
    """See ``log.LogReader``."""

    def __init__(self, log: MemoryLog, owner: str, lease: float) -> None:
        self._log = log
        self._owner = owner
        self._lease = lease
        self._epoch: int | None = None
        self._position = 0

    def claim(self, report: Report | None = None) -> Claim:
        log = self._log
        with log.lock:
            now = time.monotonic()
            able = report is None or report.able
            if log.owner != self._owner and ((log.owner is not None and log.lease_until >= now) or not able):
                self._epoch = None
                return Claim(frozenset(), 0, 1, 0.0, log.control())
            if log.owner != self._owner:
                log.epoch += 1
            log.owner, log.lease_until = self._owner, now + self._lease
            if self._epoch != log.epoch:
                self._epoch, self._position = log.epoch, log.settled
            return Claim(frozenset({0}), control=log.control())

    def holds(self) -> Holds:
        return self._log.holds()

    def read(self, limit: int) -> Batch:
        if self._epoch is None:
            return Batch([])
        with self._log.lock:
            rows = within(self._log.rows[self._position : self._position + limit])
        if not rows:
            return Batch([])
        self._position = rows[-1].position
        return Batch(rows, (self._epoch, self._position))

    def settle(self, batches: Sequence[Batch], refusals: Sequence[Refusal] = ()) -> None:
        log = self._log
        with log.lock:
            moves = [batch.moves for batch in batches if batch.moves is not None]
            if any((log.owner, log.epoch) != (self._owner, epoch) for epoch, _ in moves):
                raise Fenced("The log went to another relay; the batch was not settled.")
            if moves:
                log.settled = moves[-1][1]
                log.lease_until = time.monotonic() + self._lease
            log.park(refusals)

    def rewind(self) -> None:
        self._epoch = None

    def checkpoint(self, refusals: Sequence[Refusal] = ()) -> None:
        if refusals:  # the cursor is a position, and always up to date
            self.settle([Batch([], (self._epoch, self._position))], refusals)

    def release(self, shards: Sequence[int] | None = None) -> None:
        if shards is not None and 0 not in shards:
            return
        with self._log.lock:
            if self._log.owner == self._owner:
                self._log.owner = None
        self._epoch = None

    def close(self) -> None:
        """Nothing is open."""


def _key(row: LogRow) -> tuple[str, bytes | None]:
    return row.topic, row.key
