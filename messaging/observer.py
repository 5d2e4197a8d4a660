"""What happens inside a daemon, told step by step.

The relay and the inbox call an observer at each step with the step's name and its facts. Logs and
metrics hang on it, and tests wait on it, or kill the process exactly there. An observer is called on
the daemon's thread, in the middle of its work: it must be quick, and what it raises ends the daemon.
"""

from typing import Any, Protocol


class Observer(Protocol):
    """Called as ``observe("published", count=3, …)``."""

    def __call__(self, step: str, /, **facts: Any) -> None:
        """Take note."""


class Crash(BaseException):
    """From an observer: the daemon ends here as if it had been killed, and settles, commits and releases nothing more.

    For tests: see ``testing.crash_at``.
    """


def unobserved(step: str, /, **facts: Any) -> None:
    """Do nothing."""


def together(*observers: Observer) -> Observer:
    """One observer of several: each is told, in this order."""

    def observe(step: str, /, **facts: Any) -> None:
        for each in observers:
            each(step, **facts)

    return observe
