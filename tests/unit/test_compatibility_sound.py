"""What the check calls compatible is read: generated models and payloads, and pydantic's own verdict.

Payloads are what the old model reads, and what it writes of them.
"""

import json
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from pydantic import UUID4, BaseModel, ConfigDict, Field, ValidationError, create_model

from postroom.outbox.compatibility.changes import Change, schema_changes
from postroom.outbox.compatibility.contract import Schemas, canonical


class Card(BaseModel):
    kind: Literal["card"]
    number: str


class Cash(BaseModel):
    kind: Literal["cash"]


class Colour(Enum):
    RED = "red"
    GREEN = "green"


def changes(old: type[BaseModel], new: type[BaseModel]) -> list[Change]:
    before, after = (canonical(each.model_json_schema(schema_generator=Schemas)) for each in (old, new))
    return schema_changes(before, after)


def limited(type_: Any, **limits: Any) -> Any:
    return Annotated[type_, Field(**{name: limit for name, limit in limits.items() if limit is not None})]


NAMES = ["a", "b", "c"]
Kind = tuple[Any, st.SearchStrategy[Any]]  # a type, and JSON values that mostly are of it


def bounded(low: int | None, high: int | None, step: int | None) -> Kind:
    return limited(int, ge=low, le=high, multiple_of=step), st.integers(-20, 20)


def text(low: int | None, high: int | None, pattern: str | None) -> Kind:
    return limited(str, min_length=low, max_length=high, pattern=pattern), st.text("ab1", max_size=4)


def decimal(low: int | None, digits: int | None) -> Kind:
    numbers = st.integers(-20, 20)
    return limited(Decimal, ge=low, decimal_places=digits), numbers | numbers.map(str) | st.just("1.25")


def optional(kind: Kind) -> Kind:
    return kind[0] | None, st.none() | kind[1]


def union(first: Kind, second: Kind) -> Kind:
    return first[0] | second[0], first[1] | second[1]


def array(kind: Kind, low: int | None, high: int | None) -> Kind:
    return limited(list.__class_getitem__(kind[0]), min_length=low, max_length=high), st.lists(kind[1], max_size=3)


def pair_of(first: Kind, second: Kind) -> Kind:
    return tuple.__class_getitem__((first[0], second[0])), st.tuples(first[1], second[1]).map(list)


def mapping(kind: Kind) -> Kind:
    return dict.__class_getitem__((str, kind[0])), st.dictionaries(st.sampled_from(NAMES), kind[1], max_size=2)


def model(fields: dict[str, tuple[Kind, bool]], extra: Any) -> Kind:
    """A model; of each field whether it is required. Extra fields are written where they are allowed."""
    declared: Any = {
        name: (kind[0], ...) if required else (kind[0], Field(default_factory=lambda: None))
        for name, (kind, required) in fields.items()
    }
    made = create_model("Inner", __config__=ConfigDict(extra=extra), **declared)
    payload = st.fixed_dictionaries(
        {name: kind[1] for name, (kind, required) in fields.items() if required},
        optional={
            **(
                {name: st.integers(0, 3) | st.text("ab", max_size=2) for name in NAMES if name not in fields}
                if extra == "allow"
                else {}
            ),
            **{name: kind[1] for name, (kind, required) in fields.items() if not required},
        },
    )
    return made, payload


SIMPLE = st.one_of(
    st.builds(bounded, *[st.none() | st.integers(-3, 3)] * 2, st.none() | st.sampled_from([2, 3, 4])),
    st.builds(text, *[st.none() | st.integers(0, 3)] * 2, st.none() | st.sampled_from(["^a", "b$"])),
    st.builds(decimal, st.none() | st.integers(-3, 3), st.none() | st.integers(0, 3)),
    st.sampled_from(
        [
            (bool, st.booleans()),
            (float, st.floats(-5, 5) | st.integers(-5, 5)),
            (Literal["a"], st.just("a")),
            (Literal["a", "b"], st.sampled_from("ab")),
            (Literal["a", 1], st.sampled_from(["a", 1])),
            (Colour, st.sampled_from(["red", "green"])),
            (UUID, st.uuids().map(str)),
            (UUID4, st.uuids(version=4).map(str)),
            (datetime, st.datetimes().map(datetime.isoformat)),
            (Any, st.integers(0, 3) | st.text(max_size=2) | st.none()),
            (Annotated[Card | Cash, Field(discriminator="kind")], st.just({"kind": "cash"})),
        ]
    ),
)


def models(kinds: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    fields = st.dictionaries(st.sampled_from(NAMES), st.tuples(kinds, st.booleans()), max_size=3)
    return st.builds(model, fields, st.sampled_from(["ignore", "ignore", "forbid", "allow"]))


KINDS = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.builds(optional, inner),
        st.builds(union, inner, inner),
        st.builds(array, inner, *[st.none() | st.integers(0, 2)] * 2),
        st.builds(pair_of, inner, inner),
        st.builds(mapping, inner),
        models(inner),
    ),
    max_leaves=4,
)
FIELDS = st.dictionaries(st.sampled_from(NAMES), st.tuples(KINDS, st.booleans()), min_size=1, max_size=3)


@st.composite
def evolutions(draw: st.DrawFn) -> tuple[Kind, Kind]:
    """A model and a later one: some fields are others, some went, some came."""
    before = draw(FIELDS)
    after = dict(before)
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=2)):
        match draw(st.sampled_from(["drop", "other", "loosen", "optional", "wrap"])):
            case "drop":
                after.pop(name, None)
            case "other":
                after[name] = draw(st.tuples(KINDS, st.booleans()))
            case "loosen" if name in after:
                after[name] = (
                    draw(st.sampled_from([optional(after[name][0]), union(after[name][0], draw(SIMPLE))])),
                    True,
                )
            case "optional" if name in after:
                after[name] = after[name][0], False
            case "wrap" if name in after:
                after[name] = union(draw(SIMPLE), after[name][0]), after[name][1]
    extra = draw(st.sampled_from(["ignore", "ignore", "forbid", "allow"]))
    return model(before, extra), model(after, draw(st.sampled_from([extra, "ignore", "allow"])))


def read(reader: type[BaseModel], payload: str) -> BaseModel | None:
    try:
        return reader.model_validate_json(payload)
    except ValidationError:
        return None


@settings(max_examples=500, deadline=None)
@given(evolutions(), st.data())
def test_what_is_called_compatible_is_read(pair: tuple[Kind, Kind], data: st.DataObject) -> None:
    (old, payloads), (new, _) = pair
    found = changes(old, new)
    backward = any(change.backward for change in found)
    event(f"backward {backward}")
    assume(not backward)
    for _ in range(5):
        payload = json.dumps(data.draw(payloads))
        if (instance := read(old, payload)) is not None:
            assert read(new, payload) is not None, found
            assert read(new, instance.model_dump_json(exclude_unset=True)) is not None, found


@settings(max_examples=300, deadline=None)
@given(evolutions())
def test_both_directions_are_one_another_turned_around(pair: tuple[Kind, Kind]) -> None:
    (old, _), (new, _) = pair

    assert any(change.backward for change in changes(old, new)) == any(change.forward for change in changes(new, old))


@settings(max_examples=200, deadline=None)
@given(FIELDS, KINDS)
def test_an_optional_field_more_is_compatible_both_ways(fields: dict[str, Any], kind: Kind) -> None:
    fields.pop("c", None)
    old, new = model(fields, "ignore")[0], model({**fields, "c": (kind, False)}, "ignore")[0]

    assert [(each.path, each.kind, each.breaks) for each in changes(old, new)] == [("$.c", "field-added", None)]
    assert [(each.path, each.kind, each.breaks) for each in changes(new, old)] == [("$.c", "field-removed", None)]


@settings(max_examples=200, deadline=None)
@given(KINDS)
def test_a_model_is_compatible_with_itself(kind: Kind) -> None:
    own = model({"a": (kind, True)}, "ignore")[0]
    assert changes(own, own) == []
