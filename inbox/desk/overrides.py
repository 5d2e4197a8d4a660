"""Which settings of a handler operators can change while it runs, and what they may be."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ...messaging.errors import UsageError

Value = int | float | str
Policy = Mapping[str, Value]
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Setting:
    """``kind``: int, float or str. ``least`` and ``most`` are allowed; with ``above`` only what is over ``least``."""

    kind: type[int] | type[float] | type[str]
    least: float = 0
    most: float = _DAY
    above: bool = False
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """In words."""
        if self.choices:
            return " or ".join(self.choices)
        kind = "a whole number" if self.kind is int else "a number"
        least = f"above {self.least:g} and up to" if self.above else f"from {self.least:,g} to"
        return f"{kind} {least} {self.most:,.0f}"


SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        "attempts": Setting(int, 1, 1_000),
        "immediate": Setting(int, 1, 1_000),
        "base": Setting(float, above=True),
        "cap": Setting(float, above=True),
        "timeout": Setting(float, above=True),
        "rate": Setting(float, most=10_000_000, above=True),
        "concurrency": Setting(int, 1, 256),
        "on_dead_letter": Setting(str, choices=("go-on", "wait")),
        "dead_letters_per_minute": Setting(int, 0, 1_000_000),
        "breaker_threshold": Setting(float, most=1, above=True),
        "breaker_open_seconds": Setting(float, above=True),
    }
)


def parse_setting(name: str, text: str) -> Value:
    """The value that ``text`` means. Raises UsageError, naming the setting, the value and what is allowed."""
    setting = SETTINGS[name]
    try:
        return check_setting(name, setting.kind(text), text)
    except ValueError:
        raise UsageError(f"{name} is {text!r}; it must be {setting.allowed}.") from None


def check_setting(name: str, value: object, shown: object = None) -> Value:
    """``value``, if the setting may have it. Raises UsageError likewise, also where there is no such setting."""
    setting = SETTINGS.get(name)
    if setting is None:
        raise UsageError(f"There is no setting {name!r} of a policy; there are {', '.join(SETTINGS)}.")
    if isinstance(value, str) and setting.kind is str and value in setting.choices:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and setting.kind is not str:
        whole = setting.kind is not int or value == int(value) if math.isfinite(value) else False
        if whole and setting.least <= value <= setting.most and not (setting.above and value == setting.least):
            return setting.kind(value)
    raise UsageError(f"{name} is {value if shown is None else shown!r}; it must be {setting.allowed}.")


def check_together(policy: Policy, whose: str = "", changed: Collection[str] = ()) -> None:
    """Raises UsageError where two settings of a policy do not fit each other.

    ``whose``: for the sentence, which is about the one of the two that is ``changed``.
    """
    for low, high, words in (("immediate", "attempts", "from 1 to"), ("base", "cap", "above 0 and up to")):
        lower, upper = policy.get(low), policy.get(high)
        if isinstance(lower, int | float) and isinstance(upper, int | float) and lower > upper:
            if high in changed and low not in changed:
                raise UsageError(f"{high}{whose} is {upper:g}; it must be at least {low}, which is {lower:g}.")
            raise UsageError(f"{low}{whose} is {lower:g}; it must be {words} {high}, which is {upper:g}.")


def told(policy: Policy) -> str:
    """In words, in the order of the settings."""
    known = [name for name in SETTINGS if name in policy]
    parts = [f"{name} {_text(policy[name])}" for name in (*known, *sorted(policy.keys() - SETTINGS.keys()))]
    return ", ".join(parts) or "as the handler and the settings say"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
