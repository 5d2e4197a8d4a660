"""Whether this machine's clock and the database's agree. Kafka tells nobody the time without a record written."""

from collections.abc import Iterator

from .patient import Finding, Patient, State

#: In seconds; less is nothing to worry about.
_NOTICEABLE = 1.0
_LOOKS = 3


def clock(patient: Patient) -> Iterator[Finding]:
    """As the database's, as far as the time that the question takes tells.

    Leases are on the database's clock alone. Ours counts for delayed and expiring messages, for the next attempt of
    held ones, for the timestamps of records, by which Kafka's retention goes, and for latencies.
    """
    if not patient.on_postgres:
        return  # SQLite has ours
    skew, unsure = min((_look(patient) for _ in range(_LOOKS)), key=lambda look: look[1])
    settings = patient.app.settings
    if abs(skew) <= _NOTICEABLE + unsure:
        told = f"within {max(0.1, abs(skew) + unsure):.1f} s of the database's"
        yield Finding("clock", "this machine", "ok", told)
        return
    told = (
        f"{abs(skew):.1f} s {'behind' if skew > 0 else 'ahead of'} the database's (to {unsure:.1f} s): delayed and "
        "expiring messages, retries of held ones, latencies and Kafka's retention are off by that; leases are not, "
        "since they are on the database's clock"
    )
    todo = "Synchronise both machines by NTP (chronyc tracking, timedatectl)."
    state: State = "problem" if abs(skew) - unsure > settings.relay.lease_seconds / 2 else "warning"
    yield Finding("clock", "this machine", state, told, todo)


def _look(patient: Patient) -> tuple[float, float]:
    """By how many seconds the database is ahead of us, and to how many that is known."""
    began, before = patient.clock.monotonic(), patient.clock.now().timestamp()
    [(theirs,)] = patient.rows("clock")
    took = patient.clock.monotonic() - began
    return theirs - (before + took / 2), took / 2
