"""The names of schema and tables, which are settings, and the SQL that uses them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType

from ..messaging.errors import ConfigurationError

TABLES = (
    "outbox",
    "outbox_parked",
    "outbox_scheduled",
    "outbox_action",
    "relay_cursor",
    "relay_instance",
    "relay_control",
    "inbox",
    "inbox_held",
    "inbox_attempt",
    "inbox_control",
    "inbox_action",
    "dead_letter",
    "dead_letter_state",
    "dead_letter_record",
    "dead_letter_source",
    "dead_letter_plan",
    "dead_letter_action",
    "schema_version",
)
_LEGAL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


@dataclass(frozen=True)
class Names:
    """Where the tables are. ``schema`` is a prefix on SQLite, which knows no schemas. ``tables`` renames some.

    Raises ConfigurationError for what is no plain SQL name of up to 40 characters.
    """

    schema: str = "postroom"
    tables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        for table, name in (("schema", self.schema), *self.tables.items()):
            if table not in (*TABLES, "schema"):
                raise ConfigurationError(f"There is no table {table!r} to rename; there are {', '.join(TABLES)}.")
            if not _LEGAL.fullmatch(name):
                raise ConfigurationError(
                    f"The name {name!r} for {table} must be 1 to 40 letters, digits and underscores."
                )

    def __hash__(self) -> int:
        return hash((self.schema, *sorted(self.tables.items())))

    def table(self, table: str, dialect: str) -> str:
        """The quoted name of one of TABLES, as it stands in SQL."""
        name = self.tables.get(table, table)
        return f'"{self.schema}"."{name}"' if dialect == "postgres" else f'"{self.schema}_{name}"'

    def render(self, sql: str, dialect: str) -> str:
        """``sql`` with ``{outbox}`` and so on replaced."""
        sql = sql.replace("{schema}", f'"{self.schema}"')
        for table in TABLES:
            sql = sql.replace(f"{{{table}}}", self.table(table, dialect))
            sql = sql.replace(f"{{{table}.name}}", self.tables.get(table, table))
        return sql.replace("{schema.name}", self.schema)


@lru_cache(maxsize=64)
def queries(names: Names, dialect: str, file: str = "queries") -> Mapping[str, str]:
    """The named queries of ``sql/<dialect>/<file>.sql``; a query begins at a line ``-- name: …``."""
    text = files(__package__).joinpath("sql", dialect, f"{file}.sql").read_text()
    parts = re.split(r"^-- name: *(\w+) *$", text, flags=re.MULTILINE)
    return MappingProxyType(
        {name: names.render(_bare(sql), dialect) for name, sql in zip(parts[1::2], parts[2::2], strict=True)}
    )


def _bare(sql: str) -> str:
    return "\n".join(line for line in sql.splitlines() if not line.lstrip().startswith("--")).strip().rstrip(";")
