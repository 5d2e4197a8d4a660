"""What became of replays, as the inboxes in the same database tell: confirmed, dead again, expired, discarded."""

import sqlalchemy as sa

from .ledger import ITSELF, Ledger

_VERBS = {
    "handled": ("confirm", "Its inbox handled it."),
    "dead-lettered": ("fail", "It died again."),
    "expired": ("expire", "Its deadline had passed before it was handled."),
    "discarded": ("discard", "It was discarded from what its inbox held."),
}


def settle(ledger: Ledger, plan: int | None = None) -> int:
    """Note what became of replayed letters, of one plan or of all; how many. Raises DatabaseUnavailable."""
    with ledger.reading() as connection:
        inbox = ledger.tables.inbox.c
        outcomes = sa.select(inbox.outcome).join_from(ledger.tables.letter, ledger.tables.inbox, _met(ledger))
        found = set(connection.execute(outcomes.where(_waiting(ledger, plan)).distinct()).scalars())
    count = 0
    for outcome in sorted(found & _VERBS.keys()):
        verb, why = _VERBS[outcome]
        row = sa.exists(sa.select(inbox.message_id).where(_met(ledger), inbox.outcome == outcome))
        with ledger.changing() as work:
            values = {"plan_id": None, "ordinal": None} if verb == "expire" else {}
            count += work.change(verb, _waiting(ledger, plan) & row, ITSELF, why, values)
    return count


def knows(ledger: Ledger, groups: set[str]) -> set[str]:
    """Those of the groups that have an inbox in this database; the others' replays are never confirmed."""
    inbox = ledger.tables.inbox.c
    with ledger.reading() as connection:
        return {
            group
            for group in groups
            if connection.execute(sa.select(inbox.outcome).where(inbox.consumer_group == group).limit(1)).first()
        }


def _waiting(ledger: Ledger, plan: int | None) -> sa.ColumnElement[bool]:
    letter = ledger.tables.letter.c
    waiting = ledger.tables.in_states({"replayed"})
    return waiting if plan is None else waiting & (letter.plan_id == plan)


def _met(ledger: Ledger) -> sa.ColumnElement[bool]:
    """The inbox's row is of this replay, or of a later one."""
    inbox, letter = ledger.tables.inbox.c, ledger.tables.letter.c
    same = (inbox.consumer_group == letter.consumer_group) & (inbox.message_id == letter.inbox_id)
    return same & (inbox.replays > letter.replays)
