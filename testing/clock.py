"""Time that a test moves."""

import time
from datetime import UTC, datetime, timedelta
from threading import Event, Lock

#: A wait looks so often, in seconds of real time, whether its time has come.
_LOOK = 0.002


class FakeClock:
    """Time that stands still until it is moved; for whatever takes a ``clock``: see ``messaging.clock.Clock``.

        clock = FakeClock()
        outbox = Outbox(source="/shop", clock=clock)      # expires_in
        relay = Relay(store, kafka, clock=clock)          # deliver_at, backoff, breaker
        runner = InboxRunner(inbox, database_url=url, kafka=kafka, clock=clock)   # attempts, rates, breakers, deadlines
        clock.advance(timedelta(hours=1))

    ``now``: what it shows at first, with a time zone; by default the machine's time. ``monotonic`` begins at 0. A
    ``wait`` returns when its event is set or the time was moved far enough; with ``passing`` it moves the time itself
    and returns at once, for code on the test's own thread. Thread-safe. Raises ValueError for a time without a zone,
    and for time that would go back.

    A relay or a runner that is started with it looks for messages by it, too, so nothing happens until time is moved;
    ``run_until_quiet`` sees to that by itself.

    The database's own clock is not moved: it stamps rows (``created_at``, ``processed_at``), and leases, retentions
    and ``dead_letters_per_minute`` go by it, since several processes share these.
    """

    def __init__(self, now: datetime | None = None, *, passing: bool = False) -> None:
        self._began = _aware(now if now is not None else datetime.now(UTC))
        self._passed = 0.0
        self._set_by = timedelta()
        self._passing = passing
        self._deadlines: dict[object, float] = {}
        self._lock = Lock()
        self.waits: list[float] = []
        """The seconds of each wait, in the order in which they began."""

    def now(self) -> datetime:
        """What it shows."""
        with self._lock:
            return self._began + self._set_by + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        """Seconds by which it was advanced."""
        with self._lock:
            return self._passed

    def advance(self, by: timedelta | float) -> None:
        """Let time pass: a duration, or seconds. Waits that are over then return."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else float(by)
        if not seconds >= 0:
            raise ValueError(f"time does not go back by {-seconds:g} s; use set() for a wall clock that is put back.")
        with self._lock:
            self._passed += seconds

    def set(self, now: datetime) -> None:
        """Put the wall clock, forward or back, as an administrator does. No time passes by that: no wait ends."""
        with self._lock:
            self._set_by = _aware(now) - self._began - timedelta(seconds=self._passed)

    @property
    def waiting(self) -> int:
        """How many threads wait for time to pass."""
        with self._lock:
            return len(self._deadlines)

    def wait(self, event: Event, timeout: float) -> bool:
        """See ``messaging.clock.Clock``."""
        me = object()
        with self._lock:
            self.waits.append(timeout)
            if self._passing:
                self._passed += max(0.0, timeout)
                return event.is_set()
            deadline = self._deadlines[me] = self._passed + timeout
        try:
            while not event.is_set() and self.monotonic() < deadline:
                event.wait(_LOOK)
            return event.is_set()
        finally:
            with self._lock:
                del self._deadlines[me]

    def await_waiting(self, count: int = 1, timeout: float = 10.0) -> None:
        """Block until so many threads wait for time to pass, at the most for ``timeout`` real seconds.

        Raises TimeoutError.
        """
        until = time.monotonic() + timeout
        while self.waiting < count:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.waiting} threads wait for the fake clock after {timeout:g} s, not {count}.")
            time.sleep(_LOOK)


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{moment} needs a time zone, such as datetime(2026, 1, 1, tzinfo=UTC).")
    return moment.astimezone(UTC)
