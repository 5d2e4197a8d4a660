"""The tables and their versions: numbered SQL files, applied once each."""

import re
import sqlite3
import time
from dataclasses import dataclass
from importlib.resources import files

import psycopg
import sqlalchemy as sa

from ..messaging.errors import ConfigurationError, SchemaMissing, SchemaOutdated, SchemaTooNew
from .database import INIT, conninfo, parse_url, translated
from .log import MAX_SHARDS
from .names import TABLES, Names, queries

DEFAULT_SHARDS = 16
_BUSY_SECONDS = 5
_LOCK = 7_367_823_445  # two upgrades at once wait for each other


@dataclass(frozen=True, slots=True)
class Migration:
    """One step. ``sql`` holds several statements."""

    version: int
    name: str
    sql: str


def migrations(dialect: str, names: Names, shards: int = DEFAULT_SHARDS) -> list[Migration]:
    """All steps for ``postgres`` or ``sqlite``, rendered. ``shards`` counts only in the first."""
    if not 1 <= shards <= MAX_SHARDS:
        raise ConfigurationError(f"shards is {shards}; it must be 1 to {MAX_SHARDS}.")
    folder = files(__package__).joinpath("sql", dialect, "migrations")
    steps = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", entry.name):
            version = int(match[1])
            sql = names.render(entry.read_text().replace("{shards}", str(shards)), dialect)
            record = names.render("INSERT INTO {schema_version} (version) VALUES", dialect) + f" ({version});\n"
            steps.append(Migration(version, match[2], f"{sql.rstrip()}\n\n{record}"))
    return steps


LATEST = max(step.version for step in migrations("postgres", Names()))


def upgrade(url: str, names: Names | None = None, shards: int = DEFAULT_SHARDS) -> list[Migration]:
    """Bring the tables to the latest version, in one transaction; returns the steps that were applied.

    Raises DatabaseUnavailable, ConfigurationError, SchemaTooNew. On PostgreSQL the first step also makes the
    first partitions of the log.
    """
    names = names or Names()
    parsed = parse_url(url)
    if parsed.drivername == "sqlite":
        return _upgrade_sqlite(parsed, names)
    with translated(), psycopg.connect(conninfo(parsed), connect_timeout=5) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        pending = _pending(version_of(connection, names), migrations("postgres", names, shards))
        for step in pending:
            connection.execute(step.sql.encode())
    return pending


def check(url: str, names: Names | None = None) -> int:
    """The tables' version, if this program can work with it.

    Raises SchemaMissing, SchemaOutdated, SchemaTooNew, DatabaseUnavailable, ConfigurationError.
    """
    names = names or Names()
    parsed = parse_url(url)
    with translated():
        if parsed.drivername == "sqlite":
            connection = open_sqlite(parsed.database or "")
            try:
                version = _sqlite_version(connection, names)
            finally:
                connection.close()
        else:
            with psycopg.connect(conninfo(parsed), connect_timeout=5) as postgres:
                version = version_of(postgres, names)
    return require_latest(version)


def require_latest(version: int) -> int:
    """``version``, if it is the latest. Raises SchemaMissing, SchemaOutdated, SchemaTooNew."""
    if version == 0:
        raise SchemaMissing(f"The tables of Postroom are not in this database; {INIT}.")
    if version < LATEST:
        raise SchemaOutdated(
            f"The tables of Postroom are of version {version}, this program needs {LATEST}; run `postroom db upgrade`."
        )
    if version > LATEST:
        raise SchemaTooNew(
            f"The tables of Postroom are of version {version}, this program knows up to {LATEST}; upgrade Postroom."
        )
    return version


def script(dialect: str, names: Names | None = None, shards: int = DEFAULT_SHARDS, after: int = 0) -> str:
    """All steps after version ``after`` as one SQL script, for those who apply it by other means."""
    steps = migrations(dialect, names or Names(), shards)
    body = "\n".join(f"-- {step.version:04} {step.name}\n{step.sql}" for step in steps if step.version > after)
    return f"BEGIN;\n\n{body}\nCOMMIT;\n"


def apply(connection: sa.Connection, names: Names | None = None, shards: int = DEFAULT_SHARDS) -> list[Migration]:
    """Bring the tables to the latest version inside ``connection``'s transaction: for Alembic and the like.

    def upgrade() -> None:
        schema.apply(op.get_bind())
    """
    names = names or Names()
    dialect = "sqlite" if connection.dialect.name == "sqlite" else "postgres"
    if dialect == "sqlite":
        found = sa.inspect(connection).has_table(names.table("schema_version", dialect).strip('"'))
    else:
        found = sa.inspect(connection).has_table(names.tables.get("schema_version", "schema_version"), names.schema)
    version = connection.exec_driver_sql(queries(names, dialect)["version"]).scalar_one() if found else 0
    pending = _pending(version, migrations(dialect, names, shards))
    for step in pending:
        for statement in statements(step.sql):
            connection.execute(sa.text(statement.replace(":", "\\:")))  # so every driver gets it as it is
    return pending


def drop(connection: sa.Connection, names: Names | None = None) -> None:
    """Drop all tables of Postroom inside ``connection``'s transaction, with every message in them."""
    names = names or Names()
    if connection.dialect.name == "sqlite":
        for table in TABLES:
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {names.table(table, 'sqlite')}")
    else:
        for table in TABLES:
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {names.table(table, 'postgres')} CASCADE")
        connection.exec_driver_sql(
            names.render('DROP SEQUENCE IF EXISTS {schema}."{outbox.name}_position"', "postgres")
        )
        of_outbox = ("add_partitions", "drop_partitions", "notify")
        of_inbox = ("add_partitions", "drop_partitions", "id_at")
        for table, functions in (("outbox", of_outbox), ("inbox", of_inbox)):
            for function in functions:
                name = names.render(f'{{schema}}."{{{table}.name}}_{function}"', "postgres")
                connection.exec_driver_sql(f"DROP FUNCTION IF EXISTS {name}")


def open_sqlite(path: str) -> sqlite3.Connection:
    """A connection in autocommit mode that waits up to 5 seconds for other writers."""
    connection = sqlite3.connect(
        path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA busy_timeout = 5000")
    return connection


def statements(sql: str) -> list[str]:
    """The single statements of a migration. Each ends with its line; ``$function$`` quotes a function's body."""
    found: list[str] = []
    current: list[str] = []
    for line in sql.splitlines():
        current.append(line)
        if line.rstrip().endswith(";") and "\n".join(current).count("$function$") % 2 == 0:
            found.append("\n".join(current).strip())
            current = []
    return found


def _upgrade_sqlite(url: sa.URL, names: Names) -> list[Migration]:
    with translated():
        connection = open_sqlite(url.database or "")
        try:
            _write_ahead(connection)
            connection.execute("BEGIN IMMEDIATE")
            pending = _pending(_sqlite_version(connection, names), migrations("sqlite", names))
            for step in pending:
                for statement in statements(step.sql):
                    connection.execute(statement)
            connection.execute("COMMIT")
        finally:
            connection.close()
    return pending


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite does not wait for that lock itself, so two upgrades at once would end one of them."""
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.01)
        else:
            return


def _pending(version: int, steps: list[Migration]) -> list[Migration]:
    if version > LATEST:
        require_latest(version)
    return [step for step in steps if step.version > version]


def version_of(connection: psycopg.Connection[tuple[object, ...]], names: Names) -> int:
    """The version of the tables on PostgreSQL; 0 where there are none."""
    table = names.table("schema_version", "postgres")
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchone()
    if not row or not row[0]:
        return 0
    found = connection.execute(queries(names, "postgres")["version"].encode()).fetchone()
    return int(str(found[0])) if found else 0


def _sqlite_version(connection: sqlite3.Connection, names: Names) -> int:
    table = names.table("schema_version", "sqlite").strip('"')
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", [table]).fetchone():
        return 0
    return int(connection.execute(queries(names, "sqlite")["version"]).fetchone()[0])
