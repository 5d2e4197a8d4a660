"""The models that modules and inboxes hold."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeGuard

import click

from .targets import attribute_of, imported, is_dotted

if TYPE_CHECKING:
    from ..outbox import Event
    from ..outbox.compatibility.contract import Contract

Sighting = tuple["type[Event]", str | None, str | None]  # a model; for which topic and type a handler takes it


@dataclass(frozen=True, slots=True)
class Model:
    """One model and its contract."""

    event: "type[Event]"
    contract: "Contract"

    @property
    def name(self) -> str:
        return f"{self.event.__module__}.{self.event.__qualname__}"


def find_models(targets: Sequence[str]) -> list[Model]:
    """The models of ``module`` or ``module:object``, by type; one for each type.

    Of a module: its events with a topic, and those of its inboxes' handlers. Raises click.UsageError,
    InvalidMessage (a model has no JSON Schema).
    """
    from ..outbox.compatibility.contract import contract_of

    found: dict[str, Model] = {}
    for target in targets:
        for event, topic, type_ in _sightings(target):
            model = Model(event, contract_of(event, topic=topic, type=type_))
            other = found.setdefault(model.contract.type, model)
            found[model.contract.type] = other if other is model else _one_of(other, model)
    return [found[type_] for type_ in sorted(found)]


def _one_of(first: Model, second: Model) -> Model:
    own, other = first.contract, second.contract
    if first.event is second.event and own.topic != other.topic:  # it has no topic, and several handlers' topics
        topics = sorted({*str(own.topic).split(", "), str(other.topic)})
        return replace(first, contract=replace(own, topic=", ".join(topics)))
    if own != other:
        raise click.UsageError(
            f"{first.name} and {second.name} are both of type {own.type!r} and differ; check them apart, each with a "
            "--file of its own."
        )
    return second if not any(first.event.event_upcasters.steps(1)) else first


def _sightings(target: str) -> Iterator[Sighting]:
    from ..inbox import Inbox
    from ..outbox import Event

    module, colon, attribute = target.partition(":")
    if not is_dotted(module) or (colon and not is_dotted(attribute)):
        raise click.UsageError(f"{target!r} must be MODULE or MODULE:OBJECT, such as shop.billing:inbox.")
    if not colon:
        yield from _within(vars(imported(module)).values())
        return
    found = attribute_of(module, attribute)
    if isinstance(found, Inbox) or (_is_model(found) and hasattr(found, "event_topic")):
        yield from _within([found])
    elif _is_model(found):
        raise click.UsageError(f"{target!r} has no topic; define it as class {attribute}(Event, topic=…).")
    else:
        kind = found.__name__ if isinstance(found, type) else type(found).__name__
        raise click.UsageError(f"{target!r} is neither a subclass of {Event.__name__} nor an Inbox, but {kind}.")


def _within(objects: Iterable[object]) -> Iterator[Sighting]:
    from ..inbox import Inbox

    for each in list(objects):
        if isinstance(each, Inbox):
            for handler in each.handlers:
                if handler.model is not None:
                    yield handler.model, handler.topic, handler.event_type
        elif _is_model(each) and hasattr(each, "event_topic"):
            yield each, None, None


def _is_model(found: object) -> "TypeGuard[type[Event]]":
    from ..outbox import Event

    return isinstance(found, type) and issubclass(found, Event) and found is not Event
