"""How a batch gets to Kafka, against a publisher that answers as it is told."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from kafka import errors as kafka

from postroom.messaging.clock import SystemClock
from postroom.messaging.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    Interrupted,
    KafkaUnavailable,
    NotAuthorized,
    PostroomError,
    RecordTooLarge,
    UnknownTopic,
)
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.kafkapython.errors import translate
from postroom.messaging.observer import unobserved
from postroom.messaging.records import OutgoingRecord
from postroom.outbox.entry import LogRow
from postroom.outbox.log import Batch, Holds
from postroom.outbox.memory import MemoryLog
from postroom.relay import Relay
from postroom.relay.delivery import Delivery
from postroom.relay.settings import OnRefused

Answer = Callable[[Sequence[OutgoingRecord]], Mapping[int, PostroomError]]


class Told:
    """A publisher that answers each ``send`` as it is told, and remembers what was sent."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.sent: list[list[bytes | None]] = []
        self.recovered = 0

    def send(self, records: Sequence[OutgoingRecord]) -> "Answered":
        self.sent.append([record.value for record in records])
        return Answered(self.answers.pop(0)(records) if self.answers else {})

    def recover(self) -> None:
        self.recovered += 1

    def close(self, timeout: float) -> None:
        pass


class Answered:
    """A publication with its answer; ``open`` while there is none."""

    def __init__(self, errors: Mapping[int, PostroomError]) -> None:
        self._errors = errors
        self.open = False

    def wait(self, timeout: float) -> bool:
        return not self.open

    def errors(self) -> Mapping[int, PostroomError]:
        return self._errors


def row(position: int, key: bytes | None = b"k", headers: str = "{}", topic: str = "t") -> LogRow:
    return LogRow(0, position, "id", topic, key, "x", b"%d" % position, headers, datetime.now(UTC))


def delivery(policy: OnRefused = "park-key") -> Delivery:
    return Delivery(lambda topic: policy, unobserved, SystemClock())


def deliver(one: Delivery, told: Told, *batches: Sequence[LogRow]) -> list[tuple[int, str | None]]:
    """All batches in the air at once, then landed; position and error of what is to be parked."""
    for rows in batches:
        one.take_off(Batch(rows), lambda: told)
    while not one.land():
        one.sort_out(lambda: told, lambda publication: None)
    return [(refusal.row.position, refusal.error) for flight in one.landed for refusal in flight.refusals]


def interrupted(records: Sequence[Any]) -> Mapping[int, PostroomError]:
    return {n: Interrupted("halted") for n in range(len(records))}


def from_second(error: PostroomError) -> Answer:
    """The second record has the error, the later ones were interrupted by it."""
    return lambda records: {1: error, **{n: Interrupted("halted") for n in range(2, len(records))}}


def test_what_was_interrupted_is_taken_up_where_it_stopped() -> None:
    told, one = Told(from_second(Interrupted("cut"))), delivery()

    assert deliver(one, told, [row(1), row(2), row(3)]) == []
    assert told.sent == [[b"1", b"2", b"3"], [b"2", b"3"]]
    assert told.recovered


def test_a_failure_in_the_middle_of_several_batches_leaves_every_key_in_order() -> None:
    told, one = Told(from_second(RecordTooLarge("large")), interrupted, interrupted), delivery()
    batches = [row(1), row(2), row(3)], [row(4, b"other"), row(5)], [row(6, b"other"), row(7, None), row(8)]

    assert deliver(one, told, *batches) == [(2, "large"), (3, None), (5, None), (8, None)]
    assert told.sent[3:] == [[b"4", b"6", b"7"]], "what is left goes again, in order, without the key"
    assert one.idle is False
    assert one.unsettled == 8


def test_a_second_failure_among_what_is_sent_again_leaves_the_order_as_well() -> None:
    large = from_second(RecordTooLarge("large"))
    told, one = Told(large, interrupted, large), delivery()
    batches = [row(1), row(2), row(3, b"a"), row(4, b"b")], [row(5, b"c"), row(6, b"a"), row(7, b"c"), row(8, b"b")]

    assert deliver(one, told, *batches) == [(2, "large"), (4, "large"), (8, None)]
    assert told.sent[2:] == [[b"3", b"4", b"5", b"6", b"7", b"8"], [b"5", b"6", b"7"]]


def test_only_the_head_lands_while_others_are_in_the_air() -> None:
    told, one = Told(), delivery()
    one.take_off(Batch([row(1)]), lambda: told)
    one.take_off(Batch([row(2)]), lambda: told)
    one.take_off(Batch([row(3)]), lambda: told)
    second = one.flights[1].publication
    assert isinstance(second, Answered)
    second.open = True

    assert one.land()
    assert [flight.batch.rows[0].position for flight in one.landed] == [1]
    second.open = False
    assert one.land()
    assert [flight.batch.rows[0].position for flight in one.landed] == [1, 2, 3]


def test_a_refused_message_holds_its_key_and_no_other() -> None:
    told, one = Told(from_second(RecordTooLarge("large"))), delivery()

    refusals = deliver(one, told, [row(1), row(2), row(3), row(4, b"other"), row(5, None)])

    assert refusals == [(2, "large"), (3, None)]
    assert told.sent[1:] == [[b"4", b"5"]]
    one.settled()
    assert deliver(one, told, [row(6), row(7, b"other")]) == [(6, None)], "later ones wait as well"


def test_with_park_message_only_the_refused_message_is_parked() -> None:
    told, one = Told(from_second(RecordTooLarge("large"))), delivery("park-message")
    one.hold(Holds(keys=frozenset({("t", b"k")})))

    assert deliver(one, told, [row(1), row(2), row(3)]) == [(2, "large")]
    assert told.sent[1:] == [[b"3"]]


def test_with_stop_the_whole_topic_stands_still_and_others_go_on() -> None:
    told, one = Told(from_second(RecordTooLarge("large"))), delivery("stop")
    rows = [row(1, b"a"), row(2, b"b"), row(3, b"c"), row(4, b"c", topic="other")]

    assert deliver(one, told, rows) == [(2, "large"), (3, None)]
    assert [refusal.by_topic for flight in one.landed for refusal in flight.refusals] == [False, True]
    assert "position 2" in one.stopped["t"]
    one.settled()
    assert deliver(one, told, [row(5, b"d")]) == [(5, None)], "before the database tells so, too"


def test_a_topic_that_takes_nothing_is_not_tried_for_each_message() -> None:
    told, one = Told(from_second(UnknownTopic("unknown"))), delivery()
    rows = [row(n, b"%d" % n) for n in range(1, 100)]

    assert len(deliver(one, told, rows)) == 98
    assert len(told.sent) == 1


@pytest.mark.parametrize("error", [Interrupted("cut"), KafkaUnavailable("away")])
def test_a_try_that_brings_nothing_is_left_to_the_caller_to_pace(error: PostroomError) -> None:
    def nothing(records: Sequence[OutgoingRecord]) -> dict[int, PostroomError]:
        return dict.fromkeys(range(len(records)), error)

    told, one = Told(nothing, nothing), delivery()

    with pytest.raises(type(error)):
        deliver(one, told, [row(1), row(2)])


def test_what_kafka_has_is_not_sent_again_when_the_batch_is_read_anew() -> None:
    told, one = Told(from_second(Interrupted("cut")), interrupted), delivery()
    rows = [row(1), row(2), row(3)]
    with pytest.raises(Interrupted):
        deliver(one, told, rows)
    one.abandon(lambda publication: True)
    assert one.idle

    assert deliver(one, told, rows) == []
    assert told.sent[2:] == [[b"2", b"3"]]
    one.settled()
    assert one.acknowledged == {}


def test_what_landed_and_could_not_be_settled_is_not_sent_again_but_what_was_refused_is() -> None:
    """Otherwise the refused row would be lost: it is in neither Kafka nor the parking lot."""
    told, one = Told(from_second(RecordTooLarge("large"))), delivery()
    rows = [row(1), row(2), row(3, b"other")]
    assert deliver(one, told, rows) == [(2, "large")]
    one.abandon(lambda publication: True)
    one.hold(Holds())
    told.answers = [lambda records: {0: RecordTooLarge("large")}]

    assert deliver(one, told, rows) == [(2, "large")]
    assert told.sent[2:] == [[b"2"]]


def test_after_a_fail_over_that_went_back_in_time_another_message_at_the_same_position_is_sent() -> None:
    told, one = Told(), delivery()
    one.take_off(Batch([row(1)]), lambda: told)
    one.abandon(lambda publication: True)
    one.take_off(Batch([row(1)._replace(id="another")]), lambda: told)

    assert told.sent == [[b"1"], [b"1"]]


def test_what_kafka_has_of_shards_that_went_to_others_is_forgotten() -> None:
    told, one = Told(), delivery()
    one.take_off(Batch([row(1), row(2)._replace(shard=1)]), lambda: told)
    one.abandon(lambda publication: True)
    one.keep({1})

    assert list(one.acknowledged.values()) == [1]


def test_what_gets_no_answer_before_it_is_given_up_is_sent_again() -> None:
    told, one = Told(), delivery()
    one.take_off(Batch([row(1)]), lambda: told)
    one.abandon(lambda publication: False)

    assert deliver(one, told, [row(1)]) == []
    assert told.sent == [[b"1"], [b"1"]]


def test_what_the_database_let_go_is_published_although_its_key_is_held() -> None:
    told, one = Told(), delivery()
    one.hold(Holds(keys=frozenset({("t", b"k")}), topics=frozenset({"u"})))
    one.take_off(Batch([row(1), row(2, topic="u")]), lambda: told, free=True)
    assert one.land()

    assert told.sent == [[b"1", b"2"]]
    one.settled()
    assert deliver(one, told, [row(3), row(4, topic="u")]) == [(3, None), (4, None)], (
        "later ones wait until it is settled"
    )


def test_what_is_refused_again_after_it_was_let_go_holds_what_follows_it() -> None:
    told, one = Told(lambda records: {0: RecordTooLarge("large"), 1: Interrupted("halted")}), delivery()
    one.hold(Holds(keys=frozenset({("t", b"k")})))
    one.take_off(Batch([row(1), row(2)]), lambda: told, free=True)
    assert not one.land()
    one.sort_out(lambda: told, lambda publication: None)

    assert [(r.row.position, r.error) for r in one.landed[0].refusals] == [(1, "large"), (2, None)]
    assert told.sent == [[b"1", b"2"]]


def test_settings_that_kafka_does_not_accept_end_the_relay() -> None:
    told, one = Told(lambda records: {0: ConfigurationError("grant it")}), delivery()

    with pytest.raises(ConfigurationError):
        deliver(one, told, [row(1)])


def test_a_row_that_cannot_be_encoded_is_refused_and_not_sent() -> None:
    told, one = Told(), delivery()

    refusals = deliver(one, told, [row(1, headers='{"a": 1}'), row(2), row(3, b"other")])

    assert [(position, error is None) for position, error in refusals] == [(1, False), (2, True)]
    assert told.sent == [[b"3"]]


def test_shards_are_not_taken_before_it_is_known_what_waits_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    relay = Relay(MemoryLog(), connect(KafkaOptions("127.0.0.1:1")))
    answers: list[Any] = [DatabaseUnavailable("cut"), Holds(frozenset({("t", b"k")}))]

    def holds() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(relay._reader, "holds", holds)
    with pytest.raises(DatabaseUnavailable):
        relay._heartbeat()
    assert relay._lease.claim.shards == frozenset()
    relay._heartbeat()

    assert relay._lease.claim.shards == {0}
    assert relay._delivery.holds.keys == {("t", b"k")}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (kafka.MessageSizeTooLargeError(), RecordTooLarge),
        (kafka.UnknownTopicOrPartitionError(), UnknownTopic),
        (kafka.TopicAuthorizationFailedError("t"), NotAuthorized),
        (kafka.ClusterAuthorizationFailedError(), ConfigurationError),
        (kafka.SaslAuthenticationFailedError(), ConfigurationError),
        (kafka.KafkaTimeoutError(), KafkaUnavailable),
        (kafka.KafkaConnectionError(), KafkaUnavailable),
        (kafka.OutOfOrderSequenceNumberError(), Interrupted),
        (kafka.InvalidProducerEpochError(), Interrupted),
        (kafka.IllegalStateError("halted"), Interrupted),
        (kafka.KafkaError("part of a batch which had invalid records"), Interrupted),
    ],
)
def test_what_the_client_raises_gets_its_verdict(theirs: Exception, ours: type[PostroomError]) -> None:
    assert type(translate(theirs)) is ours
