"""Time as an argument, so that tests need not sleep."""

import time
from datetime import UTC, datetime
from threading import Event
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits. Thread-safe."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    def wait(self, event: Event, timeout: float) -> bool:
        """Block until ``event`` is set or ``timeout`` seconds passed; say whether it is set."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: Event, timeout: float) -> bool:
        return event.wait(timeout)
