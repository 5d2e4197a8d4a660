"""The circuit breaker before Kafka and the database."""

from ..messaging.backoff import Backoff
from ..messaging.clock import Clock


class Breaker:
    """Closed while all is well; open after a failure, for a random while that grows; then one try, half-open.

    ``away_since``: when Kafka was first missed, by the clock; None while it answers.
    """

    def __init__(self, backoff: Backoff, clock: Clock) -> None:
        self.away_since: float | None = None
        self._backoff = backoff
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0

    @property
    def probing(self) -> bool:
        """Nothing has succeeded since the last failure."""
        return self._failures > 0

    def open(self, *, of_kafka: bool) -> float:
        """Something failed; for how many seconds nothing is to be tried."""
        self._failures += 1
        seconds = self._backoff.delay(self._failures)
        if of_kafka:
            now = self._clock.monotonic()
            self.away_since = now if self.away_since is None else self.away_since
            self._open_until = now + seconds
        return seconds

    def open_for(self) -> float:
        """Seconds until the next try; 0 when it may be made."""
        return max(0.0, self._open_until - self._clock.monotonic())

    def away_for(self) -> float:
        """For how many seconds Kafka has been missed."""
        return 0.0 if self.away_since is None else self._clock.monotonic() - self.away_since

    def close(self) -> bool:
        """Something succeeded; whether it was open before."""
        self.away_since = None
        failures, self._failures = self._failures, 0
        return failures > 0
