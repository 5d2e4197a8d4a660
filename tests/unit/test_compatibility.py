"""Which change of a model breaks whom, where, and what it is called."""

from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    UUID4,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Json,
    Tag,
    ValidationError,
    create_model,
)

from postroom.outbox.compatibility.changes import Change, schema_changes
from postroom.outbox.compatibility.contract import Schemas, canonical

Told = set[tuple[str, str, str | None]]


def schema(model: type[BaseModel]) -> dict[str, Any]:
    made: dict[str, Any] = canonical(model.model_json_schema(schema_generator=Schemas))
    return made


def changes(old: type[BaseModel], new: type[BaseModel]) -> list[Change]:
    return schema_changes(schema(old), schema(new))


def of(**fields: Any) -> type[BaseModel]:
    """A model; a type alone is a required field, with a default it is a pair."""
    definitions: Any = {name: each if isinstance(each, tuple) else (each, ...) for name, each in fields.items()}
    made: type[BaseModel] = create_model("M", **definitions)
    return made


def limited(type_: Any, **limits: Any) -> Any:
    return Annotated[type_, Field(**limits)]


def told(found: list[Change]) -> Told:
    return {(change.path, change.kind, change.breaks) for change in found}


class Card(BaseModel):
    kind: Literal["card"]
    number: str


class Cash(BaseModel):
    kind: Literal["cash"]


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Fewer(Enum):
    RED = "red"


def address(**more: Any) -> type[BaseModel]:
    return create_model("Address", street=(str, ...), **more)


def tree(**more: Any) -> type[BaseModel]:
    """A model that holds itself."""
    model = create_model("Tree", children=(list["Tree"], ...), **more)  # type: ignore  # noqa: F821, PGH003  it refers to itself
    model.model_rebuild(_types_namespace={"Tree": model})
    return model


def tagged(value: Any) -> str:
    return "a"


PAIR, TRIPLE = tuple[int, int], tuple[int, int, int]
STRING = limited(str, max_length=5)
BY_FUNCTION = Annotated[Annotated[Card, Tag("a")] | Annotated[Cash, Tag("b")], Discriminator(tagged)]
BOTH_WAYS = [
    # fields
    (of(a=int), of(a=int, b=int), {("$.b", "field-added", "backward")}),
    (of(a=int), of(a=int, b=(int, 1)), {("$.b", "field-added", None)}),
    (of(a=(int, 1)), of(a=int), {("$.a", "required", "backward")}),
    (of(a=(int, 1)), of(a=(int, 2)), {("$.a", "default", None)}),
    (of(), of(**{"odd name": (int, 1)}), {('$["odd name"]', "field-added", None)}),
    # types
    (of(a=int), of(a=float), {("$.a", "type", "forward")}),
    (of(a=int), of(a=str), {("$.a", "type", "both")}),
    (of(a=int), of(a=Any), {("$.a", "type", "forward")}),
    (of(a=bool), of(a=Literal[True, False]), {("$.a", "type", None)}),
    (of(a=Literal["x"]), of(a=str), {("$.a", "type", "forward")}),
    (of(a=Literal["long value"]), of(a=STRING), {("$.a", "type", "both")}),
    (of(a=Literal["short"]), of(a=STRING), {("$.a", "type", "forward")}),
    (of(a=Literal[1]), of(a=limited(int, ge=1)), {("$.a", "type", "forward")}),
    (of(a=Literal[1]), of(a=limited(int, ge=2)), {("$.a", "type", "both")}),
    (of(a=Literal[3]), of(a=limited(int, multiple_of=2)), {("$.a", "type", "both")}),
    (of(a=Literal[True]), of(a=int), {("$.a", "type", "both")}),
    (of(a=Literal["x"]), of(a=limited(str, pattern="^x")), {("$.a", "type", "both")}),  # regexes differ
    # nullable and unions
    (of(a=str), of(a=str | None), {("$.a", "nullable", "forward")}),
    (of(a=str | None), of(a=(str | None, None)), {("$.a", "optional", "forward")}),
    (of(a=int), of(a=int | str), {("$.a", "alternative-added", "forward")}),
    (of(a=int | bool), of(a=float | bool), {("$.a", "type", "forward")}),
    (of(a=int | str), of(a=float | str), {("$.a", "type", "forward")}),
    (of(a=STRING | None), of(a=str | None), {("$.a", "maxLength", "forward")}),
    (of(a=Card), of(a=Card | Cash), {("$.a", "alternative-added", "forward")}),
    (of(a=Card | Cash), of(a=Annotated[Card | Cash, Field(discriminator="kind")]), set()),
    # values
    (of(a=Fewer), of(a=Colour), {("$.a", "values-added", "forward")}),
    (of(a=Literal["x"]), of(a=Literal["x", "y"]), {("$.a", "values-added", "forward")}),
    (of(a=Literal[1]), of(a=Literal["1"]), {("$.a", "values-removed", "backward"), ("$.a", "values-added", "forward")}),
    (
        of(a=Literal["x"]),
        of(a=Literal["x", "y"] | int),
        {("$.a", "values-added", "forward"), ("$.a", "alternative-added", "forward")},
    ),
    # limits
    (of(a=int), of(a=limited(int, ge=1)), {("$.a", "minimum", "backward")}),
    (of(a=limited(int, ge=1)), of(a=limited(int, ge=2)), {("$.a", "minimum", "backward")}),
    (of(a=limited(int, gt=0)), of(a=limited(int, ge=1)), set()),
    (of(a=limited(float, ge=0)), of(a=limited(float, gt=0)), {("$.a", "minimum", "backward")}),
    (of(a=limited(int, le=9)), of(a=limited(int, le=8)), {("$.a", "maximum", "backward")}),
    (of(a=limited(int, lt=9)), of(a=limited(int, le=8)), set()),
    (of(a=limited(float, le=9)), of(a=limited(float, lt=9)), {("$.a", "maximum", "backward")}),
    (of(a=limited(int, multiple_of=2)), of(a=limited(int, multiple_of=6)), {("$.a", "multipleOf", "backward")}),
    (of(a=limited(float, multiple_of=0.1)), of(a=limited(float, multiple_of=0.3)), {("$.a", "multipleOf", "backward")}),
    (of(a=limited(int, multiple_of=4)), of(a=limited(int, multiple_of=6)), {("$.a", "multipleOf", "both")}),
    (of(a=str), of(a=STRING), {("$.a", "maxLength", "backward")}),
    (of(a=limited(str, min_length=0)), of(a=str), set()),
    (of(a=str), of(a=limited(str, max_length=0)), {("$.a", "maxLength", "backward")}),
    (of(a=limited(str, min_length=1)), of(a=limited(str, min_length=2)), {("$.a", "minLength", "backward")}),
    (of(a=str), of(a=limited(str, pattern="x")), {("$.a", "pattern", "backward")}),
    (of(a=limited(str, pattern="x")), of(a=limited(str, pattern="y")), {("$.a", "pattern", "both")}),
    (of(a=str), of(a=UUID), {("$.a", "format", "backward")}),
    (of(a=UUID), of(a=UUID4), {("$.a", "format", "backward")}),
    (of(a=UUID), of(a=datetime), {("$.a", "format", "both")}),
    (of(a=Decimal), of(a=limited(Decimal, ge=1)), {("$.a", "minimum", "backward")}),
    (of(a=Decimal), of(a=str), {("$.a", "alternative-removed", "backward"), ("$.a", "format", "forward")}),
    (of(a=Decimal), of(a=limited(Decimal, decimal_places=2)), {("$.a", "keyword", "backward")}),
    (
        of(a=Literal["x"]),  # a decimal may be a text, but not any
        of(a=limited(Decimal, ge=1)),
        {("$.a", "alternative-removed", "backward"), ("$.a", "alternative-added", "forward")},
    ),
    (of(a=datetime), of(a=AwareDatetime), {("$.a", "keyword", "backward")}),
    (of(a=date), of(a=limited(date, ge=date(2020, 1, 1))), {("$.a", "keyword", "backward")}),
    # arrays
    (of(a=list[int]), of(a=list[str]), {("$.a[*]", "type", "both")}),
    (of(a=list[int]), of(a=list[int | None]), {("$.a[*]", "nullable", "forward")}),
    (of(a=list[int]), of(a=limited(list[int], max_length=3)), {("$.a", "maxItems", "backward")}),
    (of(a=list[int]), of(a=limited(list[int], max_length=0)), {("$.a", "maxItems", "backward")}),
    (of(a=list[int]), of(a=set[int]), {("$.a", "uniqueItems", "backward")}),
    (of(a=tuple[int, int]), of(a=tuple[int, str]), {("$.a[1]", "type", "both")}),
    (of(a=list[int]), of(a=tuple[int, ...]), set()),
    (of(a=(PAIR, ...)), of(a=TRIPLE), {("$.a", "minItems", "backward"), ("$.a", "maxItems", "forward")}),
    # maps and what is not declared
    (of(a=dict[str, int]), of(a=dict[str, float]), {("$.a.*", "type", "forward")}),
    (of(a=dict[str, int]), of(a=dict[str, Any]), {("$.a.*", "additionalProperties", "forward")}),
    (of(a=dict[str, int]), of(a=dict[UUID, int]), {("$.a.*", "propertyNames", "backward")}),
    (
        of(a=dict[str, int]),
        of(a=dict.__class_getitem__((limited(str, pattern="^x"), int))),
        {("$.a.*", "additionalProperties", "backward"), ("$.a.*", "patternProperties", "backward")},
    ),
    # nested, also by reference and to itself
    (of(a=address()), of(a=address(town=(str, ...))), {("$.a.town", "field-added", "backward")}),
    (
        of(a=address(), b=list.__class_getitem__(address())),
        of(a=address(town=(str, ...)), b=list.__class_getitem__(address(town=(str, ...)))),
        {("$.a.town", "field-added", "backward"), ("$.b[*].town", "field-added", "backward")},
    ),
    (tree(), tree(name=(str, ...)), {("$.name", "field-added", "backward")}),
    (of(a=tree()), of(a=tree(name=(int, 1))), {("$.a.name", "field-added", None)}),
    (of(a=Json[int]), of(a=Json[str]), {("$.a", "keyword", "both")}),
    (of(a=BY_FUNCTION), of(a=BY_FUNCTION, b=(int, 1)), {("$.b", "field-added", None)}),
]
TURNED = {
    "field-added": "field-removed",
    "required": "optional",
    "optional": "required",
    "values-added": "values-removed",
    "values-removed": "values-added",
    "alternative-added": "alternative-removed",
    "alternative-removed": "alternative-added",
    "nullable": "not-nullable",
}
OTHER_WAY = {"backward": "forward", "forward": "backward"}


@pytest.mark.parametrize(("old", "new", "expected"), BOTH_WAYS)
def test_each_change_is_told_with_its_place_and_its_direction(old: Any, new: Any, expected: Told) -> None:
    assert told(changes(old, new)) == expected


@pytest.mark.parametrize(("old", "new", "expected"), BOTH_WAYS)
def test_the_way_back_breaks_the_other_direction(old: Any, new: Any, expected: Told) -> None:
    turned = {(path, TURNED.get(kind, kind), OTHER_WAY.get(breaks or "", breaks)) for path, kind, breaks in expected}

    assert told(changes(new, old)) == turned


@pytest.mark.parametrize("model", [pair[index] for pair in BOTH_WAYS for index in (0, 1)])
def test_a_schema_is_compatible_with_itself(model: type[BaseModel]) -> None:
    assert changes(model, model) == []


def with_extra(extra: Any, **fields: Any) -> type[BaseModel]:
    return create_model("M", __config__=ConfigDict(extra=extra), **fields)


@pytest.mark.parametrize(
    ("before", "after", "breaks"),
    [("ignore", "forbid", "backward"), ("allow", "forbid", "backward"), ("ignore", "allow", None)],
)
def test_undeclared_fields_may_become_forbidden(before: str, after: str, breaks: str | None) -> None:
    old, new = with_extra(before, a=(int, ...)), with_extra(after, a=(int, ...))

    assert told(changes(old, new)) == {("$.*", "additionalProperties", breaks)}
    assert {change.breaks for change in changes(new, old)} == {OTHER_WAY.get(breaks or "")}


def test_a_new_field_breaks_a_reader_that_forbids_it_and_one_that_had_taken_it_for_anything() -> None:
    field = {"a": (int, 1), "b": (int, 1)}

    assert told(changes(with_extra("forbid", a=(int, 1)), with_extra("forbid", **field))) == {
        ("$.b", "field-added", "forward")
    }
    assert told(changes(with_extra("allow", a=(int, 1)), with_extra("allow", **field))) == {
        ("$.b", "field-added", "backward")
    }


def test_what_is_not_understood_breaks_both_ways_and_says_so() -> None:
    old = {"type": "object", "properties": {"a": {"type": "string", "not": {"const": "x"}}}}
    new = {"type": "object", "properties": {"a": {"type": "string", "not": {"const": "y"}}}}

    (change,) = schema_changes(old, new)
    assert (change.path, change.breaks, change.certain) == ("$.a", "both", False)
    assert "not" in change.what


def test_a_description_of_what_is_not_understood_changes_nothing() -> None:
    old, new = ({"type": "string", "not": {"const": "x", "title": each}, "title": each} for each in "ab")

    assert schema_changes(old, new) == []


def test_a_union_by_a_function_cannot_be_judged() -> None:
    (change,) = changes(of(a=BY_FUNCTION), of(a=Card | Cash))

    assert (change.path, change.certain) == ("$.a", False)
    assert change.forward, "what the function refuses is not known"


def test_a_discriminator_requires_its_field() -> None:
    class First(BaseModel):
        kind: Literal["card"] = "card"

    class Other(BaseModel):
        kind: Literal["cash"] = "cash"

    new = of(a=Annotated[First | Other, Field(discriminator="kind")])

    assert ("$.a.kind", "required", "backward") in told(changes(of(a=First), new))
    with pytest.raises(ValidationError):
        new.model_validate_json('{"a": {}}')


def test_what_one_alternative_lost_another_may_read() -> None:
    narrower = of(a=limited(int, le=5) | float)

    assert told(changes(of(a=int | float), narrower)) == {("$.a", "maximum", None)}


def test_models_that_hold_each_other_are_judged_to_the_end() -> None:
    def pair(number: Any) -> dict[str, Any]:
        models = {
            "Ping": {"type": "object", "properties": {"pong": {"$ref": "#/$defs/Pong"}}, "required": ["pong"]},
            "Pong": {
                "type": "object",
                "properties": {"ping": {"anyOf": [{"$ref": "#/$defs/Ping"}, {"type": "null"}]}, "n": number},
                "required": ["n"],
            },
        }
        return {"$ref": "#/$defs/Ping", "$defs": models}

    assert told(schema_changes(pair({"type": "integer"}), pair({"type": "number"}))) == {
        ("$.pong.n", "type", "forward")
    }
    assert schema_changes(pair({"type": "integer"}), pair({"type": "integer", "title": "N"})) == []


def test_what_rested_on_an_assumption_that_failed_is_judged_again() -> None:
    """Order and Quote hold each other; what is wrong with an order is found late, and is wrong with a quote, too."""

    def model(**fields: str) -> dict[str, Any]:
        properties = {name: {"$ref": f"#/$defs/{each}"} for name, each in fields.items()}
        return {"type": "object", "properties": properties, "required": list(fields)}

    def shop(number: str) -> dict[str, Any]:
        return {
            **model(a="Order", z="Outer"),
            "$defs": {
                "Order": model(quote="Quote", x="Number"),
                "Quote": model(order="Order"),
                "Number": {"type": "object", "properties": {"n": {"type": number}}, "required": ["n"]},
                "Outer": model(inner="Inner"),
                "Inner": model(quote="Quote"),
            },
        }

    assert told(schema_changes(shop("number"), shop("integer"))) == {
        ("$.a.x.n", "type", "backward"),
        ("$.z.inner.quote.order.x.n", "type", "backward"),
    }


def test_many_models_that_hold_all_others_take_no_time() -> None:
    def graph(number: str) -> dict[str, Any]:
        every = {"anyOf": [{"$ref": f"#/$defs/N{n}"} for n in range(12)]}
        models = {
            f"N{n}": {
                "type": "object",
                "properties": {"id": {"const": n}, "n": {"type": number}, "left": every, "right": every},
                "required": ["id", "n"],
            }
            for n in range(12)
        }
        return {"$ref": "#/$defs/N0", "$defs": models}

    assert {change.breaks for change in schema_changes(graph("integer"), graph("number"))} == {"forward"}


KEYWORDS = [
    "type",
    "properties",
    "required",
    "items",
    "prefixItems",
    "anyOf",
    "oneOf",
    "allOf",
    "enum",
    "const",
    "$ref",
    "$defs",
    "minimum",
    "multipleOf",
    "maxItems",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "discriminator",
    "pattern",
    "minLength",
    "format",
    "object",
    "uniqueItems",
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYWORDS),
            inner | st.sampled_from(["object", "array", "string", "integer", "#/$defs/type", "null"]),
            max_size=4,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["type", "properties", "anyOf", "$ref", "$defs", "items"]), ANYTHING), ANYTHING)
def test_no_schema_that_a_file_may_hold_is_too_much(old: dict[str, Any], new: Any) -> None:
    both = (old, new if isinstance(new, dict) else {"items": new, "type": "array"})

    assert schema_changes(both[0], both[0]) == []
    schema_changes(*both)
    schema_changes(*reversed(both))
