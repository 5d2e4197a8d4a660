"""Repairing a dead letter: the repaired message is a new one with an id of its own, and the old one stays as it was.

The inbox knows the old id and would not run it again. The new letter stands where the old one stood in the order of
its key, and has the old one's story; its replay tells the group's inbox which message it takes the place of.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from ..messaging.dead_letter import KIP_1191, OURS, REPLAY_COUNT, REPLAY_GROUP, REPLAY_OF
from ..messaging.envelope import parse_timestamp
from ..messaging.errors import InvalidMessage, UsageError
from ..messaging.headers import HeaderPairs, check_headers, first
from ..messaging.message import MAX_TYPE_LENGTH, check_key, check_type, uuid7
from .families import FOREIGN
from .ingest import insert
from .ledger import Ledger, Work, whole
from .letter import DeadLetter
from .states import TRANSITIONS, State

_ITS_OWN = frozenset({"ce_id", "causation_id", REPLAY_COUNT, REPLAY_GROUP, REPLAY_OF})
_TRACES = (OURS, KIP_1191, *FOREIGN)
_SUBJECT = "ce_subject"
_EDITABLE = TRANSITIONS["edit"].sources
Check = Callable[[DeadLetter], None]


@dataclass(frozen=True, slots=True)
class Kept:
    """Stands for what a repair leaves as it is; None is a value of payloads and keys."""


KEPT = Kept()


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What to change. ``payload`` None: a tombstone. ``set``: headers by name, each instead of all of that name.

    ``remove``: names of headers; what is not there does not matter. Where ``ce_subject`` is the key's text, it
    follows the key. Raises InvalidMessage for what no message can have, UsageError for headers that are not to be
    set by hand.
    """

    payload: bytes | Kept | None = KEPT
    key: bytes | Kept | None = KEPT
    set: Mapping[str, str] = field(default_factory=dict)
    remove: Collection[str] = ()

    def __post_init__(self) -> None:
        check_headers(self.set)
        if "ce_type" in self.set:
            check_type(self.set["ce_type"])
        if not isinstance(self.key, Kept):
            check_key(self.key)
        for name in (*self.set, *self.remove):
            if name in _ITS_OWN or name.startswith(_TRACES):
                raise UsageError(
                    f"The header {name!r} cannot be edited: Postroom writes it, or takes it off, by itself."
                )
        if both := sorted({*self.set} & {*self.remove}):
            raise UsageError(f"The header {both[0]!r} is to be set and to be removed; which one?")

    def applied(self, letter: DeadLetter) -> DeadLetter:
        """The letter with these changes and otherwise as it was, its id too. Raises InvalidMessage."""
        payload = letter.payload if isinstance(self.payload, Kept) else self.payload
        key = letter.key if isinstance(self.key, Kept) else self.key
        if payload is None and key is None and (letter.payload, letter.key) != (None, None):
            raise InvalidMessage("A message without payload is a tombstone, and a tombstone needs a key.")
        headers = [pair for pair in letter.headers or () if pair[0] not in self.remove]
        if key != letter.key and letter.key is not None and (_SUBJECT, letter.key) in headers:
            text = _text(key)
            headers = _with(headers, {_SUBJECT: text}) if text else [pair for pair in headers if pair[0] != _SUBJECT]
        headers = _with(headers, self.set)
        return letter._replace(payload=payload, key=key, headers=headers)


def edited(letter: DeadLetter, repair: Repair) -> DeadLetter:
    """The new letter that ``repair`` makes of ``letter``, as yet without an id in the ledger, or the same letter.

    Its place is the old one's; its incarnation is for the ledger to say. Raises InvalidMessage, and UsageError where
    the letter cannot be edited.
    """
    _check(letter)
    changed = repair.applied(letter)
    if _contents(changed) == _contents(letter):
        return letter
    message_id = str(uuid7())
    headers = _with(changed.headers or (), {"ce_id": message_id, "causation_id": letter.message_id})
    return changed._replace(
        id=0,
        message_id=message_id,
        inbox_id=message_id,
        type=(first(headers, "ce_type") or "")[:MAX_TYPE_LENGTH] or None,
        expires_at=parse_timestamp(first(headers, "expires_at")),
        size=None if changed.payload is None else len(changed.payload),
        state=State.DEAD,
        plan_id=None,
        ordinal=None,
        follows=letter.id,
        same_failures=0,
        headers=headers,
    )


def edit(
    ledger: Ledger, letter: int, repair: Repair, *, actor: str, reason: str | None = None, check: Check | None = None
) -> DeadLetter:
    """Put the repaired message into the ledger, and discard the one that it takes the place of; the new letter.

    ``check``: is given the new letter, and may raise to refuse it. Raises UsageError where there is no such letter,
    where it is neither dead nor quarantined (any more), and where nothing would change; InvalidMessage. Nothing is
    changed then.
    """
    tables = ledger.tables
    with ledger.changing() as work:
        found = whole(work.connection, tables, tables.letter.c.id == letter)
        if not found:
            raise UsageError(f"There is no dead letter {letter} in the ledger.")
        [before] = found
        after = edited(before, repair)
        if after is before:
            raise UsageError(f"Nothing of dead letter {letter} would change.")
        if check is not None:
            check(after)
        after = after._replace(incarnation=_incarnation(work, before))
        [id_] = insert(work, [after])
        values = {"follows": letter, "rounds": before.rounds, "same_failures": 0}
        work.connection.execute(sa.update(tables.fact).where(tables.fact.c.id == id_).values(values))
        told = f"Letter {id_} takes its place." if reason is None else f"{reason} (letter {id_} takes its place)"
        work.change("edit", tables.letter.c.id == letter, actor, told)
        [after] = whole(work.connection, tables, tables.letter.c.id == id_)
    return after


def _check(letter: DeadLetter) -> None:
    """Raises UsageError."""
    if letter.forgotten_at is not None:
        raise UsageError(f"The contents of dead letter {letter.id} were erased; there is nothing to edit.")
    if letter.masked:
        raise UsageError(
            f"Dead letter {letter.id} was imported with masked fields; import it from an export without masks."
        )
    if letter.state not in _EDITABLE:
        ways = {
            State.PLANNED: f"; cancel it with `postroom dlq cancel {letter.plan_id}` first",
            State.DISCARDED: f"; reopen it with `postroom dlq reopen {letter.id}` first, or edit what took its place",
        }
        raise UsageError(
            f"Dead letter {letter.id} is {letter.state}, and only dead and quarantined ones can be edited"
            f"{ways.get(letter.state, '')}."
        )


def _contents(letter: DeadLetter) -> tuple[Any, ...]:
    return letter.payload, letter.key, list(letter.headers or ())


def _incarnation(work: Work, letter: DeadLetter) -> int:
    """Below zero, and below all others of its place."""
    column = work.ledger.tables.letter.c
    here = (column.dead_letter_topic == letter.dead_letter_topic) & (column.partition == letter.partition)
    lowest = sa.select(sa.func.min(column.incarnation)).where(here, column.offset == letter.offset)
    return min(-1, int(work.connection.execute(lowest).scalar_one()) - 1)


def _with(headers: HeaderPairs, new: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """Each new one where the first of its name stood, and the others of that name gone; else at the end."""
    left = {name: value.encode() for name, value in new.items()}
    result = []
    for name, value in headers:
        if name not in new:
            result.append((name, value))
        elif name in left:
            result.append((name, left.pop(name)))
    return [*result, *left.items()]


def _text(key: bytes | None) -> str | None:
    """A key's text, where it is a printable one."""
    try:
        text = (key or b"").decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None
