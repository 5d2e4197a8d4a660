"""JSON read and written without loss: numbers as they stand, names that stand twice, their order.

An object is an ``Object``, a list of names and values; an array a list; a number a ``Number``, its text.
"""

import json
import re
from typing import Any

_INDENT = "  "
_SURROGATE = re.compile("[\ud800-\udfff]")


class Number(str):
    """A number's text."""

    __slots__ = ()


class Object(list[tuple[str, Any]]):
    """An object's members."""

    __slots__ = ()


def read(payload: bytes) -> Any:
    """The document. Raises ValueError for what is no JSON in UTF-8, or nested too deeply."""
    try:
        return json.loads(
            payload.decode(), object_pairs_hook=Object, parse_float=Number, parse_int=Number, parse_constant=Number
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write(document: Any) -> bytes:
    """The bytes, without white space. Raises ValueError for what is nested too deeply."""
    try:
        return _text(document).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def spread(document: Any) -> str:
    """For people: a line for each member and element. Raises ValueError for what is nested too deeply."""
    try:
        return _spread(document, "\n")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _spread(value: Any, newline: str) -> str:
    inner = newline + _INDENT
    if isinstance(value, Object) and value:
        members = [f"{_text(name)}: {_spread(each, inner)}" for name, each in value]
        return "{" + inner + f",{inner}".join(members) + newline + "}"
    if isinstance(value, list) and value and not isinstance(value, Object):
        return "[" + inner + f",{inner}".join([_spread(each, inner) for each in value]) + newline + "]"
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=_SURROGATE.search(value) is not None)
    if isinstance(value, Object):
        return "{" + ",".join([f"{_text(name)}:{_text(inner)}" for name, inner in value]) + "}"
    if isinstance(value, list):
        return "[" + ",".join([_text(inner) for inner in value]) + "]"
    return {True: "true", False: "false", None: "null"}[value]
