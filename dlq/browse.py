"""Finding dead letters in the ledger: page by page, in an order, with what stands around one of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from ..messaging.errors import UsageError
from .choices import Sort
from .filter import Filter
from .ledger import Ledger, made
from .letter import DeadLetter, Place

_ASCENDING = ("oldest", "arrival")
_PAGE = 1_000
_INSIDE = 200  # records at once, where each is looked at


@dataclass(frozen=True, slots=True)
class Page:
    """Some dead letters. ``next``: the id after which the next page begins; None: no more."""

    letters: list[DeadLetter]
    next: int | None


def find(
    ledger: Ledger,
    wanted: Filter,
    *,
    sort: Sort = "newest",
    limit: int = 50,
    after: int | None = None,
    records: bool = False,
) -> Page:
    """Up to ``limit`` of them in the order of ``sort``, those after the letter with the id ``after``.

    With ``records``, or where the filter looks inside, whole. Raises UsageError where there is no such letter,
    DatabaseUnavailable.
    """
    found: list[DeadLetter] = []
    for letter in each(ledger, wanted, sort=sort, after=after, records=records, page=limit + 1):
        found.append(letter)
        if len(found) > limit:
            return Page(found[:limit], found[limit - 1].id)
    return Page(found, None)


def each(
    ledger: Ledger,
    wanted: Filter,
    *,
    sort: Sort = "oldest",
    after: int | None = None,
    records: bool = False,
    page: int = _PAGE,
) -> Iterator[DeadLetter]:
    """All of them, page by page; with ``records``, or where the filter looks inside, whole.

    Raises UsageError where there is no letter with the id ``after``, DatabaseUnavailable.
    """
    inside = records or wanted.looks_inside
    size = min(page, _INSIDE) if inside else page
    while True:
        rows = _page(ledger, wanted, sort, after, size, inside=inside)
        for letter in rows:
            if not wanted.looks_inside or wanted.matches(letter):
                yield letter
        if len(rows) < size:
            return
        after = rows[-1].id


def count(ledger: Ledger, wanted: Filter) -> Mapping[str, int]:
    """How many there are by state."""
    if wanted.looks_inside:
        counts: dict[str, int] = {}
        for letter in each(ledger, wanted):
            counts[letter.state] = counts.get(letter.state, 0) + 1
        return counts
    state = ledger.tables.letter.c.state
    with ledger.reading() as connection:
        rows = connection.execute(sa.select(state, sa.func.count()).where(*wanted.sql(ledger.tables)).group_by(state))
        return dict(rows.all())


def get(ledger: Ledger, name: str) -> list[DeadLetter]:
    """The letters that ``name`` means, whole, the latest first: an id, a place, or a message id.

    Raises UsageError where there is none.
    """
    found: list[DeadLetter] = []
    if name.isascii() and name.isdigit() and len(name) < 19:  # noqa: PLR2004  what the column holds
        found = ledger.letters([int(name)])
    elif place := Place.parse(name):
        found = ledger.at(place)
    found = found or ledger.of_message(name)
    if not found:
        raise UsageError(
            f"There is no dead letter {name!r} in the ledger: neither an id, nor a place topic/partition/offset, nor a "
            "message id."
        )
    return found


def last_id(ledger: Ledger) -> int:
    """The id of the letter that came last; 0 before the first."""
    with ledger.reading() as connection:
        return int(
            connection.execute(sa.select(sa.func.coalesce(sa.func.max(ledger.tables.letter.c.id), 0))).scalar_one()
        )


def neighbours(ledger: Ledger, letter: DeadLetter, limit: int = 5) -> list[DeadLetter]:
    """The nearest dead letters of its key, topic and group, in their order, itself among them; itself without a key."""
    if letter.key is None:
        return [letter]
    column = ledger.tables.letter.c
    order = sa.tuple_(column.order_partition, column.order_offset, column.id)
    here = sa.tuple_(*(sa.literal(value) for value in (letter.order_partition, letter.order_offset, letter.id)))
    same = sa.and_(
        column.key == letter.key,
        column.topic.is_not_distinct_from(letter.topic),
        column.consumer_group.is_not_distinct_from(letter.group),
    )
    columns = [column.order_partition, column.order_offset, column.id]
    query = sa.select(ledger.tables.letter).where(same)
    with ledger.reading() as connection:
        before = query.where(order < here).order_by(*(each_.desc() for each_ in columns)).limit(limit)
        after = query.where(order > here).order_by(*columns).limit(limit)
        earlier = [made(row) for row in connection.execute(before)]
        return [*reversed(earlier), letter, *(made(row) for row in connection.execute(after))]


def _page(
    ledger: Ledger, wanted: Filter, sort: Sort, after: int | None, limit: int, *, inside: bool
) -> list[DeadLetter]:
    letter, record = ledger.tables.letter, ledger.tables.record
    by: sa.ColumnElement[object] = {
        "newest": letter.c.failed_at,
        "oldest": letter.c.failed_at,
        "largest": sa.func.coalesce(letter.c.size, -1),
        "replays": letter.c.replays,
        "arrival": letter.c.id,
    }[sort]
    with ledger.reading() as connection:
        query = sa.select(letter).where(*wanted.sql(ledger.tables)).limit(limit)
        if inside:
            joined = letter.join(record, letter.c.id == record.c.id, isouter=True)
            query = query.add_columns(record.c.payload, record.c.headers).select_from(joined)
        if after is not None:
            last = connection.execute(sa.select(by).where(letter.c.id == after)).first()
            if last is None:
                raise UsageError(f"There is no dead letter with the id {after} to go on after.")
            here = sa.tuple_(sa.literal(last[0], by.type), sa.literal(after))
            at = sa.tuple_(by, letter.c.id)
            query = query.where(at > here if sort in _ASCENDING else at < here)
        order = (by, letter.c.id) if sort in _ASCENDING else (by.desc(), letter.c.id.desc())
        return [made(row) for row in connection.execute(query.order_by(*order))]
