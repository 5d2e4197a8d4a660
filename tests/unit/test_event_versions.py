"""Versions of a payload: on the wire, through upcasters, and told apart where they cannot be read."""

import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, Json, field_validator
from pydantic_core import PydanticCustomError

from postroom.inbox import Inbox
from postroom.inbox.delivery import Delivery
from postroom.messaging.dataschema import MAX_VERSION, dataschema, version_of
from postroom.messaging.envelope import Envelope, wire_headers
from postroom.messaging.errors import (
    InvalidMessage,
    InvalidUpcaster,
    MissingField,
    PayloadRefused,
    UndecodablePayload,
    UnknownVersion,
    WrongType,
)
from postroom.messaging.message import MAX_TYPE_LENGTH
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.outbox import Event, Message, Outbox
from postroom.outbox.refusal import _KNOWN, _QUIET

OUTBOX = Outbox(source="/shop")
NOW = datetime(2026, 11, 21, tzinfo=UTC)
SECRET = "alice@example.com"


class Placed(Event, topic="orders", key="order_id", type="shop.order.placed", version=3):
    order_id: int
    cents: int


@Placed.upcast(1, 2)
def rename(payload: dict[str, Any]) -> dict[str, Any]:
    payload["order_id"] = payload.pop("id")
    return payload


@Placed.upcast(2, 3)
def in_cents(payload: dict[str, Any]) -> dict[str, Any]:
    return {"order_id": payload["order_id"], "cents": payload["euros"] * 100}


def on_wire(message: Event | Message, **options: Any) -> list[tuple[str, bytes]]:
    entry = OUTBOX.entry(message, **options)
    return wire_headers(str(entry.id), entry.type, NOW, entry.key, entry.headers)


def record(value: bytes | None, headers: list[tuple[str, bytes]]) -> ReceivedRecord:
    return ReceivedRecord(Partition("orders", 0), 0, None, value, headers, NOW)


# On the wire


def test_a_version_goes_along_and_the_first_is_not_written() -> None:
    class First(Event, topic="orders"): ...

    headers = on_wire(Placed(order_id=7, cents=5))

    assert dict(headers)["ce_dataschema"] == b"urn:postroom:schema:shop.order.placed:3"
    assert Envelope.of(record(b"", headers)).version == 3
    assert "ce_dataschema" not in dict(on_wire(First()))
    assert Envelope.of(record(b"", on_wire(First()))).version == 1


def test_the_cloudevents_sdk_reads_the_version() -> None:
    class Odd(Event, topic="orders", type="shop:bestellung/größe %41", version=12): ...

    event = from_kafka_event(KafkaMessage(headers=dict(on_wire(Odd())), key=None, value=b"{}"))

    assert event.get_type() == "shop:bestellung/größe %41"
    assert event.get_dataschema() == "urn:postroom:schema:shop%3Abestellung%2Fgr%C3%B6%C3%9Fe%20%2541:12"


@given(
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=MAX_TYPE_LENGTH),
    st.integers(2, MAX_VERSION),
)
def test_any_type_and_version_make_a_urn_that_is_read_again(type_: str, version: int) -> None:
    uri = dataschema(type_, version)

    assert uri is not None
    assert uri.isascii()
    assert uri.count(":") == 4
    assert not set(uri) & set(' "<>\\^`{|}/?#[]')  # RFC 8141 lets none of these into a name
    assert version_of(uri) == version


@pytest.mark.parametrize(
    ("uri", "version"),
    [
        (None, 1),
        ("", 1),
        ("https://schemas.example/shop/2", 1),
        ("urn:other:schema:t:2", 1),
        ("urn:postroom:schema:t:two", 1),
        ("urn:postroom:schema:t:0", 1),
        ("urn:postroom:schema:t:02", 1),
        ("urn:postroom:schema:t:٢", 1),
        ("urn:postroom:schema:2", 1),
        ("urn:postroom:schema:a:b:2", 1),
        ("urn:postroom:schema:t:2\n", 1),
        ("urn:postroom:schema:t:" + "9" * 5_000, 1),
        ("URN:Postroom:schema:t:2", 2),
        ("urn:postroom:schema:t:99999999", 99_999_999),
    ],
)
def test_what_is_not_of_our_form_is_version_1(uri: str | None, version: int) -> None:
    assert version_of(uri) == version


def test_a_message_keeps_the_dataschema_that_the_application_gives_it() -> None:
    own = "https://schemas.example/orders.json"
    message = Message(topic="orders", payload=b"{}", type="t", headers={"ce_dataschema": own})

    assert dict(on_wire(message))["ce_dataschema"] == own.encode()
    assert dict(on_wire(message, headers={"ce_dataschema": "urn:x"}))["ce_dataschema"] == b"urn:x"


def test_an_event_takes_another_dataschema_only_if_it_says_its_version() -> None:
    class First(Event, topic="orders"): ...

    same = "urn:postroom:schema:another.name:3"
    assert dict(on_wire(Placed(order_id=7, cents=5), headers={"ce_dataschema": same}))["ce_dataschema"] == same.encode()
    assert dict(on_wire(First(), headers={"ce_dataschema": "urn:x"}))["ce_dataschema"] == b"urn:x"
    for event, other in ((Placed(order_id=7, cents=5), "https://schemas.example/3"), (First(), same)):
        with pytest.raises(InvalidMessage, match=r"'ce_dataschema' must say version \d"):
            on_wire(event, headers={"ce_dataschema": other})


def test_a_subclass_has_a_version_and_upcasters_of_its_own() -> None:
    class Replaced(Placed, type="shop.order.replaced"): ...

    assert Replaced.event_version == 1
    assert "ce_dataschema" not in dict(on_wire(Replaced(order_id=7, cents=5)))
    assert list(Replaced.event_upcasters.steps(1)) == []


# Through upcasters


@pytest.mark.parametrize(
    ("payload", "version"),
    [
        (b'{"id": 7, "euros": 5}', 1),
        (b'{"order_id": 7, "euros": 5}', 2),
        (b'{"order_id": 7, "cents": 500}', 3),
        (b'{"order_id": 7, "cents": 500}', None),
    ],
)
def test_an_older_payload_goes_through_the_chain(payload: bytes, version: int | None) -> None:
    assert Placed.from_payload(payload, version=version) == Placed(order_id=7, cents=500)


def test_the_inbox_goes_by_the_version_in_the_header() -> None:
    inbox = Inbox("billing")
    inbox.handler("orders", Placed)(lambda event, ctx: None)
    (handler,) = inbox.handlers

    old = record(b'{"id": 7, "euros": 5}', [])
    new = record(b'{"order_id": 7, "cents": 500}', on_wire(Placed(order_id=7, cents=500)))
    newer = record(b"{}", [("ce_dataschema", b"urn:postroom:schema:shop.order.placed:4")])

    assert handler.decode(Delivery.of(old)) == handler.decode(Delivery.of(new)) == Placed(order_id=7, cents=500)
    with pytest.raises(UnknownVersion):
        handler.decode(Delivery.of(newer))


def test_steps_without_an_upcaster_are_passed_over() -> None:
    class Sparse(Event, version=6):
        seen: list[str]

    for source, target in ((2, 3), (4, 6)):

        @Sparse.upcast(source, target)
        def note(payload: dict[str, Any], told: str = f"{source}-{target}") -> dict[str, Any]:
            return {"seen": [*payload["seen"], told]}

    seen = {v: Sparse.from_payload(b'{"seen": []}', version=v).seen for v in range(1, 7)}
    assert seen == {1: ["2-3", "4-6"], 2: ["2-3", "4-6"], 3: ["4-6"], 4: ["4-6"], 5: [], 6: []}
    assert [v for v in range(1, 7) if Sparse.event_upcasters.cover(v)] == [4]


def test_a_step_that_skips_a_version_passes_over_what_starts_there() -> None:
    class Skipping(Event, version=3):
        seen: list[str]

    Skipping.upcast(1, 3)(lambda payload: {"seen": [*payload["seen"], "1-3"]})
    Skipping.upcast(2, 3)(lambda payload: {"seen": [*payload["seen"], "2-3"]})

    assert [Skipping.from_payload(b'{"seen": []}', version=v).seen for v in (1, 2, 3)] == [["1-3"], ["2-3"], []]
    assert [Skipping.event_upcasters.cover(v) for v in (1, 2, 3)] == [True, True, False]


def test_an_older_payload_without_an_upcaster_is_validated_as_it_is() -> None:
    class Grown(Event, version=9):
        number: int
        note: str = "none"

    assert Grown.from_payload(b'{"number": 1}', version=1) == Grown(number=1)
    with pytest.raises(MissingField, match="number: Field required"):
        Grown.from_payload(b"{}", version=1)


def test_what_an_upcaster_returns_is_validated_as_json_is() -> None:
    class Strict(Event, version=2):
        model_config = ConfigDict(strict=True)
        id: UUID
        total: Decimal
        at: datetime

    @Strict.upcast(1, 2)
    def fill(payload: dict[str, Any]) -> dict[str, Any]:
        return {"id": payload["id"], "total": Decimal("9.90"), "at": NOW}

    assert Strict.from_payload(b'{"id": "%s"}' % str(UUID(int=1)).encode(), version=1).total == Decimal("9.90")


def several(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    return a | b


def generator(payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield payload


async def asynchronous(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


class Callee:
    async def __call__(self, payload: dict[str, Any]) -> dict[str, Any]:
        return payload


@pytest.mark.parametrize(
    ("source", "target", "function", "told"),
    [
        (2, 2, rename, "must lead forward, not from version 2 to 2"),
        (3, 1, rename, "must lead forward"),
        (0, 1, rename, r"versions from 1 on, such as upcast\(1, 2\), not 0"),
        (True, 2, rename, "not True"),
        ("1", 2, rename, "not '1'"),
        (1, 4, rename, "leads to version 4, but the model is of version 3; give the class version=4"),
        (1, 2, several, "one positional argument"),
        (1, 2, lambda: {"id": 1}, "one positional argument"),
        (1, 2, lambda *, payload: payload, "one positional argument"),
        (1, 2, asynchronous, "must not be async"),
        (1, 2, partial(asynchronous), "must not be async"),
        (1, 2, Callee(), "must not be async"),
        (1, 2, generator, "is a generator function"),
        (1, 2, Callee, "is no function"),
        (1, 2, None, "is no function"),
    ],
)
def test_an_upcaster_that_cannot_be_is_told_where_it_is_registered(
    source: Any, target: Any, function: Any, told: str
) -> None:
    class Fresh(Event, version=3): ...

    with pytest.raises(InvalidUpcaster, match=told) as raised:
        Fresh.upcast(source, target)(function)
    assert "\n" not in str(raised.value)
    assert str(raised.value).count(". ") == 0


def test_two_upcasters_from_one_version_are_refused() -> None:
    with pytest.raises(InvalidUpcaster, match=r"starts at version 1, and so does 1 to 2 \(.*rename\); only one can"):
        Placed.upcast(1, 3)(in_cents)
    Placed.upcast(1, 2)  # only registering counts


@pytest.mark.parametrize(
    "function", [partial(several, b={}), lambda payload, more=None: payload, lambda *all_: all_[0], rename]
)
def test_whatever_takes_one_argument_is_an_upcaster(function: Callable[..., Any]) -> None:
    class Fresh(Event, version=2): ...

    assert Fresh.upcast(1, 2)(function) is function


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda payload: int(payload["id"]), "raised ValueError."),
        (lambda payload: payload["absent"], "raised KeyError."),
        (lambda payload: None, "returned NoneType, not a dict."),
        (lambda payload: [payload["id"]], "returned list, not a dict."),
        (lambda payload: {"id": object()}, "returned what is no JSON (PydanticSerializationError)."),
    ],
)
def test_an_upcaster_that_fails_is_named_with_its_step_and_without_the_payload(
    function: Callable[..., Any], told: str
) -> None:
    class Fresh(Event, version=2):
        id: str

    Fresh.upcast(1, 2)(function)
    with pytest.raises(PayloadRefused) as raised:
        Fresh.from_payload(b'{"id": "%s"}' % SECRET.encode(), version=1)

    assert type(raised.value) is PayloadRefused
    assert str(raised.value).startswith(f"The upcaster 1 to 2 ({__name__}.<lambda>) of Fresh ")
    assert str(raised.value).endswith(told)
    text = "".join(traceback.format_exception(raised.value))
    assert SECRET not in text
    assert ("in <lambda>" in text) is ("raised" in told), "where it raised"


@pytest.mark.parametrize("payload", [b"[]", b'"text"', b"5", b"null"])
def test_an_older_payload_that_is_no_object_is_of_a_wrong_type(payload: bytes) -> None:
    with pytest.raises(WrongType, match="must be an object"):
        Placed.from_payload(payload, version=1)


def test_an_older_payload_that_is_no_json_is_told_as_any_other() -> None:
    for version in (1, 3):
        with pytest.raises(UndecodablePayload, match="The payload is not JSON"):
            Placed.from_payload(b"{", version=version)
        with pytest.raises(UndecodablePayload, match="tombstone"):
            Placed.from_payload(None, version=version)


# Told apart


def test_a_newer_version_says_what_to_do() -> None:
    with pytest.raises(UnknownVersion) as raised:
        Placed.from_payload(b'{"order_id": 7, "cents": 5}', version=4)

    assert str(raised.value) == (
        "The record is of version 4 and Placed here is of version 3; deploy the consumer that knows version 4, then "
        "replay."
    )


class Colour(Enum):
    RED = "red"


class Card(BaseModel):
    kind: Literal["card"]
    number: str


class Cash(BaseModel):
    kind: Literal["cash"]


def no_alice(value: str) -> str:
    if "@" in value:
        raise PydanticCustomError("mine", f"{value} is not welcome")
    return value


class Checked(Event, topic="checked"):
    model_config = ConfigDict(extra="forbid")

    number: int = Field(default=1, ge=1)
    at: datetime = NOW
    colour: Colour = Colour.RED
    mail: str = Field(default="", max_length=30)
    pay: Annotated[Card | Cash, Field(discriminator="kind")] = Cash(kind="cash")
    counts: dict[str, int] = Field(default_factory=dict)
    lines: list[Cash] = Field(default_factory=list)
    either: int | bool = 1
    inner: Json[int] = 1
    id: UUID = UUID(int=1)

    @field_validator("mail")
    @classmethod
    def _mail(cls, value: str) -> str:
        if value.startswith("assert"):
            raise AssertionError(value)
        if value.startswith("value"):
            raise ValueError(value)
        return no_alice(value)


@pytest.mark.parametrize(
    ("payload", "kind", "told"),
    [
        ('{"number": "x"}', WrongType, "number: Input should be a valid integer"),
        ('{"number": 1.5}', WrongType, "number: "),
        ('{"number": null}', WrongType, "number: "),
        ('{"number": 0}', PayloadRefused, "number: Input should be greater than or equal to 1"),
        ('{"at": "alice@example.com"}', WrongType, "at: Input should be a valid datetime"),
        ('{"id": "alice@example.com"}', WrongType, "id: Input should be a valid UUID"),
        ('{"colour": "alice@example.com"}', WrongType, "colour: Input should be 'red'"),
        ('{"mail": "%s"}' % ("x" * 31), PayloadRefused, "mail: String should have at most 30"),
        ('{"mail": "alice@example.com"}', PayloadRefused, "mail: A validator refuses the value"),
        ('{"mail": "value alice@example.com"}', PayloadRefused, "mail: A validator refuses the value"),
        ('{"mail": "assert alice@example.com"}', PayloadRefused, "mail: A validator refuses the value"),
        ('{"pay": {"kind": "alice@example.com"}}', WrongType, "pay: Input tag does not match"),
        ('{"pay": {}}', MissingField, "pay: Unable to extract tag"),
        ('{"pay": {"kind": "card"}}', MissingField, "pay.*.number: Field required"),
        ('{"counts": {"alice@example.com": "x"}}', WrongType, "counts.*: Input should be a valid integer"),
        ('{"lines": [{"kind": "cash"}, {}]}', MissingField, "lines.1.kind: Field required"),
        ('{"lines": {}}', WrongType, "lines: Input should be a valid array"),
        ('{"either": "alice@example.com"}', WrongType, "either.int: "),
        ('{"inner": "{"}', WrongType, "inner: Invalid JSON"),
        ('{"surplus": "alice@example.com"}', PayloadRefused, "surplus: Extra inputs are not permitted"),
        ('{"alice@example.com": 1}', PayloadRefused, "*: Extra inputs are not permitted"),
        ("[]", WrongType, "payload: Input should be an object"),
        ('{"number": 0, "colour": "x"}', WrongType, "number: "),
        ('{"number": "x", "colour": "x", "lines": [{}]}', MissingField, "lines.0.kind: "),
        ('{"lines": [{}, {}, {}, {}, {}, {}, {}, {}]}', MissingField, "lines.4.kind: Field required; and 3 more."),
    ],
)
def test_what_is_wrong_is_told_apart_without_anything_of_the_payload(
    payload: str, kind: type[PayloadRefused], told: str
) -> None:
    with pytest.raises(PayloadRefused) as raised:
        Checked.from_payload(payload.encode())

    assert type(raised.value) is kind
    assert str(raised.value).startswith("Checked refuses the payload: ")
    assert told in str(raised.value)
    assert "alice" not in "".join(traceback.format_exception(raised.value)), "the stack is in the dead letter, too"


def test_a_validator_that_raises_what_pydantic_does_not_collect_is_told_without_its_text() -> None:
    class Fragile(Event, topic="orders"):
        mail: str

        @field_validator("mail")
        @classmethod
        def _mail(cls, value: str) -> str:
            raise KeyError(value)

    inbox = Inbox("billing")
    inbox.handler("orders", Fragile)(lambda event, ctx: None)
    delivery = Delivery.of(record(b'{"mail": "%s"}' % SECRET.encode(), []))
    with pytest.raises(PayloadRefused, match="Fragile refuses the payload: a validator raised KeyError") as raised:
        inbox.handlers[0].decode(delivery)

    text = "".join(traceback.format_exception(raised.value))
    assert SECRET not in text
    assert "in _mail" in text


def test_every_text_of_pydantic_that_quotes_the_input_is_known() -> None:
    from pydantic_core._pydantic_core import list_all_errors  # noqa: PLC0415  it may go away

    of_the_schema = {"ge", "gt", "le", "lt", "expected", "pattern", "class", "class_name", "field_type", "multiple_of"}
    of_the_schema |= {"min_length", "max_length", "max_digits", "decimal_places", "whole_digits", "discriminator"}
    of_the_schema |= {"expected_tags", "expected_schemes", "expected_version", "expected_plural", "method_name"}
    of_the_schema |= {"actual_length", "tz_expected"}  # a number of items is not personal
    for known in list_all_errors():
        assert known["type"] in _KNOWN
        names = {part.split("}")[0] for part in known["message_template_python"].split("{")[1:]}
        # json_invalid tells line and column; no_such_attribute is of assignments
        if names - of_the_schema and known["type"] not in ("json_invalid", "no_such_attribute"):
            assert known["type"] in _QUIET, known
