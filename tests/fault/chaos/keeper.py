"""Keeps daemons running, as an orchestrator does: one that ends is started again, and its end is noted."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, RLock, Thread

from postroom.testing.process import Supervisor, tail

_LOOK = 0.1
_AGAIN_AFTER = 0.4
_END_SECONDS = 45.0


@dataclass
class Daemon:
    """A process that has to run. ``allowed``: exit codes that are its own business."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    allowed: frozenset[int] = frozenset()
    pid: int | None = None
    asked: set[int] = field(default_factory=set)
    starts: int = 0
    ended_at: float = 0.0


class Keeper:
    """Thread-safe. ``findings``: daemons that ended though nobody asked them to, or that did not end though asked."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._lock = RLock()
        self._daemons: dict[str, Daemon] = {}
        self._stop = Event()
        self._thread = Thread(target=self._keep, name="keeper", daemon=True)
        self.findings: list[str] = []
        self._thread.start()

    def add(self, daemon: Daemon) -> None:
        """Start it, and keep it running."""
        with self._lock:
            self._daemons[daemon.name] = daemon
            self._start(daemon)

    def send(self, name: str, number: int) -> bool:
        """Signal it; False when it does not run at the moment."""
        with self._lock:
            daemon = self._daemons.get(name)
            if daemon is None or daemon.pid is None:
                return False
            if number == signal.SIGKILL:
                daemon.asked = {-number}
            elif number == signal.SIGTERM:
                daemon.asked |= {0, -number}  # it may not yet have come so far as to listen to signals
            with suppress(ProcessLookupError):
                os.kill(daemon.pid, number)
            return True

    def retire(self, *names: str) -> None:
        """Ask them to end, and wait for it. One that takes too long is killed, and a finding."""
        leaving = []
        with self._lock:
            for name in names:
                if self.send(name, signal.SIGTERM):
                    leaving.append(self._daemons[name])
                self._daemons.pop(name, None)
        deadline = time.monotonic() + _END_SECONDS
        while any(daemon.pid is not None for daemon in leaving) and time.monotonic() < deadline:
            for daemon in leaving:
                self._look(daemon)
            time.sleep(_LOOK)
        for daemon in leaving:
            if daemon.pid is not None:
                self.findings.append(f"{daemon.name} did not end within {_END_SECONDS:.0f} s of SIGTERM")
                os.kill(daemon.pid, signal.SIGKILL)

    @property
    def names(self) -> list[str]:
        with self._lock:
            return list(self._daemons)

    @property
    def addresses(self) -> dict[str, str]:
        """Where each of the daemons tells its health; a writer has none to tell."""
        with self._lock:
            found = {name: daemon.environment["POSTROOM_HEALTH_ADDRESS"] for name, daemon in self._daemons.items()}
        return {name: address for name, address in found.items() if not name.startswith("writer")}

    @property
    def starts(self) -> dict[str, int]:
        with self._lock:
            return {name: daemon.starts for name, daemon in self._daemons.items()}

    def close(self) -> None:
        """Keep nothing any more."""
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stop.wait(_LOOK):
            with self._lock:
                for daemon in self._daemons.values():
                    self._look(daemon)
                    if daemon.pid is None and time.monotonic() - daemon.ended_at > _AGAIN_AFTER:
                        self._start(daemon)

    def _start(self, daemon: Daemon) -> None:
        daemon.asked = set()
        daemon.starts += 1
        daemon.pid = self._supervisor.run(daemon.command, log=daemon.log, environment=daemon.environment)

    def _look(self, daemon: Daemon) -> None:
        if daemon.pid is None:
            return
        code = self._supervisor.exit_code(daemon.pid)
        if code is None:
            return
        daemon.pid = None
        daemon.ended_at = time.monotonic()
        if code not in daemon.asked | daemon.allowed:
            self.findings.append(f"{daemon.name} ended with {code}: {tail(daemon.log, 3)}")
