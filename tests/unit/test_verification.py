"""The comparison of rows and records alone, against a naive one, and against what an honest relay leaves."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from postroom.outbox.verification.compare import Facts, Seen, Span, compare
from postroom.outbox.verification.prints import Logged, State, Stored
from postroom.outbox.verification.result import TopicResult
from postroom.outbox.verification.scratch import Scratch

SECOND = 1_000_000
#: Between two rows: more than the margin for clocks.
APART = 1_000 * SECOND
PARTITIONS = 2
KEYS = [None, 0, 1, 2]


def digest(*values: object) -> bytes:
    return repr(values).encode().ljust(16)[:16]


def row(position: int, key: int | None, state: State = State.SETTLED, payload: int | None = 0) -> Logged:
    content = digest("c", key, payload, position)
    return Logged(
        digest("id", position),
        position,
        None if key is None else digest("key", key),
        content,
        content + b"h",
        b"",
        position * APART,
        key,
        state,
        payload is None,
        retried=False,
    )


def record(of: Logged, partition: int, offset: int, *, content: bytes = b"") -> Stored:
    time = of.created + offset * SECOND
    content = content or of.content
    return Stored(of.id, partition, offset, of.key, content, content + b"h", b"", time, of.created)


def compared(rows: Sequence[Logged], records: Sequence[Stored], facts: Facts) -> tuple[TopicResult, Seen]:
    result = TopicResult("t")
    with closing(Scratch()) as scratch:
        scratch.add_rows(("t", each) for each in rows)
        scratch.add_rows([("other", row(10_000, 0))])
        scratch.add_records(records)
        scratch.index_rows()
        seen = compare(scratch, result, facts, 3)
    six = result.arrived + result.waiting + result.parked + result.discarded + result.expired + result.lost
    assert result.logged == len(rows) == six
    return result, seen


def facts_of(records: Sequence[Stored], *, first: Sequence[int] = (0, 0), compacted: bool = False) -> Facts:
    spans = {}
    for number in range(PARTITIONS):
        there = [each for each in records if each.partition == number]
        end = max((each.offset + 1 for each in there), default=first[number])
        earliest = there[0].time if there else None
        spans[number] = Span(first[number], first[number], end, earliest, len(there) < end - first[number])
    return Facts(spans, since=0, until=2**60, now=2**60, compacted=compacted)


@dataclass
class Fate:
    """What becomes of a row: records of it, each with its partition, or altered."""

    key: int | None
    state: State
    partitions: list[int]
    altered: bool


fates = st.lists(
    st.builds(
        Fate,
        st.sampled_from(KEYS),
        st.sampled_from(list(State)),
        st.lists(st.integers(0, PARTITIONS - 1), max_size=3),
        st.booleans(),
    ),
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(fates, st.randoms(use_true_random=False))
def test_it_counts_what_a_naive_comparison_counts(given_fates: list[Fate], random: object) -> None:
    rows = [row(n, fate.key, fate.state) for n, fate in enumerate(given_fates, 1)]
    events = [(each, p, fate.altered) for each, fate in zip(rows, given_fates, strict=True) for p in fate.partitions]
    random.shuffle(events)  # type: ignore[attr-defined]
    ends = Counter[int]()
    records: list[Stored] = []
    for each, partition, altered in events:
        content = digest("altered", each.position) if altered else b""
        records.append(record(each, partition, ends[partition], content=content))
        ends[partition] += 1
    records.sort(key=lambda each: (each.partition, each.offset))
    result, seen = compared(rows, records, facts_of(records))

    of = {each.id: [r for r in records if r.id == each.id] for each in rows}
    absent = [each for each in rows if not of[each.id]]
    assert result.arrived == len(rows) - len(absent)
    assert result.lost == sum(each.state is State.SETTLED for each in absent)
    assert result.waiting == sum(each.state is State.WAITING for each in absent)
    assert result.parked == sum(each.state is State.PARKED for each in absent)
    assert result.discarded == sum(each.state is State.DISCARDED for each in absent)
    altered_rows = {each.id for each, fate in zip(rows, given_fates, strict=True) if fate.altered}
    assert result.altered == sum(len(of[id_]) for id_ in altered_rows)
    assert result.doubled == sum(max(len(found) - 1, 0) for id_, found in of.items() if id_ not in altered_rows)
    disordered = misplaced = 0
    for key in KEYS[1:]:
        firsts = [(of[each.id][0], each.position) for each in rows if each.home == key and of[each.id]]
        for found, position in firsts:
            before = (p for other, p in firsts if (other.partition, other.offset) < (found.partition, found.offset)
                      and other.partition == found.partition)  # fmt: skip
            disordered += any(p > position for p in before)
        places = Counter(found.partition for found, _ in firsts)
        if len(places) > 1:
            misplaced += places.total() - places[key % PARTITIONS if key is not None else 0]
    assert result.disordered == disordered
    assert result.misplaced == misplaced
    assert result.foreign == result.replayed == result.expired == 0
    shown = Counter(clue.kind for clue in seen.clues)
    assert shown["lost"] == min(result.lost, 3)
    assert shown["disordered"] == min(result.disordered, 3)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(KEYS), max_size=12),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5)), max_size=3),
    st.just((0, 0)) | st.tuples(st.integers(0, 12), st.integers(0, 12)),
    st.none() | st.sets(st.integers(0, 24)),
)
@example([0, 0, 0], [(3, 2)], (2, 0), None)  # what is left begins with 3 2 3
@example([0, 0, 0], [(3, 2)], (0, 0), {0, 1})
def test_an_honest_relay_raises_no_alarm_whatever_crashes_and_kafka_deletes_or_compacts(
    keys: list[int | None],
    crashes: list[tuple[int, int]],
    first: tuple[int, int],
    compacted: set[int] | None,
) -> None:
    rows = [row(n, key, payload=None if key is not None and n % 4 == 0 else 0) for n, key in enumerate(keys, 1)]
    published = list(rows)
    for at, window in crashes:  # what was in flight is published again
        published[at:at] = published[max(0, at - window) : at]
    ends = Counter[int]()
    records = []
    clock = 0
    for each in published:
        clock = max(clock + 1, each.created)
        partition = (clock if each.home is None else each.home) % PARTITIONS
        records.append(record(each, partition, ends[partition])._replace(time=clock))
        ends[partition] += 1
    if compacted is not None:  # any but the last of a key may be gone
        records = [
            each
            for n, each in enumerate(records)
            if n not in compacted or each.key is None or not any(later.key == each.key for later in records[n + 1 :])
        ]
    begins = [min(each, ends[number]) for number, each in enumerate(first)]
    records = [each for each in records if each.offset >= begins[each.partition]]
    records.sort(key=lambda each: (each.partition, each.offset))
    facts = facts_of(records, first=begins, compacted=compacted is not None)
    result, _ = compared(rows, records, facts)
    assert result.broken == 0


def test_many_records_without_an_id_are_counted_one_by_one() -> None:
    strangers = [Stored(b"", 0, n, None, b"c", b"w", b"", SECOND, SECOND) for n in range(20_000)]
    result, _ = compared([row(1, 0)], [*strangers, record(row(1, 0), 0, 20_000)], facts_of([]))
    assert (result.arrived, result.foreign) == (1, 20_000)
