"""The log's side of the comparison: the rows of a window with their states, in short statements."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from ...messaging.errors import ConfigurationError
from ..archive import Archive, Wanted, moment_of
from ..entry import LogRow
from .prints import Logged, State, logged_of

#: Positions looked at in one statement; fewer on SQLite, which has no hash and gives whole payloads.
_RANGE, _WHOLE = 2_000, 100
#: Rows are about in the order of their times; so far from it at the most.
SLACK = timedelta(minutes=5)
_STATES = {state.name.lower(): state for state in State}


class Begun(NamedTuple):
    """What is compared: rows over position ``after`` and not over ``upto``, and written as ``asked``.

    ``since``, ``until``: what was asked for, else the oldest row's and the database's time; ``since`` is None in an
    empty log. ``snapshot``: what the log showed then (PostgreSQL).
    """

    asked: tuple[datetime | None, datetime | None]
    since: datetime | None
    until: datetime
    after: int
    upto: int
    snapshot: str | None
    now: datetime


class LogSide(Archive):
    """Reads the log for a comparison. For one thread; raises as ``Archive`` does."""

    def begin(self, since: datetime | None, until: datetime | None) -> Begun:
        """Fix what is compared. Raises ConfigurationError where the cursors mean nothing."""
        with self._transaction() as connection:
            row = connection.exec_driver_sql(self._sql["verify_begin"]).one()
        snapshot, now, head, of_this_cluster = row
        if not of_this_cluster:
            raise ConfigurationError(
                "The tables came from another PostgreSQL cluster (a restore or an upgrade), so that nobody can say "
                "what was published; run `postroom relay reset-cursor` once, start a relay, then verify."
            )
        now = moment_of(now)
        oldest = self._next(0)
        if oldest is None:
            return Begun((since, until), None, until or now, 0, 0, snapshot, now)
        after, upto = oldest[0] - 1, int(head)
        if since is not None:
            after, _ = self._around(since - SLACK, after, upto)
        if until is not None:
            _, upto = self._around(until + SLACK, after, upto)
        begins = oldest[1] if since is None else max(since, oldest[1])
        return Begun((since, until), begins, until or now, after, upto, snapshot, now)

    def oldest(self) -> datetime | None:
        """When the oldest row was written that the log still holds."""
        row = self._next(0)
        return None if row is None else row[1]

    def rows(
        self, begun: Begun, topics: Sequence[str], key: bytes | None
    ) -> Iterator[tuple[list[tuple[str, Logged]], int]]:
        """The rows of the window by topic, and after each part the position up to which all was read."""
        low = begun.after
        while low < begun.upto:
            high = min(low + (_WHOLE if self._sqlite else _RANGE), begun.upto)
            found = self._range(begun, topics, key, low, high)
            if not found:  # over a gap, of any length, at once
                following = self._next(high)
                high = begun.upto if following is None else min(max(following[0] - 1, high), begun.upto)
            yield found, high
            low = high

    def late(self, begun: Begun, topic: str, key: bytes | None) -> list[Logged]:
        """Rows of the window that were committed after ``begun``: as waiting, whatever they are now."""
        if begun.snapshot is None or begun.since is None:
            return []  # SQLite: one writer at a time, so that nothing comes late
        params = {"snapshot": begun.snapshot, "since": begun.since, "until": begun.until, "topics": [topic]}
        with self._transaction() as connection:
            connection.exec_driver_sql(self._sql["plan"])
            found = connection.exec_driver_sql(self._sql["verify_late"], params).scalars().all()
        rows = (row for each in found for _, row in self._range(begun, [topic], key, each - 1, each))
        return [row._replace(state=State.WAITING) for row in rows]

    def _range(
        self, begun: Begun, topics: Sequence[str], key: bytes | None, after: int, upto: int
    ) -> list[tuple[str, Logged]]:
        wanted = Wanted(key=key, since=begun.asked[0], until=begun.asked[1])
        given: Any = None
        if topics:
            given = json.dumps(list(topics)) if self._sqlite else list(topics)
        params = {**self._params(wanted, (after, upto), payloads=True), "topics": given}
        query = self._sql["verify_rows"].replace("@", self._sql["browse"].rpartition("ORDER BY")[0])
        with self._transaction() as connection:
            if not self._sqlite:
                connection.exec_driver_sql(self._sql["plan"])
            rows = connection.exec_driver_sql(query, params).fetchall()
        return [(row[2], self._logged(row)) for row in rows]

    def _logged(self, row: Sequence[Any]) -> Logged:
        position, id_, topic, key, type_, payload, headers, created_at, state, retried = row
        if self._sqlite and payload is not None:
            payload = sha256(payload).digest()
        told = LogRow(0, position, id_, topic, key, type_, None, headers, moment_of(created_at))
        return logged_of(told, payload, _STATES[state], retried=bool(retried))

    def _next(self, after: int) -> tuple[int, datetime] | None:
        with self._transaction() as connection:
            if not self._sqlite:
                connection.exec_driver_sql(self._sql["plan"])
            row = connection.exec_driver_sql(self._sql["verify_next"], {"after": after}).one_or_none()
        return None if row is None else (int(row[0]), moment_of(row[1]))

    def _around(self, moment: datetime, low: int, high: int) -> tuple[int, int]:
        """Between which positions, of those over ``low`` and up to ``high``, ``moment`` lies; found by halving."""
        while high - low > _RANGE:
            middle = (low + high) // 2
            row = self._next(middle)
            if row is None or row[0] > high or row[1] >= moment:
                high = middle
            else:
                low = row[0]
        return low, high
