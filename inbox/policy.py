"""How a handler's messages are treated: what the settings say, what the handler says, what an operator says now."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..messaging.backoff import Backoff
from ..messaging.errors import ConfigurationError
from .settings import InboxSettings

OnDeadLetter = Literal["go-on", "wait"]


class Policy(BaseModel):
    """What holds for one handler at the moment. Frozen; times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: int = Field(5, ge=1, le=1_000)
    """How often a message is tried before it becomes a dead letter."""

    immediate: int = Field(2, ge=1, le=1_000)
    """So many of these while it is in hand; then it is held in the table, and its partition moves on."""

    base: float = Field(0.1, gt=0.0, le=86_400.0)
    """The upper bound of the wait after the first failure (full jitter, doubling)."""

    cap: float = Field(10.0, gt=0.0, le=86_400.0)
    """The upper bound of all waits."""

    timeout: float | None = Field(None, gt=0.0, le=86_400.0)
    """How long an attempt may take. An async handler is cancelled; a sync one's statements are, and it is told."""

    rate: float | None = Field(None, gt=0.0, allow_inf_nan=False)
    """Messages per second, of this process."""

    concurrency: int | None = Field(None, ge=1, le=256)
    """How many attempts at the same time, of this process: a bulkhead. None: as many as there are workers."""

    on_dead_letter: OnDeadLetter = "go-on"
    """Do later messages of a key go on after a dead letter, or wait until it is resolved?"""

    dead_letters_per_minute: int = Field(60, ge=0, le=1_000_000)
    """When so many of its messages became dead letters within a minute, the handler is paused. 0: any number may."""

    breaker_threshold: float = Field(0.5, gt=0.0, le=1.0)
    """The breaker opens when so much of the last ``breaker_window`` messages failed."""

    breaker_window: int = Field(20, ge=2, le=10_000)
    """How many messages the breaker looks back on."""

    breaker_open_seconds: float = Field(30.0, gt=0.0, le=86_400.0)
    """How long an open breaker waits before it lets one message try."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.base > self.cap:
            raise ValueError("base must not be over cap")
        return self

    @property
    def backoff(self) -> Backoff:
        """The waits between attempts."""
        return Backoff(self.base, self.cap)

    @classmethod
    def of(cls, handler: str, settings: InboxSettings, *layers: Mapping[str, Any]) -> "Policy":
        """The settings' policy with each of ``layers`` over it. Raises ConfigurationError, naming what is wrong."""
        values: dict[str, Any] = {
            "attempts": settings.attempts,
            "immediate": settings.immediate_attempts,
            "base": settings.backoff_base_seconds,
            "cap": settings.backoff_cap_seconds,
        }
        for layer in layers:
            values |= layer
        try:
            return cls(**values)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            name = ".".join(map(str, problem["loc"])) or "base and cap"
            told = problem["msg"].removeprefix("Value error, ")
            value = f", not {problem['input']!r}" if problem["loc"] else ""
            raise ConfigurationError(f"The handler {handler}: {name}: {told}{value}.") from None
