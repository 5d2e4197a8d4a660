"""Rates: how much may be done now, and how much was done of late."""

from .clock import Clock

_NEXT_TO_NOTHING = 0.05


class TokenBucket:
    """So many a second, and at once no more than a fifth of a second's worth. For one thread.

    After the token bucket of J. Turner, "New directions in communications" (1986). ``rate`` None: no limit.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rate: float | None = None
        self._tokens = 0.0
        self._filled_at = 0.0

    def limit(self, rate: float | None) -> None:
        """Set the rate, in tokens per second. What was saved up stays."""
        if self._rate is None:
            self._filled_at = self._clock.monotonic()
        self._rate = rate

    def available(self, wanted: int) -> int:
        """How many of ``wanted`` may be had now."""
        if self._rate is None:
            return wanted
        now = self._clock.monotonic()
        burst = max(1.0, self._rate / 5)
        self._tokens = min(burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        return min(wanted, int(self._tokens))

    def take(self, tokens: int) -> None:
        """They are used."""
        if self._rate is not None:
            self._tokens -= tokens


class Meter:
    """How many a second of late, smoothed. For one thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at = clock.monotonic()
        self._count = 0
        self._rate = 0.0

    def rate(self, count: int) -> float:
        """The rate, ``count`` being done in all by now; 0 when there is next to nothing."""
        now = self._clock.monotonic()
        if now > self._at:
            self._rate = 0.5 * self._rate + 0.5 * (count - self._count) / (now - self._at)
        if self._rate < _NEXT_TO_NOTHING:
            self._rate = 0.0
        self._at, self._count = now, count
        return self._rate
