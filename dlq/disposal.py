"""Putting dead letters aside, taking them up again, and deleting old ones from the ledger."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ..messaging.errors import UsageError
from ..messaging.observer import Observer, unobserved
from .browse import each
from .filter import Filter
from .ledger import Ledger, Work
from .states import OPEN, TRANSITIONS, State

_AT_ONCE = 5_000
#: What ``purge`` deletes unless told otherwise, and what it never deletes.
CLOSED = frozenset({State.CONFIRMED, State.FAILED_AGAIN, State.DISCARDED})
UNDER_WAY = frozenset({State.PLANNED, State.REPLAYED})


def changeable(ledger: Ledger, wanted: Filter, verb: str) -> list[int]:
    """The ids of the ``wanted`` letters whose state lets ``verb`` change them, in the order of their failures.

    ``verb``: discard, release or reopen. What was erased cannot be reopened, nor what a letter that is open was
    edited from: both would be replayed.
    """
    sources = TRANSITIONS[verb].sources
    states = frozenset(wanted.states) & sources if wanted.states else sources
    if not states:
        return []
    letters = each(ledger, replace(wanted, states=states))
    if verb != "reopen":
        return [letter.id for letter in letters]
    with ledger.reading() as connection:
        edited = set(connection.execute(replaced(ledger)).scalars())
    return [letter.id for letter in letters if letter.forgotten_at is None and letter.id not in edited]


def discard(
    ledger: Ledger, letters: Sequence[int], *, actor: str, reason: str | None, observer: Observer = unobserved
) -> int:
    """Put letters aside for good: no replay takes them; how many. What is confirmed stays as it is."""
    return _change(ledger, "discard", letters, actor, reason, {}, observer)


def release(
    ledger: Ledger, letters: Sequence[int], *, actor: str, reason: str | None = None, observer: Observer = unobserved
) -> int:
    """Let quarantined letters go on, their replays counted anew; how many."""
    return _change(ledger, "release", letters, actor, reason, {"rounds": 0, "same_failures": 0}, observer)


def reopen(
    ledger: Ledger, letters: Sequence[int], *, actor: str, reason: str | None = None, observer: Observer = unobserved
) -> int:
    """Make discarded, replayed and confirmed letters dead again; how many. Not what ``changeable`` leaves out."""
    return _change(ledger, "reopen", letters, actor, reason, {"plan_id": None, "ordinal": None}, observer)


def purge(
    ledger: Ledger,
    before: datetime,
    *,
    actor: str,
    reason: str | None = None,
    states: Collection[State] = CLOSED,
    dry_run: bool = False,
    observer: Observer = unobserved,
) -> Counter[str]:
    """Delete letters that came into their state before a moment; how many, by state.

    Their record of actions stays, and so do the positions: they are not read again from Kafka. A letter that was
    edited stays while its successor is open, which tells the inbox what it takes the place of. Raises UsageError for
    states of which letters are under way. With ``dry_run`` nothing is deleted.
    """
    if under_way := sorted(UNDER_WAY & {*states}):
        raise UsageError(
            f"Letters that are {' or '.join(under_way)} are under way and are not purged; wait for their replay, or "
            "discard them."
        )
    letter = ledger.tables.letter.c
    old = ledger.tables.in_states(states) & (letter.state_at < before) & letter.id.not_in(replaced(ledger))
    if dry_run:
        with ledger.reading() as connection:
            query = sa.select(letter.state, sa.func.count()).where(old).group_by(letter.state)
            return Counter(dict(connection.execute(query).all()))
    deleted: Counter[str] = Counter()
    note: int | None = None
    last = 0
    while True:
        with ledger.changing() as work:
            query = sa.select(letter.id, letter.state).where(old, letter.id > last).order_by(letter.id)
            found: dict[int, str] = dict(work.connection.execute(query.limit(_AT_ONCE)).all())
            if not found:
                return deleted
            for table in (ledger.tables.record, ledger.tables.state, ledger.tables.fact):
                work.connection.execute(sa.delete(table).where(table.c.id.in_(found)))
            deleted.update(found.values())
            last = max(found)
            note = _note_purge(work, note, deleted, before, actor, reason)
        observer("purged", count=len(found))


def _change(
    ledger: Ledger,
    verb: str,
    letters: Sequence[int],
    actor: str,
    reason: str | None,
    values: dict[str, Any],
    observer: Observer,
) -> int:
    """Part by part, each in a transaction with its record."""
    letter = ledger.tables.letter.c
    count = 0
    for start in range(0, len(letters), _AT_ONCE):
        part = letters[start : start + _AT_ONCE]
        chosen: sa.ColumnElement[bool] = letter.id.in_(part)
        if verb == "reopen":
            chosen &= letter.forgotten_at.is_(None) & letter.id.not_in(replaced(ledger))
        with ledger.changing() as work:
            count += work.change(verb, chosen, actor, reason, values)
        observer(verb, count=len(part))
    return count


def replaced(ledger: Ledger) -> sa.Select[int]:
    """The ids of what letters that are open were edited from."""
    letter = ledger.tables.letter.alias("successor").c
    edited = letter.follows.is_not(None) & (letter.incarnation < 0)
    return sa.select(letter.follows).where(edited, letter.state.in_(sorted(OPEN)))


def _note_purge(
    work: Work, note: int | None, deleted: Counter[str], before: datetime, actor: str, reason: str | None
) -> int:
    """One record for all parts, brought up to date with each."""
    told = ", ".join(f"{count} {state}" for state, count in sorted(deleted.items()))
    told = f"deleted {told}; older than {before.isoformat(timespec='seconds')}"
    told = told if reason is None else f"{reason} ({told})"
    if note is None:
        return work.note("purge", actor, told)
    action = work.ledger.tables.action
    work.connection.execute(sa.update(action).where(action.c.id == note).values(reason=told))
    return note
