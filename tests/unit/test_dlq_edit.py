"""Patches lose nothing of a payload, differences can be read, and repairs touch only what they are to touch."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.dlq import DeadLetter, Repair, State, changes, edited, patched, pretty
from postroom.messaging import document
from postroom.messaging.errors import InvalidMessage, UsageError
from postroom.messaging.headers import first
from postroom.messaging.records import Partition, ReceivedRecord

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def patch(*operations: Any) -> str:
    return json.dumps(list(operations))


def letter(*headers: tuple[str, bytes], key: bytes | None = b"k", payload: bytes | None = b"{}") -> DeadLetter:
    record = ReceivedRecord(Partition("t.g.dlq", 0), 1, key, payload, [("ce_id", b"m-1"), *headers], NOW)
    return DeadLetter.of(record)._replace(id=7)


@pytest.mark.parametrize(
    "number", ["1.10", "1E400", "-0.0", "12345678901234567890123", "0.1000000000000000055511151", "1e-7"]
)
def test_a_number_that_is_not_patched_stays_as_it_is_written(number: str) -> None:
    payload = f'{{"b": {number}, "a": [{number}], "x": 1}}'.encode()
    result = patched(payload, patch({"op": "replace", "path": "/x", "value": 2}))
    assert result == f'{{"b":{number},"a":[{number}],"x":2}}'.encode()


def test_a_patched_number_is_what_the_patch_says() -> None:
    operation = '[{"op": "replace", "path": "/x", "value": 3.140}, {"op": "copy", "from": "/x", "path": "/y"}]'
    assert patched(b'{"x":1}', operation) == b'{"x":3.140,"y":3.140}'


def test_a_test_compares_numbers_by_value_and_nothing_else_with_them() -> None:
    for value in ("1", "1.00", "10e-1"):
        operations = f'[{{"op":"test","path":"/x","value":{value}}},{{"op":"remove","path":"/x"}}]'
        assert patched(b'{"x":1.0}', operations) == b"{}"
    for value in ("true", '"1.0"', "2", "null"):
        with pytest.raises(UsageError, match=r"Operation 1 of the patch \(test /x\) fails"):
            patched(b'{"x":1.0}', f'[{{"op":"test","path":"/x","value":{value}}}]')


def test_text_stays_utf_8_and_the_whole_document_can_be_replaced() -> None:
    assert patched('{"ü":"\u2028é😀"}'.encode(), "[]") == '{"ü":"\u2028é😀"}'.encode()
    assert patched(b"1.50", "[]") == b"1.50"
    assert patched(b"{}", patch({"op": "replace", "path": "", "value": [True, None]})) == b"[true,null]"


@pytest.mark.parametrize(
    ("payload", "operations", "told"),
    [
        (b"{", "[]", "The payload is no JSON"),
        (b"\xff", "[]", "The payload is no JSON"),
        (None, "[]", "tombstone"),
        (b"[" * 100_000, "[]", "The payload is no JSON"),
        (b"{}", "{", "The patch is no JSON"),
        (b"{}", "{}", "A patch is a list of operations"),
        (b"{}", "[1]", "A patch is a list of operations"),
        (b"{}", '[{"op":"remove"}]', r"Operation 1 of the patch \(remove\) cannot be applied"),
        (b"{}", '[{"op":"remove","path":"/x"}]', r"\(remove /x\) cannot be applied"),
        (b"{}", '[{"op":"add","path":"/x","value":1},{"op":"swap","path":"/x"}]', "Operation 2"),
        (b"{}", '[{"op":"add","path":5,"value":1}]', "Operation 1"),
        (b"[1]", '[{"op":"replace","path":"/x","value":1}]', r"\(replace /x\)"),
        (b"1", '[{"op":"add","path":"/x","value":1}]', r"\(add /x\)"),
        (b'{"a":1,"a":2}', "[]", "has a name twice"),
    ],
)
def test_what_cannot_be_patched_is_one_sentence(payload: bytes | None, operations: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        patched(payload, operations)
    assert "\n" not in str(raised.value)


def test_no_refusal_quotes_the_payload() -> None:
    with pytest.raises(UsageError) as raised:
        patched(b'{"x":"secret"}', patch({"op": "test", "path": "/x", "value": "other"}))
    assert "secret" not in str(raised.value)


JSONS = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers() | st.decimals(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_text(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


@given(JSONS)
def test_an_empty_patch_only_takes_the_white_space_off(value: Any) -> None:
    payload = _text(value).encode()
    assert patched(payload, "[]") == document.write(document.read(payload))


@given(JSONS)
def test_pretty_json_is_the_same_json(value: Any) -> None:
    payload = _text(value).encode()
    assert document.read(pretty(payload).encode()) == document.read(payload)


def test_changes_are_a_unified_diff_of_json() -> None:
    told = changes(b'{"a":1.0,"b":[1,2],"c":{}}', b'{"a":1.00,"b":[1,2],"c":{}}')
    assert [line for line in told.splitlines() if line[0] in "+-"] == [
        "--- before",
        "+++ after",
        '-  "a": 1.0,',
        '+  "a": 1.00,',
    ]
    assert changes(b"{}", b"{}") == ""
    assert changes(b"{}", b"{ }") == "  only white space, or how it is written, changes"
    assert "+(no payload: a tombstone)" in changes(b"text", None)
    told = changes(b"\xff", b"\xff\xff")
    assert told.splitlines()[0].startswith("- 1 bytes, SHA-256 a8100ae6aa1940d0…")


def test_a_repair_that_changes_nothing_gives_the_letter_itself() -> None:
    own = letter(("a", b"1"))
    assert edited(own, Repair(payload=b"{}", key=b"k", set={"a": "1"}, remove=["b"])) is own


def test_headers_are_set_where_they_stood_and_once() -> None:
    own = letter(("a", b"1"), ("b", b"\xff"), ("a", b"2"), ("c", b"3"))
    made = edited(own, Repair(set={"a": "new", "d": "4"}, remove=["c"]))
    headers = [(name, value) for name, value in made.headers or () if name not in ("ce_id", "causation_id")]
    assert headers == [("a", b"new"), ("b", b"\xff"), ("d", b"4")]
    assert (made.follows, made.state, made.id) == (7, State.DEAD, 0)


def test_a_record_without_an_id_of_its_own_gets_one() -> None:
    own = DeadLetter.of(ReceivedRecord(Partition("t.g.dlq", 0), 1, b"k", b"{}", [], NOW))
    made = edited(own, Repair(payload=b"1"))
    assert first(made.headers or (), "ce_id") == made.message_id
    assert first(made.headers or (), "causation_id") == "t.g.dlq/0/1"


@pytest.mark.parametrize(("key", "subject"), [(b"new", b"new"), (b"\xff", None), (None, None), (b"k", b"k")])
def test_a_subject_that_is_the_key_follows_the_key(key: bytes | None, subject: bytes | None) -> None:
    own = letter(("ce_subject", b"k"), ("x", b"1"))
    made = edited(own, Repair(key=key, payload=b"[]"))
    assert dict(made.headers or ()).get("ce_subject") == subject
    other = letter(("ce_subject", b"own"))
    assert dict(edited(other, Repair(key=key, payload=b"[]")).headers or ()).get("ce_subject") == b"own"


def test_the_type_and_the_deadline_are_those_of_the_headers() -> None:
    own = letter(("ce_type", b"old"), ("expires_at", b"2026-01-01T00:00:00Z"))
    made = edited(own, Repair(set={"ce_type": "new"}, remove=["expires_at"]))
    assert (own.type, own.expires_at is None) == ("old", False)
    assert (made.type, made.expires_at) == ("new", None)


@pytest.mark.parametrize(
    "name",
    [
        "ce_id",
        "causation_id",
        "postroom_dlq_stack",
        "__dlq.errors.topic",
        "postroom_replay_count",
        "kafka_dlt-original-topic",
    ],
)
def test_headers_that_postroom_writes_cannot_be_set(name: str) -> None:
    with pytest.raises(UsageError, match=f"header '{name}' cannot be edited"):
        Repair(set={name: "x"})
    with pytest.raises(UsageError, match="cannot be edited"):
        Repair(remove=[name])


def test_a_repair_that_no_message_can_have_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="at most"):
        Repair(key=b"x" * 20_000)
    with pytest.raises(InvalidMessage, match="NUL"):
        Repair(set={"a": "\0"})
    with pytest.raises(UsageError, match="to be set and to be removed"):
        Repair(set={"a": "1"}, remove=["a"])
    with pytest.raises(InvalidMessage, match="type must be"):
        edited(letter(), Repair(set={"ce_type": "\n"}))
