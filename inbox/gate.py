"""What may begin now, by handler: breaker, rate, bulkhead, adaptive concurrency, an operator's pause."""

from ..messaging.backoff import Backoff
from ..messaging.clock import Clock
from ..messaging.rate import TokenBucket
from .breaker import Breaker
from .policy import Policy

_SLOWER = 2.0
_FEWER = 0.8


class Gate:
    """For one handler. Its caller holds a lock."""

    def __init__(self, policy: Policy, clock: Clock, outage: Backoff, *, workers: int, adaptive: bool = False) -> None:
        self._clock = clock
        self._bucket = TokenBucket(clock)
        self._adaptive = AdaptiveLimit(clock) if adaptive else None
        self._workers = workers
        self.breaker = Breaker(clock, outage)
        self.running = 0
        self.paused: str | None = None
        """Why an operator stopped it."""
        self.policy = policy

    def room(self, wanted: int) -> int:
        """How many of ``wanted`` messages may begin now, as one batch."""
        if self.paused is not None or self.breaker.opens_in() > 0 or self.running >= self._most():
            return 0
        if self.breaker.is_open:
            wanted = 1
        self._bucket.limit(self.policy.rate)
        return self._bucket.available(wanted)

    @property
    def is_shut(self) -> bool:
        """Nothing may begin: paused, or the breaker is open."""
        return self.paused is not None or self.breaker.opens_in() > 0

    def opens_in(self) -> float:
        """Seconds until it is worth to ask again; infinity where something else has to happen first."""
        if self.paused is not None or self.running >= self._most():
            return float("inf")
        if seconds := self.breaker.opens_in():
            return seconds
        return 0.0 if self.policy.rate is None else min(1.0, 1 / self.policy.rate)

    def begin(self, count: int) -> None:
        """So many begin, as one batch."""
        self.running += 1
        self._bucket.take(count)
        self.breaker.begin()

    def end(self, seconds: float) -> None:
        """A batch ended after so many seconds for each message."""
        self.running -= 1
        if self.running == 0:  # else it may be one of those that began before the breaker opened
            self.breaker.ended()
        if self._adaptive is not None:
            self._adaptive.note(seconds, self._ceiling())

    def _ceiling(self) -> int:
        return min(self._workers, self.policy.concurrency or self._workers)

    def _most(self) -> int:
        ceiling = self._ceiling()
        return ceiling if self._adaptive is None else min(ceiling, self._adaptive.limit)


class AdaptiveLimit:
    """Concurrency that follows the latency: additive increase, multiplicative decrease.

    After V. Jacobson's congestion avoidance (1988): while a message takes about as long as it does when there are
    few at a time, one more is allowed for each full round; when it takes twice as long, a fifth less.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._allowed = 2.0
        self._usual: float | None = None
        self._now: float | None = None
        self._decreased_at = 0.0

    @property
    def limit(self) -> int:
        """How many may run."""
        return max(1, int(self._allowed))

    def note(self, seconds: float, ceiling: int) -> None:
        """A message took so long."""
        self._now = seconds if self._now is None else 0.8 * self._now + 0.2 * seconds
        # The usual time falls at once and rises slowly, so that a new normal is accepted in the end.
        self._usual = self._now if self._usual is None else min(self._now, self._usual * 1.005)
        if self._now > _SLOWER * self._usual:
            at = self._clock.monotonic()
            if at - self._decreased_at >= self._now:  # once for what was on its way together
                self._decreased_at = at
                self._allowed = max(1.0, self._allowed * _FEWER)
        else:
            self._allowed = min(float(ceiling), self._allowed + 1 / self._allowed)
