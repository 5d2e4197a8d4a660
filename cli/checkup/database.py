"""Whether the database answers, has our tables, and keeps what it acknowledges."""

import sqlite3
from collections.abc import Iterator, Mapping

from ...messaging.errors import NotAuthorized, SchemaMissing, SchemaOutdated, SchemaTooNew
from ..errors import sentence
from .patient import Finding, Patient

_OLDEST_POSTGRES = 13
#: Settings of PostgreSQL without which a crash may take what was acknowledged, and what happens then.
_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}
_LOST = {
    "fsync": "after a crash of the machine the database may be damaged, and committed messages gone",
    "full_page_writes": "after a crash of the machine pages may be torn, and committed messages gone",
    "synchronous_commit": "COMMIT does not wait for the disk, and after a crash committed messages are gone",
}
_TIMEOUTS = ("statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout")
#: Shorter than this, in milliseconds, and a relay's poll of a long log, or a handler's transaction, may be cut off.
_SHORT_TIMEOUT = 5_000


def database(patient: Patient) -> Iterator[Finding]:
    """The database answers and takes writes, and its tables are of this version."""
    if not patient.has_settings:
        return
    error = patient.database_error
    if error is not None:
        if "statement pooling" in str(error):
            told = "PgBouncer is in statement mode, in which there are no transactions"
            yield Finding("database", "", "problem", told, "Set its pool_mode to transaction or session.")
        else:
            yield Finding("database", "", "problem", sentence(error), "Start it, or correct database_url.")
        return
    match patient.tables:
        case int() as number:
            yield Finding("database", "tables", "ok", f"of version {number}")
        case SchemaMissing() as error:
            yield Finding("database", "tables", "problem", sentence(error), "postroom init")
        case SchemaOutdated() as error:
            yield Finding("database", "tables", "problem", sentence(error), "postroom db upgrade")
        case SchemaTooNew() as error:
            yield Finding("database", "tables", "problem", sentence(error), "Upgrade Postroom here.")
        case NotAuthorized():
            told = "this role may not read the version of the tables, which an application does not need"
            yield Finding(
                "database", "tables", "unknown", told, "Run the doctor as the role of a relay or an operator."
            )
        case error:
            yield Finding("database", "tables", "problem", sentence(error), "Start it, or correct database_url.")


def version(patient: Patient) -> Iterator[Finding]:
    """The server is one that we support, and is no standby."""
    if not patient.has_database:
        return
    if patient.dialect == "sqlite":
        yield Finding("versions", "SQLite", "ok", sqlite3.sqlite_version)
        return
    [(number, text, is_standby, _)] = patient.rows("server")
    if number < _OLDEST_POSTGRES * 10_000:
        told = f"{text}; Postroom needs {_OLDEST_POSTGRES} or later"
        yield Finding("versions", "PostgreSQL", "problem", told, "Upgrade the server.")
    else:
        yield Finding("versions", "PostgreSQL", "ok", text)
    if is_standby:
        told = "this is a standby: it takes no writes, and what it shows may be old"
        yield Finding("database", "primary", "problem", told, "Let database_url name the primary.")


def durability(patient: Patient) -> Iterator[Finding]:
    """What is committed is on disk."""
    if not patient.on_postgres:
        return
    found = _settings(patient)
    weak = [(name, found[name]) for name, off in _DURABLE.items() if found[name][0] == off]
    for name, (value, source) in weak:
        told = f"{name} is {value} ({source}): {_LOST[name]}"
        yield Finding("durability", name, "problem", told, _remedy(name, source))
    if not weak:
        told = ", ".join(f"{name} is {found[name][0]}" for name in _DURABLE)
        yield Finding("durability", "", "ok", told)
    for role, name, value in patient.rows("settings_of_roles", {"names": list(_DURABLE)}):
        if value == _DURABLE[name]:
            told = f"the role {role} has {name}={value}: {_LOST[name]}"
            yield Finding("durability", f"role {role}", "warning", told, f"ALTER ROLE … RESET {name}, if it publishes.")


def sessions(patient: Patient) -> Iterator[Finding]:
    """No setting of the server or the role cuts our transactions off, or makes them fail."""
    if not patient.on_postgres:
        return
    found = _settings(patient)
    read_only, source = found["default_transaction_read_only"]
    if read_only == "on":
        told = f"default_transaction_read_only is on ({source}): nothing can be published"
        yield Finding("sessions", "read only", "problem", told, _remedy("default_transaction_read_only", source))
    isolation, source = found["default_transaction_isolation"]
    if isolation in ("repeatable read", "serializable"):
        told = (
            f"default_transaction_isolation is {isolation} ({source}): transactions that meet at a row end with an "
            "error, and are done again"
        )
        todo = _remedy("default_transaction_isolation", source) + " Set it where the application needs it."
        yield Finding("sessions", "isolation", "warning", told, todo)
    for name in _TIMEOUTS:
        value, source = found.get(name, ("0", ""))
        if 0 < int(value) < _SHORT_TIMEOUT:
            told = f"{name} is {int(value)} ms ({source}): long polls, or handlers that take longer, are cut off"
            yield Finding(
                "sessions", name, "warning", told, f"Raise it for Postroom's roles, to {_SHORT_TIMEOUT} ms or more."
            )


def _settings(patient: Patient) -> Mapping[str, tuple[str, str]]:
    """Value and source."""
    names = [*_DURABLE, *_TIMEOUTS, "default_transaction_read_only", "default_transaction_isolation"]
    return {name: (value, source) for name, value, source in patient.rows("server_settings", {"names": names})}


def _remedy(name: str, source: str) -> str:
    match source:
        case "database":
            return f"ALTER DATABASE … RESET {name};"
        case "user" | "database user":
            return f"ALTER ROLE … RESET {name};"
        case "client":
            return f"Take {name} out of the options in database_url."
        case _:
            return f"ALTER SYSTEM RESET {name}; SELECT pg_reload_conf();"
