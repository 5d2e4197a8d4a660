"""Whether what waits on the brokers comes to this member: asked only of partitions of which nothing comes.

A poll that brings nothing says nothing: all may be read, or the fetching may be stuck, or nobody may be there. So the
brokers are asked for the ends, seldom, and with a short timeout.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..messaging.clock import Clock
from ..messaging.errors import PostroomError
from ..messaging.records import Partition
from .outage import KAFKA_AWAY

#: How long an answer may take, in seconds.
_PATIENCE = 1.0
#: One question without an answer is a broker that is busy; two in a row are an outage.
_UNANSWERED = 2
Lag = Callable[[Sequence[Partition], float], Mapping[Partition, int]]


class Arrivals:
    """Of one membership. ``behind``: partitions that have more and of which nothing comes, and how many offsets.

    ``every``: seconds without a record until the brokers are asked, and between two questions. For one thread.
    """

    def __init__(self, clock: Clock, every: float) -> None:
        self.behind: Mapping[Partition, int] = {}
        self.away: Exception | None = None
        """What was answered instead, when Kafka did not answer."""
        self._clock = clock
        self._every = every
        self._heard: dict[Partition, float] = {}
        self._ask_at = 0.0
        self._unanswered = 0

    def came(self, partitions: Iterable[Partition]) -> None:
        """Records of them, or they themselves."""
        now = self._clock.monotonic()
        partitions = set(partitions)
        if partitions:
            self._heard.update(dict.fromkeys(partitions, now))
            self.behind = {part: lag for part, lag in self.behind.items() if part not in partitions}
            self.heard()

    def heard(self) -> None:
        """Kafka answers."""
        self._unanswered = 0
        self.away = None

    def failed(self, error: Exception) -> None:
        """It did not, for longer than a question may take; what it says to that is asked at once."""
        self.away = error
        self._ask_at = 0.0

    def went(self, partitions: Iterable[Partition]) -> None:
        """They are not ours any more."""
        for partition in partitions:
            self._heard.pop(partition, None)
        self.behind = {part: lag for part, lag in self.behind.items() if part in self._heard}

    def look(self, lag: Lag, paused: Sequence[Partition]) -> None:
        """Ask, if it is time. Of what is ``paused`` nothing is to come."""
        now = self._clock.monotonic()
        for partition in self._heard.keys() & set(paused):
            self._heard[partition] = now
        silent = [partition for partition, at in self._heard.items() if now - at >= self._every]
        self.behind = {part: lag for part, lag in self.behind.items() if part in silent}
        asked = silent if self.away is None else list(self._heard)
        if not asked or now < self._ask_at:
            return
        try:
            found = lag(asked, _PATIENCE)
        except KAFKA_AWAY as error:
            self._unanswered += 1
            if self._unanswered >= _UNANSWERED:
                self.away = error
        except PostroomError:
            self.heard()  # with a refusal, of which the next poll tells
        else:
            self.heard()
            self.behind = {part: offsets for part, offsets in found.items() if offsets > 0 and part in silent}
        self._ask_at = self._clock.monotonic() + self._every
