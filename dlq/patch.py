"""Changing a payload: JSON Patch (RFC 6902) without loss, and what a change looks like."""

import difflib
import hashlib
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from jsonpatch import JsonPatch, JsonPatchException, JsonPatchTestFailed
from jsonpointer import JsonPointerException

from ..messaging import document
from ..messaging.document import Number, Object
from ..messaging.errors import UsageError

_LONGEST_TOLD = 200


@dataclass(frozen=True, slots=True)
class _Exact:
    """A number as it is written. Equal to another one of the same value, and to nothing else."""

    text: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Exact) and Decimal(self.text) == Decimal(other.text)

    __hash__ = None  # type: ignore[assignment]


def patched(payload: bytes | None, patch: str | bytes) -> bytes:
    """``payload`` with the operations of the JSON Patch ``patch``, as compact JSON in UTF-8.

    Numbers that are not patched stay as they are written, and names keep their order. Raises UsageError for a
    payload or a patch that is no JSON, and for an operation that cannot be done; then it is as if none was.
    """
    if payload is None:
        raise UsageError("A tombstone has no payload to patch.")
    operations = _read(patch.encode() if isinstance(patch, str) else patch, "The patch")
    if not isinstance(operations, list) or not all(isinstance(each, dict) for each in operations):
        raise UsageError('A patch is a list of operations, such as [{"op": "replace", "path": "/total", "value": 1}].')
    value = _read(payload, "The payload")
    for number, operation in enumerate(operations, 1):
        told = f"Operation {number} of the patch ({_told_operation(operation)})"
        try:
            value = JsonPatch([operation]).apply(value, in_place=True)
        except JsonPatchTestFailed:
            raise UsageError(f"{told} fails; the payload is another one than the patch is for.") from None
        except (JsonPatchException, JsonPointerException) as error:
            raise UsageError(f"{told} cannot be applied: {_brief(error)}.") from None
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise UsageError(f"{told} is malformed.") from None
    try:
        return document.write(_written(value))
    except (RecursionError, ValueError):
        raise UsageError("The patched payload would be nested too deeply.") from None


def changes(before: bytes | None, after: bytes | None) -> str:
    """The lines that change, as a unified diff of the JSON; of what is no text sizes and hashes. Empty where equal."""
    if before == after:
        return ""
    try:
        old, new = (_lines(each) for each in (before, after))
    except UnicodeDecodeError:
        return f"- {_told(before)}\n+ {_told(after)}"
    if old == new:
        return "  only white space, or how it is written, changes"
    return "\n".join(difflib.unified_diff(old, new, "before", "after", lineterm=""))


def pretty(payload: bytes) -> str:
    """JSON with line ends and indentation, each number as it is written; other text as it is.

    Raises UnicodeDecodeError for what is no text.
    """
    try:
        return document.spread(document.read(payload))
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError):
        return payload.decode()


def compact(text: bytes) -> bytes:
    """JSON without white space, otherwise as it is written. Raises ValueError for what is no JSON."""
    return document.write(document.read(text))


def _read(text: bytes, what: str) -> Any:
    try:
        return _plain(document.read(text), what)
    except (ValueError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{what} is no JSON in UTF-8.") from None


def _plain(value: Any, what: str) -> Any:
    """As jsonpatch knows it. Raises UsageError for a name that stands twice: one of them would be lost."""
    if isinstance(value, Number):
        return _Exact(str(value))
    if isinstance(value, Object):
        members = {name: _plain(inner, what) for name, inner in value}
        if len(members) < len(value):
            raise UsageError(f"{what} has a name twice in an object, so it cannot be patched; replace it as a whole.")
        return members
    if isinstance(value, list):
        return [_plain(inner, what) for inner in value]
    return value


def _written(value: Any) -> Any:
    if isinstance(value, _Exact):
        return Number(value.text)
    if isinstance(value, dict):
        return Object((name, _written(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return [_written(inner) for inner in value]
    return value


def _flat(value: Any) -> str:
    return document.write(value).decode()


def _lines(payload: bytes | None) -> list[str]:
    return ["(no payload: a tombstone)"] if payload is None else pretty(payload).splitlines()


def _told(payload: bytes | None) -> str:
    if payload is None:
        return "no payload: a tombstone"
    return f"{len(payload)} bytes, SHA-256 {hashlib.sha256(payload).hexdigest()[:16]}…"


def _told_operation(operation: dict[str, Any]) -> str:
    told = [operation.get(name) for name in ("op", "path")]
    return " ".join(each for each in told if isinstance(each, str)).encode("unicode_escape").decode()[:_LONGEST_TOLD]


def _brief(error: Exception) -> str:
    """On one line."""
    return " ".join(str(error).split()).encode("unicode_escape").decode()[:_LONGEST_TOLD].rstrip(".")
