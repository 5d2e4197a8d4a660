"""What ``--match`` understands, and that neither a text nor any bytes make it fail otherwise."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.messaging.errors import UsageError
from postroom.messaging.match import MAX_TEXT, Match

ORDER = {
    "status": "Open",
    "total": 100.5,
    "price": 0.1,
    "count": 3,
    "big": 9007199254740993,
    "paid": True,
    "refunded": False,
    "note": None,
    "zero": 0,
    "tags": ["new", "vip", 1],
    "items": [{"sku": "a-1"}, {"sku": "b-2"}],
    "class": {"a b": 1},
}
PAYLOAD = json.dumps(ORDER).encode()
HEADERS = [("ce_type", b"shop.order"), ("x.trace", b"\xff"), ("ce_type", b"second")]


@pytest.mark.parametrize(
    "text",
    [
        "payload.total > 100",
        "payload.price == 0.1 and payload.price == 0.10",
        "payload.big == 9007199254740993",
        "not payload.big == 9007199254740992.0",
        "0 < payload.count <= 3",
        "payload.count == 3.0",
        "-1 < payload.zero",
        'payload["class"]["a b"] == 1',
        'payload.items[0].sku == "a-1" and payload.items[-1].sku == "b-2"',
        'payload.status in ["Open", "Closed"]',
        'payload.status not in ("Closed", null)',
        '"vip" in payload.tags and 1 in payload.tags',
        "true not in payload.tags",
        '"pen" in payload.status',
        '"total" in payload',
        "payload.paid",
        "payload.zero",
        "not payload.refunded and not payload.note and not payload.absent",
        "payload.paid == true and payload.refunded == False and payload.note == null and payload.note == None",
        "payload.paid != 1",
        'payload.count != "3"',
        "payload.note != 1",
        "exists(payload.note) and not exists(payload.absent) and not exists(payload.items[2])",
        "len(payload.items) == 2 and len(payload.status) == 4 and len(payload) > 5",
        'lower(payload.status) == "open"',
        'like(payload.items[0].sku, "a-*") and like(lower(payload.status), "o?en")',
        'not like(payload.status, "open")',
        'headers["ce_type"] == "shop.order"',
        'headers.ce_type == "shop.order" and headers["x.trace"] == null',
        'key == "o-17" and like(key, "o-*") and exists(key)',
        "(payload.absent or payload.paid) and (payload.total > 1000 or payload.count < 10)",
        'payload.ünknown == 1 or payload.status == "Open"',
        "payload.status < payload.tags or payload.count > 2",
    ],
)
def test_what_holds(text: str) -> None:
    assert Match.parse(text).matches(PAYLOAD, HEADERS, b"o-17")


@pytest.mark.parametrize(
    "text",
    [
        "payload.absent == 1",
        "payload.absent != 1",
        "payload.absent == null",
        "payload.absent not in [1]",
        "payload.status > 1",
        "payload.status <= 1",
        "payload.paid > 0",
        "payload.paid == 1",
        "payload.items.sku == 1",
        "payload.tags[7] == 1",
        "payload.tags[99999999999999999999] == 1",
        "payload.status.sku == 1",
        "len(payload.count) >= 0",
        'lower(payload.count) == "3"',
        'like(payload.count, "*")',
        "1 in payload.count",
        "1 not in payload.count",
        "1 in payload.status",
        'key == "O-17"',
        'headers["CE_TYPE"] == "shop.order"',
    ],
)
def test_what_is_missing_or_of_another_type_does_not_hold(text: str) -> None:
    assert not Match.parse(text).matches(PAYLOAD, HEADERS, b"o-17")


@pytest.mark.parametrize("payload", [b"", b"no json", b"\xff\xfe", b"[" * 100_000, b"{" * 9, b"1" * 9_000 + b"x"])
def test_a_payload_that_is_no_json_has_no_fields(payload: bytes) -> None:
    assert not Match.parse("payload.a or payload.a != 1 or exists(payload)").matches(payload, [], None)
    assert Match.parse("key == null and not exists(key)").matches(payload, [], b"\xff")


def test_a_tombstone_is_null() -> None:
    assert Match.parse("payload == null and not exists(payload)").matches(None, [], None)


@pytest.mark.parametrize("number", ["1" * 9_000, "1e99999999999999999999999", "1" * 20_000 + ".5"])
def test_numbers_of_any_size_can_be_compared(number: str) -> None:
    assert Match.parse("payload.n > 1e400").matches(f'{{"n": {number}}}'.encode(), [], None)


def test_what_json_calls_nan_is_not_there() -> None:
    match = Match.parse("payload.n > 0 or payload.n < 0 or payload.n != 0 or exists(payload.n)")
    assert not match.matches(b'{"n": NaN}', [], None)
    assert Match.parse("payload.n < 0").matches(b'{"n": -Infinity}', [], None)


def test_deeply_nested_values_can_be_compared_without_harm() -> None:
    deep = b"[" * 900 + b"]" * 900
    assert Match.parse("payload.a == payload.b or key == null").matches(
        b'{"a":' + deep + b',"b":' + deep + b"}", [], None
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("payload.total >", "at its end"),
        ("total > 100", "character 1"),
        ("payload.total > abc", "character 17"),
        ('payload.ü == "ü" and nothing', "character 22"),
        ("  payload.a == __import__('os')", "character 14"),
        ("payload.a == b.c", "character 14"),
        ("open('/etc/passwd')", "character 1"),
        ("payload.a.lower() == 'x'", "character 1"),
        ("payload.a is None", "character 14"),
        ("payload.a + 1 == 2", "character 1"),
        ("payload[1:2] == 2", "character 9"),
        ("payload[payload.a] == 2", "character 9"),
        ("payload[true] == 2", "character 9"),
        ("(lambda: 1)()", "character 1"),
        ("[x for x in payload]", "character 1"),
        ("payload.a == f'{key}'", "character 14"),
        ("payload.a == 1j", "character 14"),
        ("payload.a == b'x'", "character 14"),
        ("payload.a == [1]", "character 14"),
        ("payload.a == (x := 1)", "character 15"),
        ("len(payload.a)", "character 1"),
        ("len(payload.a, 1) == 1", "character 1"),
        ("like(payload.a, payload.b)", "character 17"),
        ("exists(payload.a) == true", "character 1"),
        ("len('abc') == 3", "character 5"),
        ("1 == 1 and true", "character 12"),
        ("'text'", "character 1"),
        ("payload.class == 1", "character 9"),
        ("payload.a == -'x'", "character 14"),
        ("payload.a if payload.b else payload.c", "character 1"),
    ],
)
def test_what_is_refused_and_where(text: str, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        Match.parse(text)
    assert place in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", " ", "payload.a ==\n1", "payload.a == 1\x00", "\ud800", "payload.a == '" + "x" * MAX_TEXT + "'"]
    + [opening * 400 + "payload.a" for opening in ("(", "not ", "-", "[", "{", "lambda:")]
    + ["(" * 150 + "payload.a" + ")" * 150 + " > ", "not (" * 30 + "payload.a" + ")" * 30],
)
def test_what_is_too_long_or_nested_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Match.parse(text)


_WORDS = ["payload", "headers", "key", ".a", "[0]", "[-1]", '["b"]', " == ", " < ", " in ", " not in ", " and ", " or "]
_WORDS += ["not ", "(", ")", "len(", "lower(", "like(", "exists(", "1", "0.1", '"a*"', "[1, 'x']", "null", "true", ","]
_WORDS += ["1e999", "-", "'[!a-'", "'\\d'", "is", "1_0", "0x1f", "é", "\\"]
_TEXTS = st.text() | st.lists(st.sampled_from(_WORDS), max_size=14).map("".join)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=8,
)
_BYTES = st.binary() | _JSON.map(lambda value: json.dumps(value).encode())


@given(_TEXTS)
def test_parsing_raises_nothing_but_usage_errors(text: str) -> None:
    with suppress(UsageError):
        Match.parse(text)


_PATHS = ["payload", "payload.a", "payload.a.b", "payload[0]", "payload[-1].a", "headers.a", "headers", "key"]
_OPERANDS = [*_PATHS, "1", "0.5", "'x'", "null", "true", "len(payload.a)", "lower(key)"]


@given(
    st.sampled_from(_OPERANDS),
    st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "not in"]),
    st.sampled_from(_OPERANDS),
    st.none() | _BYTES,
    st.lists(st.tuples(st.sampled_from("ab"), st.binary())),
    st.none() | st.binary(),
)
def test_nothing_makes_matching_fail(
    left: str, compare: str, right: str, payload: bytes | None, headers: list[tuple[str, bytes]], key: bytes | None
) -> None:
    match = Match.parse(f"{left} {compare} {right} or like({_PATHS[1]}, '*a*') or exists({_PATHS[2]})")
    assert match.matches(payload, headers, key) in {True, False}
