"""Who may do what: the rights that each kind of role needs in the database, and no more. PostgreSQL only."""

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
