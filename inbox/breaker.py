"""A circuit breaker for what a handler needs.

    closed ──(too many of the last messages failed, or something said it is away)──▶ open
       ▲                                                                              │ its time is over
       └────────(the probe succeeded)──── half-open: one message tries ◀──────────────┘
                                              └──(it failed)──▶ open

After M. Nygard, "Release It!" (2007). Messages are counted, not attempts, and failures only the first time, so that
some poisoned messages open nothing, however often they are tried and however little else there is. What the handler
calls poison (``Verdict.DEAD_LETTER``) says nothing of what it needs.
"""

from collections import OrderedDict
from collections.abc import Hashable

from ..messaging.backoff import Backoff
from ..messaging.clock import Clock
from .policy import Policy

_WINDOW_MOST = 10_000


class Breaker:
    """For one handler. Its caller holds a lock."""

    def __init__(self, clock: Clock, outage: Backoff) -> None:
        self._clock = clock
        self._outage = outage
        self._last: OrderedDict[Hashable, bool] = OrderedDict()
        self._opens_again_at: float | None = None
        self._probing = False
        self.failures = 0
        """How often in a row it opened."""

    @property
    def is_open(self) -> bool:
        """Nothing, or only a probe, may begin."""
        return self._opens_again_at is not None

    def opens_in(self) -> float:
        """Seconds until a message may begin: 0 when one may, infinity while a probe is out."""
        if self._opens_again_at is None:
            return 0.0
        if self._probing:
            return float("inf")
        return max(0.0, self._opens_again_at - self._clock.monotonic())

    def begin(self) -> None:
        """A message begins."""
        if self._opens_again_at is not None:
            self._probing = True

    def ended(self) -> None:
        """A message ended; if it was the probe and told nothing, another one may try."""
        self._probing = False

    def succeeded(self, message: Hashable) -> int:
        """Returns how often it had opened, if this closes it, else 0."""
        self._note(message, failed=False)
        return self._close()

    def undecided(self) -> int:
        """A message came to an end that tells nothing of what the handler needs."""
        if self._opens_again_at is None or not self._probing:
            return 0
        return self._close()

    def failed(self, message: Hashable, policy: Policy, *, first: bool) -> float | None:
        """Returns for how many seconds it is open now, if this opens it.

        ``first``: it had not failed before. What fails again while the breaker is closed is known to be at fault
        itself: others have been handled since, or would have opened it.
        """
        if first:
            self._note(message, failed=True)
        if self._opens_again_at is not None:
            if not self._probing:
                return None
            return self._open(policy.breaker_open_seconds)
        if not first:
            return None
        while len(self._last) > policy.breaker_window:
            self._last.popitem(last=False)
        failed = sum(self._last.values())
        if len(self._last) < policy.breaker_window or failed < policy.breaker_threshold * policy.breaker_window:
            return None
        return self._open(policy.breaker_open_seconds)

    def unavailable(self) -> float | None:
        """Something said that it is away: open at once, for a short while that grows. Returns the seconds."""
        if self._opens_again_at is not None and not self._probing:
            return None  # others were on their way when it opened
        return self._open(self._outage.delay(self.failures + 1))

    def _note(self, message: Hashable, *, failed: bool) -> None:
        self._last.pop(message, None)
        self._last[message] = failed
        if len(self._last) > _WINDOW_MOST:
            self._last.popitem(last=False)

    def _open(self, seconds: float) -> float:
        self.failures += 1
        self._probing = False
        self._opens_again_at = self._clock.monotonic() + seconds
        return seconds

    def _close(self) -> int:
        if self._opens_again_at is None:
            return 0
        failures, self.failures = self.failures, 0
        self._opens_again_at = None
        self._probing = False
        self._last.clear()
        return failures
