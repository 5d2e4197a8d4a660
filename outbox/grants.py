"""Who may do what: the rights that each kind of role needs in the database, and no more. PostgreSQL only."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from ..messaging.errors import ConfigurationError, UsageError
from .audit import Action
from .database import conninfo, parse_url, translated
from .names import TABLES, Names, queries
from .schema import require_latest, version_of

KINDS = ("app", "relay", "consumer", "operator", "reader")
_LONGEST = 63  # bytes; PostgreSQL would cut the rest off, and mean another role
#: These mean everybody and nobody, quoted or not.
_NO_ROLES = ("public", "none")


class Grant(NamedTuple):
    """A ``kind`` of KINDS, and the ``role`` of the database that is to be one. Raises UsageError by ``of``."""

    kind: str
    role: str

    @classmethod
    def of(cls, kind: str, role: str) -> "Grant":
        """A grant that can be written as SQL. Raises UsageError, one sentence."""
        if kind not in KINDS:
            raise UsageError(f"There is no kind of role {kind!r}; there are {', '.join(KINDS)}.")
        if not role.isprintable() or not 0 < len(role.encode()) <= _LONGEST:
            raise UsageError(f"The role {role!r} must be a name of 1 to {_LONGEST} bytes.")
        if role in _NO_ROLES:
            raise UsageError(f"{role!r} is no role of its own; name the one that connects.")
        return cls(kind, role)


class Right(NamedTuple):
    """A ``privilege`` on a schema, table, sequence or function (``sort``); ``column``: on that alone, else empty."""

    sort: str
    name: str
    privilege: str
    column: str = ""

    def __str__(self) -> str:
        part = f" ({self.column})" if self.column else ""
        return f"{self.privilege}{part} on {'' if self.sort == 'table' else self.sort + ' '}{self.name}"


def rights(names: Names, kind: str) -> list[Right]:
    """What a role of ``kind`` needs, as the SQL that grants it says."""
    found: list[Right] = []
    for statement in _rendered(queries(names, "postgres", "grants")[kind], names, "role").split(";"):
        match = _GRANT.fullmatch(" ".join(statement.split()))
        assert match, statement  # noqa: S101  the file is ours
        sort = (match["sort"] or "table").lower()
        for target in re.findall(r'"([^"]+)"(?:\([^)]*\))?(?:,|$)', match["on"]):
            for privilege, columns in re.findall(r"(\w+)(?: \(([^)]*)\))?", match["what"]):
                found += [Right(sort, target, privilege, column) for column in columns.split(", ")]
    return list(dict.fromkeys(found))


def held_params(wanted: Sequence[Right]) -> dict[str, list[str]]:
    """The parameters of the query ``held``."""
    names = ("sorts", "names", "privileges", "columns")
    columns = ([right.sort, right.name, right.privilege, right.column] for right in wanted)
    return dict(zip(names, map(list, zip(*columns, strict=True)), strict=True))


_GRANT = re.compile(r"GRANT (?P<what>.+) ON (?:(?P<sort>SCHEMA|SEQUENCE|FUNCTION) )?(?P<on>.+) TO \"role\"")


def statements(names: Names, grants: Sequence[Grant]) -> list[str]:
    """The SQL, in order. What an earlier run granted to these roles is taken back first.

    For the owner of the tables, in one transaction, and again after each upgrade of the tables.
    """
    sql = queries(names, "postgres", "grants")
    roles = dict.fromkeys(grant.role for grant in grants)
    parts = [sql["owner"]]
    parts += [_rendered(sql["revoke"], names, role) for role in roles]
    parts += [_rendered(sql[kind], names, role) for kind, role in dict.fromkeys(grants)]
    return [statement.strip() + ";" for part in parts for statement in part.split(";\n")]


def apply(url: str, names: Names, grants: Sequence[Grant], *, actor: str, reason: str | None) -> None:
    """Grant them, and write it down, in one transaction.

    Raises ConfigurationError for a role that is missing or that no grant limits, UsageError on SQLite,
    NotAuthorized for who does not own the tables, and as ``schema.check`` does.
    """
    parsed = parse_url(url)
    if parsed.drivername == "sqlite":
        raise UsageError("SQLite knows no roles; whoever can write the file can do everything.")
    with translated(), psycopg.connect(conninfo(parsed), connect_timeout=5) as connection:
        require_latest(version_of(connection, names))
        _check(connection, names, grants)
        for statement in statements(names, grants):
            connection.execute(statement.encode())
        told = ", ".join(f"{kind} to {role}" for kind, role in dict.fromkeys(grants))
        action = Action(actor, "grant", reason=f"{told}: {reason}" if reason else told)
        connection.execute(queries(names, "postgres")["note"].encode(), action.params())


def _check(connection: psycopg.Connection[tuple[object, ...]], names: Names, grants: Sequence[Grant]) -> None:
    roles = list(dict.fromkeys(grant.role for grant in grants))
    query = queries(names, "postgres", "grants")["roles"].encode()
    found = {str(role): bool(owns) for role, owns in connection.execute(query, {"roles": roles})}
    for role in roles:
        if role not in found:
            raise ConfigurationError(f"The database has no role {role!r}; make it: CREATE ROLE {_quoted(role)} LOGIN.")
        if found[role]:
            raise ConfigurationError(
                f"The role {role!r} owns the tables, is a member of who does, or is a superuser, so that no grant "
                "limits it; name another."
            )


def _rendered(sql: str, names: Names, role: str) -> str:
    tables = ", ".join(names.table(table, "postgres") for table in TABLES)
    return sql.replace("{tables}", tables).replace("{role}", _quoted(role))


def _quoted(role: str) -> str:
    return '"' + role.replace('"', '""') + '"'
