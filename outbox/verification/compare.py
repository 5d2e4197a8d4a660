"""The comparison of one topic: by message id which row is which record, then by key in which order they came."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from .prints import Logged, State, Stored
from .result import Kind, TopicResult
from .scratch import Scratch

_MICROS = 1_000_000
#: So much may the clocks of the database, the relays and the brokers differ.
MARGIN = timedelta(minutes=5)
_MARGIN = int(MARGIN.total_seconds()) * _MICROS
_AT_ONCE = 5_000
_NOWHERE = 2**63


class Span(NamedTuple):
    """What there is of a partition: offsets ``first`` to ``end``, of which those from ``start`` on were read.

    ``earliest``: when the first record was written that is still there; None where none is. ``gaps``: fewer records
    were read than there are offsets.
    """

    first: int
    start: int
    end: int
    earliest: int | None
    gaps: bool

    def may_have_lost(self, created: int) -> bool:
        """Whether Kafka may have deleted the record of a message that was written then."""
        if self.first == 0 or self.start > self.first:  # what was not read is older than the window
            return False
        return self.earliest is None or created <= self.earliest + _MARGIN


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the topic. ``since``, ``until``, ``now``: the window, and the database's time, in microseconds.

    ``compacted``: Kafka keeps the last record of each key; ``delete_retention``: and a tombstone for so many
    microseconds. ``goes_on``: by the relay's policy a key goes on past a message that Kafka refused.
    """

    spans: Mapping[int, Span]
    since: int
    until: int
    now: int
    compacted: bool = False
    delete_retention: int = 24 * 3600 * _MICROS
    goes_on: bool = False


class Clue(NamedTuple):
    """A finding, as far as it is known from hashes."""

    kind: Kind
    position: int
    id: bytes
    partition: int | None = None
    offset: int | None = None
    after: int | None = None


@dataclass(slots=True)
class Matched:
    """What became of the rows and records of one id. Each is in one of these, but for ``altered`` in ``pairs``, too.

    ``pairs``: a row and its record. ``restored``: rows without one, of which a replayed copy came. ``doubled``,
    ``replayed``: records that repeat one.
    """

    pairs: list[tuple[Logged, Stored]] = field(default_factory=list)
    altered: list[tuple[Logged, Stored]] = field(default_factory=list)
    restored: list[Logged] = field(default_factory=list)
    missing: list[Logged] = field(default_factory=list)
    doubled: list[Stored] = field(default_factory=list)
    replayed: list[Stored] = field(default_factory=list)


def match(rows: Sequence[Logged], records: Sequence[Stored]) -> Matched:
    """Which row is which record: by content, headers and replay; else by content and replay; else by replay alone."""
    found = Matched()
    waiting: defaultdict[tuple[bytes, bytes], deque[Stored]] = defaultdict(deque)
    for record in records:
        waiting[record.whole, record.mark].append(record)
    left: list[Logged] = []
    for row in rows:
        same = waiting.get((row.whole, row.mark))
        if same:
            found.pairs.append((row, same.popleft()))
        else:
            left.append(row)
    known = {(row.whole, row.mark) for row in rows}
    spare: list[Stored] = []
    for what, others in waiting.items():
        (found.doubled if what in known else spare).extend(others)
    left, spare = _by_content(found, left, spare)
    copied = {record.whole for record in records if record.mark}
    found.restored = [row for row in left if not row.mark and row.whole in copied]
    left = [row for row in left if row.mark or row.whole not in copied]
    contents = {row.content for row in rows}
    for record in spare:
        if record.mark:
            found.replayed.append(record)
        elif record.content in contents:
            found.doubled.append(record)
        else:
            altered = next((row for row in left if not row.mark and _may_be(row, record)), None)
            if altered is not None:
                left.remove(altered)
                found.pairs.append((altered, record))
            found.altered.append((altered or rows[0], record))
    found.missing = left
    return found


class Seen(NamedTuple):
    """What a comparison learned besides. ``lost_first``: all that is lost stands in the log before all that arrived.

    ``unsure``: no record shows that the clocks agree, as far as the margin needs it.
    """

    clues: list[Clue]
    lost_first: bool
    unsure: bool


def compare(scratch: Scratch, result: TopicResult, facts: Facts, examples: int) -> Seen:
    """Count into ``result`` what its topic's rows and records in ``scratch`` are; up to so many clues of each kind."""
    clues = _Clues(examples)
    lead, arrived_from = _match_all(scratch, result, facts, clues)
    lost_upto = _judge_missing(scratch, result, facts, clues)
    _judge_order(scratch, result, facts, clues)
    return Seen(clues.found, 0 < lost_upto < arrived_from, lead is None or lead < -_MARGIN // 2)


class _Clues:
    def __init__(self, limit: int) -> None:
        self.found: list[Clue] = []
        self._limit = limit
        self._seen: Counter[Kind] = Counter()

    def add(self, clue: Clue) -> None:
        self._seen[clue.kind] += 1
        if self._seen[clue.kind] <= self._limit:
            self.found.append(clue)


def _by_content(found: Matched, left: list[Logged], spare: list[Stored]) -> tuple[list[Logged], list[Stored]]:
    """Pair those whose headers alone differ: another version of Postroom or another relay may have written them."""
    if not left or not spare:
        return left, spare
    rest = []
    for row in left:
        same = next(
            (
                record
                for record in spare
                if (record.content, record.mark) == (row.content, row.mark) and _may_be(row, record)
            ),
            None,
        )
        if same is None:
            rest.append(row)
        else:
            spare.remove(same)
            found.pairs.append((row, same))
    return rest, spare


def _may_be(row: Logged, record: Stored) -> bool:
    """No record is older than its row."""
    return record.time >= row.created - _MARGIN


def _match_all(scratch: Scratch, result: TopicResult, facts: Facts, clues: _Clues) -> tuple[int | None, int]:
    """By how much a record is at least younger than its row, by their clocks; None without any. And the first position
    that arrived."""
    lead: int | None = None
    arrived_from = _NOWHERE
    arrivals: list[tuple[Any, ...]] = []
    missing: list[tuple[Any, ...]] = []
    strays: list[tuple[bytes]] = []
    for rows, behind in scratch.by_id(result.topic):
        if not rows:
            _count_strays(result, facts, behind, strays)
        else:
            found = match(rows, list(behind))
            _count(result, found, clues)
            for row, record in found.pairs:
                lead = record.time - row.created if lead is None else min(lead, record.time - row.created)
                arrived_from = min(arrived_from, row.position)
            arrivals += [_arrival(row, record) for row, record in found.pairs if row.home is not None]
            missing += [_missed(row) for row in found.missing if row.state is State.SETTLED]
            if facts.compacted:
                repeats = (*found.doubled, *found.replayed, *(record for _, record in found.altered))
                strays += [(record.key,) for record in repeats if record.key is not None]
        if len(arrivals) + len(missing) + len(strays) > _AT_ONCE:
            _store(scratch, arrivals, missing, strays)
    _store(scratch, arrivals, missing, strays)
    return lead, arrived_from


def _store(scratch: Scratch, arrivals: list[Any], missing: list[Any], strays: list[Any]) -> None:
    scratch.add_arrivals(arrivals)
    scratch.add_missing(missing)
    scratch.add_strays(strays)
    for each in (arrivals, missing, strays):
        each.clear()


def _arrival(row: Logged, record: Stored) -> tuple[Any, ...]:
    return row.key, record.partition, record.offset, row.position, row.id, row.created, row.home, row.retried


def _missed(row: Logged) -> tuple[Any, ...]:
    return row.key, row.position, row.id, row.created, row.home, row.tombstone


def _count(result: TopicResult, found: Matched, clues: _Clues) -> None:
    result.logged += len(found.pairs) + len(found.restored) + len(found.missing)
    result.arrived += len(found.pairs) + len(found.restored)
    for row in found.missing:
        if row.state is State.WAITING:
            result.waiting += 1
        elif row.state is State.PARKED:
            result.parked += 1
        elif row.state is State.DISCARDED:
            result.discarded += 1
    result.replayed += len(found.replayed) + sum(bool(record.mark) for _, record in found.pairs)
    result.doubled += len(found.doubled)
    result.altered += len(found.altered)
    for row, record in found.altered:
        clues.add(Clue("altered", row.position, row.id, record.partition, record.offset))
    for record in found.doubled:
        row = _repeated(found, record)
        clues.add(Clue("doubled", row.position, row.id, record.partition, record.offset))


def _repeated(found: Matched, record: Stored) -> Logged:
    """The row that a record repeats."""
    rows = [row for row, _ in found.pairs] + found.restored + found.missing
    return next((row for row in rows if (row.whole, row.mark) == (record.whole, record.mark)), rows[0])


def _count_strays(result: TopicResult, facts: Facts, records: Iterable[Stored], strays: list[tuple[bytes]]) -> None:
    for record in records:
        in_window = facts.since <= record.told and max(record.told, record.time) < facts.until
        if in_window and record.mark:
            result.replayed += 1
        elif in_window:
            result.foreign += 1
        if facts.compacted and record.key is not None:
            strays.append((record.key,))


def _judge_missing(scratch: Scratch, result: TopicResult, facts: Facts, clues: _Clues) -> int:
    """Lost, or no longer to be seen? The last position that is lost, 0 for none."""
    lost: list[Clue] = []
    lost_upto = 0
    for _, missing in groupby(scratch.missing(), key=itemgetter(0)):
        followed = False  # by a later message of its key that Kafka had, so that it may be compacted away
        for key, position, id_, created, home, tombstone, last, strayed in missing:
            followed = followed or strayed or (last is not None and last > position)
            gone = facts.compacted and key is not None and followed
            if facts.compacted and tombstone and created + facts.delete_retention <= facts.now:
                gone = followed = True
            if gone or _deleted(facts.spans, home, created):
                result.expired += 1
            else:
                result.lost += 1
                lost.append(Clue("lost", position, id_))
                lost = _few(lost, 2 * _AT_ONCE)
                lost_upto = max(lost_upto, position)
    for clue in sorted(lost, key=lambda clue: clue.position):
        clues.add(clue)
    return lost_upto


def _few(clues: list[Clue], most: int) -> list[Clue]:
    return sorted(clues, key=lambda clue: clue.position)[: most // 2] if len(clues) >= most else clues


def _deleted(spans: Mapping[int, Span], home: int | None, created: int) -> bool:
    """Whether Kafka may have deleted the record of a message that was written then."""
    elsewhere = any(span.may_have_lost(created) for span in spans.values())
    if home is None or not elsewhere:
        return elsewhere
    span = spans.get(home % len(spans))
    if span is None or span.may_have_lost(created):
        return True
    # Before the topic got more partitions, the key was in another one.
    return span.first == span.start == 0 and (span.earliest is None or created <= span.earliest + _MARGIN)


def _judge_order(scratch: Scratch, result: TopicResult, facts: Facts, clues: _Clues) -> None:
    for _, arrivals in groupby(scratch.by_key(), key=itemgetter(0)):
        places: Counter[int] = Counter()
        samples: dict[int, Clue] = {}
        home = 0
        for partition, came in groupby(arrivals, key=itemgetter(1)):
            highest = -1
            for _, _, offset, position, id_, created, home, retried in came:  # noqa: B007  the same for all
                places[partition] += 1
                samples.setdefault(partition, Clue("misplaced", position, id_, partition, offset))
                if position > highest:
                    highest = position
                elif not (retried and facts.goes_on) and not _unsure(facts, facts.spans[partition], created):
                    result.disordered += 1
                    clues.add(Clue("disordered", position, id_, partition, offset, highest))
        if len(places) > 1:
            right = home % len(facts.spans)
            right = right if right in places else next(iter(places))
            result.misplaced += places.total() - places[right]
            for partition, clue in samples.items():
                if partition != right:
                    clues.add(clue)


def _unsure(facts: Facts, span: Span, created: int) -> bool:
    """Whether its first arrival may be gone, so that this is a repetition: deleted, or compacted away."""
    return span.may_have_lost(created) or (facts.compacted and span.gaps)
