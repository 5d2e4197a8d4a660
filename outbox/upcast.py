"""Upcasters: functions that turn an older version's JSON object into a newer one's.

Versions without an upcaster changed additively: their payload is passed on as it is. So with 1 → 2 and 3 → 4, a
payload of version 1 goes through both; one of version 2 or 3 through the second alone.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic_core import PydanticSerializationError, from_json, to_json

from ..messaging.errors import InvalidUpcaster, PayloadRefused, UndecodablePayload, WrongType

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
U = TypeVar("U", bound=Upcaster)


@dataclass(frozen=True, slots=True)
class Step:
    """One upcaster, from a version to a later one."""

    source: int
    target: int
    function: Upcaster

    def __str__(self) -> str:
        return f"{self.source} to {self.target} ({_name(self.function)})"


class Upcasters:
    """What leads from older versions to ``version`` of the model called ``model``."""

    def __init__(self, model: str, version: int) -> None:
        self._model = model
        self._version = version
        self._steps: dict[int, Step] = {}

    def add(self, source: int, target: int, function: Upcaster) -> None:
        """Register one. Raises InvalidUpcaster, in one sentence."""
        told = f"The upcaster {_name(function)} of {self._model}"
        for number in (source, target):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise InvalidUpcaster(f"{told} needs versions from 1 on, such as upcast(1, 2), not {number!r}.")
        if target <= source:
            raise InvalidUpcaster(f"{told} must lead forward, not from version {source} to {target}.")
        if target > self._version:
            raise InvalidUpcaster(
                f"{told} leads to version {target}, but the model is of version {self._version}; give the class "
                f"version={target}."
            )
        if (taken := self._steps.get(source)) is not None:
            raise InvalidUpcaster(f"{told} starts at version {source}, and so does {taken}; only one can.")
        _check_function(told, function)
        self._steps[source] = Step(source, target, function)

    def steps(self, version: int) -> Iterator[Step]:
        """The upcasters that a payload of ``version`` goes through, in order."""
        while (source := min((own for own in self._steps if own >= version), default=None)) is not None:
            step = self._steps[source]
            yield step
            version = step.target

    def cover(self, version: int) -> bool:
        """Whether an upcaster stands for each step from ``version`` on, and there is one."""
        reached = version
        for step in self.steps(version):
            if step.source != reached:
                return False
            reached = step.target
        return version < reached == self._version

    def upcast(self, payload: bytes, version: int) -> bytes:
        """The JSON of ``payload`` in the model's version. Raises UndecodablePayload, WrongType, PayloadRefused."""
        steps = list(self.steps(version))
        if not steps:
            return payload
        try:
            value = from_json(payload)
        except ValueError as error:
            raise UndecodablePayload(f"The payload is not JSON: {error}.") from None
        if not isinstance(value, dict):
            raise WrongType(f"{self._model} refuses the payload: payload: it must be an object to be upcast.")
        for step in steps:
            value = self._apply(step, value)
        try:
            return to_json(value)
        except (PydanticSerializationError, ValueError) as error:
            told = f"The upcaster {steps[-1]} of {self._model} returned what is no JSON"
            raise PayloadRefused(f"{told} ({type(error).__name__}).") from None

    def _apply(self, step: Step, value: dict[str, Any]) -> dict[str, Any]:
        told = f"The upcaster {step} of {self._model}"
        try:
            result: object = step.function(value)
        except Exception as error:  # noqa: BLE001  the user's own; its text may hold what the payload holds
            refused = PayloadRefused(f"{told} raised {type(error).__name__}.")
            raise refused.with_traceback(error.__traceback__) from None
        if not isinstance(result, dict):
            raise PayloadRefused(f"{told} returned {type(result).__name__}, not a dict.")
        return result


def _check_function(told: str, function: object) -> None:
    if inspect.isclass(function) or not callable(function):
        raise InvalidUpcaster(f"{told} is no function; register one that takes the payload and returns it.")
    call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004  to look at it
    if any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in (function, call)):
        raise InvalidUpcaster(f"{told} must not be async; it gets all that it needs.")
    if inspect.isgeneratorfunction(call):
        raise InvalidUpcaster(f"{told} is a generator function; return the payload instead of yielding.")
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError):
        raise InvalidUpcaster(f"{told} must take one positional argument, the payload.") from None


def _name(function: object) -> str:
    named = function if hasattr(function, "__qualname__") else getattr(function, "func", type(function))
    return f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', type(named).__name__)}"
