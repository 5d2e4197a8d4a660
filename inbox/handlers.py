"""Handlers: what is registered, checked where it is registered."""

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypedDict, TypeVar, get_args, overload

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..messaging.envelope import IDEMPOTENCY_KEY, Envelope, storable_id
from ..messaging.errors import InvalidHandler, InvalidMessage, PayloadRefused, Poison
from ..messaging.message import check_type
from ..outbox import Event
from .context import AsyncContext, BatchContext, Context
from .delivery import Delivery
from .policy import OnDeadLetter, Policy
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
Errors = tuple[type[Exception], ...]


class Register(Protocol[M]):
    """The decorator for handlers of ``M``; returns the function as it was."""

    @overload
    def __call__(self, function: Callable[[M, Context], R]) -> Callable[[M, Context], R]: ...
    @overload
    def __call__(
        self, function: Callable[[M, AsyncContext], Awaitable[R]]
    ) -> Callable[[M, AsyncContext], Awaitable[R]]: ...


class RegisterBatch(Protocol[M]):
    """The decorator for handlers of several ``M`` at once; returns the function as it was."""

    @overload
    def __call__(
        self, function: Callable[[Sequence[M], BatchContext[Session]], R]
    ) -> Callable[[Sequence[M], BatchContext[Session]], R]: ...
    @overload
    def __call__(
        self, function: Callable[[Sequence[M], BatchContext[AsyncSession]], Awaitable[R]]
    ) -> Callable[[Sequence[M], BatchContext[AsyncSession]], Awaitable[R]]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Handler:
    """One function for one (topic, type). ``event_type`` None: each type of the topic without one of its own.

    ``policy``: what it says of its own treatment, by the names of ``Policy``. The rest is what ``Inbox.handler`` got.
    """

    topic: str
    event_type: str | None
    model: type[Event] | None
    function: Callable[[Any, Any], Any]
    name: str
    is_async: bool
    policy: Mapping[str, Any]
    retry_on: Errors = ()
    dead_letter_on: Errors = ()
    pause_on: Errors = ()
    batch: bool = False
    duplicates: bool = False
    by_idempotency_key: bool = False
    adaptive: bool = False
    priority: int = 0

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

    def known_as(self, delivery: Delivery) -> Delivery:
        """``delivery``, with the id that this handler knows it by."""
        if self.by_idempotency_key and (key := delivery.envelope.header(IDEMPOTENCY_KEY)):
            return replace(delivery, message_id=storable_id(f"key:{key}"))
        return delivery

    def policy_by(self, settings: InboxSettings, *overrides: Mapping[str, Any]) -> Policy:
        """What holds for it. Raises ConfigurationError, for example where base is over cap."""
        return Policy.of(self.name, settings, self.policy, *overrides)


#: Stands in where a message has no handler.
NOBODY = Handler(
    topic="", event_type=None, model=None, function=lambda *_: None, name="(none)", is_async=False, policy={}
)


class Options(TypedDict, total=False):
    """How a handler's messages are treated; what is not given is as the settings say. Times in seconds.

    ``attempts``: how often a message is tried; ``immediate``: so many of these before it is held in the table;
    ``base``, ``cap``: the bounds of the waits in between. ``retry_on``, ``dead_letter_on``, ``pause_on``: exception
    classes that are worth another attempt (with ``retry_on``, no others are), never are, or say that something is
    away. ``timeout``: of an attempt. ``rate``: messages per second. ``concurrency``: attempts at the same time;
    ``adaptive``: fewer of them while they take longer. ``on_dead_letter``: do later messages of a key ``go-on`` or
    ``wait``. ``dead_letters_per_minute``: when there were so many, the handler is paused until an operator resumes it;
    0: never. ``breaker_threshold``, ``breaker_window``, ``breaker_open_seconds``: it opens when such a share of so
    many messages failed, for so long. ``priority``: handlers with a higher one have their turn first.

    ``duplicates``: the function is called for duplicates, too. ``by_idempotency_key``: messages with a header
    ``idempotency_key`` are known by it.
    """

    attempts: int | None
    immediate: int | None
    base: float | None
    cap: float | None
    retry_on: type[Exception] | Errors
    dead_letter_on: type[Exception] | Errors
    pause_on: type[Exception] | Errors
    timeout: float | None
    rate: float | None
    concurrency: int | None
    adaptive: bool
    on_dead_letter: OnDeadLetter | None
    dead_letters_per_minute: int | None
    breaker_threshold: float | None
    breaker_window: int | None
    breaker_open_seconds: float | None
    priority: int
    duplicates: bool
    by_idempotency_key: bool


def handler_of(
    function: object, topic: str, model: Model, *, type_: str | None, batch: bool, options: Options
) -> Handler:
    """Check and describe ``function``. Raises InvalidHandler, in one sentence."""
    name = _name(function)
    if unknown := sorted(options.keys() - Options.__annotations__.keys()):
        raise InvalidHandler(
            f"The handler {name}: there is no option {unknown[0]!r}; there are {', '.join(Options.__annotations__)}."
        )
    if inspect.isclass(function) or not callable(function):
        raise InvalidHandler(f"{name} is no handler: register a function `(event, ctx)`, sync or async.")
    call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004  to look at it
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
        policy=_policy(name, options),
        retry_on=_errors(name, "retry_on", options.get("retry_on", ())),
        dead_letter_on=_errors(name, "dead_letter_on", options.get("dead_letter_on", ())),
        pause_on=_errors(name, "pause_on", options.get("pause_on", ())),
        batch=_flag(name, "batch", batch),
        duplicates=_flag(name, "duplicates", options.get("duplicates", False)),
        by_idempotency_key=_flag(name, "by_idempotency_key", options.get("by_idempotency_key", False)),
        adaptive=_flag(name, "adaptive", options.get("adaptive", False)),
        priority=_whole(name, "priority", options.get("priority"), -1_000, 1_000) or 0,
    )


def _policy(name: str, options: Options) -> dict[str, Any]:
    given: dict[str, Any] = {
        "attempts": _whole(name, "attempts", options.get("attempts"), 1, 1_000),
        "immediate": _whole(name, "immediate", options.get("immediate"), 1, 1_000),
        "concurrency": _whole(name, "concurrency", options.get("concurrency"), 1, 256),
        "dead_letters_per_minute": _whole(
            name, "dead_letters_per_minute", options.get("dead_letters_per_minute"), 0, 1_000_000
        ),
        "breaker_window": _whole(name, "breaker_window", options.get("breaker_window"), 2, 10_000),
        "base": _seconds(name, "base", options.get("base")),
        "cap": _seconds(name, "cap", options.get("cap")),
        "timeout": _seconds(name, "timeout", options.get("timeout")),
        "breaker_open_seconds": _seconds(name, "breaker_open_seconds", options.get("breaker_open_seconds")),
        "rate": _above_zero(name, "rate", options.get("rate"), "a number of messages per second above 0"),
    }
    share = _above_zero(name, "breaker_threshold", options.get("breaker_threshold"), "a share above 0, up to 1")
    if share is not None and share > 1:
        raise InvalidHandler(f"The handler {name}: breaker_threshold must be a share above 0, up to 1, not {share!r}.")
    given["breaker_threshold"] = share
    given["on_dead_letter"] = on_dead_letter = options.get("on_dead_letter")
    if on_dead_letter not in (None, *get_args(OnDeadLetter)):
        raise InvalidHandler(f"The handler {name}: on_dead_letter must be 'go-on' or 'wait', not {on_dead_letter!r}.")
    return {option: value for option, value in given.items() if value is not None}


def _errors(name: str, kind: str, value: object) -> Errors:
    classes = value if isinstance(value, tuple | list) else (value,)
    for each in classes:
        if not inspect.isclass(each) or not issubclass(each, Exception):
            raise InvalidHandler(f"The handler {name}: {kind} must be exception classes, not {each!r}.")
    return tuple(classes)


def _flag(name: str, flag: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidHandler(f"The handler {name}: {flag} must be True or False, not {value!r}.")
    return value


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


def _whole(name: str, what: str, value: object, least: int, most: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidHandler(f"The handler {name}: {what} must be a number from {least} to {most}, not {value!r}.")
    return value


def _seconds(name: str, what: str, value: object) -> float | None:
    return _above_zero(name, what, value, "a number of seconds above 0")


def _above_zero(name: str, what: str, value: object, wanted: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidHandler(f"The handler {name}: {what} must be {wanted}, not {value!r}.")
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
