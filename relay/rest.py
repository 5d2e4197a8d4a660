"""What a relay does that has nothing to do: it waits, a little longer each time."""

from threading import Event

from ..messaging.clock import Clock
from ..outbox.log import Waker
from .settings import RelaySettings

#: The waker does not hear a stop, so it is asked in steps, in seconds.
_LISTEN_STEP = 0.25


class Rest:
    """The waits between two polls of an idle log, from ``poll_min_seconds``, doubling, to ``poll_max_seconds``."""

    def __init__(self, settings: RelaySettings, clock: Clock, stopping: Event, waker: Waker | None) -> None:
        self._settings = settings
        self._clock = clock
        self._stopping = stopping
        self._waker = waker
        self._seconds = 0.0

    def begin(self) -> None:
        """There was work: the next wait is the shortest."""
        self._seconds = 0.0

    def next(self) -> None:
        """Wait, until the time is over, a commit is told, or the relay is to stop."""
        settings = self._settings
        self._seconds = min(max(self._seconds * 2, settings.poll_min_seconds), settings.poll_max_seconds)
        if self._waker is None:
            self._clock.wait(self._stopping, self._seconds)
            return
        left = self._seconds
        while left > 0 and not self._stopping.is_set():
            step = min(left, _LISTEN_STEP)
            if self._waker.wait(step):
                self.begin()
                return
            left -= step

    def close(self) -> None:
        """Listen no more. Does not raise."""
        if self._waker is not None:
            self._waker.close()
