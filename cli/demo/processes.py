"""The demo's processes: the commands of this very program, each with a log file."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Event

from ...messaging.errors import PostroomError
from ...testing.process import Supervisor

_STOP_SECONDS = 20.0
_LOOK = 0.05


class DemoError(PostroomError):
    """The demo could not be carried through."""


class Processes:
    """Commands of `postroom` as processes, which ``supervisor`` ends with the demo, however that ends."""

    def __init__(self, supervisor: Supervisor, folder: Path, environment: Mapping[str, str]) -> None:
        self._supervisor = supervisor
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._running: dict[str, int] = {}

    def start(self, name: str, *arguments: str) -> None:
        """Start `postroom ARGUMENTS`; its output goes to NAME.log."""
        command = [sys.executable, "-m", "postroom.cli.main", *arguments]
        log = self._folder / f"{name}.log"
        self._running[name] = self._supervisor.run(command, log=log, environment=self._environment)

    def run(self, *arguments: str) -> str:
        """Run `postroom ARGUMENTS` to its end; what it printed. Raises DemoError when it fails."""
        done = subprocess.run(  # noqa: S603  our own command
            [sys.executable, "-m", "postroom.cli.main", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=self._environment,
        )
        if done.returncode:
            raise DemoError(f"`postroom {' '.join(arguments)}` failed: {done.stderr.strip()[-500:]}")
        return done.stdout

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        pid = self._running.pop(name)
        os.kill(pid, signal.SIGKILL)
        self._wait(name, pid)

    def check(self) -> None:
        """Raises DemoError when one has ended by itself."""
        for name, pid in self._running.items():
            code = self._supervisor.exit_code(pid)
            if code is not None:
                raise DemoError(f"`{name}` ended with exit code {code}: {self._tail(name)}")

    def stop_all(self) -> None:
        """SIGTERM to all. Raises DemoError when one does not end, or not with exit code 0."""
        self.check()
        for pid in self._running.values():
            os.kill(pid, signal.SIGTERM)
        for name, pid in self._running.items():
            code = self._wait(name, pid)
            if code:
                raise DemoError(f"`{name}` ended with exit code {code}: {self._tail(name)}")
        self._running.clear()

    def _wait(self, name: str, pid: int) -> int:
        pause = Event()
        for _ in range(int(_STOP_SECONDS / _LOOK)):
            code = self._supervisor.exit_code(pid)
            if code is not None:
                return code
            pause.wait(_LOOK)
        raise DemoError(f"`{name}` did not stop within {_STOP_SECONDS:.0f} s.")

    def _tail(self, name: str) -> str:
        lines = (self._folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1][-500:] if lines else "(it logged nothing)"
