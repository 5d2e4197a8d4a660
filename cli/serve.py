"""Running daemons: signals in, phases out.

SIGTERM or SIGINT    each service ends in its turn: the first one, then the next; then the process, with 0
a second one         at once, with 128 and the signal's number; what was in flight is done again later
"""

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Any, Self

from ..messaging.backoff import Backoff
from ..messaging.errors import Unavailable
from ..messaging.health import Health
from ..messaging.lifecycle import Service
from ..messaging.observer import Observer

_LOOK = 0.2


class Signals:
    """Turns SIGTERM and SIGINT into something to wait for, for a ``with`` block. For the main thread.

    Not an Event: its lock may be held by the very wait that a signal interrupts, and the handler would wait for it for
    ever. ``SimpleQueue.put`` may come in the midst of anything.
    """

    def __init__(self, observe: Observer) -> None:
        self._woken: SimpleQueue[None] = SimpleQueue()
        self._observe = observe
        self._caught: int | None = None
        self._told = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def came(self) -> bool:
        """Whether there was a signal."""
        return self._caught is not None

    def wait(self, seconds: float) -> bool:
        """Wait for a signal, so long at most; say whether one came."""
        if self._caught is None:
            with suppress(Empty):
                self._woken.get(timeout=max(0.0, seconds))
        if self._caught is not None and not self._told:
            self._told = True
            self._observe("signalled", signal=signal.Signals(self._caught).name)
        return self.came

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        # Nothing is logged here: the handler may have interrupted the logger, which holds a lock.
        if self._caught is not None:
            os._exit(128 + number)
        self._caught = number
        self._woken.put(None)


def await_tables(
    check: Callable[[], object],
    backoff: Backoff,
    signals: Signals,
    observe: Observer,
    *healths: Health,
) -> bool:
    """Run ``check`` until the database answers; False when a signal came first. Raises SchemaError and the like.

    ``healths`` are told meanwhile.
    """
    failures = 0
    while True:
        for health in healths:
            health.beat()
        try:
            check()
        except Unavailable as error:
            failures += 1
            for health in healths:
                health.became("unavailable", str(error))
            seconds = backoff.delay(failures)
            observe("paused", error=error, seconds=seconds)
            if signals.wait(seconds):
                return False
        else:
            if failures:
                observe("resumed")
            return not signals.came


def calm_garbage_collector() -> None:
    """Look for reference cycles less often; what has none is freed at once all the same.

    A daemon holds thousands of messages for a moment and makes next to no cycles. With Python's defaults it
    spent a third of its time looking for some (docs/explanation/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def run_services(services: Sequence[Service], signals: Signals) -> None:
    """Start all, wait for a signal or for one to end, stop them one after the other. Raises what ended one."""
    calm_garbage_collector()
    for service in services:
        service.start()
    while not signals.wait(_LOOK) and all(service.running for service in services):
        pass
    failures: list[BaseException] = []
    for service in services:
        service.stop()
        try:
            while not service.join(_LOOK):
                pass
        except BaseException as error:  # noqa: BLE001  the others are stopped before it is raised
            failures.append(error)
    sys.stderr.flush()
    if failures:
        raise failures[0]
