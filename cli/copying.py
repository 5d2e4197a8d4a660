"""Copying what the log holds to its end, so that it is published again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from ..messaging.clock import SystemClock
from ..messaging.envelope import REPLAY
from ..messaging.errors import InvalidRecord
from ..messaging.rate import TokenBucket
from ..outbox.archive import Archive, Found, Wanted
from ..outbox.audit import Action
from ..outbox.entry import Entry
from ..outbox.log import LogStore

_WAIT = 0.05


@dataclass
class Copying:
    """What is to be copied, up to position ``upto``, and how far it came.

    ``reached``: the last position that was looked at; all wanted up to it is copied, or its headers are broken
    (``skipped``). ``action`` is the record of it.
    """

    wanted: Wanted
    plan: str
    action: Action
    reached: int
    upto: int
    copied: int = 0
    skipped: list[int] = field(default_factory=list)

    def run(
        self,
        archive: Archive,
        store: LogStore,
        *,
        rate: float | None,
        wait: Callable[[float], bool],
        advance: Callable[[int], None],
    ) -> bool:
        """Copy all of it, ``rate`` messages per second at the most; False where it was interrupted.

        ``wait`` waits so many seconds and says whether to stop. Each chunk is one transaction, with its record.
        """
        bucket = TokenBucket(SystemClock())
        bucket.limit(rate)
        for page in archive.pages(self.wanted, after=self.reached, upto=self.upto, payloads=True):
            rows = page.found
            while rows:
                if wait(0):
                    return False
                now = bucket.available(len(rows))
                if now <= 0:
                    wait(_WAIT)
                    continue
                chunk, rows = rows[:now], rows[now:]
                self._copy(store, chunk)
                bucket.take(now)
                advance(now)
            self.reached = page.reached
            if wait(0):
                return False
        return True

    def _copy(self, store: LogStore, chunk: Sequence[Found]) -> None:
        entries = list(self._entries(chunk))
        last = chunk[-1].row.position
        id_ = store.append(entries, replace(self.action, position=last, messages=len(entries)))
        self.action = replace(self.action, id=id_)
        self.copied += len(entries)
        self.reached = last

    def _entries(self, chunk: Sequence[Found]) -> Iterator[Entry]:
        for each in chunk:
            row = each.row
            try:
                headers = [pair for pair in row.record().headers if pair[0] != REPLAY]
            except InvalidRecord:
                self.skipped.append(row.position)
                continue
            marked = [(REPLAY, self.plan.encode()), *headers]
            yield Entry.forwarded(UUID(row.id), row.topic, row.key, row.type, row.payload, marked)
