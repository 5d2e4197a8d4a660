"""Dead letters in files are complete, byte for byte, whatever their bytes are; what is none is told in one sentence."""

import io
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postroom.dlq import DeadLetter, State, export_letters
from postroom.dlq.exchange import _lines
from postroom.dlq.parquet import read
from postroom.messaging.errors import ConfigurationError, UsageError

NOW = datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  hypothesis adds the zone
NUMBERS = st.integers(0, 2**31 - 1)
LONGS = st.integers(0, 2**63 - 1)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


LETTERS: st.SearchStrategy[DeadLetter] = st.builds(
    DeadLetter,
    id=LONGS,
    dead_letter_topic=st.from_regex(r"[a-z]{1,20}\.dlq", fullmatch=True),
    partition=NUMBERS,
    offset=LONGS,
    incarnation=st.integers(-(2**31), 2**31 - 1),
    written_at=MOMENTS,
    family=TEXTS,
    message_id=TEXTS,
    inbox_id=TEXTS,
    key=maybe(st.binary()),
    type=maybe(TEXTS),
    topic=maybe(TEXTS),
    topic_partition=maybe(NUMBERS),
    topic_offset=maybe(LONGS),
    group=maybe(TEXTS),
    error=maybe(TEXTS),
    message=maybe(TEXTS),
    handler=maybe(TEXTS),
    deliveries=maybe(NUMBERS),
    first_failed_at=maybe(MOMENTS),
    failed_at=MOMENTS,
    fingerprint=TEXTS,
    replays=NUMBERS,
    expires_at=maybe(MOMENTS),
    size=maybe(NUMBERS),
    order_partition=NUMBERS,
    order_offset=LONGS,
    state=st.sampled_from(State),
    state_at=MOMENTS,
    plan_id=maybe(LONGS),
    ordinal=maybe(NUMBERS),
    follows=maybe(LONGS),
    rounds=NUMBERS,
    same_failures=NUMBERS,
    masked=st.booleans(),
    forgotten_at=maybe(MOMENTS),
    payload=maybe(st.binary()),
    headers=st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.binary())),
)


def letter(**more: Any) -> DeadLetter:
    made = DeadLetter(
        1, "t.dlq", 0, 5, 0, NOW, "postroom", "m", "m", b"k", None, "t", 0, 1, "g", "E", "x", None, 1, NOW, NOW, "f", 0,
        None, 2, 0, 1, payload=b"{}", headers=[],
    )  # fmt: skip
    return made._replace(**more)


def written(letters: list[DeadLetter], format_: Any = "jsonl") -> io.BytesIO:
    out = io.BytesIO()
    assert export_letters(letters, out, format_) == len(letters)
    out.seek(0)
    return out


@given(st.lists(LETTERS, max_size=5))
@settings(deadline=None)
def test_json_lines_lose_nothing(letters: list[DeadLetter]) -> None:
    assert [each for _, each in _lines(written(letters))] == letters


@given(st.lists(LETTERS, max_size=5))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_parquet_loses_nothing(letters: list[DeadLetter]) -> None:
    pytest.importorskip("pyarrow")
    assert [each for _, each in read(written(letters, "parquet"))] == letters


def test_a_line_is_one_object_that_people_can_read() -> None:
    [line] = written([letter(payload=b'{"n": 1}', key=b"\xff")]).getvalue().splitlines()
    told = json.loads(line)
    assert list(told) == ["format", *DeadLetter._fields]
    assert (told["format"], told["payload"], told["key"]) == (1, '{"n": 1}', {"base64": "/w=="})
    assert told["failed_at"] == "2026-01-31T12:00:00.000001Z"


def test_moments_of_other_zones_are_taken() -> None:
    document = json.loads(written([letter()]).getvalue())
    document["failed_at"] = NOW.astimezone(timezone(timedelta(hours=2))).isoformat()
    [(_, found)] = _lines(io.BytesIO(b"\n" + json.dumps(document).encode() + b"\n  \n"))
    assert found == letter()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "its format is 2, and this version of Postroom reads 1"),
        ({"format": True}, "its format is True"),
        ({"format": None}, "its format is None"),
        ({"offset": -1}, "offset must be a whole number"),
        ({"offset": 2**63}, "offset must be a whole number"),
        ({"partition": 2**31}, "partition must be a whole number"),
        ({"partition": True}, "partition must be a whole number"),
        ({"partition": 1.0}, "partition must be a whole number"),
        ({"partition": None}, "partition is missing"),
        ({"message_id": "a\0"}, "message_id must be a text"),
        ({"message_id": "\ud800"}, "message_id must be a text"),
        ({"message": "x" * 1001}, "message must be a text"),
        ({"masked": 1}, "masked must be true or false"),
        ({"failed_at": "2026-01-31T12:00:00"}, "failed_at must be a time"),
        ({"failed_at": 7}, "failed_at must be a time"),
        ({"failed_at": "0001-01-01T00:00:00+14:00"}, "failed_at must be a time"),
        ({"payload": {"base64": "!"}}, "payload must be a text"),
        ({"payload": {"hex": "ff"}}, "payload must be a text"),
        ({"payload": [1]}, "payload must be a text"),
        ({"payload": "\ud800"}, "payload must be a text"),
        ({"headers": {"a": "b"}}, "headers must be a list"),
        ({"headers": [["a"]]}, "headers must be a list"),
        ({"headers": [["a", 1]]}, "headers must be a list"),
        ({"headers": [["\ud800", "b"]]}, "headers must be a list"),
        ({"headers": None}, "headers is missing"),
        ({"state": "lost"}, "state must be one of dead, planned"),
        ({"dead_letter_topic": "no topic"}, "dead_letter_topic must be a legal topic"),
        ({"colour": "red"}, "there is no field 'colour'"),
    ],
)
def test_what_is_no_dead_letter_is_told_with_its_line(change: dict[str, Any], told: str) -> None:
    good = written([letter()]).getvalue()
    bad = json.dumps({**json.loads(good), **change}).encode()
    with pytest.raises(UsageError, match=f"Line 2 is no dead letter: {told}"):
        list(_lines(io.BytesIO(good + bad)))


@pytest.mark.parametrize("line", [b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"format": 1}'])
def test_a_line_of_another_kind_is_told(line: bytes) -> None:
    with pytest.raises(UsageError, match="Line 1 is no dead letter: "):
        list(_lines(io.BytesIO(line)))


def test_a_line_without_end_is_not_taken_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.dlq.exchange._LONGEST_LINE", 1_000)
    with pytest.raises(UsageError, match="Line 1 is no dead letter: it is longer than 1,000 bytes"):
        list(_lines(written([letter(payload=b"x" * 2_000)])))


@pytest.mark.parametrize("content", [b"", b"PAR1", b'{"format": 1}\n', b"PAR1" + b"\0" * 50 + b"PAR1"])
def test_another_file_is_no_parquet(content: bytes) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(UsageError, match="It cannot be read as Parquet"):
        list(read(io.BytesIO(content)))


def test_parquet_of_somebody_else_is_refused() -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet  # noqa: PLC0415  not everybody has it

    out = io.BytesIO()
    parquet.write_table(pa.table({"a": [1]}), out)
    out.seek(0)
    with pytest.raises(UsageError, match="holds no dead letters of format 1"):
        list(read(out))
    broken = io.BytesIO()
    table = parquet.read_table(written([letter(), letter()], "parquet"))
    column = table.column_names.index("partition")
    parquet.write_table(table.set_column(column, "partition", pa.array([0, -1])), broken)
    broken.seek(0)
    with pytest.raises(UsageError, match="Row 2 is no dead letter: partition must be"):
        list(read(broken))


def test_parquet_is_written_and_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet  # noqa: PLC0415  not everybody has it

    monkeypatch.setattr("postroom.dlq.exchange._ROW_GROUP", 2)
    file = written([letter(offset=number) for number in range(5)], "parquet")
    assert parquet.ParquetFile(file).num_row_groups == 3
    monkeypatch.setattr("postroom.dlq.exchange._BYTES_AT_ONCE", 10)
    assert parquet.ParquetFile(written([letter()] * 5, "parquet")).num_row_groups == 5


def test_without_pyarrow_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'postroom\[parquet\]'"):
        export_letters([letter()], io.BytesIO(), "parquet")


def test_letters_are_written_as_they_come() -> None:
    out = io.BytesIO()

    def come() -> Iterator[DeadLetter]:
        yield letter()
        assert out.getvalue().count(b"\n") == 1
        yield letter()

    assert export_letters(come(), out) == 2
