"""Writing entries into the log inside the caller's transaction."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import psycopg
import sqlalchemy as sa

from ..messaging.envelope import timestamp
from ..messaging.errors import ConfigurationError, NotInTransaction
from .database import translated
from .entry import Entry
from .names import Names, queries

#: More entries go in several statements, so that none grows without bound.
_CHUNK = 1000
#: So few go as VALUES, which the server and the driver take faster than arrays.
FEW = 8
OUTSIDE = (
    "The connection is in autocommit mode and no transaction is open, so the message would not be atomic "
    "with your changes; begin a transaction first."
)


def write_sqlalchemy(connection: sa.Connection, entries: Sequence[Entry], names: Names) -> None:
    """One INSERT for all (on PostgreSQL). Raises NotInTransaction, SchemaMissing, ConfigurationError."""
    dialect = connection.dialect
    if _autocommits(connection):
        raise NotInTransaction(OUTSIDE)
    with translated():
        if dialect.name == "sqlite":
            for query, rows in _split(entries):
                sql = queries(names, "sqlite")[query]
                connection.exec_driver_sql(sql, [sqlite_params(entry) for entry in rows])
        elif dialect.name == "postgresql":
            named = dialect.driver in ("psycopg", "psycopg2")
            for sql, params in _statements(entries, names, binary=dialect.driver == "psycopg"):
                if named:
                    connection.exec_driver_sql(sql, params)
                else:
                    connection.execute(_text(sql), params)
        else:
            raise ConfigurationError(f"Postroom works on PostgreSQL and SQLite, not on {dialect.name!r}.")


def run_query(connection: sa.Connection, query: str, params: dict[str, Any], names: Names) -> int:
    """Run the named query in the caller's transaction, on any driver; how many rows it changed.

    Raises NotInTransaction, SchemaMissing, ConfigurationError, NotAuthorized, DatabaseUnavailable.
    """
    dialect = connection.dialect
    if _autocommits(connection):
        raise NotInTransaction(OUTSIDE)
    if dialect.name not in ("sqlite", "postgresql"):
        raise ConfigurationError(f"Postroom works on PostgreSQL and SQLite, not on {dialect.name!r}.")
    sql = queries(names, "sqlite" if dialect.name == "sqlite" else "postgres")[query]
    counting = {"preserve_rowcount": True}
    with translated():
        if dialect.name == "sqlite" or dialect.driver in ("psycopg", "psycopg2"):
            return connection.exec_driver_sql(sql, params, execution_options=counting).rowcount
        result = connection.execute(_text(sql), params, execution_options=counting)
        return cast("sa.CursorResult[Any]", result).rowcount


def fetch_query(connection: sa.Connection, query: str, params: dict[str, Any], names: Names) -> list[tuple[Any, ...]]:
    """Run the named query in the caller's transaction, on any driver; what it found. Raises as ``run_query`` does."""
    dialect = connection.dialect
    sql = queries(names, "sqlite" if dialect.name == "sqlite" else "postgres")[query]
    with translated():
        if dialect.name == "sqlite" or dialect.driver in ("psycopg", "psycopg2"):
            return [tuple(row) for row in connection.exec_driver_sql(sql, params)]
        return [tuple(row) for row in connection.execute(_text(sql), params)]


def write_psycopg(connection: psycopg.Connection[Any], entries: Sequence[Entry], names: Names) -> None:
    """Likewise on a psycopg connection."""
    _require_transaction(connection)
    with translated():
        for sql, params in _statements(entries, names):
            connection.execute(sql, params)


async def write_psycopg_async(connection: psycopg.AsyncConnection[Any], entries: Sequence[Entry], names: Names) -> None:
    """Likewise on an asynchronous one."""
    _require_transaction(connection)
    with translated():
        for sql, params in _statements(entries, names):
            await connection.execute(sql, params)


def _autocommits(connection: sa.Connection) -> bool:
    dbapi_connection: Any = connection.connection.dbapi_connection
    if not connection.dialect.detect_autocommit_setting(dbapi_connection):
        return False
    if connection.dialect.name == "sqlite" and not connection.in_transaction():
        # SQLAlchemy's recipe for savepoints: the driver begins nothing, an event at "begin" does.
        connection.exec_driver_sql("SELECT 1")
    return not getattr(dbapi_connection, "in_transaction", False)


def sqlite_params(entry: Entry) -> dict[str, Any]:
    """An entry as SQLite stores it."""
    return {
        "id": str(entry.id),
        "topic": entry.topic,
        "key": entry.key,
        "type": entry.type,
        "payload": entry.payload,
        "headers": entry.headers,
        "due_at": entry.due_at and timestamp(entry.due_at),
    }


def _require_transaction(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    if connection.autocommit and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        raise NotInTransaction(OUTSIDE)


def _statements(entries: Sequence[Entry], names: Names, *, binary: bool = True) -> list[tuple[str, dict[str, Any]]]:
    """``binary``: with psycopg's placeholder for binary parameters, which spares bytes and arrays their escaping."""
    return [
        _statement(names, query, rows[start : start + _CHUNK], binary=binary)
        for query, rows in _split(entries)
        for start in range(0, len(rows), _CHUNK)
    ]


def _statement(names: Names, query: str, rows: Sequence[Entry], *, binary: bool) -> tuple[str, dict[str, Any]]:
    if len(rows) > FEW:
        return _sql(names, query, binary), _arrays(rows)
    params = {f"{name}_{number}": value for number, row in enumerate(rows) for name, value in _row(row)}
    return values_sql(names, query, len(rows), binary), params


@lru_cache(maxsize=64)
def _sql(names: Names, query: str, binary: bool) -> str:
    sql = queries(names, "postgres")[query]
    return re.sub(r"\)s::(bytea|uuid\[\]|text\[\])", r")b::\1", sql) if binary else sql


@lru_cache(maxsize=256)
def values_sql(names: Names, query: str, count: int, binary: bool) -> str:
    """The INSERT of ``count`` rows; the positions follow the order of the rows."""
    head, row = _sql(names, f"{query}_values", binary).split("VALUES")
    return f"{head}VALUES" + ",".join(re.sub(r"%\((\w+)\)", rf"%(\1_{number})", row) for number in range(count))


def _split(entries: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    """What goes into the log, and what waits until it is due."""
    now = [entry for entry in entries if entry.due_at is None]
    later = [entry for entry in entries if entry.due_at is not None]
    return [(query, rows) for query, rows in (("append", now), ("schedule", later)) if rows]


def _arrays(entries: Sequence[Entry]) -> dict[str, Any]:
    return {
        "ids": [entry.id for entry in entries],
        "topics": [entry.topic for entry in entries],
        "keys": [entry.key for entry in entries],
        "types": [entry.type for entry in entries],
        "payloads": [entry.payload for entry in entries],
        "headers": [entry.headers for entry in entries],
        "due_ats": [entry.due_at for entry in entries],
    }


def _row(entry: Entry) -> tuple[tuple[str, Any], ...]:
    return (
        ("id", entry.id),
        ("topic", entry.topic),
        ("key", entry.key),
        ("type", entry.type),
        ("payload", entry.payload),
        ("headers", entry.headers),
        ("due_at", entry.due_at),
    )


@lru_cache(maxsize=64)
def _text(sql: str) -> sa.TextClause:
    """psycopg's placeholders as SQLAlchemy's, for another driver; ``::type`` as CAST would be."""
    return sa.text(re.sub(r"%\((\w+)\)s", r":\1", sql.replace("::", r"\:\:")))
