"""What is found, in which order, page by page, and how it is counted."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from postroom.dlq import (
    BYS,
    SORTS,
    DeadLetter,
    Filter,
    State,
    count,
    draft_plan,
    each,
    find,
    get,
    ingest,
    last_id,
    statistics,
)
from postroom.dlq.tables import Moment
from postroom.messaging.errors import UsageError
from postroom.messaging.match import Match
from postroom.messaging.records import Partition, ReceivedRecord

DLQ = "orders.billing.dlq"
KINDS = (sa.Integer, sa.Text, sa.LargeBinary, sa.DateTime, sa.Float, sa.Boolean)
START = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
ODD = r"50%_off\now"  # what means something to LIKE


CASES = [
    (Filter(), "4 5 6"),
    (Filter(topic="returns"), "5"),
    (Filter(topic="returns.mail.dlq"), "5"),
    (Filter(topic="order"), ""),
    (Filter(topic="orders*"), ""),
    (Filter(group="billing"), "4"),
    (Filter(group="bill*"), "4"),
    (Filter(group="b?lling"), "4"),
    (Filter(group="B*"), ""),
    (Filter(group="bill"), ""),
    (Filter(group="bill%"), ""),
    (Filter(group="b_lling*"), ""),
    (Filter(group="[b]illing*"), ""),
    (Filter(group=ODD), "6"),
    (Filter(group=r"50%_o*\now"), "6"),
    (Filter(group="*_*"), "6"),
    (Filter(group="*%*"), "6"),
    (Filter(group="*\\*"), "6"),
    (Filter(type="shop.*"), "4 5 6"),
    (Filter(type="shop"), ""),
    (Filter(handler="shop.s*"), "5"),
    (Filter(key=b"k"), "5"),
    (Filter(key=b"k\x00"), "4"),
    (Filter(error="VALUEerror"), "4 5 6"),
    (Filter(error="gateway"), "6"),
    (Filter(error="ValueError: NO stock"), "4"),
    (Filter(error="%"), "5"),
    (Filter(error="_"), "5"),
    (Filter(error="\\"), "5"),
    (Filter(error="n%stock"), ""),
    (Filter(message_id="id-4"), "4"),
    (Filter(message_id="id-40"), ""),
    (Filter(since=START + timedelta(minutes=5)), "5 6"),
    (Filter(until=START + timedelta(minutes=5)), "4"),
    (Filter(since=START + timedelta(minutes=5), until=START + timedelta(minutes=6)), "5"),
    (Filter(states=frozenset({State.DEAD})), "4 5 6"),
    (Filter(states=frozenset({State.DISCARDED, State.PLANNED})), ""),
    (Filter(plan=1), ""),
    (Filter(ids=[]), ""),
    (Filter(headers=[("x", None)]), "4"),
    (Filter(headers=[("x", b"2")]), "4"),
    (Filter(headers=[("x", b"3")]), ""),
    (Filter(headers=[("x", b"1"), ("ce_id", None)]), "4"),
    (Filter(match=Match.parse("payload.total > 3")), "4"),
    (Filter(match=Match.parse('key == "k"')), "5"),
    (Filter(match=Match.parse("payload.total > 3"), group="mail"), ""),
    (Filter(topic="orders", group="billing", type="shop.order.placed", key=b"k\x00", message_id="id-4"), "4"),
]


def ids(desk: Any, wanted: Filter, **options: Any) -> list[str]:
    return [letter.message_id for letter in find(desk.ledger, wanted, **options).letters]


@pytest.fixture
def stocked(desk: Any) -> Any:
    """``id-4`` among others that differ from it in everything."""
    desk.die(4, key=b"k\x00", value=b'{"total": 4}', headers=[("x", b"1"), ("x", b"2")], handler="shop.charge")
    desk.die(5, 1, group="mail", topic="returns", dlq="returns.mail.dlq", key=b"k", told=ODD, handler="shop.send")
    desk.die(6, group=ODD, key=None, value=None, told="Timeout of the GATEWAY")
    desk.catch_up(DLQ, "returns.mail.dlq")
    return desk


def test_a_filter_takes_what_it_says_everywhere(stocked: Any) -> None:
    for wanted, found in CASES:
        expected = [f"id-{n}" for n in found.split()]
        assert sorted(ids(stocked, wanted)) == expected, wanted
        assert sorted(letter.message_id for letter in each(stocked.ledger, wanted, records=True)) == expected
        assert sum(count(stocked.ledger, wanted).values()) == len(expected)
        assert statistics(stocked.ledger, wanted).total == len(expected)
        draft = draft_plan(stocked.ledger, wanted, existing={"orders", "returns"})
        assert len(draft.letters) == len(expected)


def test_filters_by_what_the_ledger_gives(stocked: Any) -> None:
    letters = stocked.letters()
    fingerprint = letters[0].fingerprint
    for beginning in (fingerprint, fingerprint.upper(), fingerprint[:6]):
        assert ids(stocked, Filter(fingerprint=beginning)) == [letters[0].message_id]
    assert ids(stocked, Filter(fingerprint="%")) == ids(stocked, Filter(fingerprint="_" * 16)) == []
    assert ids(stocked, Filter(ids=[letters[1].id, 10**12])) == [letters[1].message_id]
    assert ids(stocked, Filter(after=letters[1].id)) == [letters[2].message_id]
    assert last_id(stocked.ledger) == letters[2].id
    plan = stocked.planned(limit=1)
    assert len(ids(stocked, Filter(plan=plan.id, states=frozenset({State.PLANNED})))) == 1
    assert count(stocked.ledger, Filter()) == {"dead": 2, "planned": 1}


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("wanted", [Filter(), Filter(match=Match.parse("payload.n >= 0"))], ids=["sql", "inside"])
def test_pages_cover_everything_once_in_the_order_asked_for(desk: Any, sort: Any, wanted: Filter) -> None:
    """With ties in all that is sorted by, and letters that come meanwhile."""
    for n in range(23):
        value = None if n % 5 == 0 and not wanted.looks_inside else b'{"n": 1%s}' % (b"0" * (n % 3))
        desk.die(n, n % 2, at=n % 4, replays=n % 3, value=value)
    desk.catch_up()
    seen, after = [], None
    while True:
        page = find(desk.ledger, wanted, sort=sort, limit=4, after=after)
        seen += page.letters
        if page.next is None:
            break
        assert len(page.letters) == 4
        after = page.next
    assert Counter(letter.id for letter in seen) == Counter(letter.id for letter in desk.letters())
    orders: dict[str, Callable[[Any], Any]] = {
        "newest": lambda letter: (-letter.failed_at.timestamp(), -letter.id),
        "oldest": lambda letter: (letter.failed_at.timestamp(), letter.id),
        "largest": lambda letter: (-(letter.size if letter.size is not None else -1), -letter.id),
        "replays": lambda letter: (-letter.replays, -letter.id),
        "arrival": lambda letter: letter.id,
    }
    by = orders[sort]
    assert all(by(before) < by(later) for before, later in pairwise(seen))
    assert [letter.id for letter in each(desk.ledger, wanted, sort=sort, page=3)] == [letter.id for letter in seen]


def test_a_page_after_a_letter_that_is_not_there_is_told(stocked: Any) -> None:
    with pytest.raises(UsageError, match="no dead letter with the id 1000000000000 to go on after"):
        find(stocked.ledger, Filter(), after=10**12)


def test_lists_hold_no_records_unless_asked(stocked: Any) -> None:
    [letter] = find(stocked.ledger, Filter(message_id="id-4")).letters
    assert (letter.payload, letter.headers, letter.size) == (None, None, 12)
    [letter] = find(stocked.ledger, Filter(message_id="id-4"), records=True).letters
    assert letter.payload == b'{"total": 4}'
    assert letter.headers is not None
    assert ("x", b"2") in letter.headers


def test_a_letter_is_meant_by_its_id_its_place_or_its_message(desk: Any) -> None:
    desk.die(1)
    desk.die(1, replays=1)
    desk.topics.put(DLQ, 0, ReceivedRecord(Partition(DLQ, 0), 0, None, b"", [("ce_id", b"777")], START))
    desk.catch_up()
    first, again, number = desk.letters()
    assert [letter.id for letter in get(desk.ledger, str(first.id))] == [first.id]
    assert [letter.id for letter in get(desk.ledger, str(again.place))] == [again.id]
    assert [letter.id for letter in get(desk.ledger, "id-1")] == [again.id, first.id]
    assert [letter.id for letter in get(desk.ledger, "777")] == [number.id]
    with pytest.raises(UsageError, match="neither an id, nor a place"):
        get(desk.ledger, "id-9")


def test_statistics_count_by_whatever_is_asked(desk: Any) -> None:
    for n in range(12):
        desk.die(
            n, n % 2, key=b"k%d" % (n % 3), at=-n, group="billing" if n % 4 else "mail",
            told="no stock" if n % 3 else "no money", handler=f"shop.{n % 2}",
        )  # fmt: skip
    headers = [("kafka_dlt-exception-fqcn", b"java.lang.Exception")]
    desk.topics.put(DLQ, 0, ReceivedRecord(Partition(DLQ, 0), 0, None, None, headers, START))
    desk.catch_up()
    letters = desk.letters()
    for by in BYS:
        for match in (None, Match.parse("not exists(payload.nosuch)")):
            counted(desk, letters, by, match)


def counted(desk: Any, letters: list[Any], by: Any, match: Any) -> None:
    wanted = Filter(match=match, since=START - timedelta(minutes=24), until=START + timedelta(minutes=24))
    found = statistics(desk.ledger, wanted, by=by)
    expected = Counter(getattr(letter, by) for letter in letters)
    assert {group.value: group.count for group in found.groups} == expected
    assert (found.total, found.distinct) == (13, len(expected))
    assert [group.count for group in found.groups] == sorted(expected.values(), reverse=True)
    for group in found.groups:
        own = [letter for letter in letters if getattr(letter, by) == group.value]
        assert group.first == min(letter.failed_at for letter in own)
        assert group.last == max(letter.failed_at for letter in own)
        assert group.states == Counter(letter.state.value for letter in own)
        assert sum(group.trend) == len(own)
        latest = max(own, key=lambda letter: letter.id)
        assert (group.example, group.error, group.message) == (latest.id, latest.error, latest.message)
        assert (group.handler, group.topic, group.consumer_group) == (latest.handler, latest.topic, latest.group)
    few = statistics(desk.ledger, wanted, by=by, limit=1)
    assert (len(few.groups), few.total, few.distinct) == (1, 13, len(expected))


@pytest.mark.parametrize("inside", [False, True])
def test_the_trend_is_that_of_the_span_in_parts(desk: Any, inside: bool) -> None:
    for minute in (0, 0.99, 1, 12, 23, 23.99, 24, -1):
        desk.die(1, at=minute)
    desk.catch_up()
    match = Match.parse("exists(payload)") if inside else None
    found = statistics(desk.ledger, Filter(since=START, until=START + timedelta(minutes=24), match=match))
    assert found.groups[0].trend == [2, 1, *[0] * 10, 1, *[0] * 10, 2]
    assert (found.since, found.until) == (START, START + timedelta(minutes=24))


def test_nothing_is_counted_as_nothing(desk: Any) -> None:
    found = statistics(desk.ledger, Filter())
    assert (found.groups, found.distinct, found.total) == ([], 0, 0)
    assert found.until - found.since == timedelta(days=1)
    assert count(desk.ledger, Filter()) == {}
    assert last_id(desk.ledger) == 0
    assert find(desk.ledger, Filter()).letters == []


def test_letters_are_read_and_written_in_the_order_of_their_fields(desk: Any) -> None:
    """Rows become letters by it, and COPY is by it."""
    names = ["consumer_group" if name == "group" else name for name in DeadLetter._fields]
    assert names == [*desk.ledger.tables.letter.c.keys(), "payload", "headers"]
    written = names[: names.index("state")]
    assert [*desk.ledger.tables.fact.c.keys()][: len(written)] == written
    if not desk.ledger.sqlite:
        columns = desk.ledger.sql["copy_letters"].partition("(")[2].partition(")")[0]
        assert [name.strip(' \n"') for name in columns.split(",")] == written
        assert len(ingest._LETTER_TYPES) == len(written)


def test_the_tables_are_those_of_the_migrations(desk: Any) -> None:
    """All columns, of these kinds."""
    with desk.ledger.reading() as connection:
        inspector = sa.inspect(connection)
        for name in ("fact", "state", "record", "source", "plan", "action"):
            table = getattr(desk.ledger.tables, name)
            found = inspector.get_columns(table.name, schema=table.schema)
            assert {column["name"] for column in found} == set(table.columns.keys())
            for column in found:
                ours, real = table.columns[column["name"]].type, column["type"]
                if isinstance(ours, Moment):
                    ours = sa.Text() if desk.ledger.sqlite else sa.DateTime()
                if desk.ledger.sqlite:
                    told = {sa.Text: "TEXT", sa.LargeBinary: "BLOB", sa.Float: "REAL"}
                    assert str(real) == told.get(type(ours), "INTEGER"), (name, column["name"])
                    continue
                [kind] = [kind for kind in KINDS if isinstance(ours, kind)]
                assert isinstance(real, kind), (name, column["name"])
                assert isinstance(real, sa.BigInteger) == isinstance(ours, sa.BigInteger), (name, column["name"])
