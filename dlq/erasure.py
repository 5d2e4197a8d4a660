"""Erasing what is kept of somebody, by key or subject: in the ledger, among held messages, among parked ones.

Message ids, error classes and the record of actions stay. What cannot be erased here is counted: the outbox's log,
delayed messages, handlers' results in the inbox, and Kafka itself.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ..messaging.dead_letter import replay_count
from ..messaging.errors import InvalidRecord, UsageError
from ..messaging.headers import HeaderPairs, first, load
from ..outbox.audit import inbox_action
from ..outbox.database import open_store
from .ledger import Ledger, made
from .letter import DeadLetter, Place

_SUBJECT = "ce_subject"
_AT_ONCE = 500
_MOST_REPLAYS = 32_767  # what the inbox's column holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """Whose messages: those of a ``key``, or of a ``subject``, which is the header ``ce_subject``, or the key as text
    of a message without that header. ``topic`` (the original, or the dead-letter topic) and ``group`` narrow it down.

    Raises UsageError unless exactly one of key and subject is given.
    """

    key: bytes | None = None
    subject: str | None = None
    topic: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        if (self.key is None) == (self.subject is None):
            raise UsageError("Say whose messages are meant: either a key or a subject.")

    def are(self, key: bytes | None, headers: HeaderPairs) -> bool:
        """Whether these messages are meant."""
        if self.subject is None:
            return key == self.key
        own = first(headers, _SUBJECT)
        return own == self.subject if own is not None else key == self.subject.encode()

    def params(self) -> dict[str, Any]:
        """For the queries ``traces_…``, which find a little too much."""
        key = self.key if self.subject is None else self.subject.encode()
        quoted = None if self.subject is None else json.dumps(self.subject, ensure_ascii=False)
        return {"topic": self.topic, "key": key, "quoted": quoted}


@dataclass(slots=True)
class Forgotten:
    """What was, or would be, erased, and what stays.

    ``letters``, ``held``, ``parked``: rows erased. ``parked_left``: parked ones, which belong to no group, where a
    group was given. ``logged``: rows of the outbox's log by topic, and ``logged_at`` when the newest was written;
    they go with its retention. ``scheduled``: delayed messages that will be published. ``results``: of handlers, in
    the inbox. ``records``: in Kafka, by topic, as far as they were seen here.
    """

    letters: int = 0
    held: int = 0
    parked: int = 0
    parked_left: int = 0
    logged: Counter[str] = field(default_factory=Counter)
    logged_at: datetime | None = None
    scheduled: int = 0
    results: int = 0
    records: Counter[str] = field(default_factory=Counter)

    @property
    def erased(self) -> int:
        """All rows."""
        return self.letters + self.held + self.parked


def forget(ledger: Ledger, whose: Whose, *, actor: str, reason: str | None = None, dry_run: bool = False) -> Forgotten:
    """Erase payloads, headers, keys, messages and stacks of whose messages these are; copies, too.

    Dead letters stay as rows without contents, discarded; copies that were edited to another key go with them. Held
    messages are closed for their group and deleted; parked ones are deleted, and what waits behind them goes on.
    Done part by part, each a transaction with its record, in which neither key nor subject stands; run again, it
    does what is left. With ``dry_run`` nothing is changed. Raises DatabaseUnavailable.
    """
    told = Forgotten()
    seen: set[Place] = set()
    ids = _letters(ledger, whose, seen)
    told.results = _results(ledger, ids)
    told.letters = len(ids) if dry_run else _erase_letters(ledger, ids, actor, reason)
    told.held = _erase_held(ledger, whose, seen, actor, reason, dry_run=dry_run)
    _erase_parked(ledger, whose, told, actor, reason, dry_run=dry_run)
    told.records.update(place.topic for place in seen)
    _count_outbox(ledger, whose, told)
    if told.erased and not dry_run:
        counts = f"{told.letters} letters, {told.held} held, {told.parked} parked"
        with ledger.changing() as work:
            work.note("forget", actor, counts if reason is None else f"{reason} ({counts})")
    return told


def _letters(ledger: Ledger, whose: Whose, seen: set[Place]) -> list[int]:
    """The ids of the letters that still have contents, and of their copies; where they were seen in Kafka."""
    letter = ledger.tables.letter.c
    found: dict[int, str] = {}
    after = 0
    while True:
        page = _without_payloads(ledger, letter.id.in_(_candidates(ledger, whose, after)))
        for each in page:
            after = each.id
            if whose.are(each.key, each.headers or ()):
                found[each.id] = each.message_id
                _see(each, seen)
        if len(page) < _AT_ONCE:
            break
    for each in _copies(ledger, found):
        found[each.id] = each.message_id
        _see(each, seen)
    return sorted(found)


def _candidates(ledger: Ledger, whose: Whose, after: int) -> Any:
    letter, record = ledger.tables.letter, ledger.tables.record
    params = whose.params()
    meant = letter.c.key == params["key"]
    if params["quoted"] is not None:
        meant |= record.c.headers.contains(params["quoted"], autoescape=True)
    query = sa.select(letter.c.id).select_from(letter.join(record, letter.c.id == record.c.id, isouter=True))
    query = query.where(letter.c.id > after, letter.c.forgotten_at.is_(None), meant)
    if whose.topic is not None:
        query = query.where((letter.c.topic == whose.topic) | (letter.c.dead_letter_topic == whose.topic))
    if whose.group is not None:
        query = query.where(letter.c.consumer_group == whose.group)
    return query.order_by(letter.c.id).limit(_AT_ONCE)


def _copies(ledger: Ledger, found: dict[int, str]) -> Iterator[DeadLetter]:
    """What was edited from the ``found`` ones, or they from it, and imported copies, whatever their key is now."""
    letter = ledger.tables.letter.c
    with ledger.reading() as connection:
        edited = sa.select(letter.id, letter.follows).where(letter.follows.is_not(None), letter.incarnation < 0)
        links = [(id_, follows) for id_, follows in connection.execute(edited)]
    known, grown = set(found), True
    while grown:
        linked = {id_ for pair in links if known & set(pair) for id_ in pair}
        messages = set(found.values())
        grown = not linked <= known
        known |= linked
        for part in _portions(sorted(linked - found.keys()), letter.id, ledger):
            found |= {each.id: each.message_id for each in part}
            yield from part
        for part in _portions(sorted(messages), letter.message_id, ledger):
            new = [each for each in part if each.id not in known]
            grown = grown or bool(new)
            known |= {each.id for each in new}
            found |= {each.id: each.message_id for each in new}
            yield from new


def _portions(values: Sequence[Any], column: Any, ledger: Ledger) -> Iterator[list[DeadLetter]]:
    """The letters that have one of ``values`` and contents."""
    letter = ledger.tables.letter.c
    for start in range(0, len(values), _AT_ONCE):
        chosen = column.in_(values[start : start + _AT_ONCE]) & letter.forgotten_at.is_(None)
        yield _without_payloads(ledger, chosen)


def _without_payloads(ledger: Ledger, chosen: sa.ColumnElement[bool]) -> list[DeadLetter]:
    """The letters of a condition with their headers, by id."""
    letter, record = ledger.tables.letter, ledger.tables.record
    joined = letter.join(record, letter.c.id == record.c.id, isouter=True)
    query = sa.select(letter, sa.null(), record.c.headers).select_from(joined).where(chosen).order_by(letter.c.id)
    with ledger.reading() as connection:
        return [made(row) for row in connection.execute(query)]


def _see(letter: DeadLetter, seen: set[Place]) -> None:
    seen.add(letter.place)
    if letter.original is not None:
        seen.add(letter.original)


def _results(ledger: Ledger, ids: Sequence[int]) -> int:
    count = 0
    for start in range(0, len(ids), _AT_ONCE):
        with ledger.reading() as connection:
            params = _ids(ledger, ids[start : start + _AT_ONCE])
            count += int(connection.exec_driver_sql(ledger.sql["traces_results"], params).scalar_one())
    return count


def _erase_letters(ledger: Ledger, ids: Sequence[int], actor: str, reason: str | None) -> int:
    letter, record = ledger.tables.letter, ledger.tables.record
    gone = {"key": None, "message": None, "size": None, "forgotten_at": ledger.now}
    count = 0
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        with ledger.changing() as work:
            count += work.change("forget", letter.c.id.in_(part), actor, reason, gone)
            erased = sa.update(record).where(record.c.id.in_(part)).values(payload=None, headers="[]")
            work.connection.execute(erased)
    return count


def _erase_held(
    ledger: Ledger, whose: Whose, seen: set[Place], actor: str, reason: str | None, *, dry_run: bool
) -> int:
    """By the inbox's rules: each is closed for its group first, and the members look at what is held anew."""
    count = after = 0
    while True:
        with ledger.changing() as work:
            params = {**whose.params(), "group": whose.group, "after": after, "limit": _AT_ONCE}
            rows = work.connection.exec_driver_sql(ledger.sql["traces_held"], params).mappings().all()
            after = rows[-1]["id"] if rows else after
            held = [row for row in rows if whose.are(row["key"], _pairs(row["headers"]))]
            seen |= {Place(row["topic"], row["partition"], row["offset"]) for row in held}
            count += len(held)
            if held and not dry_run:
                _close(ledger, work.connection, held, actor, reason)
        if len(rows) < _AT_ONCE:
            return count


def _close(ledger: Ledger, connection: sa.Connection, held: Sequence[Any], actor: str, reason: str | None) -> None:
    closing = {
        (row["consumer_group"], row["message_id"]): _closing(row) for row in held if row["state"] != "dead-letter"
    }
    if closing:  # in one order, and before what is held: so no handler's transaction can deadlock with it
        connection.exec_driver_sql(ledger.sql["inbox_close"], [closing[key] for key in sorted(closing)])
    connection.exec_driver_sql(ledger.sql["desk_discard"], _ids(ledger, [row["id"] for row in held]))
    told = "erased" if reason is None else f"erased: {reason}"
    notes = [
        inbox_action(actor, "discard", row["consumer_group"], f"topic:{row['topic']}", row["message_id"], told)
        for row in held
    ]
    connection.exec_driver_sql(ledger.sql["note_inbox"], notes)
    groups = sorted({row["consumer_group"] for row in held})
    connection.exec_driver_sql(ledger.sql["desk_revise"], [{"group": group} for group in groups])


def _closing(row: Any) -> dict[str, Any]:
    """For the query ``inbox_close``."""
    return {
        "group": row["consumer_group"],
        "message_id": row["message_id"],
        "outcome": "discarded",
        "topic": row["topic"],
        "handler": row["handler"] or None,
        "attempts": row["attempts"],
        "replays": min(replay_count(_pairs(row["headers"])), _MOST_REPLAYS),
    }


def _erase_parked(
    ledger: Ledger, whose: Whose, told: Forgotten, actor: str, reason: str | None, *, dry_run: bool
) -> None:
    erased = "erased" if reason is None else f"erased: {reason}"
    store = open_store(ledger.url, ledger.names)
    try:
        after = 0
        while rows := store.parked(_AT_ONCE // 5, after=after, topic=whose.topic, key=whose.key):
            after = rows[-1].row.position
            meant = [each.row.position for each in rows if whose.are(each.row.key, _pairs(each.row.headers))]
            if whose.group is not None:
                told.parked_left += len(meant)
            elif dry_run:
                told.parked += len(meant)
            elif meant:
                told.parked += store.discard(meant, actor, erased)
    finally:
        store.close()


def _count_outbox(ledger: Ledger, whose: Whose, told: Forgotten) -> None:
    with ledger.reading() as connection:
        for row in connection.exec_driver_sql(ledger.sql["traces_logged"], whose.params()).mappings():
            if whose.are(row["key"], _pairs(row["headers"])):
                told.logged[row["topic"]] += 1
                moment = _moment(row["created_at"])
                told.logged_at = max(told.logged_at or moment, moment)
        delayed = connection.exec_driver_sql(ledger.sql["traces_scheduled"], whose.params()).mappings()
        told.scheduled = sum(whose.are(row["key"], _pairs(row["headers"])) for row in delayed)


def _pairs(headers: str) -> HeaderPairs:
    """None where they are broken."""
    try:
        return load(headers)[0]
    except InvalidRecord:
        return []


def _ids(ledger: Ledger, ids: Sequence[int]) -> dict[str, Any]:
    return {"ids": json.dumps(list(ids)) if ledger.sqlite else list(ids)}


def _moment(value: datetime | str) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value
