"""The fields of a dead letter in files: their names, in order, what each may hold, and how JSON writes it."""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from ..messaging.errors import InvalidMessage, UsageError
from ..messaging.headers import HeaderPairs
from ..messaging.message import check_topic
from .letter import DeadLetter
from .states import State

#: Written into each file; a later form has another number.
FORMAT = 1
Kind = Literal["number", "long", "text", "bytes", "moment", "flag", "headers"]
_LONGEST = 1_000  # characters
_BITS: Mapping[str, int] = {"number": 31, "long": 63}
_TEXTS = ("family", "message_id", "inbox_id", "dead_letter_topic", "fingerprint", "state")


class Field(NamedTuple):
    """A field. ``optional``: it may be null, or missing."""

    name: str
    kind: Kind
    optional: bool = False


_OPTIONAL: Mapping[str, Kind] = {
    "key": "bytes",
    "type": "text",
    "topic": "text",
    "topic_partition": "number",
    "topic_offset": "long",
    "group": "text",
    "error": "text",
    "message": "text",
    "handler": "text",
    "deliveries": "number",
    "first_failed_at": "moment",
    "expires_at": "moment",
    "size": "number",
    "plan_id": "long",
    "ordinal": "number",
    "follows": "long",
    "forgotten_at": "moment",
    "payload": "bytes",
}
_REQUIRED: Mapping[str, Kind] = {
    **dict.fromkeys(_TEXTS, "text"),
    "id": "long",
    "partition": "number",
    "offset": "long",
    "incarnation": "number",
    "written_at": "moment",
    "failed_at": "moment",
    "replays": "number",
    "order_partition": "number",
    "order_offset": "long",
    "state_at": "moment",
    "rounds": "number",
    "same_failures": "number",
    "masked": "flag",
    "headers": "headers",
}
FIELDS = tuple(Field(name, _OPTIONAL.get(name) or _REQUIRED[name], name in _OPTIONAL) for name in DeadLetter._fields)
_NAMES = frozenset(DeadLetter._fields)
#: What JSON writes in another way.
_CONVERTED = frozenset(field.name for field in FIELDS if field.kind in ("bytes", "moment", "headers"))


def as_json(letter: DeadLetter) -> dict[str, Any]:
    """All of ``letter``, for ``json.dumps``. Bytes are a text where they are one, else ``{"base64": …}``."""
    values = zip(FIELDS, letter, strict=True)
    return {"format": FORMAT, **{field.name: _to_json(field.kind, value) for field, value in values}}


def of_json(document: Any) -> DeadLetter:
    """The letter in a document. Raises UsageError with a part of a sentence: which field, and what it must be."""
    if not isinstance(document, dict):
        raise UsageError("it is no JSON object")
    given = dict(document)
    form = given.pop("format", None)
    if form != FORMAT or isinstance(form, bool):
        raise UsageError(f"its format is {form!r:.40}, and this version of Postroom reads {FORMAT}")
    for name in _CONVERTED & given.keys():
        given[name] = _of_json(name, given[name])
    return of_values(given)


def of_values(given: Mapping[str, Any]) -> DeadLetter:
    """The letter of values by name. Raises UsageError like ``of_json``."""
    if strange := sorted(given.keys() - _NAMES):
        raise UsageError(f"there is no field {strange[0]!r:.60}")
    letter = DeadLetter._make([_checked(field, given.get(field.name)) for field in FIELDS])
    try:
        check_topic(letter.dead_letter_topic)
        return letter._replace(state=State(letter.state))
    except InvalidMessage:
        raise UsageError("dead_letter_topic must be a legal topic name") from None
    except ValueError:
        raise UsageError(f"state must be one of {', '.join(State)}") from None


def _to_json(kind: Kind, value: Any) -> Any:
    if value is None:
        return [] if kind == "headers" else None
    match kind:
        case "bytes":
            return _plain(value)
        case "moment":
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case "headers":
            return [[name, _plain(each)] for name, each in value]
        case _:
            return value


def _plain(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def _of_json(name: str, value: Any) -> Any:
    """Bytes, moments and headers as they are in a letter; the rest as it is."""
    kind = _OPTIONAL.get(name) or _REQUIRED.get(name)
    if value is None:
        return None
    try:
        match kind:
            case "bytes":
                return _bytes(value)
            case "moment":
                return datetime.fromisoformat(value)
            case "headers":
                return [(own, _bytes(each)) for own, each in value]
            case _:
                return value
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{name} must be {_must_be(kind or 'text')}") from None


def _bytes(value: Any) -> bytes:
    """Raises KeyError, TypeError, ValueError."""
    if isinstance(value, dict):
        return b64decode(value["base64"], validate=True)
    if not isinstance(value, str):
        raise TypeError
    return value.encode()


def _checked(field: Field, value: Any) -> Any:
    if value is None:
        if field.optional:
            return None
        raise UsageError(f"{field.name} is missing")
    try:
        if _fits(field, value):
            return value.astimezone(UTC) if field.kind == "moment" else value
    except (OverflowError, TypeError, ValueError):
        pass
    raise UsageError(f"{field.name} must be {_must_be(field.kind)}")


def _fits(field: Field, value: Any) -> bool:
    match field.kind:
        case "number" | "long":
            most, whole = 2 ** _BITS[field.kind], isinstance(value, int) and not isinstance(value, bool)
            return whole and (0 if field.name != "incarnation" else -most) <= value < most
        case "text":
            return isinstance(value, str) and _storable(value) and len(value) <= _LONGEST
        case "bytes":
            return isinstance(value, bytes)
        case "moment":
            return isinstance(value, datetime) and value.tzinfo is not None
        case "flag":
            return isinstance(value, bool)
        case "headers":
            return _are_headers(value)


def _are_headers(value: HeaderPairs) -> bool:
    return isinstance(value, list) and all(
        isinstance(name, str) and not _surrogates(name) and isinstance(each, bytes) for name, each in value
    )


def _storable(text: str) -> bool:
    return "\x00" not in text and not _surrogates(text)


def _surrogates(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


def _must_be(kind: Kind) -> str:
    return {
        "number": "a whole number from 0 to 2147483647",
        "long": "a whole number from 0 to 9223372036854775807",
        "text": f"a text of up to {_LONGEST:,} characters",
        "bytes": 'a text, or {"base64": …}',
        "moment": "a time in ISO 8601 with its zone",
        "flag": "true or false",
        "headers": "a list of pairs of a name and a value",
    }[kind]
