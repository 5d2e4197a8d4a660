"""Any record becomes a row, and comes back byte for byte."""

import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postroom.dlq import Aim, Filter, find, get, neighbours
from postroom.messaging.errors import UsageError
from postroom.messaging.records import Partition, ReceivedRecord

DLQ = "orders.billing.dlq"
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
SPRING = [
    ("kafka_dlt-original-topic", b"orders"),
    ("kafka_dlt-original-partition", struct.pack(">i", 3)),
    ("kafka_dlt-original-offset", struct.pack(">q", 5_000_000_000)),
    ("kafka_dlt-original-consumer-group", b"billing"),
    ("kafka_dlt-exception-fqcn", b"java.lang.IllegalStateException"),
    ("kafka_dlt-exception-message", b"no stock"),
]
STREAMS = [
    ("__streams.errors.exception", b"java.lang.IllegalStateException: no stock"),
    ("__streams.errors.message", b"no stock"),
    ("__streams.errors.topic", b"orders"),
    ("__streams.errors.partition", b"3"),
    ("__streams.errors.offset", b"5000000000"),
]
CONNECT = [
    ("__connect.errors.topic", b"orders"),
    ("__connect.errors.partition", b"3"),
    ("__connect.errors.offset", b"5000000000"),
    ("__connect.errors.connector.name", b"s3"),
    ("__connect.errors.exception.class.name", b"java.lang.IllegalStateException"),
    ("__connect.errors.exception.message", b"no stock"),
]
SHARE_GROUP = [
    ("__dlq.errors.topic", b"orders"),
    ("__dlq.errors.partition", b"3"),
    ("__dlq.errors.offset", b"5000000000"),
    ("__dlq.errors.group", b"billing"),
    ("__dlq.errors.message", b"no stock"),
]
OURS = [*SHARE_GROUP, ("postroom_dlq_exception", b"ValueError"), ("postroom_dlq_replay_count", b"0")]


def put(desk: Any, headers: Any = (), key: bytes | None = b"k", value: bytes | None = b"{}", at: datetime = NOW) -> Any:
    return desk.topics.put(DLQ, 0, ReceivedRecord(Partition(DLQ, 0), 0, key, value, list(headers), at))


def taken(desk: Any, *args: Any, **options: Any) -> Any:
    """The letter of one record, which is what the record was."""
    record = put(desk, *args, **options)
    assert desk.catch_up().read == 1
    letter = desk.letters()[-1]
    assert (letter.key, letter.payload, list(letter.headers)) == (record.key, record.value, list(record.headers))
    assert (letter.place.partition, letter.place.offset) == (0, record.offset)
    assert letter.size == (None if record.value is None else len(record.value))
    return letter


@pytest.mark.parametrize(
    ("headers", "family", "group", "error"),
    [
        (OURS, "postroom", "billing", "ValueError"),
        (SPRING, "spring", "billing", "java.lang.IllegalStateException"),
        (STREAMS, "streams", None, "java.lang.IllegalStateException"),
        (CONNECT, "connect", "connect-s3", "java.lang.IllegalStateException"),
        (SHARE_GROUP, "kafka", "billing", None),
    ],
    ids=["ours", "spring", "streams", "connect", "share group"],
)
def test_each_family_is_taken_and_goes_back(desk: Any, headers: Any, family: str, group: Any, error: Any) -> None:
    letter = taken(desk, [("ce_id", b"id-1"), *headers])
    assert (letter.family, letter.group, letter.error, letter.message) == (family, group, error, "no stock")
    assert (letter.topic, letter.topic_partition, letter.topic_offset) == ("orders", 3, 5_000_000_000)
    assert (letter.order_partition, letter.order_offset) == (3, 5_000_000_000)
    desk.run(desk.planned(aim=Aim(every=True)))
    assert desk.published() == ["id-1"]


def test_what_no_family_wrote_is_taken_too(desk: Any) -> None:
    letter = taken(desk)
    assert (letter.family, letter.topic, letter.message_id) == ("unknown", None, f"{DLQ}/0/0")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, None),
        (b"", b""),
        (b"\x00\xff", b"\x00\xff\xfe not UTF-8"),
        (b"k" * 100_000, b"{}"),
        (b"k", b"\x00" * 1_000_000),
    ],
    ids=["tombstone", "empty", "binary", "a key of 100 KB", "a payload of 1 MB"],
)
def test_any_key_and_payload_goes_in_and_out(desk: Any, key: bytes | None, value: bytes | None) -> None:
    letter = taken(desk, [("ce_id", b"id-1"), *OURS], key, value)
    assert find(desk.ledger, Filter(key=key)).letters[0].id == letter.id
    assert [each.id for each in neighbours(desk.ledger, letter)] == [letter.id]
    desk.run(desk.planned())
    assert desk.published() == ["id-1"]


@pytest.mark.parametrize(
    "headers",
    [
        [("n\x00ul", b"\x00"), ("binary", b"\xff\xfe"), ("", b""), ("é", "é".encode())],
        [("x", b"1"), ("x", b"2"), ("X", b"3"), ("x", b"1")],
        [(f"h{n}", b"v" * n) for n in range(200)],
        [("large", b"v" * 500_000)],
        [("base64", b'{"base64": "AA=="}'), ("json", b"[]")],
    ],
    ids=["binary", "twice", "200", "large", "like our JSON"],
)
def test_any_headers_go_in_and_out(desk: Any, headers: Any) -> None:
    letter = taken(desk, [("ce_id", b"id-1"), *headers, *OURS])
    assert letter.message_id == "id-1"
    desk.run(desk.planned())
    assert desk.published() == ["id-1"]


NUMBERS = [b"-1", b"9223372036854775808", b"1e9", b"", b"\xff", "\u0661".encode(), b"\xff" * 8, b"9" * 99]


@pytest.mark.parametrize("family", [OURS, SPRING, CONNECT, STREAMS, SHARE_GROUP])
def test_numbers_that_no_column_holds_are_none(desk: Any, family: Any) -> None:
    told = ("partition", "offset", "count", "attempts")
    for number in NUMBERS:
        headers = [(name, number if name.endswith(told) else value) for name, value in family]
        put(desk, [*headers, ("postroom_replay_count", number), ("retry_topic-attempts", number)])
    assert desk.catch_up().read == len(NUMBERS)
    for letter in desk.letters():
        assert (letter.topic_partition, letter.topic_offset, letter.deliveries) == (None, None, None)
        assert 0 <= letter.replays <= 1_000_000


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(999, 12, 31, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=-12))),
    ],
)
def test_moments_at_the_edges_go_in_and_out(desk: Any, moment: datetime) -> None:
    text = moment.isoformat().encode()
    told = [("expires_at", text), ("postroom_dlq_first_failed_at", text), ("postroom_dlq_last_failed_at", text)]
    letter = taken(desk, [*OURS, *told], at=moment.replace(tzinfo=UTC))
    assert abs(letter.written_at - moment.replace(tzinfo=UTC)) <= timedelta(days=2)
    assert letter.expires_at is not None
    assert letter.failed_at.year == letter.first_failed_at.year
    for sort in ("newest", "oldest"):
        page = find(desk.ledger, Filter(), sort=sort, limit=1)
        assert not find(desk.ledger, Filter(), sort=sort, after=page.letters[0].id).letters


def test_names_of_any_length_are_taken(desk: Any) -> None:
    names = ("ce_id", "ce_type", "__dlq.errors.group", "__dlq.errors.topic")
    ours = ("postroom_dlq_exception", "postroom_dlq_handler", "postroom_dlq_fingerprint")
    texts = ["x" * 10_000, "é" * 5_000, "\x00\n\t", "\U0001f600" * 300, ""]
    headers = dict([("ce_id", b"id-1"), *OURS])
    for name in (*names, *ours):
        for text in texts:
            put(desk, [*{**headers, name: text.encode()}.items()])
    assert desk.catch_up().read == len(texts) * len(names + ours)
    for letter in desk.letters():
        for text in (letter.message_id, letter.type, letter.topic, letter.group, letter.error, letter.handler):
            assert len(text or "") <= 255
            assert "\x00" not in (text or "")


def test_long_ids_with_the_same_beginning_are_different_messages(desk: Any) -> None:
    """A death of one is none of the other."""
    ids = ["m" * 300 + "1", "m" * 300 + "2"]
    put(desk, [("ce_id", ids[0].encode()), *OURS])
    put(desk, [("ce_id", ids[1].encode()), *OURS[:-1], ("postroom_dlq_replay_count", b"1")])
    desk.catch_up()
    assert [letter.state for letter in desk.letters()] == ["dead", "dead"]
    for n, message_id in enumerate(ids):
        assert [letter.place.offset for letter in get(desk.ledger, message_id)] == [n]
        assert [letter.place.offset for letter in find(desk.ledger, Filter(message_id=message_id)).letters] == [n]


@pytest.mark.parametrize("told", [b"", b"\xff", None])
def test_what_has_no_id_that_can_be_read_keeps_one_through_its_replay(desk: Any, told: bytes | None) -> None:
    """Or each replay would be another message to its inbox."""
    put(desk, [*([] if told is None else [("ce_id", told)]), *OURS])
    desk.catch_up()
    desk.run(desk.planned())
    assert desk.published() == ["orders/3/5000000000"]


def test_a_group_too_long_to_be_kept_whole_is_unknown(desk: Any) -> None:
    """A replay that named a part of it would be skipped by all."""
    headers = {**dict(OURS), "__dlq.errors.group": b"g" * 256}
    put(desk, [*headers.items()])
    desk.catch_up()
    plan, draft = desk.plan()
    assert plan is None
    assert "group is unknown" in draft.refused[0].reason


@pytest.mark.parametrize(
    "name", ["0", "9" * 18, "9" * 30, "nosuch", f"{DLQ}/0/1", f"{DLQ}/9999999999/0", f"{DLQ}/0/9999999999999999999",
             "\udc80", "\x00", "", "x" * 10_000]
)  # fmt: skip
def test_what_is_not_there_is_told(desk: Any, name: str) -> None:
    put(desk, OURS)
    desk.catch_up()
    with pytest.raises(UsageError, match="There is no dead letter"):
        get(desk.ledger, name)


TEXTS = st.text(max_size=300) | st.sampled_from([name for name, _ in OURS + SPRING + STREAMS + CONNECT])
VALUES = st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode(errors="replace"))
NAMES = TEXTS.map(lambda text: text.encode(errors="replace").decode())  # Kafka's are UTF-8
FAMILIES = st.sampled_from([[], OURS, SPRING, STREAMS, CONNECT, SHARE_GROUP])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(
        st.tuples(
            st.none() | st.binary(max_size=300),
            st.none() | st.binary(max_size=300),
            FAMILIES,
            st.lists(st.tuples(NAMES, VALUES), max_size=10),
            st.datetimes(timezones=st.just(UTC)),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_every_record_is_taken_whole(desk: Any, records: Any) -> None:
    put_ = [
        put(desk, [*headers, *family, ("not a copy", uuid4().bytes)], key, value, at)
        for key, value, family, headers, at in records
    ]
    assert desk.catch_up().read == len(put_)
    letters = desk.letters()[-len(put_) :]
    for record, letter in zip(put_, letters, strict=True):
        assert (letter.key, letter.payload) == (record.key, record.value)
        assert list(letter.headers) == list(record.headers)
        assert letter.place.offset == record.offset
