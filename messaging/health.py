"""Whether a daemon lives, and whether it makes progress: what probes ask."""

from dataclasses import dataclass
from typing import Any, Literal

from .clock import Clock, SystemClock

State = Literal["starting", "running", "standby", "paused", "unavailable", "fenced", "stopping", "stopped"]
#: ``standby``: others do the work, and this one would take over.
_READY: frozenset[State] = frozenset({"running", "standby"})


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to a probe: ``ok``, one sentence why, and facts for people."""

    ok: bool
    reason: str
    facts: dict[str, Any]


class Health:
    """Told by the daemon's thread, asked by any.

    Live: the daemon's loop came round within ``hung_seconds``. Ready: it runs, or stands by, and if work waits
    some of it was done within ``stuck_seconds``. Running alone is not ready.
    """

    def __init__(self, *, stuck_seconds: float, hung_seconds: float, clock: Clock | None = None) -> None:
        self._stuck_seconds = stuck_seconds
        self._hung_seconds = hung_seconds
        self._clock = clock or SystemClock()
        self._state: State = "starting"
        self._detail = ""
        self._beat_at = self._clock.monotonic()
        self._patience = 0.0
        self._progress_at = self._beat_at
        self._waiting_since: float | None = None
        self._waits_for = ""

    @property
    def state(self) -> State:
        """What the daemon does."""
        return self._state

    @property
    def detail(self) -> str:
        """Why, in words."""
        return self._detail

    def became(self, state: State, detail: str = "") -> None:
        """The daemon is in ``state`` now."""
        self._detail = detail
        self._state = state

    def beat(self, patience: float = 0.0) -> None:
        """The loop came round.

        ``patience``: it calls what may be away now, and may take so many seconds longer until it comes round again.
        """
        self._beat_at = self._clock.monotonic()
        self._patience = patience

    def waiting(self, *, work: bool, what: str = "") -> None:
        """Whether there is work that is not done yet; ``what``: what it waits for, in words."""
        self._waits_for = what
        if not work:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = self._clock.monotonic()

    def progressed(self) -> None:
        """Some of it was done."""
        self._progress_at = self._clock.monotonic()
        self._waiting_since = None

    def live(self) -> Finding:
        """Whether to leave the process alone, or to start it anew."""
        silent = self._clock.monotonic() - self._beat_at
        ended = self._state == "stopped"
        hung = silent > self._hung_seconds + self._patience
        return Finding(not hung and not ended, f"hung for {silent:.0f} s" if hung else self._state, self._facts())

    def ready(self) -> Finding:
        """Whether it makes progress."""
        now = self._clock.monotonic()
        since = self._waiting_since
        stuck = 0.0 if since is None else now - max(since, self._progress_at)
        silent = now - self._beat_at
        if self._state not in _READY:
            return Finding(False, f"{self._state}: {self._detail}" if self._detail else self._state, self._facts())
        if stuck > self._stuck_seconds:
            reason = f"messages wait and none was done for {stuck:.0f} s"
            return Finding(False, f"{reason}: {self._waits_for}" if self._waits_for else reason, self._facts())
        if silent > self._stuck_seconds:
            return Finding(False, f"hung for {silent:.0f} s", self._facts())
        return Finding(True, self._state, self._facts())

    def _facts(self) -> dict[str, Any]:
        now = self._clock.monotonic()
        since = self._waiting_since
        return {
            "state": self._state,
            "detail": self._detail,
            "seconds_since_progress": round(now - self._progress_at, 1),
            "seconds_waiting": None if since is None else round(now - since, 1),
        }
