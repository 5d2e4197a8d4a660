"""A measured process: started, watched, ended."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Self

import psutil

_SAMPLE_SECONDS = 0.25
_STOP_SECONDS = 15.0
_MB = 1024 * 1024


class MeasurementError(Exception):
    """A measurement that has no result; the message says why."""


class MeasuredProcess:
    """Memory and CPU of a process and its children, sampled on a thread of its own.

    It belongs to our process group, so that it ends with us (see ``measure``).
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.began = time.time()
        self.peak_mb = 0.0
        self.cpu_seconds = 0.0
        self.memory: list[tuple[float, float]] = []
        """Seconds since the start, and MB at that time."""
        self._tree = psutil.Process(self._process.pid)
        self._ended = Event()
        self._sampler = Thread(target=self._sample_until_ended, daemon=True)
        self._sampler.start()

    def require_running(self) -> None:
        """Raises MeasurementError when it ended by itself."""
        code = self._process.poll()
        if code is not None:
            raise MeasurementError(f"the process ended with {code}: {tail(self._log)}")

    def sample(self) -> None:
        """Look once. Does nothing when it is gone."""
        resident = peak = cpu = 0.0
        try:
            for process in (self._tree, *self._tree.children(recursive=True)):
                with process.oneshot():
                    times, rss = process.cpu_times(), process.memory_info().rss / _MB
                resident += rss
                peak += _high_water_mark(process.pid) or rss
                cpu += times.user + times.system
        except psutil.Error:
            return
        self.memory.append((round(time.time() - self.began, 2), round(resident, 1)))
        self.peak_mb = max(self.peak_mb, peak)
        self.cpu_seconds = max(self.cpu_seconds, cpu)

    def end(self, number: int = signal.SIGKILL) -> None:
        """Signal it and wait until it is gone; SIGKILL follows when it does not go."""
        self.sample()
        self._ended.set()
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
        self._sampler.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _sample_until_ended(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self.sample()


def tail(log: Path, lines: int = 6) -> str:
    """The end of a log, for an error message."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])[-1500:] or "(nothing was logged)"
    except OSError:
        return "(no log)"


def _high_water_mark(pid: int) -> float:
    """The most memory that the process ever had, in MB; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0]) / 1024 if found else 0.0
