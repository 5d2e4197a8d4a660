"""A query that PostgreSQL answers while we do something else, in libpq's pipeline mode.

    ask ──▶ BEGIN READ ONLY, settings, query, COMMIT in one round trip ──▶ … other work … ──▶ answer

psycopg's own ``Connection.pipeline()`` takes three times as much time for a small answer, and cannot leave one
for later.
"""

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

Row = TypeVar("Row")
Params = Mapping[str, int | str | Sequence[int] | None]
#: A connection's prepared statements: SQL to name.
Prepared = dict[bytes, bytes]
_BINARY = 1
_DONE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


class Question:
    """One query on its way. Until it has its answer, nothing else may use the connection."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        settings: str,
        query: str,
        params: Params,
        prepared: Prepared | None,
    ) -> None:
        """Send it; ``settings`` runs before it in its transaction. Without ``prepared``, nothing is prepared.

        Raises psycopg.Error; the connection cannot be used then.
        """
        self._connection = connection
        self._prepared = prepared
        self._new: Prepared = {}
        self._results: list[PGresult] | None = None
        self._sent = 2
        pgconn = connection.pgconn
        pgconn.enter_pipeline_mode()
        pgconn.send_query_params(b"BEGIN READ ONLY", None)
        self._send(pgconn, settings, {})
        self._send(pgconn, query, params)
        pgconn.send_query_params(b"COMMIT", None)
        pgconn.pipeline_sync()
        connection.wait(generators.send(pgconn))

    def collect(self) -> None:
        """Wait until the answer is here; the connection is free then. Raises psycopg.Error, as above."""
        if self._results is None:
            self._results = self._connection.wait(self._fetch(self._connection.pgconn))
            for result in self._results:
                if result.status not in _DONE:
                    raise error_from_result(result, encoding="utf-8")
            if self._prepared is not None:
                self._prepared.update(self._new)

    def rows(self, make: Callable[[Sequence[Any]], Row]) -> list[Row]:
        """The answer, each row by ``make``. Raises as ``collect`` does."""
        self.collect()
        assert self._results is not None  # noqa: S101  for the type checker
        result = self._results[-2]
        transformer = Transformer(self._connection)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, make)

    def _send(self, pgconn: PGconn, query: str, params: Params) -> None:
        sql, names = _positional(query)
        values = [_text(params[name]) for name in names]
        self._sent += 1
        if self._prepared is None:
            pgconn.send_query_params(sql, values, result_format=_BINARY)
            return
        name = self._prepared.get(sql)
        if name is None:
            # Behind a pooler that passes names on, another client's statement must not answer to ours.
            self._new[sql] = name = b"postroom_" + secrets.token_hex(8).encode()
            pgconn.send_prepare(name, sql)
            self._sent += 1
        pgconn.send_query_prepared(name, values, result_format=_BINARY)

    def _fetch(self, pgconn: PGconn) -> PQGen[list[PGresult]]:
        results = []
        for _ in range(self._sent + 1):  # the last is the end of the pipeline
            found: list[PGresult] = yield from generators.fetch_many(pgconn)
            if not found:
                raise psycopg.OperationalError("the connection is lost")
            results.append(found[0])
        pgconn.exit_pipeline_mode()
        return results[:-1]


@lru_cache(maxsize=1024)
def _positional(query: str) -> tuple[bytes, tuple[str, ...]]:
    """The query with ``$1`` for its first name, and the names in that order."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[1] is None:
            return "%"
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    sql = re.sub(r"%\((\w+)\)s|%%", number, query)
    return sql.encode(), tuple(names)


def _text(value: int | str | Sequence[int] | None) -> bytes | None:
    """As PostgreSQL reads it, whatever type it finds the parameter to have."""
    if value is None:
        return None
    if isinstance(value, int | str):
        return str(value).encode()
    return f"{{{','.join(map(str, value))}}}".encode()
