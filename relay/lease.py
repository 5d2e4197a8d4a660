"""The shards of a relay, by lease."""

from collections.abc import Callable
from dataclasses import replace

from ..messaging.clock import Clock
from ..outbox.log import Claim, LogReader, Report

#: Between two heartbeats, at the most, in seconds.
_HEARTBEAT = 1.0


class Lease:
    """Of some shards for ``seconds`` from each heartbeat on. For one thread.

    ``claim``: what the last heartbeat brought, or no shards where nothing is sure since. ``others``: how many
    other relays there were then.
    """

    def __init__(self, reader: LogReader, seconds: float, clock: Clock) -> None:
        self.claim = Claim()
        self.others = 0
        self._reader = reader
        self._seconds = seconds
        self._clock = clock
        self._ends = 0.0
        self._renew_at = 0.0

    @property
    def due(self) -> bool:
        """It is time for a heartbeat."""
        return self._clock.monotonic() >= self._renew_at

    @property
    def stands(self) -> bool:
        """What is sent after it ended could be sent twice."""
        return self._clock.monotonic() < self._ends

    def renew(self, report: Report, learn: Callable[[], None]) -> Claim:
        """A heartbeat; the claim that was before it. Raises DatabaseUnavailable.

        ``learn`` what waits behind parked messages is called where shards are new: without knowing it, they must
        not be read, so they are not in ``claim`` where it raises.
        """
        now = self._clock.monotonic()
        claim = self._reader.claim(report)
        if claim.shards - self.claim.shards:
            learn()
        before, self.claim = self.claim, claim
        self.others = claim.others
        self._ends = now + self._seconds
        self._renew_at = now + min(_HEARTBEAT, self._seconds / 3)
        return before

    def hurry(self) -> None:
        """The next heartbeat is due at once."""
        self._renew_at = 0.0

    def give_up(self) -> None:
        """Of no shard is it sure any more that it is ours, until the next heartbeat, which is due at once."""
        self.claim = Claim(control=self.claim.control)
        self.hurry()

    def hand_over(self) -> None:
        """Leave the surplus of shards to other relays. Only with nothing in flight."""
        shards = sorted(self.claim.shards)
        keep = max(0, len(shards) - self.claim.surplus)
        self._reader.release(shards[keep:])
        self.claim = replace(self.claim, shards=frozenset(shards[:keep]), surplus=0)
