"""What a relay does beside publishing: delayed messages, partitions and retention of log and inbox, a watchful eye."""

from collections.abc import Callable
from datetime import timedelta

from ..messaging.clock import Clock
from ..messaging.errors import NotAuthorized
from ..messaging.observer import Observer
from ..outbox.log import LogStore
from .settings import RelaySettings

_PARTITIONS_EVERY = 30.0
_PRUNE_EVERY = 60.0
_WATCH_EVERY = 15.0
_MOVED_AT_ONCE = 1000
#: As long as old rows of the inbox are left that have no day of their own.
_MORE_AFTER = 1.0


class Upkeep:
    """Duties, each with its own rhythm. They belong to the relay that owns shard 0, so that one does them.

    A duty that the database does not allow is told once and left to others (an operator's cron job, say).
    """

    def __init__(self, store: LogStore, settings: RelaySettings, observe: Observer, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._observe = observe
        self._clock = clock
        self._duties: tuple[tuple[float, Callable[[], None]], ...] = (
            (settings.upkeep_seconds, self._move_due),
            (_PARTITIONS_EVERY, store.add_partitions),
            (_PRUNE_EVERY, self._prune),
            (_WATCH_EVERY, self._watch),
            (_PARTITIONS_EVERY, store.add_inbox_partitions),
            (_PRUNE_EVERY, self._prune_inbox),
        )
        self._due_at = [0.0] * len(self._duties)
        self._next = 0.0
        self._named: set[int] = set()

    def run(self) -> None:
        """Do what is due. Raises DatabaseUnavailable."""
        now = self._clock.monotonic()
        if now < self._next:
            return
        for index, (every, duty) in enumerate(self._duties):
            if now >= self._due_at[index]:
                self._due_at[index] = now + every
                try:
                    duty()
                except NotAuthorized as error:
                    self._due_at[index] = float("inf")
                    self._observe("not_allowed", duty=getattr(duty, "__name__", "").strip("_"), error=error)
        self._next = min(self._due_at)

    def _move_due(self) -> None:
        if moved := self._store.move_due(_MOVED_AT_ONCE, now=self._clock.now()):
            self._observe("moved_due", count=moved)
            if moved == _MOVED_AT_ONCE:
                self._due_at[0] = 0.0  # there are more

    def _prune(self) -> None:
        if dropped := self._store.prune(timedelta(hours=self._settings.retention_hours)):
            self._observe("pruned", parts=list(dropped))

    def _prune_inbox(self) -> None:
        forgotten = self._store.prune_inbox(timedelta(hours=self._settings.inbox_retention_hours))
        if forgotten:
            self._observe("inbox_pruned", parts=[each.part for each in forgotten])
        if any(each.more for each in forgotten):
            index = self._duties.index((_PRUNE_EVERY, self._prune_inbox))
            self._due_at[index] = self._clock.monotonic() + _MORE_AFTER

    def _watch(self) -> None:
        """Name each transaction once that keeps its messages waiting."""
        found = self._store.open_transactions(self._settings.transaction_warning_seconds)
        for each in found:
            if each.pid not in self._named:
                self._observe(
                    "transaction_open",
                    pid=each.pid,
                    application=each.application,
                    user=each.user,
                    seconds=round(each.age),
                    state=each.state,
                )
        self._named = {each.pid for each in found}
