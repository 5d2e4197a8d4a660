"""Masked fields are nowhere: not in payloads, headers, keys, nor in the errors that quote them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.messaging.errors import ConfigurationError, UsageError
from postroom.messaging.redact import MASK, NO_JSON, Redaction

CARD = Redaction(["payload.card.number", "payload.lines.*.iban", "headers.x.api.Key", "key"])
ORDER = b'{"card": {"number": "4111-1111", "name": "Ann"}, "lines": [{"iban": "DE89"}, {"sku": 1.10}], "n": 1E2}'


def test_fields_are_masked_and_the_rest_stays_to_the_digit() -> None:
    masked = CARD.payload(ORDER)
    assert masked is not None
    told = '{"card":{"number":"‹redacted›","name":"Ann"},"lines":[{"iban":"‹redacted›"},{"sku":1.10}],"n":1E2}'
    assert masked.decode() == told


@pytest.mark.parametrize("payload", [None, b'{"a": 1.10}', b"17", b'"card"', b"[]", b'{"card": "none"}'])
def test_without_such_a_field_the_payload_is_the_same_object(payload: bytes | None) -> None:
    assert CARD.payload(payload) is payload


@pytest.mark.parametrize("payload", [b"", b"card=4111", b"\xff", b"[" * 100_000, ORDER + b"x", b"\xef\xbb\xbf" + ORDER])
def test_a_payload_in_which_nobody_can_tell_where_the_field_is_is_not_shown(payload: bytes) -> None:
    assert CARD.payload(payload) == NO_JSON.encode()
    assert Redaction(["key"]).payload(payload) is payload


def test_a_field_that_stands_twice_is_masked_twice() -> None:
    payload = b'{"card": {"number": "first", "number": "\xe2\x80\xb9redacted\xe2\x80\xba"}}'
    assert b"first" not in (CARD.payload(payload) or b"first")


@pytest.mark.parametrize(
    ("path", "payload", "masked"),
    [
        ("payload.a", '{"a":null,"b":1}', '{"a":M,"b":1}'),
        ("payload.a", '{"a":{"x":[1,2]}}', '{"a":M}'),
        ("payload.*", '{"a":1,"b":[2]}', '{"a":M,"b":M}'),
        ("payload.*.a", '[{"a":1},{"b":2},3]', '[{"a":M},{"b":2},3]'),
        ("payload.a.1", '{"a":[1,2]}', '{"a":[1,M]}'),
        ("payload.*.*", '{"a":[1],"b":{"c":2},"d":3}', '{"a":[M],"b":{"c":M},"d":3}'),
        ("payload.a", '{"":{"a":1},"a":"\\ud800"}', '{"":{"a":1},"a":M}'),
        ("payload.a", '{"a":1,"b":"\\ud800"}', '{"a":M,"b":"\\ud800"}'),
        ("payload.a", '{"a":1,"b":[true,false,null,NaN]}', '{"a":M,"b":[true,false,null,NaN]}'),
    ],
)
def test_paths(path: str, payload: str, masked: str) -> None:
    assert Redaction([path]).payload(payload.encode()) == masked.replace("M", f'"{MASK}"').encode()


def test_one_path_in_another() -> None:
    redaction = Redaction(["payload.a", "payload.a.b", "payload.*.c"])
    assert (
        redaction.payload(b'{"a":{"b":1},"x":{"b":1,"c":2}}') == f'{{"a":"{MASK}","x":{{"b":1,"c":"{MASK}"}}}}'.encode()
    )


def test_headers_by_name_in_any_case_and_the_key_with_its_subject() -> None:
    pairs = [("X.Api.kEY", b"secret"), ("x.api", b"seen"), ("ce_subject", b"o-17"), ("x.api.key", b"\xff")]
    mask = MASK.encode()
    assert CARD.headers(pairs) == [("X.Api.kEY", mask), ("x.api", b"seen"), ("ce_subject", mask), ("x.api.key", mask)]
    assert CARD.key(b"o-17") == mask
    assert CARD.key(None) is None
    assert Redaction(["payload.a"]).key(b"o-17") == b"o-17"
    assert Redaction(["payload.a"]).headers(pairs) == pairs


def test_without_paths_nothing_is_changed() -> None:
    nothing = Redaction([])
    assert not nothing
    assert CARD
    assert nothing.payload(ORDER) is ORDER
    assert nothing.text("4111", b"no json", [], b"4111") == "4111"
    assert nothing.restore(b"x", b"y") == b"x"


@pytest.mark.parametrize(
    "path", ["", "payload", "payload.", "payload..a", "payload.a.", "headers.", "headers", "keys", "key.a", "x.y"]
)
def test_a_path_that_is_none(path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"payload\.card\.number"):
        Redaction(["key", path])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("4111-1111", "ValueError: card 4111-1111 was refused, 4111-1111!"),
        ("O'Neill", 'ValueError: got "O\'Neill"'),
        ('say "x"', 'JSON: {"a": "say \\"x\\""}'),
        ("two\nlines", "KeyError: 'two\\nlines'"),
        ("two\nlines", "two lines"),
        ("Größe", 'at "Gr\\u00f6\\u00dfe"'),
        ("Größe", "at 'Gr\\xf6\\xdfe'"),
        ("back\\slash", "KeyError: 'back\\\\slash'"),
        (4111.50, "for 4111.5 EUR"),
        (100000000000000000000, "for 100000000000000000000 and 1e+20"),
        (12345, "order 12345."),
        ("41111111222222223333333344444444", "input_value='4111111122...3344444444', input_type=str"),
        ("41111111222222223333333344444444", "input_value={'number': '411111...'}"),
        ("41111111222222223333333344444444", "…33344444444 was refused"),
        ("41111111222222223333333344444444", "the number is 41111111"),
    ],
)
def test_values_are_masked_in_errors_that_quote_them(value: Any, text: str) -> None:
    redaction = Redaction(["payload.a"])
    told = redaction.text(text, json.dumps({"a": value, "b": 1}).encode(), [], None)
    assert MASK in told
    rest = told.replace(MASK, "")
    assert not any(
        part in rest for part in ("4111", "4444", "Neill", "say", "lines", "Gr", "slash", "1234", "1000", "1e+20")
    )
    assert redaction.text(told, json.dumps({"a": value, "b": 1}).encode(), [], None) == told


def test_values_in_lists_headers_and_the_key_are_masked_in_errors_too() -> None:
    headers = [("x.api.key", b"tok-en"), ("other", b"seen")]
    payload = b'{"card": {"number": ["1234", {"x": 9876}]}, "lines": [{"iban": "DE89"}], "seen": "seen"}'
    text = "Error: 1234 9876 DE89 tok-en 6f2d3137 b'\\xff' o-17 seen"
    told = "Error: M M M M M b'\\xff' M seen".replace("M", MASK)
    assert CARD.text(text, payload, headers, b"o-17") == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ValueError: 4111", f"ValueError: {MASK}"),
        ("billing.errors.CardError: 4111\nmore", f"billing.errors.CardError: {MASK}"),
        ("4111: ValueError", MASK),
        ("Ann: refused", MASK),
        ("", ""),
    ],
)
def test_where_the_payload_cannot_be_read_only_the_class_is_left(text: str, told: str) -> None:
    assert CARD.text(text, b"card=4111", [], None) == told
    assert Redaction(["key"]).text(text, b"card=4111", [], b"secret") == text


@pytest.mark.parametrize(("values", "cuts"), [(5_000, 0), (500, 2_000)])
def test_more_values_than_can_be_looked_for(values: int, cuts: int) -> None:
    payload = json.dumps({"a": [f"value {number}" for number in range(values)]}).encode()
    text = "ValueError: value 499" + "…" * cuts
    assert Redaction(["payload.a"]).text(text, payload, [], None) == f"ValueError: {MASK}"


def test_what_an_editor_left_masked_is_put_back() -> None:
    masked = CARD.payload(ORDER)
    assert masked is not None
    edited = masked.replace(b"Ann", b"Bob").replace(b"1E2", b"7")
    restored = CARD.restore(edited, ORDER)
    assert restored == b'{"card":{"number":"4111-1111","name":"Bob"},"lines":[{"iban":"DE89"},{"sku":1.10}],"n":7}'


def test_an_edited_payload_without_a_mask_stays_as_it_is() -> None:
    for edited in (b'{"card": {"number":  "5"}}', b"no json", b"", ORDER):
        assert CARD.restore(edited, ORDER) is edited


def test_a_mask_that_is_written_as_an_escape_is_one() -> None:
    assert CARD.restore(b'{"card":{"number":"\\u2039redacted\\u203a"}}', ORDER) == b'{"card":{"number":"4111-1111"}}'


@pytest.mark.parametrize(
    "edited",
    [
        '{"card": {"name": "M"}}',
        '{"card": {"number": "M", "M": 1}}',
        '{"card": {"number": "xM"}}',
        '{"card": "M"}',
        '{"new": {"number": "M"}}',
        '{"lines": [{"iban": "M"}]}',
        '{"lines": [{}, {"iban": "M"}]}',
        '{"lines": {"0": {"iban": "M"}}}',
        '"M"',
        "M",
        '{"card": {"number": "M"',
        NO_JSON,
    ],
)
def test_a_mask_elsewhere_is_refused(edited: str) -> None:
    with pytest.raises(UsageError):
        CARD.restore(edited.replace("M", MASK).encode() if edited != NO_JSON else edited.encode(), ORDER)


def test_of_a_payload_that_was_no_json_nothing_can_be_put_back() -> None:
    with pytest.raises(UsageError):
        CARD.restore(f'{{"card": {{"number": "{MASK}"}}}}'.encode(), b"4111")


_VALUES = st.text(st.characters(exclude_characters=MASK, exclude_categories=["Cs"]), min_size=3) | st.integers(
    min_value=1000
)
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats() | _VALUES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0", ""]), inner, max_size=3)
    ),
    max_leaves=10,
)
_PATHS = st.lists(
    st.sampled_from(["payload.a", "payload.*", "payload.a.*", "payload.*.b", "payload.0", "headers.a", "key"])
)
_HEADERS = st.lists(st.tuples(st.sampled_from(["a", "A", "b"]), st.binary()))


@given(_PATHS, st.none() | st.binary() | _JSON.map(lambda value: json.dumps(value).encode()), _HEADERS, st.text())
def test_no_data_makes_it_fail_and_twice_is_once(
    paths: list[str], payload: bytes | None, headers: list[tuple[str, bytes]], text: str
) -> None:
    redaction = Redaction(paths)
    once = redaction.payload(payload)
    assert redaction.payload(once) == once
    assert redaction.headers(redaction.headers(headers)) == redaction.headers(headers)
    assert redaction.key(redaction.key(payload)) == redaction.key(payload)
    redaction.text(text, payload, headers, payload)


@given(st.lists(_VALUES, min_size=1, max_size=3), st.lists(st.sampled_from(["...", "…", "'", " ", "Error: "])))
def test_a_text_is_masked_once(values: list[Any], around: list[str]) -> None:
    redaction = Redaction(["payload.*"])
    payload = json.dumps(values).encode()
    parts = [str(value) for value in values] + [str(value)[:5] for value in values] + [repr(values)]
    text = "".join(part for pair in zip(parts, around + [""] * len(parts), strict=False) for part in pair)
    once = redaction.text(text, payload, [], None)
    assert redaction.text(once, payload, [], None) == once


@given(_VALUES, _JSON, st.sampled_from([str, repr, json.dumps, ascii]))
def test_a_masked_value_never_appears(value: Any, other: Any, quote: Any) -> None:
    redaction = Redaction(["payload.secret", "payload.lines.*.iban"])
    payload = json.dumps({"secret": value, "lines": [{"iban": value}]}).encode()
    masked = redaction.payload(payload)
    assert masked is not None
    assert json.loads(masked) == {"secret": MASK, "lines": [{"iban": MASK}]}
    quoted = quote(value).strip("'\"")
    assert quoted not in redaction.text(f"{quote(value)}", payload, [], None).replace(MASK, "") or len(quoted) < 3
    wider = json.dumps({"secret": value, "other": other}).encode()
    restored = json.loads(redaction.restore(redaction.payload(wider) or b"", wider))
    assert repr(restored) == repr(json.loads(wider))
