"""Where rows and records lie while they are compared: a temporary SQLite database, that no other program sees.

SQLite keeps it in memory while it is small, and else in an unlinked file in ``SQLITE_TMPDIR``, ``TMPDIR`` or
``/var/tmp``: nothing of it is left, however the program ends.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any

from ...messaging.errors import ConfigurationError
from ..names import Names, queries
from .prints import Logged, State, Stored

#: KiB in memory, for the tables and again for sorting.
_CACHE = 16_384
_AT_ONCE = 5_000


class Scratch:
    """Rows of all topics, and the records of one at a time. For one thread.

    Every method raises ConfigurationError where there is no room on the disk.
    """

    def __init__(self) -> None:
        self._sql = queries(Names(), "sqlite", "verify")
        self._topics: dict[str, int] = {}
        with _room():
            self._connection = sqlite3.connect("", isolation_level=None)
            for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE}", "temp_store = FILE"):
                self._connection.execute(f"PRAGMA {setting}")
            self._connection.executescript(self._sql["tables"])
            self._connection.execute("BEGIN")

    @property
    def topics(self) -> list[str]:
        """Those of which there are rows."""
        return sorted(self._topics)

    def add_rows(self, rows: Iterable[tuple[str, Logged]]) -> None:
        """Rows with their topics."""
        with _room():
            self._connection.executemany(
                self._sql["add_logged"],
                ((self._topics.setdefault(topic, len(self._topics)), *row) for topic, row in rows),
            )

    def index_rows(self) -> None:
        """When most rows are there."""
        with _room():
            self._connection.execute(self._sql["index_logged"])

    def add_records(self, records: Iterable[Stored]) -> None:
        """Records of the topic in hand."""
        self._add("add_record", records)

    def add_arrivals(self, arrivals: Iterable[tuple[Any, ...]]) -> None:
        """Key, partition, offset, position, id, created, home, retried."""
        self._add("add_arrival", arrivals)

    def add_missing(self, missing: Iterable[tuple[Any, ...]]) -> None:
        """Key, position, id, created, home, tombstone."""
        self._add("add_missing", missing)

    def add_strays(self, keys: Iterable[tuple[bytes]]) -> None:
        """Keys of records that the log does not know."""
        self._add("add_stray", keys)

    def by_id(self, topic: str) -> Iterator[tuple[list[Logged], Iterator[Stored]]]:
        """Rows and records of each id of a topic. The records have to be taken before the next id."""
        cursor = self._stream("by_id", self._topics.get(topic, -1))
        for _, group in groupby(cursor, key=itemgetter(0)):
            rows: list[Logged] = []
            behind = iter(group)
            for each in behind:
                if each[1]:
                    yield rows, _records(each, behind)
                    break
                rows.append(_row(each))
            else:
                yield rows, iter(())

    def by_key(self) -> Iterator[tuple[Any, ...]]:
        """First arrivals of the topic in hand: see the query."""
        return self._stream("by_key")

    def missing(self) -> Iterator[tuple[Any, ...]]:
        """What the topic in hand misses: see the query."""
        with _room():
            self._connection.execute(self._sql["index_stray"])
        return self._stream("missing")

    def earliest(self, partition: int, offset: int) -> int | None:
        """When the first record of a partition from ``offset`` on was written; None where there is none."""
        row = next(self._stream("earliest", partition, offset), None)
        return None if row is None else int(row[0])

    def forget_results(self) -> None:
        """What was made out of the topic in hand; rows and records stay."""
        self._clear("arrival", "missing", "stray")

    def forget_topic(self) -> None:
        """All that belongs to the topic in hand but its rows."""
        self._clear("record", "arrival", "missing", "stray")

    def close(self) -> None:
        """Nothing is left of it. Does not raise."""
        self._connection.close()

    def _add(self, query: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with _room():
            self._connection.executemany(self._sql[query], rows)

    def _stream(self, query: str, *params: Any) -> Iterator[tuple[Any, ...]]:
        with _room():
            cursor = self._connection.execute(self._sql[query], params)
            while rows := cursor.fetchmany(_AT_ONCE):
                yield from rows

    def _clear(self, *tables: str) -> None:
        with _room():
            for table in tables:
                self._connection.execute(f"DELETE FROM {table}")  # noqa: S608  our own names


def _records(head: tuple[Any, ...], behind: Iterator[tuple[Any, ...]]) -> Iterator[Stored]:
    yield _record(head)
    for each in behind:
        yield _record(each)


def _row(each: tuple[Any, ...]) -> Logged:
    id_, _, position, _, key, content, whole, mark, created, home, state, tombstone, retried = each
    return Logged(id_, position, key, content, whole, mark, created, home, State(state), bool(tombstone), bool(retried))


def _record(each: tuple[Any, ...]) -> Stored:
    id_, _, partition, offset, key, content, whole, mark, time, told, *_ = each
    return Stored(id_, partition, offset, key, content, whole, mark, time, told)


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"There is no room for what is compared ({error}); set SQLITE_TMPDIR to a folder with more, or choose a "
            "shorter window or fewer topics."
        ) from error
