"""How long to wait before the next attempt."""

import random
from dataclasses import dataclass

_SHARED = random.Random()


@dataclass(frozen=True, slots=True)
class Backoff:
    """Capped exponential backoff with full jitter.

    The wait before attempt ``n + 1`` is uniform in ``[0, min(cap, base · 2ⁿ⁻¹)]`` seconds, after M. Brooker,
    "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015): spread out, retries do not arrive
    together, and the cap bounds how late an end of an outage is noticed.
    """

    base: float = 0.1
    cap: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.base <= self.cap:
            raise ValueError(f"backoff needs 0 < base <= cap, not base={self.base}, cap={self.cap}")

    def delay(self, failures: int, rng: random.Random | None = None) -> float:
        """Seconds to wait after ``failures`` (1, 2, …) failures in a row."""
        ceiling = min(self.cap, self.base * 2 ** min(failures - 1, 62))
        return (rng or _SHARED).uniform(0, ceiling)
