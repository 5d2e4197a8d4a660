"""Every record of the dead-letter topics is in the ledger once, whatever becomes of the topics and of who reads."""

from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa

from postroom.dlq import Filter, Ledger, catch_up, count, find_topics, ingest, last_read
from postroom.messaging.errors import KafkaUnavailable, SchemaMissing, UnknownTopic
from postroom.messaging.records import ReceivedRecord

DLQ = "orders.billing.dlq"


def sources(desk: Any, topic: str = DLQ) -> dict[int, Any]:
    """What the ledger knows of a topic's partitions."""
    source = desk.ledger.tables.source
    with desk.ledger.reading() as connection:
        rows = connection.execute(sa.select(source).where(source.c.dead_letter_topic == topic)).mappings()
        return {row["partition"]: row for row in rows}


def ids(desk: Any) -> list[str]:
    return [letter.message_id for letter in desk.letters()]


def test_topics_are_found_by_pattern_or_by_name() -> None:
    existing = ["orders", "orders.billing.dlq", "orders.mail.dlq", "orders.DLT", "empty"]
    assert find_topics(existing) == ["orders.billing.dlq", "orders.mail.dlq"]
    assert find_topics(existing, ["*.DLT", "*.mail.*"]) == ["orders.DLT", "orders.mail.dlq"]
    assert find_topics(existing, [], named=["orders.DLT"]) == ["orders.DLT"]
    with pytest.raises(UnknownTopic, match="nosuch"):
        find_topics(existing, named=["nosuch"])


def test_only_what_is_new_is_read(desk: Any) -> None:
    for n in range(6):
        desk.die(n, n % 2)
    assert desk.catch_up().read == 6
    assert desk.catch_up().read == 0
    read = desk.topics.read_records
    desk.die(6)
    assert desk.catch_up().read == 1
    assert desk.topics.read_records - read <= 4, "the new one, and the marks of both partitions"
    assert sorted(ids(desk)) == [f"id-{n}" for n in range(7)]
    assert last_read(desk.ledger) is not None
    assert [sources(desk)[number]["next_offset"] for number in (0, 1)] == [4, 3]


def test_a_death_that_is_in_the_topic_twice_is_one_letter(desk: Any) -> None:
    """A relay that is killed may publish some of its messages once more, with the same everything."""
    first = desk.die(1)
    desk.topics.put(DLQ, 0, first)
    assert desk.catch_up().read == 1, "in one batch"
    desk.topics.put(DLQ, 0, first)
    desk.die(2)
    assert desk.catch_up().read == 1, "in two"
    assert sorted(ids(desk)) == ["id-1", "id-2"]
    assert sources(desk)[0]["next_offset"] == 4

    for other in ({"replays": 1}, {"at": 1.5}, {"group": "mail"}, {"topic": "payments"}, {"offset": 9}):
        desk.die(1, **other)
    assert desk.catch_up().read == 5, "another death each"


def test_a_topic_once_read_is_read_on_without_being_named(desk: Any) -> None:
    desk.die(1)
    desk.catch_up(DLQ)
    desk.die(2)
    desk.topics.create("else.dlq")
    assert desk.catch_up("else.dlq").read == 1


def test_two_at_once_take_each_record_once(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_BATCH", 2)
    other = desk.another()
    for n in range(8):
        desk.die(n, n % 2)
    counts: list[int] = []

    def overtake(step: str, /, **_: Any) -> None:
        if step == "read" and not counts:
            counts.append(other.catch_up().read)

    caught = desk.catch_up(observer=overtake)
    other.ledger.close()
    assert (caught.read, counts, caught.renewed) == (2, [6], [])
    assert sorted(ids(desk)) == [f"id-{n}" for n in range(8)]


def test_who_saw_the_offsets_before_another_read_further_takes_the_topic_for_the_same(desk: Any) -> None:
    """The offsets are older than the position then: that is no topic made anew."""
    other = desk.another()
    desk.die(1)
    desk.catch_up()
    turns: list[int] = []

    def overtake(_: str) -> None:
        if not turns:
            turns.append(1)
            desk.die(2)
            other.catch_up()

    desk.topics.at_offsets = overtake
    caught = desk.catch_up()
    other.ledger.close()
    assert (caught.read, caught.renewed) == (0, [])
    assert ids(desk) == ["id-1", "id-2"]


def test_letters_and_positions_are_one_transaction(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it fails: after the rows, and after the positions."""
    desk.die(1)
    for name in ("_place", "mark_of"):
        with monkeypatch.context() as broken:
            broken.setattr(ingest, name, lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                desk.catch_up()
        assert ids(desk) == []
        assert sources(desk)[0]["next_offset"] == 0
    assert desk.catch_up().read == 1
    assert ids(desk) == ["id-1"]


def test_a_reader_that_fails_leaves_what_is_committed_and_goes_on(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_BATCH", 2)
    for n in range(5):
        desk.die(n)

    def fail(record: ReceivedRecord) -> None:
        if record.offset == 3:
            raise KafkaUnavailable("gone")

    desk.topics.at_record = fail
    with pytest.raises(KafkaUnavailable, match="gone"):
        desk.catch_up()
    assert ids(desk) == ["id-0", "id-1"]
    desk.topics.at_record = lambda _: None
    assert desk.catch_up().read == 3
    assert ids(desk) == [f"id-{n}" for n in range(5)]


def test_what_comes_while_it_reads_is_taken_once(desk: Any) -> None:
    desk.die(1)
    desk.topics.at_offsets = lambda _: desk.die(2) if len(desk.topics.topics[DLQ][0].records) < 2 else None
    desk.catch_up()
    desk.die(3)
    desk.catch_up()
    assert ids(desk) == ["id-1", "id-2", "id-3"]


def test_what_retention_took_is_counted(desk: Any) -> None:
    for n in range(3):
        desk.die(n)
    desk.catch_up()
    for n in range(3, 8):
        desk.die(n)
    desk.topics.truncate(DLQ, 0, 5)
    caught = desk.catch_up()
    assert (caught.missed, caught.read, caught.renewed) == (2, 3, [])
    assert ids(desk) == ["id-0", "id-1", "id-2", "id-5", "id-6", "id-7"]
    assert sources(desk)[0]["missed"] == 2
    desk.topics.truncate(DLQ, 0, 8)
    caught = desk.catch_up()
    assert (caught.missed, caught.read) == (0, 0), "they were read before"
    assert sources(desk)[0]["missed"] == 2


def test_a_compacted_topic_is_read_whole_and_is_the_same_topic(desk: Any) -> None:
    for n in range(6):
        desk.die(n)
    desk.topics.compact(DLQ, 0, 1, 2, 5)  # the last one, too: the end is beyond any record
    assert desk.catch_up().read == 3
    assert desk.catch_up().read == 0
    desk.topics.compact(DLQ, 0, 4)  # the one whose mark is known
    desk.die(6)
    caught = desk.catch_up()
    assert (caught.read, caught.renewed) == (1, [])
    assert ids(desk) == ["id-0", "id-3", "id-4", "id-6"]


def test_a_deleted_topic_is_noted_and_its_letters_stay(desk: Any) -> None:
    desk.die(1)
    desk.catch_up()
    before = desk.topics.topics.pop(DLQ)
    assert desk.catch_up().gone == [DLQ]
    assert sources(desk)[0]["gone_since"] is not None
    assert desk.catch_up("else.dlq").gone == ["else.dlq"], "it is not asked for again"
    assert ids(desk) == ["id-1"]
    desk.topics.topics[DLQ] = before  # it could not be seen for a while
    caught = desk.catch_up()
    assert (caught.read, caught.renewed, caught.gone) == (0, [], [])
    assert sources(desk)[0]["gone_since"] is None
    desk.die(2)
    desk.topics.create("else.dlq")
    assert desk.catch_up("else.dlq").read == 1, "it is read on as before"


@pytest.mark.parametrize("count_of_new", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("seen_gone", [True, False])
def test_a_topic_made_anew_is_read_from_its_beginning(desk: Any, count_of_new: int, seen_gone: bool) -> None:
    """With fewer, as many and more records than were read of the old one."""
    for n in range(4):
        desk.die(n)
    desk.catch_up()
    del desk.topics.topics[DLQ]
    if seen_gone:
        desk.catch_up()
    desk.topics.create(DLQ)
    for n in range(10, 10 + count_of_new):
        desk.die(n)
    assert desk.catch_up().renewed == [f"{DLQ}/0"]
    desk.die(99)
    caught = desk.catch_up()
    assert (caught.read, caught.renewed) == (1, [])
    expected = [*range(4), *range(10, 10 + count_of_new), 99]
    assert ids(desk) == [f"id-{n}" for n in expected]
    assert [letter.incarnation for letter in desk.letters()] == [0] * 4 + [1] * (count_of_new + 1)
    assert sources(desk)[0]["gone_since"] is None


def test_of_two_that_find_it_made_anew_each_record_is_taken_once(desk: Any) -> None:
    for n in range(3):
        desk.die(n)
    desk.catch_up()
    del desk.topics.topics[DLQ]
    for n in range(10, 15):
        desk.die(n)
    other = desk.another()
    turns: list[int] = []

    def overtake(step: str, /, **_: Any) -> None:
        if step == "renewed" and not turns:
            turns.append(1)
            other.catch_up()

    desk.catch_up(observer=overtake)
    other.ledger.close()
    assert turns == [1]
    assert ids(desk) == [f"id-{n}" for n in (0, 1, 2, 10, 11, 12, 13, 14)]
    assert sources(desk)[0]["incarnation"] == 1


def test_who_still_reads_the_old_topic_leaves_the_position_in_the_new_one_alone(desk: Any) -> None:
    """Else it would lie behind records that nobody has read."""
    desk.die(0)
    desk.catch_up()
    for n in range(1, 6):
        desk.die(n)
    other = desk.another()
    turns: list[int] = []

    def swap(record: ReceivedRecord) -> None:
        if record.offset == 5 and not turns:
            turns.append(1)
            del desk.topics.topics[DLQ]
            desk.die(10)
            other.catch_up()

    desk.topics.at_record = swap
    desk.catch_up()
    other.ledger.close()
    assert turns == [1]
    assert (sources(desk)[0]["incarnation"], sources(desk)[0]["next_offset"]) == (1, 1)
    for n in range(11, 18):
        desk.die(n)
    desk.catch_up()
    assert [letter.message_id for letter in desk.letters() if letter.incarnation] == [f"id-{n}" for n in range(10, 18)]


def test_partitions_that_are_added_are_read(desk: Any) -> None:
    desk.die(1)
    desk.catch_up()
    desk.topics.create(DLQ, 4)
    desk.die(2, 3)
    assert desk.catch_up().read == 1
    assert set(sources(desk)) == {0, 1, 2, 3}


def test_a_batch_is_bounded_by_all_that_it_holds(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, payloads and headers may each be large."""
    monkeypatch.setattr(ingest, "_BATCH_BYTES", 50_000)
    large = b"x" * 20_000
    for n in range(12):
        desk.die(n, key=large if n % 3 == 0 else b"k", value=large if n % 3 == 1 else b"{}",
                 headers=[("h", large)] if n % 3 == 2 else ())  # fmt: skip
    batches: list[int] = []
    desk.catch_up(observer=lambda step, **facts: batches.append(facts["count"]) if step == "read" else None)
    assert len(batches) >= 4
    assert max(batches) <= 3


def test_no_more_than_a_batch_is_in_memory(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many records there are, so many are in memory."""
    monkeypatch.setattr(ingest, "_BATCH", 10)
    for n in range(400):
        desk.die(n, n % 2)
    written, ahead = [0], []

    def look(step: str, /, **facts: Any) -> None:
        if step == "read":
            ahead.append(desk.topics.read_records - written[0])
            written[0] += facts["count"]

    desk.catch_up(observer=look)
    assert written == [400]
    assert max(ahead) <= 10


def test_its_steps_are_told(desk: Any) -> None:
    desk.die(1)
    desk.die(2)
    told: list[Any] = []

    def tell(step: str, /, **facts: Any) -> None:
        told.append((step, facts))

    desk.catch_up(observer=tell)
    desk.die(3)
    desk.die(4)
    desk.topics.truncate(DLQ, 0, 3)
    desk.catch_up(observer=tell)
    del desk.topics.topics[DLQ]
    desk.catch_up(observer=tell)
    assert told == [
        ("reading", {"topic": DLQ, "count": 2}),
        ("read", {"topic": DLQ, "count": 2}),
        ("missed", {"topic": DLQ, "partition": 0, "count": 1}),
        ("reading", {"topic": DLQ, "count": 1}),
        ("read", {"topic": DLQ, "count": 1}),
        ("gone", {"topic": DLQ}),
    ]


def test_without_tables_it_says_so(tmp_path: Path) -> None:
    with closing(Ledger(f"sqlite:///{tmp_path}/empty.db")) as ledger:
        for refused in (ledger.check, lambda: count(ledger, Filter()), lambda: catch_up(Mock(), ledger, [DLQ])):
            with pytest.raises(SchemaMissing, match="postroom init"):
                refused()
