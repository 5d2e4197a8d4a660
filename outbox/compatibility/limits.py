"""What a keyword of JSON Schema demands of one value, and whether one demand implies another."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from .document import Alternative

Bound = tuple[Fraction, bool]  # and whether it is excluded itself
_AT_LEAST = ("minLength", "minItems", "minProperties")
_AT_MOST = ("maxLength", "maxItems", "maxProperties")
_BY_KIND: Mapping[str, tuple[str, ...]] = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "array": ("minItems", "maxItems", "uniqueItems"),
    "object": ("minProperties", "maxProperties"),
}
#: Formats that are a part of another: pydantic's UUID4 is a UUID.
_WIDER = {f"uuid{number}": "uuid" for number in range(1, 9)}


def limits(alternative: Alternative) -> dict[str, Any]:
    """The demands of ``alternative`` on a single value; ``minimum`` and ``maximum`` as Bound."""
    node, kind = alternative.node, alternative.kind
    if kind in ("integer", "number"):
        found: dict[str, Any] = {
            "minimum": _lower(node, whole=kind == "integer"),
            "maximum": _upper(node, whole=kind == "integer"),
            "multipleOf": _fraction(node.get("multipleOf")),
        }
    else:
        found = {key: node.get(key) for key in _BY_KIND.get(kind, ())}
    return {key: value for key, value in found.items() if value is not None and not _idle(key, value)}


def implies(key: str, given: Any, demanded: Any) -> bool:
    """Whether what keeps to ``given`` keeps to ``demanded``; None is no limit."""
    if demanded is None or given == demanded:
        return True
    if given is None:
        return False
    return _IMPLIES.get(key, lambda *_: False)(given, demanded)


def keeps_to(value: Any, alternative: Alternative) -> bool:
    """Whether one text or number is surely allowed by ``alternative``, whose kind it is of."""
    for key, demanded in limits(alternative).items():
        if key in ("minimum", "maximum"):
            exact = (Fraction(str(value)), False)
            if not implies(key, exact, demanded):
                return False
        elif key == "multipleOf":
            if Fraction(str(value)) % demanded:
                return False
        elif key not in ("minLength", "maxLength") or not implies(key, len(value), demanded):
            return False
    return True


def _idle(key: str, value: Any) -> bool:
    return value is False or (key in _AT_LEAST and value == 0)


def _lower(node: Mapping[str, Any], *, whole: bool) -> Bound | None:
    own = [(_fraction(node.get(key)), key == "exclusiveMinimum") for key in ("minimum", "exclusiveMinimum")]
    bounds = [(bound, excluded) for bound, excluded in own if bound is not None]
    if not bounds:
        return None
    bound, excluded = max(bounds)
    if whole:
        return Fraction(math.floor(bound) + 1 if excluded else math.ceil(bound)), False
    return bound, excluded


def _upper(node: Mapping[str, Any], *, whole: bool) -> Bound | None:
    negated = {}
    for key, of in (("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")):
        if (value := _fraction(node.get(of))) is not None:
            negated[key] = -value
    bound = _lower(negated, whole=whole)
    return None if bound is None else (-bound[0], bound[1])


def _fraction(value: Any) -> Fraction | None:
    return value if value is None or isinstance(value, Fraction) else Fraction(str(value))


def _implies_minimum(given: Bound, demanded: Bound) -> bool:
    return given[0] > demanded[0] or (given[0] == demanded[0] and (given[1] or not demanded[1]))


def _implies_maximum(given: Bound, demanded: Bound) -> bool:
    return given[0] < demanded[0] or (given[0] == demanded[0] and (given[1] or not demanded[1]))


_IMPLIES: Mapping[str, Callable[[Any, Any], bool]] = {
    "minimum": _implies_minimum,
    "maximum": _implies_maximum,
    "multipleOf": lambda given, demanded: (given / demanded).denominator == 1,
    **dict.fromkeys(_AT_LEAST, lambda given, demanded: given >= demanded),
    **dict.fromkeys(_AT_MOST, lambda given, demanded: given <= demanded),
    "format": lambda given, demanded: _WIDER.get(given) == demanded,
}
