"""The threads that do an inbox's jobs, and an eye on those that take too long."""

from collections.abc import Callable
from threading import Lock, Thread

from ..messaging.clock import Clock
from .handlers import Handler
from .lane import Job
from .lanes import Lanes

#: A worker that has nothing to do looks again after so many seconds, come what may.
_LOOK = 1.0


class Workers:
    """So many threads. The first error of a job ends them all; ``check`` raises it."""

    def __init__(self, count: int, lanes: Lanes, run: Callable[[Job], None], clock: Clock, name: str) -> None:
        self._lanes = lanes
        self._run = run
        self._clock = clock
        self._lock = Lock()
        self._failure: BaseException | None = None
        self._busy: dict[int, tuple[Job, float]] = {}
        self._told: set[int] = set()
        self._threads = [
            Thread(target=self._work, name=f"{name}-worker-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        """Raises what ended a job that ends the inbox."""
        if self._failure is not None:
            raise self._failure

    @property
    def busy(self) -> int:
        """How many do a job now."""
        return len(self._busy)

    def working(self) -> list[tuple[Job, float]]:
        """What they do, and for how many seconds each."""
        now = self._clock.monotonic()
        with self._lock:
            return [(job, now - began) for job, began in self._busy.values()]

    @property
    def failed(self) -> bool:
        """Whether ``check`` would raise."""
        return self._failure is not None

    def overdue(self, timeout: Callable[[Handler], float | None]) -> list[tuple[Job, Handler, float]]:
        """The jobs that take longer than their handler's ``timeout``, each once, and for how long each has run."""
        now = self._clock.monotonic()
        late = []
        with self._lock:
            for number, (job, began) in self._busy.items():
                if job.handler is not None and number not in self._told:
                    limit = timeout(job.handler)
                    if limit is not None and now - began > limit * len(job.items):
                        self._told.add(number)
                        late.append((job, job.handler, now - began))
        return late

    def join(self, timeout: float) -> bool:
        """Wait for all to end, up to so long; say whether they did."""
        for thread in self._threads:
            thread.join(timeout)
            if thread.is_alive():
                return False
        return True

    def _work(self) -> None:
        while not self._lanes.closing.is_set():
            job = self._lanes.take(_LOOK)
            if job is None:
                continue
            with self._lock:
                self._busy[id(job)] = job, self._clock.monotonic()
            try:
                self._run(job)
            except BaseException as error:  # noqa: BLE001  it is raised again in check()
                self._failure = self._failure or error
                self._lanes.close()
            finally:
                with self._lock:
                    del self._busy[id(job)]
                    self._told.discard(id(job))
