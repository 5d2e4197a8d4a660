"""Dead letters in files, complete and byte for byte: JSON Lines, or Parquet.

JSON Lines is one object a line, with all fields of a letter and ``"format": 1``. Both are written and read in parts
of bounded size, so a file may be larger than the memory. Observer steps of an import:

    imported    count, skipped   a part is committed
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import sqlalchemy as sa

from ..messaging.errors import UsageError
from ..messaging.observer import Observer, unobserved
from . import parquet
from .choices import Format
from .fields import as_json, of_json
from .ingest import insert
from .ledger import Ledger, Work
from .letter import DeadLetter
from .states import State

_AT_ONCE = 1_000
_BYTES_AT_ONCE = 16_000_000
_ROW_GROUP = 2_000  # fewer of them, as the file's footer, which grows with them, is kept in memory
_LETTER_BYTES = 500
_LONGEST_LINE = 128 * 1024 * 1024
#: What was under way elsewhere is nobody's here.
_UNDER_WAY = (State.PLANNED, State.REPLAYED)
_LATER_COLUMNS = ("rounds", "same_failures", "masked", "forgotten_at")
_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
Numbered = tuple[int, DeadLetter]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did. ``skipped``: letters that were in the ledger already."""

    imported: int
    skipped: int


def export_letters(letters: Iterable[DeadLetter], stream: BinaryIO, format: Format = "jsonl") -> int:
    """Write ``letters``, which have to be whole; how many. Raises ConfigurationError where pyarrow is missing."""
    if format == "parquet":
        return parquet.write(_parts(enumerate(letters, 1), _ROW_GROUP), stream)
    count = 0
    for count, letter in enumerate(letters, 1):  # noqa: B007  it is told
        stream.write(_dump(as_json(letter)).encode() + b"\n")
    return count


def import_letters(
    ledger: Ledger,
    stream: BinaryIO,
    format: Format = "jsonl",
    *,
    actor: str,
    reason: str | None = None,
    dry_run: bool = False,
    observer: Observer = unobserved,
) -> Imported:
    """Put the letters of a file into the ledger, part by part; each part is a transaction, with its record.

    They get new ids, and incarnations below zero. Dead, quarantined and closed ones stay so; planned and replayed
    ones are dead, since their replay is not under way here. Links to other letters and to plans are dropped. A letter
    of the same place and message id as one in the ledger is skipped, so that an import that was interrupted can be
    run again. With ``dry_run`` all is read and nothing written. Raises UsageError that names the line of what cannot
    be read; the parts before it stay. Raises ConfigurationError where pyarrow is missing, DatabaseUnavailable.
    """
    rows = parquet.read(stream) if format == "parquet" else _lines(stream)
    imported = skipped = 0
    for part in _parts(rows, _AT_ONCE):
        with ledger.changing() as work:
            new = _new(work, part)
            if new and not dry_run:
                _put(work, new)
                told = f"{len(new)} letters" if reason is None else f"{reason} ({len(new)} letters)"
                work.note("import", actor, told)
        imported += len(new)
        skipped += len(part) - len(new)
        observer("imported", count=len(new), skipped=len(part) - len(new))
    return Imported(imported, skipped)


def _lines(stream: BinaryIO) -> Iterator[Numbered]:
    number = 0
    while line := stream.readline(_LONGEST_LINE):
        number += 1
        if line.isspace():
            continue
        try:
            yield number, of_json(_parsed(line))
        except UsageError as error:
            raise UsageError(f"Line {number:,} is no dead letter: {error}.") from None


def _parsed(line: bytes) -> Any:
    if len(line) == _LONGEST_LINE:
        raise UsageError(f"it is longer than {_LONGEST_LINE:,} bytes")
    try:
        return json.loads(line.decode())
    except (RecursionError, ValueError):
        raise UsageError("it is no JSON in UTF-8") from None


def _parts(letters: Iterable[Numbered], most: int) -> Iterator[list[DeadLetter]]:
    part: list[DeadLetter] = []
    weight = 0
    for _, letter in letters:
        part.append(letter)
        weight += _LETTER_BYTES + len(letter.payload or b"") + sum(len(each) for _, each in letter.headers or ())
        if len(part) == most or weight >= _BYTES_AT_ONCE:
            yield part
            part, weight = [], 0
    if part:
        yield part


def _new(work: Work, part: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Those that are not in the ledger, with incarnations that are free."""
    known, lowest = _known(work, part)
    new = []
    for letter in part:
        if (letter.place, letter.message_id) in known:
            continue
        known.add((letter.place, letter.message_id))
        incarnation = lowest[letter.place] = min(-1, lowest[letter.place] - 1)
        new.append(letter._replace(incarnation=incarnation))
    return new


def _known(work: Work, part: Sequence[DeadLetter]) -> tuple[set[Any], dict[Any, int]]:
    """What is there at the places of ``part``: places with message ids, and the lowest incarnation of each place."""
    column = work.ledger.tables.letter.c
    offsets: dict[tuple[str, int], set[int]] = defaultdict(set)
    for letter in part:
        offsets[letter.dead_letter_topic, letter.partition].add(letter.offset)
    known: set[Any] = set()
    lowest: dict[Any, int] = defaultdict(int)
    for (topic, partition), numbers in offsets.items():
        here = (column.dead_letter_topic == topic) & (column.partition == partition)
        query = sa.select(column.offset, column.message_id, column.incarnation)
        for offset, message_id, incarnation in work.connection.execute(query.where(here, column.offset.in_(numbers))):
            place = (topic, partition, offset)
            known.add((place, message_id))
            lowest[place] = min(lowest[place], incarnation)
    return known, lowest


def _put(work: Work, letters: Sequence[DeadLetter]) -> None:
    """Into the ledger, and then what a new letter does not have."""
    table, state = work.ledger.tables.fact, work.ledger.tables.state
    ids = insert(work, letters)
    rows = [
        {"b_id": id_, **{name: getattr(letter, name) for name in _LATER_COLUMNS}}
        for id_, letter in zip(ids, letters, strict=True)
        if any(getattr(letter, name) for name in _LATER_COLUMNS)
    ]
    if rows:
        values: dict[str, Any] = {name: sa.bindparam(name) for name in _LATER_COLUMNS}
        work.connection.execute(sa.update(table).where(table.c.id == sa.bindparam("b_id")).values(values), rows)
    standing = [
        {"id": id_, "state": _standing(letter).value, "state_at": letter.state_at}
        for id_, letter in zip(ids, letters, strict=True)
    ]
    work.connection.execute(sa.insert(state), standing)


def _standing(letter: DeadLetter) -> State:
    return State.DEAD if letter.state in _UNDER_WAY else letter.state
