"""What can be published, and how it stands in the table and on the wire."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from postroom.messaging import headers as wire
from postroom.messaging.envelope import Envelope, parse_timestamp, timestamp, wire_headers
from postroom.messaging.errors import InvalidMessage, InvalidRecord, MessageTooLarge, PayloadRefused, UndecodablePayload
from postroom.messaging.message import uuid7
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.outbox import Event, Message, Outbox


class OrderPlaced(Event, topic="orders", key="order_id", type="shop.order.placed"):
    order_id: UUID
    total: Decimal


OUTBOX = Outbox(source="/shop")
ORDER = OrderPlaced(order_id=UUID(int=7), total=Decimal("9.90"))


def test_an_event_becomes_a_message_with_its_topic_key_and_type() -> None:
    message = ORDER.to_message()

    assert (message.topic, message.key, message.type) == ("orders", str(UUID(int=7)).encode(), "shop.order.placed")
    assert OrderPlaced.from_payload(message.payload) == ORDER


def test_a_field_is_written_by_the_alias_that_it_is_read_by() -> None:
    class Shipped(Event, topic="orders", key="order_id"):
        order_id: int = Field(alias="orderId")

    message = Shipped(orderId=7).to_message()

    assert (message.key, message.payload) == (b"7", b'{"orderId":7}')
    assert Shipped.from_payload(message.payload).order_id == 7


def test_an_event_without_arguments_is_typed_by_its_class_and_cannot_be_published() -> None:
    class Nameless(Event):
        number: int

    assert Nameless.event_type == "Nameless"
    with pytest.raises(InvalidMessage, match="Nameless has no topic"):
        Nameless(number=1).to_message()


def test_a_subclass_of_an_event_has_a_type_of_its_own_and_keeps_the_topic() -> None:
    class OrderReplaced(OrderPlaced, type="shop.order.replaced"):
        replaces: UUID

    message = OrderReplaced(order_id=UUID(int=1), total=Decimal(1), replaces=UUID(int=2)).to_message()

    assert (message.topic, message.type) == ("orders", "shop.order.replaced")
    assert OrderPlaced.event_type == "shop.order.placed"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"topic": "or ders"}, "no legal Kafka topic name"),
        ({"topic": ""}, "no legal Kafka topic name"),
        ({"topic": "orders", "key": "missing"}, "no field 'missing'"),
        ({"topic": "orders", "type": ""}, "type must be"),
        ({"version": 0}, "version must be a whole number from 1 to 1000000, not 0"),
        ({"version": 1_000_001}, "not 1000001"),
        ({"version": True}, "not True"),
        ({"version": "2"}, "not '2'"),
    ],
)
def test_a_wrong_class_argument_is_told_where_the_class_is_defined(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidMessage, match=told):
        type("Wrong", (Event,), {}, **arguments)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"topic": 5}, "topic 5 is no legal"),
        ({"key": 5}, "key must be str, bytes or None, not int"),
        ({"key": "k" * 20_000}, "20000 bytes"),
        ({"key": "\ud800"}, "lone surrogate"),
        ({"payload": "text"}, "payload must be bytes or None, not str"),
        ({"payload": None}, "tombstone needs a key"),
        ({"type": "x" * 256}, "type must be"),
        ({"headers": {"a": 5}}, "header 'a' must be a string, not int"),
        ({"headers": {5: "a"}}, "header name 5"),
        ({"headers": {"a": "\x00"}}, "NUL"),
        ({"headers": [("a", "b")]}, "headers must map"),
        ({"headers": {"a": "b" * 70_000}}, "65536 bytes"),
        ({"headers": {str(n): "" for n in range(200)}}, "200 headers"),
        ({"id": "not-a-uuid"}, "id must be a uuid.UUID"),
    ],
)
def test_a_message_of_the_wrong_form_names_the_field(fields: dict[str, object], told: str) -> None:
    good: dict[str, object] = {"topic": "orders", "payload": b"{}", "type": "t"}
    with pytest.raises(InvalidMessage, match=told):
        Message(**{**good, **fields})  # type: ignore[arg-type]


def test_a_payload_over_the_limit_is_refused_before_anything_is_written() -> None:
    with pytest.raises(MessageTooLarge, match="1000001 bytes, over the limit of 1000000"):
        OUTBOX.entry(Message(topic="t", payload=b"x" * 1_000_001, type="t"))


@pytest.mark.parametrize("name", ["ce_id", "ce_type", "ce_source", "ce_specversion", "ce_time"])
def test_headers_that_the_toolkit_sets_cannot_be_given(name: str) -> None:
    with pytest.raises(InvalidMessage, match=name):
        OUTBOX.entry(ORDER, headers={name: "x"})


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="time zone"):
        OUTBOX.entry(ORDER, deliver_at=datetime(2030, 1, 1))  # noqa: DTZ001  the point of the test


def test_the_wire_headers_are_cloudevents_and_what_the_application_set() -> None:
    entry = OUTBOX.entry(ORDER, headers={"tenant": "a"}, correlation_id="c-1", expires_in=timedelta(hours=1))
    created = datetime(2026, 11, 21, 12, tzinfo=UTC)

    headers = dict(wire_headers(str(entry.id), entry.type, created, entry.key, entry.headers))

    assert parse_timestamp(headers.pop("expires_at").decode()) is not None
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": str(entry.id).encode(),
        "ce_type": b"shop.order.placed",
        "ce_time": b"2026-11-21T12:00:00Z",
        "ce_subject": str(UUID(int=7)).encode(),
        "ce_source": b"/shop",
        "content-type": b"application/json",
        "tenant": b"a",
        "correlation_id": b"c-1",
    }


def test_what_is_forwarded_keeps_its_headers_byte_for_byte() -> None:
    pairs = [("a", b"\x00\xff"), ("b", b"text"), ("a", b""), ("ce_id", b"1")]

    assert wire_headers("other", "t", datetime.now(UTC), b"k", wire.dump_pairs(pairs)) == pairs


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.binary())))
def test_any_header_survives_the_table(pairs: list[tuple[str, bytes]]) -> None:
    assert wire.load(wire.dump_pairs(pairs)) == (pairs, True)


@pytest.mark.parametrize("stored", ['{"a": 5}', "[5]", '"text"', "5", '[["a", {"b": 1}]]', "null"])
def test_headers_that_a_plain_insert_left_in_another_form_are_refused(stored: str) -> None:
    with pytest.raises(InvalidRecord, match="JSON object of texts"):
        wire.load(stored)


def test_a_foreign_record_is_known_by_its_place() -> None:
    received = ReceivedRecord(Partition("t", 3), 42, None, b"", [("ce_id", b"\xff")], datetime.now(UTC))

    envelope = Envelope.of(received)

    assert (envelope.id, envelope.type, envelope.time) == ("t/3/42", None, received.timestamp)


@pytest.mark.parametrize("text", ["", None, "soon", "2026-11-21T12:00:00", "2026-13-40T00:00:00Z"])
def test_what_is_no_timestamp_is_none(text: str | None) -> None:
    assert parse_timestamp(text) is None


@given(st.datetimes(timezones=st.just(UTC)))
def test_timestamps_survive(moment: datetime) -> None:
    assert parse_timestamp(timestamp(moment)) == moment


def test_payloads_that_are_no_json_and_those_that_the_model_refuses_are_told_apart() -> None:
    with pytest.raises(UndecodablePayload, match="not JSON"):
        OrderPlaced.from_payload(b"\xff{")
    with pytest.raises(UndecodablePayload, match="tombstone"):
        OrderPlaced.from_payload(None)
    with pytest.raises(PayloadRefused, match=r"order_id: Field required.*total"):
        OrderPlaced.from_payload(b'{"total": "x"}')


def test_ids_are_uuids_of_version_7_in_the_order_of_time() -> None:
    ids = [uuid7() for _ in range(1000)]

    assert {(i.version, i.variant) for i in ids} == {(7, uuid4().variant)}
    assert [i.int >> 80 for i in ids] == sorted(i.int >> 80 for i in ids)
    assert len(set(ids)) == 1000
