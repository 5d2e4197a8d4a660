"""Why a model refuses a payload, in our errors and without anything of the payload: that may hold personal data."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import core_schema

from ..messaging.errors import MissingField, PayloadRefused, UndecodablePayload, WrongType

_SHOWN = 5
_VALIDATOR = "A validator refuses the value"
_KNOWN = frozenset(get_args(core_schema.ErrorType))
#: These quote the payload in their text; what stands here does not.
_QUIET = {
    "value_error": _VALIDATOR,
    "assertion_error": _VALIDATOR,
    "union_tag_invalid": "Input tag does not match any of the expected tags",
    "get_attribute_error": "Error extracting attribute",
    "mapping_type": "Input should be a valid mapping",
    "iteration_error": "Error iterating over object",
    "date_parsing": "Input should be a valid date in the format YYYY-MM-DD",
    "date_from_datetime_parsing": "Input should be a valid date or datetime",
    "time_parsing": "Input should be in a valid time format",
    "datetime_parsing": "Input should be a valid datetime",
    "datetime_object_invalid": "Invalid datetime object",
    "datetime_from_date_parsing": "Input should be a valid datetime or date",
    "timezone_offset": "Timezone offset is another than required",
    "time_delta_parsing": "Input should be a valid timedelta",
    "bytes_invalid_encoding": "Data should be valid in the model's encoding",
    "url_parsing": "Input should be a valid URL",
    "url_syntax_violation": "Input violates strict URL syntax rules",
    "uuid_parsing": "Input should be a valid UUID",
}
_MISSING = frozenset({"missing", "missing_argument", "missing_keyword_only_argument", "union_tag_not_found"})
_WRONG = frozenset(
    {
        *("enum", "literal_error", "union_tag_invalid", "none_required", "int_from_float", "int_parsing_size"),
        *("date_from_datetime_inexact", "datetime_object_invalid", "timezone_naive", "timezone_aware"),
        *("is_instance_of", "is_subclass_of", "needs_python_object", "bytes_invalid_encoding", "string_unicode"),
        *("uuid_version", "invalid_key", "json_invalid"),
    }
)
#: Union members that pydantic names by their type.
_TYPES = frozenset({"bool", "bytes", "date", "datetime", "decimal", "dict", "float", "int", "list", "none", "str"})
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def refusal(model: type[BaseModel], error: ValidationError) -> UndecodablePayload | PayloadRefused:
    """What to raise for ``error``. Of several problems a missing field names the class, else a wrong type does."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    if problems[0]["type"] == "json_invalid" and not problems[0]["loc"]:
        return UndecodablePayload(f"The payload is not JSON: {problems[0]['msg']}.")
    names = _names(model)
    told = "; ".join(f"{_place(problem, names)}: {_text(problem)}" for problem in problems[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    kinds = {_kind(problem["type"]) for problem in problems}
    kind = next(each for each in (MissingField, WrongType, PayloadRefused) if each in kinds)
    return kind(f"{model.__name__} refuses the payload: {told}{more}.")


def _kind(type_: str) -> type[PayloadRefused]:
    if type_ in _MISSING:
        return MissingField
    if type_ in _WRONG or (type_ in _KNOWN and type_.endswith(("_type", "_parsing"))):
        return WrongType
    return PayloadRefused


def _text(problem: Mapping[str, Any]) -> str:
    type_ = problem["type"]
    if type_ in _QUIET:
        return _QUIET[type_]
    return problem["msg"] if type_ in _KNOWN else _VALIDATOR  # a custom error says what its author likes


def _place(problem: Mapping[str, Any], names: frozenset[str]) -> str:
    """Where it is; ``*`` stands for the keys of mappings, which are data."""
    parts: Sequence[str | int] = problem["loc"]
    shown = [str(part) if isinstance(part, int) or part in names else "*" for part in parts]
    if problem["type"] == "extra_forbidden" and _FIELD.fullmatch(str(parts[-1])):
        shown[-1] = str(parts[-1])
    return ".".join(shown) or "payload"


@lru_cache(maxsize=256)
def _names(model: type[BaseModel]) -> frozenset[str]:
    """The names of all fields in ``model`` and below, and of the models."""
    own = {name for field in model.model_fields.items() for name in (field[0], field[1].alias) if name}
    try:
        schema = model.model_json_schema()
    except PydanticUserError:  # it has none, and is told less precisely
        schema = {}
    return frozenset({*own, *_TYPES, *schema.get("$defs", {}), *_properties(schema)})


def _properties(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        properties = node.get("properties")
        yield from properties if isinstance(properties, dict) else ()
        for child in node.values():
            yield from _properties(child)
    elif isinstance(node, list):
        for child in node:
            yield from _properties(child)
