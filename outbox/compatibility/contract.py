"""What a model promises to its readers: its schema, and what a schema does not hold."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, PydanticJsonSchemaWarning
from pydantic_core import core_schema

from ...messaging.errors import InvalidMessage
from ..event import Event
from ..upcast import Upcasters
from .changes import Change, doubt, schema_changes

_OF_TIMES = ("ge", "gt", "le", "lt", "now_op", "tz_constraint")
_NAMED = ("properties", "patternProperties", "$defs")


class Schemas(GenerateJsonSchema):
    """Pydantic's, with what it leaves out: that a text is a decimal, and the limits of decimals and times."""

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        made = super().decimal_schema(schema)
        for branch in made.get("anyOf", [made]):
            if branch["type"] == "string":
                branch.pop("pattern", None)
                branch["format"] = "decimal"
            branch.update(_limits(schema, "max_digits", "decimal_places"))
        return made

    def date_schema(self, schema: core_schema.DateSchema) -> JsonSchemaValue:
        return {**super().date_schema(schema), **_limits(schema, *_OF_TIMES)}

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonSchemaValue:
        return {**super().time_schema(schema), **_limits(schema, *_OF_TIMES)}

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        return {**super().datetime_schema(schema), **_limits(schema, *_OF_TIMES)}

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        return {**super().timedelta_schema(schema), **_limits(schema, *_OF_TIMES)}


def _limits(schema: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """As a keyword of its own; a change of it cannot be judged, and is not missed either."""
    found = {name: str(schema[name]) for name in names if schema.get(name) is not None}
    return {"limits": found} if found else {}


@dataclass(frozen=True, slots=True)
class Contract:
    """A type's payload in one version. ``key``: the field of the record's key; None for none."""

    type: str
    version: int
    topic: str | None
    key: str | None
    schema: dict[str, Any]


def contract_of(model: type[Event], *, topic: str | None = None, type: str | None = None) -> Contract:
    """The contract of ``model``; ``topic`` and ``type`` are those of a handler, for a model without a topic.

    Its schema is that of what the model reads, and has the computed fields that it writes as optional ones.
    Raises InvalidMessage for a model that has no JSON Schema.
    """
    own_topic: str | None = getattr(model, "event_topic", None)
    return Contract(
        type=model.event_type if own_topic is not None or type is None else type,
        version=model.event_version,
        topic=own_topic or topic,
        key=model.event_key,
        schema=_schema(model),
    )


def compare(old: Contract, new: Contract, upcasters: Upcasters) -> list[Change]:
    """What changed from ``old`` to ``new``, whose model has ``upcasters``."""
    found = schema_changes(old.schema, new.schema)
    if new.version > old.version:
        if upcasters.cover(old.version):
            found = [replace(each, backward=False, mended=each.backward) for each in found]
        elif any(upcasters.steps(old.version)):
            what = f"upcasters do not cover each step from version {old.version} to {new.version}"
            found.append(Change("$", "upcasters", what, backward=True, certain=False))
        what = f"version {old.version} → {new.version}: consumers of {old.version} refuse it"
        found.insert(0, Change("$", "version", what, forward=True))
    elif new.version < old.version:
        what = f"version {old.version} → {new.version}: consumers of {new.version} refuse what is there"
        found.insert(0, Change("$", "version", what, backward=True))
    if old.topic != new.topic:
        what = f"topic {old.topic or 'none'} → {new.topic or 'none'}"
        found.append(Change("$", "topic", what, backward=True, forward=True))
    if old.key != new.key:
        what = f"key {old.key or 'none'} → {new.key or 'none'}; other messages share a partition and an order"
        found.append(doubt("$", "key", what))
    return found


def _schema(model: type[Event]) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PydanticJsonSchemaWarning)  # a default that is no JSON is left out
        try:
            read = model.model_json_schema(mode="validation", schema_generator=Schemas)
            written = model.model_json_schema(mode="serialization", schema_generator=Schemas)
        except PydanticUserError as error:
            told = " ".join(str(error.message).split()).rstrip(".")
            raise InvalidMessage(f"{model.__name__} has no JSON Schema: {told}.") from error
    result: dict[str, Any] = canonical(_with_computed(read, written))
    return result


def _with_computed(read: dict[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """``read`` with the fields that only ``written`` has, and the definitions that these need."""
    own, other = read.get("$defs", {}), written.get("$defs", {})
    definitions = {name: _with_fields(own[name], other.get(name, {})) if name in own else other[name] for name in own}
    result = _with_fields(read, written)
    missing = {name: other[name] for name in other.keys() - own.keys()}
    if definitions or missing:
        result["$defs"] = {**definitions, **missing}
    return result


def _with_fields(read: dict[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    fields = written.get("properties", {})
    computed = {name: node for name, node in fields.items() if isinstance(node, dict) and node.get("readOnly")}
    if not computed or "properties" not in read:
        return dict(read)
    return {**read, "properties": {**computed, **read["properties"]}}


def canonical(node: Any) -> Any:
    """``node`` in one order and without pydantic's titles, so that only what changed is a difference in a file."""
    if isinstance(node, list):
        return [canonical(each) for each in node]
    if not isinstance(node, dict):
        return node
    made: dict[str, Any] = {}
    for key in sorted(node):
        value = node[key]
        if key in _NAMED and isinstance(value, dict):
            made[key] = {name: canonical(value[name]) for name in sorted(value)}
        elif key == "required" and isinstance(value, list):
            made[key] = sorted(value)
        elif key in ("enum", "const"):
            made[key] = value
        elif key == "default":
            unordered = node.get("uniqueItems") and isinstance(value, list)
            made[key] = sorted(value, key=json.dumps) if unordered else value
        elif key != "title":
            made[key] = canonical(value)
    return made
