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


def went(openings: Openings, key: bytes | None) -> bool:
    """Whether a record of ``key`` goes at once."""
    return not openings.keep(record(key), 0, ANSWERS)


def test_what_follows_the_first_record_of_a_partition_waits_for_its_answer() -> None:
    assert [positive_hash(key) % 2 for key in (SAME, OTHER)] == [0, 1]
    openings = Openings()
    openings.close("t", 2)
    first, elsewhere = report(), report()
    assert went(openings, SAME)
    assert went(openings, SAME), "none was sent"

    openings.sent(record(SAME), first)
    assert openings.keep(record(SAME, b"1"), 1, ANSWERS)
    assert openings.keep(record(SAME, b"2"), 2, ANSWERS)
    assert went(openings, None), "without a key there is no order"
    openings.sent(record(None), report())
    assert went(openings, OTHER)
    openings.sent(record(OTHER), elsewhere)
    assert openings.waiting == 2
    assert list(openings.next()) == []

    del first
    assert openings.keep(record(SAME, b"3"), 3, ANSWERS), "behind those that wait"
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
    openings.sent(record(SAME), report())  # answered
    kept = report()
    openings.sent(record(SAME), kept)
    for number in range(3):
        assert openings.keep(record(SAME), number, ANSWERS)
    del kept

    for each in openings.next():
        if each.place == 1:
            break
    assert openings.waiting == 2
    assert [each.place for each in openings.next()] == [1, 2]


def test_what_waits_can_be_given_up() -> None:
    openings = Openings()
    openings.close("t", 1)
    kept = report()
    openings.sent(record(SAME), kept)
    assert openings.keep(record(SAME), 7, ANSWERS)

    assert [each.place for each in openings.give_up()] == [7]
    assert openings.waiting == 0
    del kept
    assert list(openings.next()) == []


def test_a_topic_is_closed_anew() -> None:
    openings = Openings()
    openings.close("t", 1)
    openings.sent(record(SAME), report())
    openings.close("t", 1)
    assert went(openings, SAME)
    kept = report()
    openings.sent(record(SAME), kept)
    assert openings.keep(record(SAME), 1, ANSWERS), "it is the first again"

    openings.close("t", 2)
    assert openings.waiting == 1
    del kept
    assert [each.place for each in openings.next()] == [1]
