"""What stands in a database's tables, and what changed between two looks."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from ..messaging.errors import ConfigurationError, UsageError
from ..outbox.database import translated
from ..outbox.names import TABLES, Names

#: More rows of a table are not compared.
_MOST_ROWS = 100_000
#: So many characters of a value are shown.
_LENGTH = 80


class _Rows(NamedTuple):
    """Of one table: by key, as text; without a primary key, the key is the whole row, with its number among equals."""

    rows: Mapping[str, Mapping[str, Any]]


Snapshot = Mapping[str, _Rows]


class Watched:
    """The tables that are compared: all but Postroom's own, or those of ``tables``; columns of ``ignore`` are left out.

    ``tables``: names, with a schema where it is not the default one. ``ignore``: ``column`` of any table, or
    ``table.column``. Raises UsageError for a name that is none.
    """

    def __init__(
        self, engine: sa.Engine, names: Names, tables: Collection[str] | None = None, ignore: Collection[str] = ()
    ) -> None:
        self._engine = engine
        self._ignore = frozenset(ignore)
        found = {_name(table): table for table in _reflected(engine, names)}
        if tables is not None:
            if unknown := sorted(set(tables) - found.keys()):
                raise UsageError(f"There is no table {unknown[0]!r}; there are {', '.join(sorted(found)) or 'none'}.")
            found = {name: found[name] for name in tables}
        self._tables = found
        columns = {f"{name}.{column.name}" for name, table in found.items() for column in table.columns}
        plain = {column.name for table in found.values() for column in table.columns}
        if unknown := sorted(self._ignore - columns - plain):
            raise UsageError(
                f"There is no column {unknown[0]!r} to ignore in {', '.join(sorted(found)) or 'no table'}."
            )

    def look(self) -> Snapshot:
        """As it is now. Raises ConfigurationError for a table of more than 100,000 rows."""
        with translated(), self._engine.connect() as connection:
            return {name: self._rows(connection, name, table) for name, table in self._tables.items()}

    def _rows(self, connection: sa.Connection, name: str, table: sa.Table) -> _Rows:
        kept = [column for column in table.columns if not {column.name, f"{name}.{column.name}"} & self._ignore]
        keys = list(table.primary_key.columns)
        found = connection.execute(sa.select(*kept, *keys).limit(_MOST_ROWS + 1)).all()
        if len(found) > _MOST_ROWS:
            raise ConfigurationError(f"The table {name} has more than {_MOST_ROWS:,} rows; name the others in tables.")
        seen: Counter[str] = Counter()
        rows = {}
        for values in found:
            row = dict(zip((column.name for column in kept), values, strict=False))
            key = ", ".join(
                f"{column.name}={_shown(value)}" for column, value in zip(keys, values[len(kept) :], strict=True)
            )
            if not keys:
                key = _line(row)
                seen[key] += 1
                key = key if seen[key] == 1 else f"{key} (the same for the {seen[key]}. time)"
            rows[key] = row
        return _Rows(rows)


def differences(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """A line for each row that was added, changed or removed."""
    for name, (now,) in after.items():
        was = before[name].rows
        for key, row in now.items():
            if key not in was:
                yield f"{name}: the row {key} was added: {_line(row)}"
            elif changed := [column for column in row if row[column] != was[key][column]]:
                told = (f"{column} was {_shown(was[key][column])}, is {_shown(row[column])}" for column in changed)
                yield f"{name}: the row {key} changed: {'; '.join(told)}"
        yield from (f"{name}: the row {key} was removed" for key in was if key not in now)


def _reflected(engine: sa.Engine, names: Names) -> Sequence[sa.Table]:
    """The user's tables. They may be in Postroom's schema, too: it is the default one of a user of that name."""
    with translated():
        inspector = sa.inspect(engine)
    default = inspector.default_schema_name
    postgres = engine.dialect.name == "postgresql"
    own = [names.tables.get(table, table) for table in TABLES]
    metadata = sa.MetaData()
    for schema in inspector.get_schema_names() if postgres else [None]:
        if schema is not None and schema.startswith(("pg_", "information_schema")):
            continue
        found = inspector.get_table_names(schema)
        if not postgres:
            kept = [name for name in found if not name.startswith(f"{names.schema}_")]
        elif schema == names.schema:  # partitions are named after their tables
            kept = [name for name in found if not any(name == each or name.startswith(f"{each}_") for each in own)]
        else:
            kept = found
        metadata.reflect(engine, schema=None if schema == default else schema, only=kept, resolve_fks=False)
    return metadata.sorted_tables


def _name(table: sa.Table) -> str:
    return table.name if table.schema is None else f"{table.schema}.{table.name}"


def _line(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{column}={_shown(value)}" for column, value in row.items())


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…"
