"""Record headers: text for the application, bytes on the wire, JSON in the tables.

Kafka's headers are pairs of a name and any bytes; a name may stand more than once. The outbox keeps
them as JSON, and what comes from another producer must pass through byte for byte. So there are two
forms: an object of texts (what applications publish; readable in SQL), and an array of pairs (what is
forwarded complete: dead letters and replays), where bytes that are no text stand as ``{"base64": …}``.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

from .errors import InvalidMessage, InvalidRecord

HeaderPairs = Sequence[tuple[str, bytes]]
_decode = json.JSONDecoder().raw_decode
_WORTH_KEEPING = 512
MAX_HEADERS = 128
MAX_NAME_LENGTH = 255
MAX_HEADER_BYTES = 65_536
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
_dump = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make an encoder each time
_name = lru_cache(maxsize=1024)(encode_basestring)


def check_headers(headers: object) -> dict[str, str]:
    """A copy of ``headers``, if it maps text to text. Raises InvalidMessage, naming the header at fault."""
    if not isinstance(headers, Mapping):
        raise InvalidMessage(f"headers must map text to text, not be a {type(headers).__name__}.")
    if not headers:
        return {}
    for name, value in headers.items():
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_LENGTH or not _storable(name):
            raise InvalidMessage(f"header name {name!r} must be a text of 1 to {MAX_NAME_LENGTH} characters.")
        if not isinstance(value, str):
            raise InvalidMessage(f"header {name!r} must be a string, not {type(value).__name__}.")
        if not _storable(value):
            raise InvalidMessage(f"header {name!r} holds a NUL or a lone surrogate, which is no text.")
    if len(headers) > MAX_HEADERS:
        raise InvalidMessage(f"{len(headers)} headers; at most {MAX_HEADERS} are allowed.")
    if sum(len(name.encode()) + len(value.encode()) for name, value in headers.items()) > MAX_HEADER_BYTES:
        raise InvalidMessage(f"The headers have more than {MAX_HEADER_BYTES} bytes.")
    return dict(headers)


def dump_object(headers: Mapping[str, str]) -> str:
    """The readable form, for what an application publishes."""
    return _dump(headers)


def dump_pairs(pairs: HeaderPairs) -> str:
    """The lossless form, for what is forwarded."""
    # By hand: a general encoder takes twice as long for what is always the same shape.
    return f"[{', '.join([f'[{_name(name)}, {_value(value)}]' for name, value in pairs])}]"


def load(text: str) -> tuple[list[tuple[str, bytes]], bool]:
    """The pairs, and whether they are complete (forwarded) rather than only the application's own.

    Raises InvalidRecord for JSON of another form, such as a plain INSERT may have left.
    """
    return _load_again(text) if len(text) <= _WORTH_KEEPING else _load(text)


def _load(text: str) -> tuple[list[tuple[str, bytes]], bool]:
    try:
        loaded, _ = _decode(text)
        if isinstance(loaded, dict):
            return [(name, value.encode()) for name, value in loaded.items()], False
        return [(name, _from_json(value)) for name, value in loaded], True
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidRecord("The stored headers must be a JSON object of texts.") from error


#: Messages of one kind mostly have the same headers.
_load_again = lru_cache(maxsize=1024)(_load)


def first(pairs: HeaderPairs, name: str) -> str | None:
    """The text of the first header of that name; None where it is missing or no UTF-8."""
    for candidate, value in pairs:
        if candidate == name:
            try:
                return value.decode()
            except UnicodeDecodeError:
                return None
    return None


def _storable(text: str) -> bool:
    return _NO_TEXT.search(text) is None


def _value(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\x00"
    if "\x00" in text:  # jsonb knows no U+0000
        return _dump({"base64": b64encode(value).decode()})
    return encode_basestring(text)


def _from_json(value: Any) -> bytes:
    return b64decode(value["base64"]) if isinstance(value, dict) else value.encode()
