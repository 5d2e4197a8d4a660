"""Bringing the ledger up to date with the dead-letter topics: incremental, by its own positions.

A batch of letters and the positions behind it are one transaction, so nothing is taken twice or left out, whatever
is killed and however many do it at once. Observer steps, with their facts:

    reading     topic, count         so many records are to be read
    read        topic, count         a batch is committed
    missed      topic, partition, count    the topic's retention took them before they were read
    renewed     topic, partition     the topic was deleted and made anew
    gone        topic                the topic is not there any more; what was read of it stays
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import sqlalchemy as sa

from ..messaging.errors import UnknownTopic
from ..messaging.headers import dump_pairs
from ..messaging.observer import Observer, unobserved
from ..messaging.ports import TopicReader
from ..messaging.records import ReceivedRecord
from .ledger import ITSELF, Ledger, Work
from .letter import DeadLetter
from .settings import MAX_REPLAYS, TOPICS

if TYPE_CHECKING:
    import psycopg

_VALUE = itemgetter(1)
#: Any failure after so many replays goes to quarantine.
MAX_ROUNDS = 10
_BATCH = 2_000
_BATCH_BYTES = 8_000_000
_RECORD_BYTES = 300
_MANY = 10_000
_COPIED = DeadLetter._fields.index("state")
_LETTER_TYPES = (
    *("int8", "text", "int4", "int8", "int4", "timestamptz", "text", "text", "text", "bytea", "text", "text", "int4"),
    *("int8", "text", "text", "text", "text", "int4", "timestamptz", "timestamptz", "text", "int4", "timestamptz"),
    *("int4", "int4", "int8"),
)


@dataclass(slots=True)
class Caught:
    """What catching up did. ``missed``: taken by retention before they were read. ``gone``: topics that are no more."""

    read: int = 0
    missed: int = 0
    renewed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


class _Position(NamedTuple):
    incarnation: int
    next_offset: int
    mark: str
    missed: int
    gone_since: datetime | None = None


def find_topics(existing: Iterable[str], patterns: Sequence[str] = TOPICS, *, named: Sequence[str] = ()) -> list[str]:
    """The dead-letter topics among ``existing``: those that match a pattern (``*`` and ``?``), and the ``named`` ones.

    Raises UnknownTopic for a name that is not there.
    """
    names = set(existing)
    for name in named:
        if name not in names:
            raise UnknownTopic(f"Kafka knows no topic {name!r}; check the name.")
    return sorted({*named, *(name for name in names for pattern in patterns if fnmatchcase(name, pattern))})


def catch_up(
    reader: TopicReader,
    ledger: Ledger,
    topics: Sequence[str],
    *,
    max_replays: int = MAX_REPLAYS,
    observer: Observer = unobserved,
) -> Caught:
    """Read what the ``topics``, and those that the ledger knows of before, hold by now. Blocks.

    ``max_replays``: what fails in the same way after so many replays goes to quarantine. Raises KafkaUnavailable,
    NotAuthorized, DatabaseUnavailable, SchemaMissing; what is committed stays, and the next call goes on there.
    """
    caught = Caught()
    for topic in sorted({*topics, *_known(ledger)}):
        try:
            _Topic(reader, ledger, topic, max_replays, observer, caught).read()
        except UnknownTopic:
            _note_gone(ledger, topic)
            caught.gone.append(topic)
            observer("gone", topic=topic)
    if caught.read >= _MANY and not ledger.sqlite:
        with ledger.reading() as connection:  # else the database plans with what it knew before, for a minute
            connection.execute(sa.text(f"ANALYZE {ledger.names.table('dead_letter', 'postgres')}"))
    return caught


def last_read(ledger: Ledger) -> datetime | None:
    """When something was read last; None: never."""
    with ledger.reading() as connection:
        moment: datetime | None = connection.execute(
            sa.select(sa.func.max(ledger.tables.source.c.read_at))
        ).scalar_one()
    return moment


def _known(ledger: Ledger) -> list[str]:
    source = ledger.tables.source.c
    with ledger.reading() as connection:
        rows = connection.execute(sa.select(source.dead_letter_topic).distinct().where(source.gone_since.is_(None)))
        return [row[0] for row in rows]


def _note_gone(ledger: Ledger, topic: str) -> None:
    source = ledger.tables.source
    with ledger.changing() as work:
        chosen = (source.c.dead_letter_topic == topic) & source.c.gone_since.is_(None)
        work.connection.execute(sa.update(source).where(chosen).values(gone_since=ledger.now))


class _Topic:
    """One topic's turn."""

    def __init__(
        self, reader: TopicReader, ledger: Ledger, topic: str, max_replays: int, observer: Observer, caught: Caught
    ) -> None:
        self._reader = reader
        self._ledger = ledger
        self._topic = topic
        self._max_replays = max_replays
        self._observe = observer
        self._caught = caught

    def read(self) -> None:
        with self._ledger.reading() as connection:
            known = self._positions(connection)
        bounds = self._reader.offsets(self._topic)  # later than the positions: what lies behind the end is no more
        positions = self._begin(known, bounds)
        ends = {number: end for number, (_, end) in bounds.items()}
        left = sum(ends[number] - position.next_offset for number, position in positions.items())
        if not left:
            return
        self._observe("reading", topic=self._topic, count=left)
        starts = {number: position.next_offset for number, position in positions.items()}
        for letters, records in self._batches(starts, positions):
            count = self._write(letters, records, positions)
            self._caught.read += count
            self._observe("read", topic=self._topic, count=count)

    def _begin(self, known: Mapping[int, _Position], bounds: Mapping[int, tuple[int, int]]) -> dict[int, _Position]:
        """Where to read on, by partition; what retention took, and topics made anew, are noted on the way."""
        marks = self._marks({number: position.next_offset for number, position in known.items()}, bounds)
        begun: dict[int, _Position] = {}
        for number, (first, end) in bounds.items():
            before = known.get(number)
            position = (before or _Position(0, first, "", 0))._replace(gone_since=None)
            renewed = position.next_offset > end or (number in marks and marks[number] != position.mark)
            if renewed:
                position = _Position(position.incarnation + 1, first, "", position.missed)
                self._caught.renewed.append(f"{self._topic}/{number}")
                self._observe("renewed", topic=self._topic, partition=number)
            elif (gap := first - position.next_offset) > 0:
                position = position._replace(next_offset=first, missed=position.missed + gap)
                self._caught.missed += gap
                self._observe("missed", topic=self._topic, partition=number, count=gap)
            begun[number] = position
        if any(known.get(number) != position for number, position in begun.items()):
            self._keep(begun, known)
        return begun

    def _keep(self, begun: Mapping[int, _Position], known: Mapping[int, _Position]) -> None:
        """Write down where reading begins, unless somebody else moved on meanwhile."""
        source = self._ledger.tables.source
        with self._ledger.changing() as work:
            found = self._positions(work.connection)
            for number, position in begun.items():
                if found.get(number) != known.get(number) or found.get(number) == position:
                    continue
                place = {"dead_letter_topic": self._topic, "partition": number}
                values = {**position._asdict(), "read_at": self._ledger.now}
                if number in found:
                    chosen = (source.c.dead_letter_topic == self._topic) & (source.c.partition == number)
                    work.connection.execute(sa.update(source).where(chosen).values(values))
                else:
                    work.connection.execute(sa.insert(source).values(**place, **values))

    def _positions(self, connection: sa.Connection) -> dict[int, _Position]:
        source = self._ledger.tables.source.c
        columns = (source.incarnation, source.next_offset, source.mark, source.missed, source.gone_since)
        query = sa.select(source.partition, *columns).where(source.dead_letter_topic == self._topic)
        return {row[0]: _Position(*row[1:]) for row in connection.execute(query)}

    def _marks(self, nexts: Mapping[int, int], bounds: Mapping[int, tuple[int, int]]) -> dict[int, str]:
        """The marks of the last records read, as far as they are still there."""
        wanted = {}
        for number, after_last in nexts.items():
            first, end = bounds.get(number, (0, 0))
            if first < after_last <= end:
                wanted[number] = after_last - 1
        if not wanted:
            return {}
        starts = {number: wanted.get(number, end) for number, (_, end) in bounds.items()}
        found: dict[int, str] = {}
        passed: set[int] = set()
        for record in self._reader.read(self._topic, starts):
            number = record.partition.number
            if number in wanted:
                passed.add(number)
                if record.offset == wanted[number]:
                    found[number] = mark_of(record)
                if len(passed) == len(wanted):
                    break
        return found

    def _batches(
        self, starts: Mapping[int, int], positions: Mapping[int, _Position]
    ) -> Iterator[tuple[list[DeadLetter], dict[int, ReceivedRecord]]]:
        """Letters, and the last record of each partition among them. A topic without new records yields nothing."""
        letters: list[DeadLetter] = []
        last: dict[int, ReceivedRecord] = {}
        weight = 0
        for record in self._reader.read(self._topic, starts):
            number = record.partition.number
            letter = DeadLetter.of(record, positions[number].incarnation)
            letters.append(letter)
            last[number] = record
            weight += _RECORD_BYTES + len(record.key or b"") + (letter.size or 0)
            weight += sum(map(len, map(_VALUE, record.headers)))
            if len(letters) == _BATCH or weight >= _BATCH_BYTES:
                yield letters, last
                letters, last, weight = [], {}, 0
        if letters:
            yield letters, last

    def _write(
        self, letters: list[DeadLetter], last: Mapping[int, ReceivedRecord], positions: dict[int, _Position]
    ) -> int:
        with self._ledger.changing() as work:
            found = self._positions(work.connection)
            new = _without_copies(work, [letter for letter in letters if _is_new(letter, found)])
            if new:
                ids = insert(work, new)
                _place(work, new, ids, self._max_replays)
            source = self._ledger.tables.source
            for number, record in last.items():
                after = record.offset + 1
                here = found[number]
                if here.incarnation == positions[number].incarnation and here.next_offset < after:
                    chosen = (source.c.dead_letter_topic == self._topic) & (source.c.partition == number)
                    values = {"next_offset": after, "mark": mark_of(record), "read_at": self._ledger.now}
                    work.connection.execute(sa.update(source).where(chosen).values(values))
        return len(new)


def mark_of(record: ReceivedRecord) -> str:
    """What tells a record from another one at the same offset of a topic that was made anew."""
    told = f"{record.timestamp.timestamp()}|{record.offset}".encode()
    return hashlib.sha256(b"|".join((told, record.key or b"", record.value or b""))).hexdigest()[:32]


def _is_new(letter: DeadLetter, positions: Mapping[int, _Position]) -> bool:
    """Whether nobody took it meanwhile."""
    position = positions.get(letter.partition)
    return position is not None and letter.incarnation == position.incarnation and letter.offset >= position.next_offset


def _without_copies(work: Work, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Each death once, though a relay that was killed published it twice: the same record at another place."""
    fact, record = work.ledger.tables.fact.c, work.ledger.tables.record.c
    ours = Counter(letter.message_id for letter in letters if letter.family == "postroom")
    columns = (fact.dead_letter_topic, fact.incarnation, fact.key, record.payload, record.headers)
    query = sa.select(fact.message_id, *columns).where(fact.message_id.in_(ours), fact.id == record.id)
    rows = [tuple(row) for row in work.connection.execute(query)] if ours else []
    seen = {row[1:] for row in rows}
    again = {row[0] for row in rows} | {id_ for id_, count in ours.items() if count > 1}
    kept = []
    for letter in letters:
        if letter.family == "postroom" and letter.message_id in again:
            death = (letter.dead_letter_topic, letter.incarnation, letter.key, letter.payload, stored_headers(letter))
            if death in seen:
                continue
            seen.add(death)
        kept.append(letter)
    return kept


def _place(work: Work, new: Sequence[DeadLetter], ids: range, max_replays: int) -> None:
    """Take new letters into the story: what was done before there was a ledger, and which deaths they follow."""
    tables, connection, sql = work.ledger.tables, work.connection, work.ledger.sql
    span = {"first": ids[0], "last": ids[-1]}
    action, letter = tables.action.c, tables.letter.c
    old = action.dead_letter_id.is_(None) & action.action.in_(("replay", "discard")) & (action.partition >= 0)
    if connection.execute(sa.select(sa.exists(sa.select(action.id).where(old)))).scalar_one():
        connection.exec_driver_sql(sql["adopt_actions"], span)
    rounds = sorted({each.replays for each in new} - {0})  # one after the other: a batch may hold several deaths of one
    late = _overtaken(work, ids) if any(each.key is None for each in new) else []
    if not rounds and not late:
        return
    these = letter.id.between(ids[0], ids[-1])
    fact = tables.fact.c
    untold = fact.id.between(ids[0], ids[-1]) & fact.replays.in_(rounds)
    values = {"rounds": fact.replays, "same_failures": fact.replays}  # where its first death is not known
    connection.execute(sa.update(tables.fact).where(untold).values(values))
    for replays in rounds:
        connection.exec_driver_sql(sql["follow_letters"], {**span, "replays": replays})
    for id_, replays in late:
        connection.exec_driver_sql(sql["follow_letters"], {"first": id_, "last": id_, "replays": replays})
    told = these | letter.id.in_([id_ for id_, _ in late])
    followed = sa.select(letter.follows).where(told, letter.follows.is_not(None))
    work.change("fail", letter.id.in_(followed.scalar_subquery()), ITSELF, "It died again.")
    same, any_ = letter.same_failures >= max_replays, letter.rounds >= max(MAX_ROUNDS, max_replays)
    why = sa.case(
        (same, f"The same failure after {max_replays} replays or more."), else_="It failed again after every replay."
    )
    work.change("quarantine", these & (same | any_), ITSELF, why)


def _overtaken(work: Work, ids: range) -> list[tuple[int, int]]:
    """Later deaths, and their replays, that were read before these: without a key they are in any partition."""
    before, new = work.ledger.tables.letter.alias().c, work.ledger.tables.letter.alias().c
    same = (before.message_id == new.message_id) & before.consumer_group.is_not_distinct_from(new.consumer_group)
    later = (before.replays > new.replays) & (before.id < ids[0])
    query = sa.select(before.id, before.replays).where(same, later, before.follows.is_(None))
    rows = work.connection.execute(query.where(new.id.between(ids[0], ids[-1]), new.key.is_(None)).distinct())
    return sorted((id_, replays) for id_, replays in rows)


def insert(work: Work, letters: Sequence[DeadLetter]) -> range:
    """Put new letters into the ledger as they are, but for their ids; these ids, which are in a row."""
    return _insert_sqlite(work, letters) if work.ledger.sqlite else _copy(work, letters)


def _copy(work: Work, letters: Sequence[DeadLetter]) -> range:
    sql, driver = work.ledger.sql, cast("psycopg.Connection[Any]", work.connection.connection.dbapi_connection)
    last = int(work.connection.exec_driver_sql(sql["take_ids"], {"count": len(letters)}).scalar_one())
    ids = range(last + 1 - len(letters), last + 1)
    with driver.cursor() as cursor:
        with cursor.copy(sql["copy_letters"].encode()) as copy:
            copy.set_types(_LETTER_TYPES)
            for id_, letter in zip(ids, letters, strict=True):
                copy.write_row((id_, *letter[1:_COPIED]))
        with cursor.copy(sql["copy_records"].encode()) as copy:
            copy.set_types(("int8", "bytea", "text"))
            for id_, letter in zip(ids, letters, strict=True):
                copy.write_row((id_, letter.payload, stored_headers(letter)))
    return ids


def _insert_sqlite(work: Work, letters: Sequence[DeadLetter]) -> range:
    tables = work.ledger.tables
    last = work.connection.exec_driver_sql(work.ledger.sql["take_ids"]).scalar_one()
    ids = range(last + 1, last + 1 + len(letters))
    columns = [column.name for column in tables.fact.columns][:_COPIED]
    rows = [(id_, *letter[1:_COPIED]) for id_, letter in zip(ids, letters, strict=True)]
    work.connection.execute(sa.insert(tables.fact), [dict(zip(columns, row, strict=True)) for row in rows])
    pairs = zip(ids, letters, strict=True)
    records = [{"id": id_, "payload": each.payload, "headers": stored_headers(each)} for id_, each in pairs]
    work.connection.execute(sa.insert(tables.record), records)
    return ids


def stored_headers(letter: DeadLetter) -> str:
    """As they stand in the table: lossless."""
    return dump_pairs(letter.headers or ())
