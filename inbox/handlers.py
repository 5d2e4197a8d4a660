"""Handlers: what is registered, checked where it is registered."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, overload

from ..messaging.backoff import Backoff
from ..messaging.envelope import Envelope
from ..messaging.errors import ConfigurationError, InvalidHandler, InvalidMessage, PayloadRefused, Poison
from ..messaging.message import check_type
from ..outbox import Event
from .context import AsyncContext, Context
from .delivery import Delivery
from .settings import InboxSettings


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it came, for handlers without a model. ``payload`` is None for a tombstone."""

    topic: str
    key: bytes | None
    payload: bytes | None
    envelope: Envelope


M = TypeVar("M", bound=Event | Received)
R = TypeVar("R")
Model = type[Event] | type[Received] | None


class Register(Protocol[M]):
    """The decorator for handlers of ``M``; returns the function as it was."""

    @overload
    def __call__(self, function: Callable[[M, Context], R]) -> Callable[[M, Context], R]: ...
    @overload
    def __call__(
        self, function: Callable[[M, AsyncContext], Awaitable[R]]
    ) -> Callable[[M, AsyncContext], Awaitable[R]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One function for one (topic, type). ``event_type`` None: each type of the topic without one of its own."""

    topic: str
    event_type: str | None
    model: type[Event] | None
    function: Callable[[Any, Any], Any]
    name: str
    is_async: bool
    attempts: int | None
    base: float | None
    cap: float | None

    def decode(self, delivery: Delivery) -> Event | Received:
        """What the function is called with. Raises Poison."""
        record = delivery.record
        if self.model is None:
            return Received(delivery.topic, record.key, record.value, delivery.envelope)
        try:
            return self.model.from_payload(record.value, version=delivery.envelope.version)
        except Poison:
            raise
        except Exception as error:  # noqa: BLE001  a validator of the model raised what pydantic does not collect
            told = f"a validator raised {type(error).__name__}"  # its text may quote the payload
            refused = PayloadRefused(f"{self.model.__name__} refuses the payload: {told}.")
            raise refused.with_traceback(error.__traceback__) from None

    def attempts_by(self, settings: InboxSettings) -> int:
        """How often it is tried."""
        return settings.attempts if self.attempts is None else self.attempts

    def backoff_by(self, settings: InboxSettings) -> Backoff:
        """The waits between attempts. Raises ConfigurationError where base is over cap."""
        base = settings.backoff_base_seconds if self.base is None else self.base
        cap = settings.backoff_cap_seconds if self.cap is None else self.cap
        try:
            return Backoff(base, cap)
        except ValueError as error:
            raise ConfigurationError(f"The handler {self.name}: {error}.") from None


def handler_of(
    function: object,
    topic: str,
    model: Model,
    *,
    type_: str | None,
    attempts: int | None,
    base: float | None,
    cap: float | None,
) -> Handler:
    """Check and describe ``function``. Raises InvalidHandler, in one sentence."""
    name = _name(function)
    if inspect.isclass(function) or not callable(function):
        raise InvalidHandler(f"{name} is no handler: register a function `(event, ctx)`, sync or async.")
    call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        raise InvalidHandler(f"{name} is a generator function, which does nothing when it is called; do not yield.")
    try:
        inspect.signature(function).bind(None, None)
    except (TypeError, ValueError):
        raise InvalidHandler(
            f"{name} must take two positional arguments, (event, ctx); its signature is {_signature(function)}."
        ) from None
    event_model, type_ = _model(name, model, type_)
    return Handler(
        topic=topic,
        event_type=type_,
        model=event_model,
        function=function,
        name=name,
        is_async=inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call),
        attempts=_attempts(name, attempts),
        base=_seconds(name, "base", base),
        cap=_seconds(name, "cap", cap),
    )


def _model(name: str, model: object, type_: str | None) -> tuple[type[Event] | None, str | None]:
    """The model, None for a raw handler; and the type it is called for."""
    if type_ is not None:
        try:
            check_type(type_)
        except InvalidMessage as error:
            raise InvalidHandler(f"The handler {name}: {error}") from None
    if model is None or model is Received:
        return None, type_
    if not inspect.isclass(model) or not issubclass(model, Event) or model is Event:
        raise InvalidHandler(
            f"The handler {name} needs a subclass of Event as its model, or None for the message as it came; "
            f"not {model!r}."
        )
    return model, type_ if type_ is not None else model.event_type


def _attempts(name: str, attempts: object) -> int | None:
    most = 1_000
    if attempts is None:
        return None
    if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= most:
        raise InvalidHandler(f"The handler {name}: attempts must be a number from 1 to {most}, not {attempts!r}.")
    return attempts


def _seconds(name: str, what: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InvalidHandler(f"The handler {name}: {what} must be a number of seconds above 0, not {value!r}.")
    return float(value)


def _name(function: object) -> str:
    named = function if hasattr(function, "__qualname__") else getattr(function, "func", type(function))
    qualname = getattr(named, "__qualname__", None) or repr(function)
    return f"{getattr(named, '__module__', '')}.{qualname}".lstrip(".")


def _signature(function: Callable[..., object]) -> str:
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return "unknown"
