"""How a batch gets to Kafka, against a publisher that answers as it is told."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from kafka import errors as kafka

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
from postroom.outbox.memory import MemoryLog
from postroom.relay import Relay
from postroom.relay.delivery import Delivery

Answer = Callable[[Sequence[OutgoingRecord]], Mapping[int, PostroomError]]


class Told:
    """A publisher and its publications."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.sent: list[list[bytes | None]] = []
        self._errors: Mapping[int, PostroomError] = {}

    def send(self, records: Sequence[OutgoingRecord]) -> "Told":
        self.sent.append([record.value for record in records])
        self._errors = self.answers.pop(0)(records)
        return self

    def wait(self, timeout: float) -> bool:
        return True

    def errors(self) -> Mapping[int, PostroomError]:
        return self._errors

    def close(self, timeout: float) -> None:
        pass


def row(position: int, key: bytes | None = b"k", headers: str = "{}") -> LogRow:
    return LogRow(0, position, "id", "t", key, "x", b"%d" % position, headers, datetime.now(UTC))


def delivery(*, hold: bool = True) -> Delivery:
    return Delivery(hold=hold, observe=unobserved, wait=lambda publication: None)


def all_well(records: Sequence[Any]) -> Mapping[int, PostroomError]:
    return {}


def from_second(error: PostroomError) -> Answer:
    """The second record has the error, the later ones were interrupted by it."""
    return lambda records: {1: error, **{n: Interrupted("halted") for n in range(2, len(records))}}


def test_all_that_is_acknowledged_is_not_sent_again() -> None:
    told, one = Told(all_well, all_well), delivery()

    assert one.deliver([row(1), row(2)], lambda: told) == []
    assert one.deliver([row(1), row(2), row(3)], lambda: told) == []
    assert told.sent == [[b"1", b"2"], [b"3"]]


def test_what_was_interrupted_is_taken_up_where_it_stopped() -> None:
    told, one = Told(from_second(Interrupted("cut")), all_well), delivery()

    assert one.deliver([row(1), row(2), row(3)], lambda: told) == []
    assert told.sent == [[b"1", b"2", b"3"], [b"2", b"3"]]


def test_a_refused_message_holds_its_key_and_no_other() -> None:
    told, one = Told(from_second(RecordTooLarge("large")), all_well), delivery()
    rows = [row(1), row(2), row(3), row(4, b"other"), row(5, None)]

    refusals = one.deliver(rows, lambda: told)

    assert [(refusal.row.position, refusal.error) for refusal in refusals] == [(2, "large"), (3, None)]
    assert told.sent[1:] == [[b"4", b"5"]]
    assert one.held == {("t", b"k")}


def test_without_holding_only_the_refused_message_is_parked() -> None:
    told, one = Told(from_second(UnknownTopic("unknown")), all_well), delivery(hold=False)

    refusals = one.deliver([row(1), row(2), row(3)], lambda: told)

    assert [(refusal.row.position, refusal.error) for refusal in refusals] == [(2, "unknown")]
    assert told.sent[1:] == [[b"3"]]


@pytest.mark.parametrize("error", [Interrupted("cut"), KafkaUnavailable("away")])
def test_a_try_that_brings_nothing_is_left_to_the_caller_to_pace(error: PostroomError) -> None:
    told, one = Told(lambda records: dict.fromkeys(range(len(records)), error)), delivery()

    with pytest.raises(type(error)):
        one.deliver([row(1), row(2)], lambda: told)


def test_a_refusal_counts_only_when_the_batch_comes_through() -> None:
    """Otherwise the row would come again as one that merely waits behind itself."""
    nothing = lambda records: dict.fromkeys(range(len(records)), Interrupted("cut"))  # noqa: E731
    told, one = Told(from_second(RecordTooLarge("large")), nothing), delivery()
    rows = [row(1), row(2), row(3, b"other")]
    with pytest.raises(Interrupted):
        one.deliver(rows, lambda: told)
    assert one.held == set()
    told.answers = [lambda records: {0: RecordTooLarge("large"), 1: Interrupted("halted")}, all_well]

    assert [(r.row.position, r.error) for r in one.deliver(rows, lambda: told)] == [(2, "large")]


def test_a_released_key_stays_held_until_its_parked_rows_are_settled() -> None:
    """Whether its delivery comes through or not: a later message must not overtake what is still parked."""
    nothing = lambda records: dict.fromkeys(range(len(records)), Interrupted("cut"))  # noqa: E731
    told, one = Told(nothing, all_well), delivery()
    one.held = {("t", b"k")}
    with pytest.raises(Interrupted):
        one.deliver([row(1)], lambda: told, {("t", b"k")})
    assert one.held == {("t", b"k")}

    assert one.deliver([row(1)], lambda: told, {("t", b"k")}) == []
    assert one.held == {("t", b"k")}
    assert [(r.row.position, r.error) for r in one.deliver([row(2)], lambda: told)] == [(2, None)]


def test_shards_are_not_taken_before_it_is_known_what_waits_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    relay = Relay(log, connect(KafkaOptions("127.0.0.1:1")))
    answers: list[Any] = [DatabaseUnavailable("cut"), frozenset({("t", b"k")})]

    def held_keys() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(log, "held_keys", held_keys)
    with pytest.raises(DatabaseUnavailable):
        relay._heartbeat()
    assert relay._shards == frozenset()
    relay._heartbeat()

    assert relay._shards == {0}
    assert relay._delivery.held == {("t", b"k")}


def test_settings_that_kafka_does_not_accept_end_the_relay() -> None:
    told, one = Told(lambda records: {0: ConfigurationError("grant it")}), delivery()

    with pytest.raises(ConfigurationError):
        one.deliver([row(1)], lambda: told)


def test_a_row_that_cannot_be_encoded_is_refused_and_not_sent() -> None:
    told, one = Told(all_well), delivery()

    refusals = one.deliver([row(1, headers='{"a": 1}'), row(2), row(3, b"other")], lambda: told)

    assert [(r.row.position, r.error is None) for r in refusals] == [(1, False), (2, True)]
    assert told.sent == [[b"3"]]


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
