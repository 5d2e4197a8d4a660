"""Dead letters of every header family are read, and their replay carries no trace of the failure."""

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from postroom.dlq import DeadLetter, Place
from postroom.messaging.dead_letter import Failure, dead_letter_headers
from postroom.messaging.envelope import Envelope
from postroom.messaging.errors import InvalidMessage
from postroom.messaging.headers import load
from postroom.messaging.records import Partition, ReceivedRecord

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
ID = "0199c5f2-7d2e-7c6e-9a6e-0c4b9d7e5a11"
OWN = [("ce_id", ID.encode()), ("ce_type", b"shop.order.placed"), ("x", b"\xff\x00"), ("x", b"twice")]

SPRING = [
    ("kafka_dlt-original-topic", b"orders"),
    ("kafka_dlt-original-partition", struct.pack(">i", 3)),
    ("kafka_dlt-original-offset", struct.pack(">q", 5_000_000_000)),
    ("kafka_dlt-original-consumer-group", b"billing"),
    ("kafka_dlt-exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
    ("kafka_dlt-exception-cause-fqcn", b"java.lang.IllegalStateException"),
    ("kafka_dlt-exception-message", b"no stock"),
    ("kafka_dlt-exception-stacktrace", b"java.lang.IllegalStateException: no stock\n\tat A.b(A.java:3)"),
]
SPRING_RETRY_TOPIC = [
    ("kafka_original-topic", b"orders"),
    ("kafka_original-partition", struct.pack(">i", 3)),
    ("kafka_original-offset", struct.pack(">q", 5_000_000_000)),
    ("kafka_dlt-original-consumer-group", b"billing"),
    ("kafka_exception-fqcn", b"java.lang.Old"),
    ("kafka_exception-fqcn", b"java.lang.IllegalStateException"),
    ("kafka_exception-message", b"no stock"),
    ("kafka_exception-stacktrace", b"java.lang.IllegalStateException: no stock\n\tat A.b(A.java:3)"),
    ("retry_topic-attempts", struct.pack(">i", 4)),
]
STREAMS = [
    ("__streams.errors.exception", b"java.lang.IllegalStateException: no stock"),
    ("__streams.errors.message", b"no stock"),
    ("__streams.errors.stacktrace", b"java.lang.IllegalStateException: no stock\n\tat A.b(A.java:3)"),
    ("__streams.errors.topic", b"orders"),
    ("__streams.errors.partition", b"3"),
    ("__streams.errors.offset", b"5000000000"),
]
CONNECT = [
    ("__connect.errors.topic", b"orders"),
    ("__connect.errors.partition", b"3"),
    ("__connect.errors.offset", b"5000000000"),
    ("__connect.errors.connector.name", b"s3"),
    ("__connect.errors.task.id", b"0"),
    ("__connect.errors.stage", b"VALUE_CONVERTER"),
    ("__connect.errors.class.name", b"org.apache.kafka.connect.json.JsonConverter"),
    ("__connect.errors.exception.class.name", b"java.lang.IllegalStateException"),
    ("__connect.errors.exception.message", b"no stock"),
    ("__connect.errors.exception.stacktrace", b"java.lang.IllegalStateException: no stock\n\tat A.b(A.java:3)"),
]
SHARE_GROUP = [
    ("__dlq.errors.topic", b"orders"),
    ("__dlq.errors.partition", b"3"),
    ("__dlq.errors.offset", b"5000000000"),
    ("__dlq.errors.group", b"billing"),
    ("__dlq.errors.delivery.count", b"5"),
    ("__dlq.errors.message", b"no stock"),
]


def record(headers: Any, key: bytes | None = b"k", value: bytes | None = b"{}") -> ReceivedRecord:
    return ReceivedRecord(Partition("orders.billing.dlq", 1), 7, key, value, headers, NOW)


def ours(own: Any = OWN, replays: int = 0) -> list[tuple[str, bytes]]:
    failure = Failure(ValueError("no stock"), "shop.charge", 5, NOW - timedelta(seconds=9), NOW)
    told = [*own, ("postroom_replay_count", str(replays).encode())] if replays else own
    original = ReceivedRecord(Partition("orders", 3), 5_000_000_000, b"k", b"{}", told, NOW)
    return dead_letter_headers(original, "billing", failure)


@pytest.mark.parametrize(
    ("headers", "family", "group", "error", "deliveries"),
    [
        (ours(), "postroom", "billing", "ValueError", 5),
        (SPRING, "spring", "billing", "java.lang.IllegalStateException", None),
        (SPRING_RETRY_TOPIC, "spring", "billing", "java.lang.IllegalStateException", 4),
        (STREAMS, "streams", None, "java.lang.IllegalStateException", None),
        (CONNECT, "connect", "connect-s3", "java.lang.IllegalStateException", None),
        (SHARE_GROUP, "kafka", "billing", None, 5),
    ],
    ids=["ours", "spring", "spring-retry-topic", "streams", "connect", "share-group"],
)
def test_each_family_tells_place_group_and_error(
    headers: Any, family: str, group: str | None, error: str | None, deliveries: int | None
) -> None:
    letter = DeadLetter.of(record(headers))
    assert letter.family == family
    assert (letter.topic, letter.topic_partition, letter.topic_offset) == ("orders", 3, 5_000_000_000)
    assert (letter.group, letter.error, letter.message, letter.deliveries) == (group, error, "no stock", deliveries)
    assert len(letter.fingerprint) == 16
    if error:
        assert "no stock" in (letter.stack or "")


def test_ours_tells_all_that_was_written() -> None:
    letter = DeadLetter.of(record(ours(replays=2)))
    assert (letter.handler, letter.replays, letter.message_id) == ("shop.charge", 2, ID)
    assert (letter.first_failed_at, letter.failed_at) == (NOW - timedelta(seconds=9), NOW)
    assert len(letter.fingerprint or "") == 16


def test_an_unknown_one_is_a_dead_letter_all_the_same() -> None:
    letter = DeadLetter.of(record([("x", b"\xff")], key=b"\xff"))
    assert (letter.family, letter.topic, letter.message_id) == ("unknown", None, "orders.billing.dlq/1/7")
    with pytest.raises(InvalidMessage, match="original topic"):
        letter.replayed(None)


@pytest.mark.parametrize("number", [b"", b"x", b"-3", b"9" * 5_000, b"\xb2", None])
def test_a_header_that_is_no_number_is_not_known(number: bytes | None) -> None:
    headers = [("postroom_dlq_stack", b""), ("__dlq.errors.topic", b"orders"), ("__dlq.errors.offset", number or b"")]
    letter = DeadLetter.of(record(headers))
    assert (letter.topic_offset, letter.replays) == (None, 0)


@pytest.mark.parametrize("family", [SPRING, SPRING_RETRY_TOPIC, STREAMS, CONNECT, SHARE_GROUP])
def test_a_replay_strips_every_family_and_keeps_what_is_the_messages_own(family: Any) -> None:
    entry = DeadLetter.of(record([*OWN, *family])).replayed(None)
    headers, complete = load(entry.headers)
    assert complete
    added = [(name, value) for name, value in headers if name.startswith("postroom_replay_")]
    assert [pair for pair in headers if pair not in added] == OWN
    assert ("postroom_replay_count", b"1") in added
    assert (entry.topic, entry.key, entry.payload, str(entry.id), entry.type) == (
        "orders",
        b"k",
        b"{}",
        ID,
        "shop.order.placed",
    )


def test_a_replay_of_ours_is_the_original_for_the_group_that_failed() -> None:
    entry = DeadLetter.of(record(ours(replays=2))).replayed("billing")
    headers, _ = load(entry.headers)
    assert headers == [*OWN, ("postroom_replay_count", b"3"), ("postroom_replay_group", b"billing")]


def test_replays_are_counted_through_another_producers_dead_letter_topic() -> None:
    letter = DeadLetter.of(record([*OWN, ("postroom_replay_count", b"2"), *SPRING]))
    assert letter.replays == 2
    assert ("postroom_replay_count", b"3") in load(letter.replayed("billing").headers)[0]


def test_a_message_without_an_id_keeps_the_one_that_the_inbox_knows_it_by() -> None:
    original = ReceivedRecord(Partition("orders", 3), 5_000_000_000, b"k", b"{}", [], NOW)
    letter = DeadLetter.of(record(ours(own=[])))
    assert letter.message_id == Envelope.of(original).id
    headers, _ = load(letter.replayed("billing").headers)
    assert Envelope.of(record(headers)).id == letter.message_id, "published twice, it would be applied twice"


def test_what_the_table_cannot_hold_does_not_stop_a_replay() -> None:
    entry = DeadLetter.of(record([("a\x00b", b"\x00"), ("ce_type", b"no\ntype"), *ours(own=[])])).replayed("billing")
    assert "\\u0000" not in entry.headers
    assert entry.type == "unknown"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("orders.billing.dlq/1/7", Place("orders.billing.dlq", 1, 7)),
        ("orders/1", None),
        ("a/b/c", None),
        ("or ders/1/2", None),
        ("orders/1/2/3", None),
        (ID, None),
    ],
)
def test_a_place_is_read_as_it_is_printed(text: str, place: Place | None) -> None:
    assert Place.parse(text) == place
    assert place is None or str(place) == text
