"""Contracts: what a schema does not hold, and what pydantic leaves out of it."""

import json
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, computed_field, create_model

from postroom.messaging.errors import InvalidMessage
from postroom.outbox import Event
from postroom.outbox.compatibility.changes import Change, schema_changes
from postroom.outbox.compatibility.contract import Contract, Schemas, canonical, compare, contract_of
from postroom.outbox.upcast import Upcasters


def schema(**fields: Any) -> dict[str, Any]:
    required: Any = {name: (each, ...) for name, each in fields.items()}
    model = create_model("M", **required)
    made: dict[str, Any] = canonical(model.model_json_schema(schema_generator=Schemas))
    return made


def told(found: list[Change]) -> set[tuple[str, str, str | None]]:
    return {(change.path, change.kind, change.breaks) for change in found}


def contract(version: int = 1, topic: str | None = "orders", key: str | None = "id", **fields: Any) -> Contract:
    return Contract("shop.order", version, topic, key, schema(**fields))


NO_UPCASTERS = Upcasters("M", 1_000)


def upcasters(*steps: tuple[int, int]) -> Upcasters:
    made = Upcasters("M", max(target for _, target in steps))
    for source, target in steps:
        made.add(source, target, lambda payload: payload)
    return made


def test_another_topic_breaks_both_ways_and_another_key_is_a_doubt() -> None:
    (topic,) = compare(contract(), contract(topic="sales"), NO_UPCASTERS)
    (key,) = compare(contract(), contract(key=None), NO_UPCASTERS)

    assert (topic.what, topic.breaks, topic.certain) == ("topic orders → sales", "both", True)
    assert (key.breaks, key.certain) == ("both", False)
    assert key.what.startswith("key id → none")


def test_a_raised_version_breaks_forward_and_upcasters_mend_backward() -> None:
    old, new = contract(a=int), contract(version=2, b=int)

    assert told(compare(old, new, NO_UPCASTERS)) == {
        ("$", "version", "forward"),
        ("$.a", "field-removed", "forward"),
        ("$.b", "field-added", "backward"),
    }
    mended = compare(old, new, upcasters((1, 2)))
    assert not any(change.backward for change in mended)
    assert [change.path for change in mended if change.mended] == ["$.b"]


def test_upcasters_that_cover_a_part_of_the_way_cannot_be_judged() -> None:
    found = compare(contract(a=int), contract(version=3, a=int), upcasters((2, 3)))

    (doubtful,) = [change for change in found if change.kind == "upcasters"]
    assert (doubtful.breaks, doubtful.certain) == ("backward", False)
    assert not any(c.kind == "upcasters" for c in compare(contract(), contract(version=3), upcasters((1, 2), (2, 3))))
    assert not any(c.kind == "upcasters" for c in compare(contract(), contract(version=3), upcasters((1, 3))))


def test_a_topic_is_not_mended_by_upcasters() -> None:
    found = compare(contract(), contract(version=2, topic="sales"), upcasters((1, 2)))

    assert ("$", "topic", "both") in told(found)


def test_a_lowered_version_breaks_backward() -> None:
    assert told(compare(contract(version=2), contract(version=1), NO_UPCASTERS)) == {("$", "version", "backward")}


def test_the_contract_of_a_model_has_its_computed_fields_and_one_order() -> None:
    class Line(BaseModel):
        """A line."""

        price: int

        @computed_field
        def double(self) -> int:
            return self.price * 2

    class Placed(Event, topic="orders", key="order_id", type="shop.order", version=3):
        tags: set[str] = Field({"b", "a", "c"})
        title: str = Field(alias="titleText")
        order_id: int
        lines: list[Line]

    found = contract_of(Placed)

    assert (found.type, found.version, found.topic, found.key) == ("shop.order", 3, "orders", "order_id")
    assert list(found.schema["properties"]) == ["lines", "order_id", "tags", "titleText"]
    assert found.schema["properties"]["tags"]["default"] == ["a", "b", "c"]
    assert found.schema["$defs"]["Line"] == {
        "description": "A line.",
        "properties": {"double": {"readOnly": True, "type": "integer"}, "price": {"type": "integer"}},
        "required": ["price"],
        "type": "object",
    }
    assert '"title"' not in json.dumps(found.schema)


def test_the_default_of_a_set_has_one_order() -> None:
    """As pydantic releases before ours did not give it."""
    node = {"default": ["b", "a"], "type": "array"}

    assert canonical({**node, "uniqueItems": True})["default"] == ["a", "b"]
    assert canonical(node)["default"] == ["b", "a"]


def test_a_model_without_a_topic_has_its_handlers() -> None:
    class Local(Event, type="shop.order"): ...

    class Own(Event, topic="orders"): ...

    assert contract_of(Local, topic="orders", type="shop.order.v1").topic == "orders"
    assert contract_of(Local, topic="orders", type="shop.order.v1").type == "shop.order.v1"
    assert (contract_of(Own, topic="other", type="x").topic, contract_of(Own, topic="other", type="x").type) == (
        "orders",
        "Own",
    )


def test_a_model_without_a_schema_is_told_in_one_sentence() -> None:
    class Odd(Event, topic="orders"):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        lock: Upcasters

    with pytest.raises(InvalidMessage, match=r"^Odd has no JSON Schema: [^\n]*\.$"):
        contract_of(Odd)


def test_validators_are_no_part_of_a_schema() -> None:
    """What the documentation says of its limits."""
    strict = Annotated[int, AfterValidator(lambda value: value)]

    assert schema_changes(schema(a=int), schema(a=strict)) == []
