"""What this member has begun, as the table knows it, so that a crash leaves a trace.

    poll ──▶ begin: offsets a to b of this partition ──▶ … work … ──▶ the next poll ──▶ begin: c to d ──▶ … ──▶ end
                                   │
                                   └─ the process dies: the next member finds a to b, and tries these messages one at
                                      a time, each try counted before it begins

Where a to b is wide, that would take long, and most deaths are no message's doing. So at first they are done as always,
but a few at a time; the second death leaves few.

One small write for each poll, not for each message; it does not wait for the disk.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from ..messaging.records import Partition
from ..outbox.names import Names
from ..outbox.write import fetch_query, run_query

#: So many messages, and not more, are tried one at a time at once.
FEW = 100


@dataclass(frozen=True, slots=True)
class Window:
    """Offsets that a member began. ``attempts`` were counted at the one at ``suspect``; 0: they were done a few at a
    time."""

    member: str
    first: int
    last: int
    suspect: int | None
    attempts: int

    @property
    def is_wide(self) -> bool:
        """Whether its messages are done a few at a time first."""
        return self.suspect is None and self.last - self.first >= FEW


class BegunTable:
    """One group's windows. Each method works in the caller's transaction."""

    def __init__(self, group: str, names: Names, member: str) -> None:
        self._group = group
        self._names = names
        self.member = member

    def left(self, connection: sa.Connection) -> Mapping[Partition, Window]:
        """What others began and did not end."""
        rows = fetch_query(connection, "attempts_begun", {"group": self._group}, self._names)
        return {
            Partition(topic, number): Window(member, *rest)
            for topic, number, member, *rest in rows
            if member != self.member
        }

    def begin(self, connection: sa.Connection, windows: Mapping[Partition, tuple[int, int]]) -> None:
        """These offsets are about to be worked at."""
        self._need_not_last(connection)
        for partition, (first, last) in sorted(windows.items()):
            params = {**self._of(partition), "member": self.member, "first_offset": first, "last_offset": last}
            run_query(connection, "attempt_begin", params, self._names)

    def suspect(self, connection: sa.Connection, partition: Partition, offset: int, attempts: int) -> None:
        """The message there is about to be tried for so many times in all."""
        self._need_not_last(connection)
        params = {**self._of(partition), "offset": offset, "attempts": attempts}
        run_query(connection, "attempt_suspect", params, self._names)

    def narrow(self, connection: sa.Connection, partition: Partition, window: Window) -> None:
        """What is in the wide ``window`` is done a few at a time from now on; after another death, one at a time."""
        self.suspect(connection, partition, window.last, 0)

    def end(
        self, connection: sa.Connection, partitions: Iterable[Partition], suspects: Mapping[Partition, Window]
    ) -> None:
        """Nothing of ours is under way there. Windows of another member stay.

        ``suspects``: what a crash had left and we did not come to the end of; it is left, with its count, for the next
        member. Else a message that kills its process would be tried anew for each time that its partition moves.
        """
        for partition in sorted(partitions):
            params = {**self._of(partition), "member": self.member}
            if (window := suspects.get(partition)) is None:
                run_query(connection, "attempt_end", params, self._names)
            else:
                params |= {"first_offset": window.first, "last_offset": window.last, "no_death": window.is_wide}
                run_query(connection, "attempt_leave", params, self._names)

    def _need_not_last(self, connection: sa.Connection) -> None:
        """What is noted outlives our process, which is what it is for, though not the server's."""
        if connection.dialect.name == "postgresql":
            fetch_query(connection, "no_wait_for_disk", {}, self._names)

    def _of(self, partition: Partition) -> dict[str, object]:
        return {"group": self._group, "topic": partition.topic, "partition": partition.number}
