"""One lifecycle for everything that runs long: start, stop, join."""

from threading import Event, Lock, Thread


class Service:
    """A thread with a life: ``start()``, ``stop()``, ``join(timeout)``.

    Stopping twice, or before starting, is fine; a service runs once. ``stop`` only asks and returns at
    once. ``join`` waits for the end and raises what ended the service early. Subclasses implement
    ``_run`` and leave it soon after ``self._stopping`` is set. Thread-safe.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stopping = Event()
        self._ended = Event()
        self._failure: BaseException | None = None
        self._thread: Thread | None = None
        self._lifecycle = Lock()

    def start(self) -> None:
        """Run in a thread of its own. Does nothing when started or stopped before."""
        with self._lifecycle:
            if self._thread is not None or self._stopping.is_set():
                return
            self._thread = Thread(target=self._guarded, name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask the service to end: finish what is in flight, release what it holds."""
        self._stopping.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; say whether it came. Raises the error that ended the service."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
            if thread.is_alive():
                return False
        if self._failure is not None:
            raise self._failure
        return True

    @property
    def running(self) -> bool:
        """Started and not ended."""
        return self._thread is not None and not self._ended.is_set()

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001  it is raised again in join()
            self._failure = error
        finally:
            self._ended.set()

    def _run(self) -> None:
        raise NotImplementedError
