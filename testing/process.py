"""Servers as processes that never outlive the one that started them."""

import json
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from . import supervisor as supervision
from .server import POLL_SECONDS, ServerUnavailableError, wait_until_ready


class Supervisor:
    """A small process that runs our servers and ends them with us, even when we are killed by SIGKILL.

    It has a session of its own, so that Ctrl-C in a terminal reaches us first. ``folder`` is temporary
    and removed at the end. Thread-safe.
    """

    def __init__(self) -> None:
        script = Path(supervision.__file__)
        self._lock = Lock()
        self._process = subprocess.Popen(  # noqa: S603  a script of ours
            [sys.executable, "-I", "-S", str(script), str(os.getpid()), _temporary_root()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
        self._asked = 0
        try:
            self.folder = Path(self._read()["folder"])
        except BaseException:
            self.close()
            raise

    def run(
        self,
        command: Sequence[str],
        *,
        log: Path,
        user: tuple[int, int] | None = None,
        environment: Mapping[str, str] | None = None,
        last_signal: int = signal.SIGKILL,
    ) -> int:
        """Start ``command`` in the folder and return its process id.

        ``user``: user and group id to run as. ``last_signal`` ends it when we are gone; SIGKILL follows
        after five seconds. Raises ServerUnavailableError when it cannot be executed.
        """
        request = {
            "run": list(command),
            "log": str(log),
            "user": user,
            "env": None if environment is None else dict(environment),
            "last_signal": int(last_signal),
        }
        answer = self._ask(request)
        if "error" in answer:
            raise ServerUnavailableError(answer["error"])
        return int(answer["pid"])

    def exit_code(self, pid: int) -> int | None:
        """The exit code of what ``run`` started, negative for a signal; None while it runs."""
        code: int | None = self._ask({"status": pid})["code"]
        return code

    def finish(self, command: Sequence[str], *, log: Path, timeout: float, user: tuple[int, int] | None = None) -> None:
        """Run ``command`` to its end. Raises ServerUnavailableError when it fails, or takes too long."""
        pid = self.run(command, log=log, user=user, last_signal=signal.SIGTERM)
        deadline = time.monotonic() + timeout
        while (code := self.exit_code(pid)) is None:
            if time.monotonic() > deadline:
                supervision.send([*supervision.descendants(pid), pid], signal.SIGKILL)
                raise ServerUnavailableError(f"{command[0]} took more than {timeout:.0f} s")
            time.sleep(POLL_SECONDS)
        if code != 0:
            raise ServerUnavailableError(f"{command[0]} failed ({code}): {tail(log)}")

    def close(self) -> None:
        """Stop every server, remove the folder. Blocks until both is done."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            if self._process.stdin is None or self._process.stdin.closed:
                raise ServerUnavailableError("the server's context has ended")
            self._asked += 1
            try:
                self._process.stdin.write(json.dumps({"id": self._asked, **request}).encode() + b"\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                raise ServerUnavailableError("the process that runs the servers is gone") from None
            # An answer that a KeyboardInterrupt kept us from reading may still be in the pipe.
            while (answer := self._read())["id"] != self._asked:
                pass
            return answer

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else b""
        if not line:
            raise ServerUnavailableError("the process that runs the servers is gone")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def supervised() -> Iterator[Supervisor]:
    """A supervisor; at the end its servers are stopped and its folder is removed."""
    supervisor = Supervisor()
    try:
        yield supervisor
    finally:
        supervisor.close()


class ProcessControl:
    """One server as a process (see ``server.Control``).

    ``ready`` is asked until it says yes; it must not block for long. ``stop_signal`` shuts down in order.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        command: Sequence[str],
        *,
        log: Path,
        ready: Callable[[], bool],
        user: tuple[int, int] | None = None,
        environment: Mapping[str, str] | None = None,
        stop_signal: int = signal.SIGTERM,
        last_signal: int = signal.SIGKILL,
        timeout: float = 60.0,
    ) -> None:
        self._supervisor = supervisor
        self._command = command
        self._log = log
        self._ready = ready
        self._user = user
        self._environment = environment
        self._stop_signal = stop_signal
        self._last_signal = last_signal
        self._timeout = timeout
        self._pid: int | None = None

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        if self._pid is not None and self._supervisor.exit_code(self._pid) is not None:
            self._pid = None
        return self._pid

    def start(self) -> None:
        if self.pid is not None:
            return
        self._pid = self._supervisor.run(
            self._command,
            log=self._log,
            user=self._user,
            environment=self._environment,
            last_signal=self._last_signal,
        )
        try:
            wait_until_ready(self._ready, self._timeout, lambda: tail(self._log), failed=lambda: self.pid is None)
        except ServerUnavailableError:
            self.kill()
            raise

    def stop(self) -> None:
        pid = self.pid
        if pid is None:
            return
        family = [pid, *supervision.descendants(pid)]
        supervision.send([pid], self._stop_signal)
        supervision.send(family, signal.SIGCONT)  # a paused server would not see the signal
        self._until(lambda: self.pid is None and not supervision.running(family))

    def kill(self) -> None:
        pid = self.pid
        if pid is None:
            return
        supervision.send([pid], signal.SIGSTOP)  # no new children from here on
        family = [pid, *supervision.descendants(pid)]
        supervision.send(family, signal.SIGKILL)
        self._until(lambda: self.pid is None and not supervision.running(family))

    def pause(self) -> None:
        pid = self.pid
        if pid is None:
            return
        family = [pid, *supervision.descendants(pid)]
        supervision.send(family, signal.SIGSTOP)
        self._until(lambda: all(supervision.process_table().get(one, (0, "T"))[1] in "Tt" for one in family))

    def resume(self) -> None:
        pid = self.pid
        if pid is not None:
            supervision.send([pid, *supervision.descendants(pid)], signal.SIGCONT)

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._command[0]} did not obey within {self._timeout:.0f} s: {tail(self._log)}")
            time.sleep(POLL_SECONDS)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) or "(nothing was logged)"
    except OSError:
        return "(no log)"


def unprivileged_user() -> tuple[int, int] | None:
    """For root, the ids of ``nobody``: PostgreSQL refuses to run as root. None for everybody else."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise ServerUnavailableError("PostgreSQL does not run as root, and there is no user 'nobody'") from None
    return nobody.pw_uid, nobody.pw_gid


def reachable_by_others(path: Path) -> bool:
    """Whether any user may pass through every folder down to ``path``, and through it."""
    return all(folder.stat().st_mode & 0o001 for folder in [path.resolve(), *path.resolve().parents])


def _temporary_root() -> str:
    chosen = tempfile.gettempdir()
    # Root's own TMPDIR may be closed to the user that PostgreSQL runs as.
    return "/tmp" if os.geteuid() == 0 and not reachable_by_others(Path(chosen)) else chosen  # noqa: S108  files there get random names
