"""What waits for the first record of its partition."""

from collections.abc import Callable

from postroom.messaging.confluent.opening import Openings
from postroom.messaging.partitioner import positive_hash
from postroom.messaging.records import OutgoingRecord

ANSWERS = object()
SAME, OTHER = b"0", b"1"


def record(key: bytes | None, value: bytes = b"") -> OutgoingRecord:
    return OutgoingRecord("t", key, value, [])


def report() -> Callable[[], None]:
    return lambda: None


def kept(openings: Openings, one: OutgoingRecord, place: int) -> bool:
    return openings.keep(one, openings.partition("t", one.key, 0.0), place, ANSWERS)


def went(openings: Openings, key: bytes | None) -> bool:
    """Whether a record of ``key`` goes at once."""
    return not kept(openings, record(key), 0)


def sent(openings: Openings, key: bytes | None, told: Callable[[], None]) -> None:
    openings.sent("t", openings.partition("t", key, 0.0), told)


def test_what_follows_the_first_record_of_a_partition_waits_for_its_answer() -> None:
    assert [positive_hash(key) % 2 for key in (SAME, OTHER)] == [0, 1]
    openings = Openings()
    openings.close("t", 2)
    first, elsewhere = report(), report()
    assert went(openings, SAME)
    assert went(openings, SAME), "none was sent"

    sent(openings, SAME, first)
    assert kept(openings, record(SAME, b"1"), 1)
    assert kept(openings, record(SAME, b"2"), 2)
    assert went(openings, OTHER)
    sent(openings, OTHER, elsewhere)
    assert openings.waiting == 2
    assert list(openings.next()) == []

    del first
    assert kept(openings, record(SAME, b"3"), 3), "behind those that wait"
    assert [each.place for each in openings.next()] == [1, 2, 3]
    assert openings.waiting == 0
    assert went(openings, SAME)
    assert openings.topics == {"t"}, "the other has no answer"
    del elsewhere
    assert went(openings, OTHER)
    assert not openings.topics, "nothing has to be looked at any more"


def test_what_cannot_go_is_the_next_again() -> None:
    openings = Openings()
    openings.close("t", 1)
    sent(openings, SAME, report())  # answered
    first = report()
    sent(openings, SAME, first)
    for number in range(3):
        assert kept(openings, record(SAME), number)
    del first

    for each in openings.next():
        if each.place == 1:
            break
    assert openings.waiting == 2
    assert [each.place for each in openings.next()] == [1, 2]


def test_what_waits_can_be_given_up() -> None:
    openings = Openings()
    openings.close("t", 1)
    first = report()
    sent(openings, SAME, first)
    assert kept(openings, record(SAME), 7)

    assert [each.place for each in openings.give_up()] == [7]
    assert openings.waiting == 0
    del first
    assert list(openings.next()) == []


def test_a_topic_is_closed_anew() -> None:
    openings = Openings()
    openings.close("t", 1)
    sent(openings, SAME, report())
    openings.close("t", 1)
    assert went(openings, SAME)
    first = report()
    sent(openings, SAME, first)
    assert kept(openings, record(SAME), 1), "it is the first again"

    openings.close("t", 2)
    assert openings.waiting == 1
    del first
    assert [each.place for each in openings.next()] == [1]


def test_without_a_key_a_record_waits_for_the_first_of_its_partition_too() -> None:
    openings = Openings()
    openings.close("t", 1)
    first = report()
    assert went(openings, None)
    sent(openings, None, first)
    assert kept(openings, record(None), 1)
    assert kept(openings, record(SAME), 2)
    del first

    assert [(each.place, each.partition) for each in openings.next()] == [(1, 0), (2, 0)]


def test_without_a_key_records_go_to_every_partition() -> None:
    openings = Openings()
    openings.close("t", 4)

    assert [openings.partition("t", None, quarter / 4) for quarter in range(4)] == [0, 1, 2, 3]
    assert openings.partition("t", None, 0.999999) == 3

    openings.close("t", 4, [1, 3])
    assert [openings.partition("t", None, quarter / 4) for quarter in range(4)] == [1, 1, 3, 3], "those that are led"
    assert {openings.partition("t", b"%d" % n, 0) for n in range(100)} == {0, 1, 2, 3}, "a key keeps its own"
