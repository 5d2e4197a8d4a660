"""A JSON Schema in one form: at each place the alternatives of what may stand there.

Read as pydantic means its schemas: fields that a model does not declare are ignored, not written, unless
``additionalProperties`` says otherwise; a discriminator's field is required.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Node = Any  # a JSON Schema: an object, or true or false; whatever else a file may hold is judged as unknown
ANY: Mapping[str, Any] = {}
_ANNOTATIONS = frozenset(
    {
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$comment", "$schema", "$id", "$defs", "definitions"),
    }
)
_NUMBER = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_KEYWORDS: Mapping[str, frozenset[str]] = {
    "null": frozenset(),
    "boolean": frozenset(),
    "integer": _NUMBER,
    "number": _NUMBER,
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}),
    "object": frozenset(
        {
            *("properties", "required", "additionalProperties", "patternProperties", "propertyNames"),
            *("minProperties", "maxProperties"),
        }
    ),
}
_ALL_KEYWORDS = frozenset().union(*_KEYWORDS.values())
_LISTS = ("required", "prefixItems")
_MAPPINGS = ("properties", "patternProperties")


@dataclass(frozen=True, slots=True)
class Alternative:
    """One thing that may stand at a place.

    ``kind``: a JSON type, ``values`` (of an enumeration; null is one, too), or ``any``. ``node``: its schema.
    ``unknown``: keywords that nothing here understands. ``label``: the definition it stands under. ``tag``: the
    discriminator by which it is chosen.
    """

    kind: str
    node: Mapping[str, Any]
    values: tuple[Any, ...] = ()
    unknown: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None
    tag: str | None = None

    @property
    def properties(self) -> Mapping[str, Node]:
        found: Mapping[str, Node] = self.node.get("properties", ANY)
        return found

    @property
    def required(self) -> frozenset[str]:
        tagged = {self.tag} if self.tag is not None else set()
        return frozenset({*self.node.get("required", ()), *tagged})

    @property
    def additional(self) -> Node:
        """The schema of undeclared fields: False forbids them, True or {} allows any, None ignores them."""
        if "additionalProperties" in self.node:
            return self.node["additionalProperties"]
        if "properties" in self.node:
            return None
        return False if self.node.get("patternProperties") else ANY  # of a mapping; pydantic refuses other keys

    def item(self, index: int | None) -> Node:
        """The schema at ``index``, or of those after the last that has its own."""
        prefix: Sequence[Node] = self.node.get("prefixItems", ())
        return prefix[index] if index is not None and index < len(prefix) else self.node.get("items", ANY)


class Document:
    """A JSON Schema with its definitions. Its nodes are known by identity, so it must not change."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.root: Node = schema
        definitions = schema.get("$defs")
        self._definitions: Mapping[str, Node] = definitions if isinstance(definitions, dict) else {}
        self._alternatives: dict[int, tuple[Node, tuple[Alternative, ...]]] = {}
        self._meanings: dict[tuple[int, bool], tuple[Node, str]] = {}

    def alternatives(self, node: Node) -> tuple[Alternative, ...]:
        """What may stand where ``node`` is the schema; none for ``false``."""
        if id(node) not in self._alternatives:
            self._alternatives[id(node)] = node, tuple(self._read(node, frozenset()))  # kept, so that its id is, too
        return self._alternatives[id(node)][1]

    def meaning(self, node: Node, *, defaults: bool = False) -> str:
        """The same text for the same schema, all definitions that it leads to included; perhaps its defaults, too."""
        key = id(node), defaults
        if key not in self._meanings:
            parts = {"": _bare(node, defaults=defaults)}
            waiting = [parts[""]]
            while waiting:
                for name in set(_references(waiting.pop())) - parts.keys():
                    parts[name] = _bare(self._definitions.get(name), defaults=defaults)
                    waiting.append(parts[name])
            self._meanings[key] = node, json.dumps(parts, sort_keys=True)
        return self._meanings[key][1]

    def _read(self, node: Node, seen: frozenset[str]) -> Iterator[Alternative]:
        if node is False:
            return
        if not isinstance(node, dict):
            yield Alternative("any", ANY, unknown={} if node is True else {"schema": node})
            return
        told = {key: value for key, value in node.items() if key not in _ANNOTATIONS and not key.startswith("x-")}
        for combined in ("$ref", "anyOf", "oneOf", "allOf"):
            if combined in told:
                yield from self._combined(combined, told, seen)
                return
        yield from _plain(node, told)

    def _combined(self, keyword: str, told: Mapping[str, Any], seen: frozenset[str]) -> Iterator[Alternative]:
        """Alternatives by reference or in a union; what stands beside it is unknown."""
        beside = {key: value for key, value in told.items() if key not in (keyword, "discriminator")}
        value, label, tag = told[keyword], None, None
        branches: Sequence[Node] = value if isinstance(value, list) else []
        if keyword != "$ref" and not branches:
            yield Alternative("any", ANY, unknown=told)
            return
        if keyword == "$ref":
            label = _name(value)
            if label is None or label in seen or label not in self._definitions:
                yield Alternative("any", ANY, unknown=told)
                return
            seen, branches = seen | {label}, [self._definitions[label]]
        elif keyword == "oneOf":
            discriminator = told.get("discriminator")
            tag = discriminator.get("propertyName") if isinstance(discriminator, dict) else None
            if not isinstance(tag, str):  # by a function, or whichever it is alone
                tag, beside = None, {**beside, "oneOf": value}
        elif keyword == "allOf" and len(branches) > 1:
            yield Alternative("any", ANY, unknown=told)
            return
        for branch in branches:
            for found in self._read(branch, seen):
                yield Alternative(
                    found.kind,
                    found.node,
                    found.values,
                    {**found.unknown, **beside},
                    found.label or label,
                    tag or found.tag,
                )


def _plain(node: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[Alternative]:
    rest: Mapping[str, Any] = {key: value for key, value in told.items() if key not in ("type", "enum", "const")}
    types = told.get("type", ())
    types = [types] if isinstance(types, str) else types
    if not isinstance(types, list | tuple) or any(not isinstance(each, str) for each in types):
        types, rest = (), told
    if "const" in told or isinstance(told.get("enum"), list):
        values = [told["const"]] if "const" in told else told["enum"]
        yield Alternative("values", node, tuple(each for each in values if not types or _is(each, types)), rest)
        return
    if "enum" in told:
        rest = told
    if not types:
        yield Alternative("any", node, unknown=rest)
    for kind in types:
        if kind == "null":
            yield Alternative("values", ANY, (None,))
        elif kind not in _KEYWORDS or not all(_formed(key, rest[key]) for key in _KEYWORDS[kind] & rest.keys()):
            yield Alternative("any", ANY, unknown=told)
        else:
            yield Alternative(kind, node, unknown={key: rest[key] for key in rest.keys() - _ALL_KEYWORDS})


def _formed(key: str, value: Any) -> bool:
    if key in _LISTS:
        return isinstance(value, list) and (key != "required" or all(isinstance(each, str) for each in value))
    if key in _MAPPINGS:
        return isinstance(value, dict)
    if key in ("pattern", "format"):
        return isinstance(value, str)
    if key in _NUMBER or key.startswith(("min", "max")):
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return number and (key != "multipleOf" or value > 0)
    return True


def _is(value: object, types: Sequence[str]) -> bool:
    """Whether ``value`` is of one of the JSON types."""
    return any(
        (kind == "null" and value is None)
        or (kind == "boolean" and isinstance(value, bool))
        or (kind == "string" and isinstance(value, str))
        or (kind == "array" and isinstance(value, list))
        or (kind == "object" and isinstance(value, dict))
        or (kind in ("integer", "number") and isinstance(value, int | float) and not isinstance(value, bool))
        for kind in types
    )


def _name(reference: object) -> str | None:
    """The definition that ``#/$defs/Name`` names."""
    if not isinstance(reference, str) or not reference.startswith("#/$defs/"):
        return None
    return reference.removeprefix("#/$defs/").replace("~1", "/").replace("~0", "~")


def _references(node: Node) -> Iterator[str]:
    if isinstance(node, dict):
        if (name := _name(node.get("$ref"))) is not None:
            yield name
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)


def _bare(node: Node, *, defaults: bool) -> Node:
    """``node`` without what only describes; the names of fields are no keywords."""
    if isinstance(node, list):
        return [_bare(child, defaults=defaults) for child in node]
    if not isinstance(node, dict):
        return node
    made: dict[str, Node] = {}
    for key, child in node.items():
        if key in _MAPPINGS and isinstance(child, dict):
            made[key] = {name: _bare(each, defaults=defaults) for name, each in child.items()}
        elif key == "required" and isinstance(child, list):
            made[key] = sorted(child, key=str)
        elif key in ("const", "enum") or (key == "default" and defaults):
            made[key] = child
        elif key not in _ANNOTATIONS:
            made[key] = _bare(child, defaults=defaults)
    return made
