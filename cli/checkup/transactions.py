"""Who holds back vacuum, the dropping of old partitions, and messages that were written and not committed."""

from collections.abc import Iterator

from .. import output
from .patient import Finding, Patient, State

_LONG = 3_600.0
_RUNBOOK = "docs/runbooks/long-transaction.md"
_MUCH_WAL = 1e9
_VERY_MUCH_WAL = 10e9
#: Autovacuum freezes at 200 million by default, and stops at nothing from 1,600 million on.
_OLD_ROWS = 1_000_000_000
_TOO_OLD_ROWS = 1_600_000_000


def transactions(patient: Patient) -> Iterator[Finding]:
    """No transaction is open for longer than relay.transaction_warning_seconds."""
    if not patient.on_postgres:
        return
    limit = patient.app.settings.relay.transaction_warning_seconds
    rows = patient.rows("old_transactions", {"age": limit})
    wrote = set()
    if rows and patient.has_tables:
        wrote = {row[0] for row in patient.rows("open_transactions", {"age": limit}, "queries")}
    for pid, application, user, age, state, is_held in rows:
        who = f"{application or 'a program without a name'} of {user}, {state or 'state unknown'}"
        told = f"open for {output.duration(age)} ({who})"
        if pid in wrote:
            told += ": the messages that it wrote wait for it, and those of their shards are read again and again"
        elif is_held:
            told += ": vacuum removes nothing that died since, and old parts of the log stay"
        else:
            told += ": it may hold locks"
        worst: State = "problem" if age > _LONG or pid in wrote else "warning"
        todo = f"Ask who it is; SELECT pg_terminate_backend({pid}); ends it ({_RUNBOOK})."
        yield Finding("transaction", f"pid {pid}", worst, told, todo)
    [(role, sees_others)] = patient.rows("sees_others")
    if not sees_others:
        told = f"{role} sees no transactions but its own"
        yield Finding("transaction", "of others", "unknown", told, f"GRANT pg_read_all_stats TO {role};")
    elif not rows:
        yield Finding("transaction", "", "ok", f"none is open for longer than {output.duration(limit)}")


def prepared(patient: Patient) -> Iterator[Finding]:
    """No prepared transaction was forgotten: it outlives even a restart."""
    if not patient.on_postgres:
        return
    limit = patient.app.settings.relay.transaction_warning_seconds
    for gid, owner, age in patient.rows("prepared", {"age": limit}):
        told = (
            f"prepared by {owner} {output.duration(age)} ago and neither committed nor rolled back: vacuum waits for it"
        )
        state: State = "problem" if age > _LONG else "warning"
        yield Finding(
            "transaction", gid, state, told, "COMMIT PREPARED or ROLLBACK PREPARED it, after its coordinator's log."
        )


def slots(patient: Patient) -> Iterator[Finding]:
    """No replication slot keeps the server's log, or dead rows, for a reader that does not come."""
    if not patient.on_postgres:
        return
    for name, is_active, wal_status, kept, holds_rows in patient.rows("slots"):
        wal = f"{(kept or 0) / 1e9:.1f} GB of WAL"
        rows = ", and vacuum waits for it" if holds_rows else ""
        drop = f"SELECT pg_drop_replication_slot('{name}'); once its reader is gone for good."
        if wal_status == "lost":
            told = "what it needs is gone: its reader has to begin anew"
            yield Finding("slot", name, "warning", told, drop)
        elif not is_active:
            state: State = "problem" if (kept or 0) > _MUCH_WAL else "warning"
            yield Finding(
                "slot", name, state, f"nobody reads it, and it keeps {wal}{rows}", f"Start its reader, or {drop}"
            )
        elif (kept or 0) > _VERY_MUCH_WAL:
            yield Finding("slot", name, "warning", f"its reader is behind: it keeps {wal}{rows}", "Look at its reader.")
        else:
            yield Finding("slot", name, "ok", f"is read, and keeps {wal}")


def wraparound(patient: Patient) -> Iterator[Finding]:
    """Vacuum keeps up with freezing old rows."""
    if not patient.on_postgres:
        return
    [(age,)] = patient.rows("wraparound")
    told = f"the oldest row that is not frozen is {age / 1e6:,.0f} million transactions old"
    if age < _OLD_ROWS:
        yield Finding("wraparound", "", "ok", told)
        return
    state: State = "problem" if age > _TOO_OLD_ROWS else "warning"
    told += "; at 2,100 million the database takes no more writes"
    yield Finding("wraparound", "", state, told, f"See what holds vacuum back ({_RUNBOOK}), then VACUUM FREEZE.")
