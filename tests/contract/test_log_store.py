"""What every log store guarantees, run over all of them: PostgreSQL, SQLite, memory."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from postroom.messaging.errors import Fenced
from postroom.outbox import Message, Outbox
from postroom.outbox.log import Holds, LogReader, LogStore, Refusal

OUTBOX = Outbox(source="/test")
LONG = 60.0
ALL = frozenset(range(256))
Readers = Callable[..., LogReader]


def publish(store: LogStore, *payloads: str, key: str | None = "k", due: datetime | None = None) -> None:
    messages = [Message(topic="t", key=key, payload=text.encode(), type="x") for text in payloads]
    store.append([OUTBOX.entry(message, headers={"n": "1"}, deliver_at=due) for message in messages])


def drain(reader: LogReader, limit: int = 100) -> list[str]:
    """All that is waiting, settled."""
    found: list[str] = []
    while not (batch := reader.read(limit)).caught_up:
        assert len(batch.rows) <= limit
        found += [(row.payload or b"").decode() for row in batch.rows]
        reader.settle([batch])
    return found


def test_an_empty_log_is_caught_up(store: LogStore, readers: Readers) -> None:
    reader = readers(store)

    assert reader.read(10).caught_up
    assert store.backlog()[0] == 0


def test_rows_come_as_they_were_written(store: LogStore, readers: Readers) -> None:
    reader = readers(store)
    entry = OUTBOX.entry(Message(topic="t", key=b"\x00\xff", payload=b"\x00\xff", type="é"), headers={"a": "é"})
    tombstone = OUTBOX.entry(Message(topic="t", key="k", payload=None, type="x"))
    store.append([entry, tombstone])

    rows = reader.read(10).rows

    assert [(row.id, row.topic, row.key, row.type, row.payload) for row in rows] == [
        (str(entry.id), "t", b"\x00\xff", "é", b"\x00\xff"),
        (str(tombstone.id), "t", b"k", "x", None),
    ]
    assert ("a", "é".encode()) in rows[0].record().headers
    assert abs(datetime.now(UTC) - rows[0].created_at) < timedelta(minutes=1)


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_each_row_is_read_once_and_keys_stay_in_order(store: LogStore, readers: Readers, limit: int) -> None:
    reader = readers(store)
    for round_ in range(3):
        for key in "abcde":
            publish(store, *(f"{key}{round_}{n}" for n in range(4)), key=key)
        found = drain(reader, limit)
        expected = {key: [f"{key}{round_}{n}" for n in range(4)] for key in "abcde"}
        assert {key: [text for text in found if text[0] == key] for key in "abcde"} == expected
        assert len(found) == 20


def test_what_was_not_settled_is_read_again_by_the_next_owner(store: LogStore, readers: Readers) -> None:
    first = readers(store, "a")
    publish(store, "1", "2", "3")
    assert len(first.read(10).rows) == 3
    first.release()
    second = readers(store, "b")

    assert drain(second) == ["1", "2", "3"]


def test_a_page_settled_by_one_owner_is_not_read_by_the_next(store: LogStore, readers: Readers) -> None:
    first = readers(store, "a")
    publish(store, *map(str, range(10)))
    batch = first.read(4)
    while not batch.rows:  # pages of shards without a row
        first.settle([batch])
        batch = first.read(4)
    first.settle([batch])
    first.release()
    second = readers(store, "b")
    publish(store, "10")

    assert drain(second, 4) == [str(n) for n in range(4, 11)]


def test_a_lease_keeps_others_out_until_it_is_released(store: LogStore, readers: Readers) -> None:
    first = readers(store, "a", LONG)
    second = readers(store, "b", LONG)

    shards = first.claim().shards
    assert shards
    assert second.claim().shards == frozenset()
    publish(store, "1")
    assert second.read(10).caught_up
    assert first.claim().shards == shards
    first.release()
    assert second.claim().shards == shards
    assert drain(second) == ["1"]


def test_a_batch_that_outlived_its_lease_cannot_settle(store: LogStore, readers: Readers) -> None:
    slow = readers(store, "a", lease=0.0)
    publish(store, "1")
    batch = slow.read(10)
    quick = readers(store, "b")

    with pytest.raises(Fenced):
        slow.settle([batch])
    assert drain(quick) == ["1"]


def test_a_page_that_outlived_its_lease_parks_nothing(store: LogStore, readers: Readers) -> None:
    slow = readers(store, "a", lease=0.0)
    publish(store, "1")
    batch = slow.read(10)
    readers(store, "b")

    with pytest.raises(Fenced):
        slow.settle([batch], [Refusal(batch.rows[0], "refused")])
    assert not store.parked()


def test_a_checkpoint_that_outlived_its_lease_parks_nothing(store: LogStore, readers: Readers) -> None:
    """What an operator let go was refused again, by a relay that hung meanwhile: another may have published it."""
    slow = readers(store, "a", lease=0.0)
    publish(store, "1")
    batch = slow.read(10)
    while not batch.rows:  # pages of shards without a row
        batch = slow.read(10)
    readers(store, "b")

    with pytest.raises(Fenced):
        slow.checkpoint([Refusal(batch.rows[0], "refused")])
    assert not store.parked()


def test_an_owner_that_got_its_lost_lease_back_cannot_settle_an_old_batch(store: LogStore, readers: Readers) -> None:
    slow = readers(store, "a", lease=0.0)
    publish(store, "1")
    batch = slow.read(10)
    quick = readers(store, "b", lease=0.0)
    drain(quick)
    assert slow.claim().shards

    with pytest.raises(Fenced):
        slow.settle([batch])


def test_delayed_messages_come_when_they_are_due(store: LogStore, readers: Readers) -> None:
    reader = readers(store)
    now = datetime.now(UTC)
    publish(store, "late", due=now + timedelta(hours=1))
    publish(store, "second", due=now - timedelta(seconds=1))
    publish(store, "first", due=now - timedelta(seconds=2))

    assert drain(reader) == []
    assert store.move_due() == 2
    assert drain(reader) == ["first", "second"]
    assert store.move_due() == 0
    assert store.move_due(now=now + timedelta(hours=1)) == 1, "by the caller's clock, where it gives one"
    assert drain(reader) == ["late"]


def test_a_parked_row_waits_beside_the_log_with_its_reason(store: LogStore, readers: Readers) -> None:
    reader = readers(store)
    publish(store, "bad", "behind")
    publish(store, "other", key="o")
    batch = reader.read(10)
    rows = {(row.payload or b"").decode(): row for row in batch.rows}
    reader.settle([batch], [Refusal(rows["bad"], "too large"), Refusal(rows["behind"], None)])

    assert [(parked.row, parked.error, parked.retry) for parked in store.parked()] == [
        (rows["bad"], "too large", False),
        (rows["behind"], None, False),
    ]
    assert reader.holds() == Holds(frozenset({("t", b"k")}))
    assert not store.releasable(ALL)
    assert drain(reader) == []
    assert store.backlog()[0] == 0


def test_a_retry_releases_a_parked_row_and_what_waits_behind_it_in_order(store: LogStore, readers: Readers) -> None:
    reader = readers(store)
    publish(store, "bad", "behind", "worse")
    publish(store, "other", key="o")
    batch = reader.read(10)
    bad, behind, worse, other = sorted(batch.rows, key=lambda row: row.position)
    errors = {bad: "e", behind: None, worse: "e", other: "e"}
    reader.settle([batch], [Refusal(row, error) for row, error in errors.items()])

    assert store.request_retry([bad.position]) == 1
    assert not store.releasable(ALL), "another refused row of the key is not asked for"
    assert store.request_retry([worse.position, 999_999]) == 1
    assert [parked.row for parked in store.releasable(ALL)] == [bad, behind, worse]
    assert store.discard([bad.position, behind.position]) == 2
    assert [parked.row for parked in store.releasable(ALL)] == [worse]
    reader.settle([], [Refusal(worse, "again")])
    assert not store.releasable(ALL)
    assert [parked.error for parked in store.parked()] == ["again", "e"]


def test_discarding_the_refused_row_lets_those_behind_it_go(store: LogStore, readers: Readers) -> None:
    reader = readers(store)
    publish(store, "bad", "behind")
    batch = reader.read(10)
    reader.settle([batch], [Refusal(batch.rows[0], "e"), Refusal(batch.rows[1], None)])

    assert store.discard([batch.rows[0].position]) == 1
    assert [parked.row for parked in store.releasable(ALL)] == [batch.rows[1]]


def test_without_a_key_nothing_waits_behind_a_parked_row(store: LogStore, readers: Readers) -> None:
    reader = readers(store)
    publish(store, "bad", key=None)
    publish(store, "worse", key=None)
    batch = reader.read(10)
    first, second = sorted(batch.rows, key=lambda row: row.position)
    reader.settle([batch], [Refusal(first, "e"), Refusal(second, "e")])

    assert reader.holds() == Holds()
    store.request_retry([second.position])
    assert [parked.row for parked in store.releasable(ALL)] == [second]


def test_the_backlog_counts_what_is_not_settled(store: LogStore, readers: Readers) -> None:
    reader = readers(store)
    publish(store, *map(str, range(10)))
    publish(store, "later", due=datetime.now(UTC) + timedelta(hours=1))

    count, age, exact = store.backlog()
    assert (count, exact) == (10, True)
    assert 0 <= age < 60
    batch = reader.read(4)
    reader.settle([batch])
    assert store.backlog()[0] == 10 - len(batch.rows)
