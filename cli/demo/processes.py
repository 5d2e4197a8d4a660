"""The demo's processes: the commands of this very program, each with a log file."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from ...messaging.errors import PostroomError

_STOP_SECONDS = 20.0


class DemoError(PostroomError):
    """The demo could not be carried through."""


class Processes:
    """Commands of `postroom` as processes. Ends them all when left; for one thread."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()

    def start(self, name: str, *arguments: str) -> None:
        """Start `postroom ARGUMENTS`; its output goes to NAME.log."""
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603  our own command
                [sys.executable, "-m", "postroom.cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # a Ctrl-C in the terminal is for the demo, which stops them
            )

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
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def check(self) -> None:
        """Raises DemoError when one has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise DemoError(f"`{name}` ended with exit code {process.returncode}: {self._tail(name)}")

    def stop_all(self) -> None:
        """SIGTERM to all. Raises DemoError when one does not end, or not with exit code 0."""
        for process in self._running.values():
            process.terminate()
        for name, process in self._running.items():
            try:
                code = process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                raise DemoError(f"`{name}` did not stop within {_STOP_SECONDS:.0f} s.") from None
            if code:
                raise DemoError(f"`{name}` ended with exit code {code}: {self._tail(name)}")
        self._running.clear()

    def _tail(self, name: str) -> str:
        lines = (self._folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1][-500:] if lines else "(it logged nothing)"
