"""Which database a URL means, and how a driver's errors read in our terms."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa
from psycopg import errors as pg
from sqlalchemy.exc import ArgumentError, DBAPIError

from ..messaging.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    NotAuthorized,
    PostroomError,
    SchemaMissing,
)
from .log import LogStore
from .names import Names

INIT = "run `postroom init` (or `postroom db upgrade`)"


def parse_url(url: str) -> sa.URL:
    """``url`` with the driver that is used here. Raises ConfigurationError, never showing a password."""
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise ConfigurationError(
            "The database URL cannot be read; write it as postgresql://user:password@host:5432/database "
            "or sqlite:///file.db."
        ) from None
    name = parsed.get_backend_name()
    if name in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if name == "sqlite":
        return parsed.set(drivername="sqlite")
    raise ConfigurationError(f"Postroom works on PostgreSQL and SQLite, not on {name!r}.")


def conninfo(url: sa.URL) -> str:
    """``url`` for libpq."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def open_store(url: str, names: Names | None = None) -> LogStore:
    """The log behind a database URL. Does not connect yet. Raises ConfigurationError."""
    parsed = parse_url(url)
    names = names or Names()
    if parsed.drivername == "sqlite":
        from .sqlite import SqliteLog  # noqa: PLC0415  stores import each other's ports

        return SqliteLog(parsed.database or "", names)
    from .postgres import PostgresLog  # noqa: PLC0415  likewise

    return PostgresLog(conninfo(parsed), names)


@contextmanager
def translated() -> Iterator[None]:
    """Raise what a driver raises, its own or through SQLAlchemy, in our terms, as far as it is ours."""
    try:
        yield
    except (psycopg.Error, sqlite3.Error) as error:
        if ours := _ours(error):
            raise ours from error
        raise
    except DBAPIError as error:
        if ours := _ours(error.orig):
            raise ours from error
        raise


_SETTINGS = "check the database URL"
_TABLE: tuple[tuple[tuple[type[Exception], ...], type[PostroomError], str], ...] = (
    (
        (pg.UndefinedTable, pg.InvalidSchemaName, pg.UndefinedFunction),
        SchemaMissing,
        f"The tables of Postroom are not in this database; {INIT}",
    ),
    (
        (pg.InvalidPassword, pg.InvalidAuthorizationSpecification),
        ConfigurationError,
        f"The database refuses user or password; {_SETTINGS}",
    ),
    ((pg.InvalidCatalogName,), ConfigurationError, f"The database does not exist; {_SETTINGS}"),
    ((pg.InsufficientPrivilege,), NotAuthorized, "The database does not allow this; grant the right"),
)
#: Before a connection stands, libpq tells only in words.
_TOLD: tuple[tuple[str, type[PostroomError], str], ...] = (
    ("no such table", SchemaMissing, f"The tables of Postroom are not in this database; {INIT}"),
    ("password authentication failed", ConfigurationError, f"The database refuses user or password; {_SETTINGS}"),
    ("certificate verify failed", ConfigurationError, f"TLS does not trust the database's certificate; {_SETTINGS}"),
    ("does not match host name", ConfigurationError, f"TLS finds another host's certificate; {_SETTINGS}"),
    ("root certificate file", ConfigurationError, f"TLS has no certificates of authorities; {_SETTINGS}"),
    ("does not support SSL", ConfigurationError, f"TLS is asked for, and the database has none; {_SETTINGS}"),
    ("does not exist", ConfigurationError, f"The database refuses the connection; {_SETTINGS}"),
    ("invalid URI query parameter", ConfigurationError, f"The database URL has an unknown parameter; {_SETTINGS}"),
    ("invalid connection option", ConfigurationError, f"The database URL has an unknown parameter; {_SETTINGS}"),
    ("unable to open database file", ConfigurationError, f"The database file cannot be opened; {_SETTINGS}"),
    ("database is locked", DatabaseUnavailable, "Another writer holds the database"),
)


def _ours(error: BaseException | None) -> PostroomError | None:
    text = " ".join(str(error).split())[:300]
    for theirs, ours, sentence in _TABLE:
        if isinstance(error, theirs):
            return ours(f"{sentence} ({text}).")
    in_the_url = isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None  # no server said it
    if in_the_url or isinstance(error, psycopg.OperationalError | sqlite3.OperationalError):
        for told, ours, sentence in _TOLD:
            if told in text:
                return ours(f"{sentence} ({text}).")
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnavailable(f"The database does not answer ({text}).")
    return None
