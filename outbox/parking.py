"""Parked messages, for those who look at them: by filter, in either order, by position."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from .database import parse_url, translated
from .entry import LogRow
from .names import Names, queries
from .sqlite import stored_moment
from .wildcard import glob, like

State = Literal["refused", "retry", "behind", "topic"]
_LAST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which parked messages; None is any. ``type`` with wildcards. ``error``: a part of it, in any case.

    ``since``, ``until``: when parked, ``until`` exclusive. ``refused``: with an error, or without one.
    """

    topic: str | None = None
    key: bytes | None = None
    type: str | None = None
    state: State | None = None
    error: str | None = None
    message_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    refused: bool | None = None


class Parked(NamedTuple):
    """A row of ``outbox_parked``; ``size`` is its payload's, which is None where it was not asked for.

    ``state``: ``refused`` by Kafka, ``retry`` (to be published again by the relay), ``behind`` one of its key, or
    ``topic`` (waits until its topic goes on).
    """

    row: LogRow
    error: str | None
    parked_at: datetime
    retry: bool
    by_topic: bool
    state: State
    size: int | None


class Parking:
    """Reads what is parked in one database. For one thread.

    Every method raises SchemaMissing, DatabaseUnavailable, NotAuthorized, ConfigurationError.
    """

    def __init__(self, url: str, names: Names | None = None) -> None:
        parsed = parse_url(url)
        self._sqlite = parsed.drivername == "sqlite"
        # Not prepared: the plan depends on which filters there are.
        libpq = {"connect_timeout": 5, "application_name": "postroom", "prepare_threshold": None}
        self._engine = sa.create_engine(parsed, pool_size=1, connect_args={} if self._sqlite else libpq)
        self._sql = queries(names or Names(), "sqlite" if self._sqlite else "postgres")

    def find(
        self, wanted: Wanted, limit: int, *, after: int = 0, newest: bool = False, payloads: bool = False
    ) -> list[Parked]:
        """Up to ``limit`` of them by position, behind ``after`` in their order (0: from the start)."""
        query = self._sql["parked_found"].replace("#", "DESC" if newest else "ASC")
        between = {"after": 0, "before": after or _LAST} if newest else {"after": after, "before": _LAST}
        return self._rows(query, {**self._filters(wanted), **between, "limit": limit, "payloads": payloads})

    def count(self, wanted: Wanted) -> dict[str, int]:
        """How many there are by state."""
        query = self._sql["parked_count"].replace("@", self._sql["parked_found"].rpartition("ORDER BY")[0])
        params = {**self._filters(wanted), "after": 0, "before": _LAST, "payloads": False}
        with self._transaction() as connection:
            rows = connection.exec_driver_sql(query, params).fetchall()
        return {state: int(count) for state, count in rows}

    def at(self, positions: Sequence[int]) -> list[Parked]:
        """Those at these positions, whole."""
        given = json.dumps(list(positions)) if self._sqlite else list(positions)
        return self._rows(self._sql["parked_at"], {"positions": given})

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def _filters(self, wanted: Wanted) -> dict[str, Any]:
        params: dict[str, Any] = {name: getattr(wanted, name) for name in Wanted.__slots__}
        if wanted.type is not None:
            params["type"] = glob(wanted.type) if self._sqlite else like(wanted.type)
        if self._sqlite:
            params |= {name: params[name] and stored_moment(params[name]) for name in ("since", "until")}
        return params

    def _rows(self, query: str, params: dict[str, Any]) -> list[Parked]:
        with self._transaction() as connection:
            rows = connection.exec_driver_sql(query, params).fetchall()
        return [
            Parked(
                LogRow._make((*row[:8], _moment(row[8]))),
                error=row[9],
                parked_at=_moment(row[10]),
                retry=bool(row[11]),
                by_topic=bool(row[12]),
                state=row[13],
                size=row[14],
            )
            for row in rows
        ]

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with translated(), self._engine.begin() as connection:
            yield connection


def _moment(value: datetime | str) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value
