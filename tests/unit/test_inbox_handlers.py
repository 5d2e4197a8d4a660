"""Handlers are checked where they are registered."""

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from postroom.inbox import AsyncContext, Context, Inbox, InboxSettings, Received
from postroom.messaging.errors import ConfigurationError, InvalidHandler
from postroom.outbox import Event


class Placed(Event, topic="orders", type="shop.placed"):
    number: int


def good(event: Placed, ctx: Context) -> None: ...


def test_the_decorator_returns_the_function_and_the_models_type_is_matched() -> None:
    inbox = Inbox("billing")

    assert inbox.handler("orders", Placed)(good) is good
    found = inbox.find("orders", "shop.placed")
    assert found is not None
    assert found.name == f"{__name__}.good"
    assert inbox.find("orders", "shop.cancelled") is None
    assert inbox.find("orders", None) is None
    assert inbox.topics == ["orders"]


def test_one_model_may_stand_for_another_type_too() -> None:
    inbox = Inbox("billing")
    inbox.handler("orders", Placed)(good)
    inbox.handler("orders", Placed, type="shop.placed.v1")(good)
    inbox.handler("old-orders", Placed)(good)

    assert [(handler.topic, handler.event_type) for handler in inbox.handlers] == [
        ("orders", "shop.placed"),
        ("orders", "shop.placed.v1"),
        ("old-orders", "shop.placed"),
    ]


async def wait(event: Placed, ctx: AsyncContext) -> None: ...


class Callee:
    def __call__(self, event: Placed, ctx: Context) -> None: ...

    async def method(self, event: Placed, ctx: AsyncContext, *, option: int = 0) -> None: ...


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (good, False),
        (wait, True),
        (partial(wait), True),
        (Callee(), False),
        (Callee().method, True),
        (lambda event, ctx, more=None: None, False),
        (lambda *both: None, False),
    ],
)
def test_whatever_takes_two_arguments_is_a_handler(function: Callable[..., Any], is_async: bool) -> None:
    inbox = Inbox("billing")
    inbox.handler("orders", Placed)(function)

    assert inbox.handlers[0].is_async is is_async


def generator(event: Placed, ctx: Context) -> Iterator[None]:
    yield


async def async_generator(event: Placed, ctx: AsyncContext) -> AsyncIterator[None]:
    yield


def keyword_only(*, event: Placed, ctx: Context) -> None: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda: None, "two positional arguments"),
        (lambda event: None, "two positional arguments"),
        (lambda event, ctx, more: None, "two positional arguments"),
        (keyword_only, r"keyword_only must take two .* its signature is \(\*, event"),
        (generator, "generator"),
        (async_generator, "generator"),
        (Callee, "is no handler"),
        (None, "is no handler"),
        ("charge", "is no handler"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused(function: Any, says: str) -> None:
    inbox = Inbox("billing")

    with pytest.raises(InvalidHandler, match=says):
        inbox.handler("orders", Placed)(function)
    assert inbox.handlers == []


class Other(BaseModel): ...


@pytest.mark.parametrize("model", [Event, Other, Placed(number=1), "Placed", dict])
def test_a_model_that_is_no_event_is_refused(model: Any) -> None:
    with pytest.raises(InvalidHandler, match="subclass of Event"):
        Inbox("billing").handler("orders", model)(good)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"topic": "no topic"}, "Kafka topic name"),
        ({"topic": "x" * 249}, "Kafka topic name"),  # its dead-letter topic would be too long
        ({"topic": good}, "with parentheses"),
        ({"type": ""}, "type must be"),
        ({"type": 3}, "type must be"),
        ({"attempts": 0}, "attempts must be"),
        ({"attempts": 2.5}, "attempts must be"),
        ({"base": 0}, "base must be"),
        ({"base": float("nan")}, "base must be"),
        ({"cap": "10"}, "cap must be"),
    ],
)
def test_impossible_options_are_refused(arguments: Any, says: str) -> None:
    with pytest.raises(InvalidHandler, match=says):
        Inbox("billing").handler(**{"topic": "orders", "model": Placed, **arguments})(good)


def test_a_second_handler_for_a_topic_and_type_is_refused() -> None:
    inbox = Inbox("billing")
    inbox.handler("orders", Placed)(good)
    with pytest.raises(InvalidHandler, match=r"'shop.placed' already: .*good"):
        inbox.handler("orders", Placed)(lambda event, ctx: None)

    inbox.handler("orders")(lambda received, ctx: None)
    with pytest.raises(InvalidHandler, match="any other type already"):
        inbox.handler("orders", Received)(lambda received, ctx: None)


@pytest.mark.parametrize("group", ["", "two words", "a/b", "x" * 201, None])
def test_a_group_that_cannot_name_its_dead_letters_is_refused(group: Any) -> None:
    with pytest.raises(ConfigurationError, match="dead-letter topics"):
        Inbox(group)


def test_an_unknown_way_with_the_unhandled_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'skip' or 'dead-letter'"):
        Inbox("billing", on_unhandled="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 0}, {"backoff_base_seconds": 20.0}, {"outage_base_seconds": 20.0}, {"atempts": 3}],
)
def test_settings_that_make_no_sense_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        InboxSettings(**wrong)
