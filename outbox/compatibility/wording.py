"""How a change is told."""

import json
import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from .document import Alternative, Node

_SHOWN = 5
_WIDTH = 40
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def step(name: str) -> str:
    """A field in a JSON path."""
    return f".{name}" if _PLAIN_NAME.fullmatch(name) else f"[{json.dumps(name, ensure_ascii=False)}]"


def called(alternative: Alternative) -> str:
    """What an alternative is."""
    if alternative.kind == "values":
        return values(alternative.values)
    return alternative.label or {"any": "anything"}.get(alternative.kind, alternative.kind)


def values(listed: Iterable[Any]) -> str:
    """Values of an enumeration."""
    texts = sorted(_short(value) for value in listed)
    return ", ".join(texts[:_SHOWN]) + (f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")


def limit(key: str, demand: Any) -> str:
    """What ``limits`` holds for ``key``."""
    if key in ("minimum", "maximum"):
        bound, excluded = demand
        return f"{'>' if key == 'minimum' else '<'}{'' if excluded else '='} {_number(bound)}"
    return _number(demand) if isinstance(demand, Fraction) else str(demand)


def undeclared(additional: Node) -> str:
    """What happens to fields that the schema does not declare."""
    if additional is None:
        return "ignored"
    if additional is False:
        return "forbidden"
    return "allowed" if additional in (True, {}) else "of one type"


def default(node: Node) -> str:
    """The default of a field."""
    return _short(node["default"]) if isinstance(node, dict) and "default" in node else "none"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _number(number: Fraction) -> str:
    return str(number.numerator) if number.denominator == 1 else f"{float(number):g}"
