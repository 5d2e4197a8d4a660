"""What every server for tests has in common: where it may come from, and how it is controlled."""

import logging
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

POLL_SECONDS = 0.02
_log = logging.getLogger(__name__)


class ServerUnavailableError(RuntimeError):
    """No such server could be had; the message says what was tried and why it did not work."""


class ControlUnsupportedError(RuntimeError):
    """This server cannot be stopped, killed or paused from here, for instance since it is not ours."""


class Control(Protocol):
    """Power over a server. Every call blocks until it is so. For one thread at a time."""

    def start(self) -> None:
        """Return when the server answers, on the same address. Does nothing while it runs."""

    def stop(self) -> None:
        """Shut down in order. Does nothing when it is down."""

    def kill(self) -> None:
        """End every process of the server at once, as a crash does. Does nothing when it is down."""

    def pause(self) -> None:
        """Freeze the server: connections stay open, nothing is answered."""

    def resume(self) -> None:
        """Undo ``pause``. Does nothing when it is not paused."""


class Unmanaged:
    """The control of a server that belongs to somebody else: refuses everything."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def _refuse(self) -> None:
        raise ControlUnsupportedError(f"the server given by {self._origin} is not ours to control")

    start = stop = kill = pause = resume = _refuse


@dataclass(frozen=True)
class Server:
    """A running server. ``origin`` says in a few words how it was had."""

    origin: str
    _control: Control = field(repr=False)

    def start(self) -> None:
        """Start again after ``stop`` or ``kill``; same address, same data. Blocks until it answers.

        Raises ServerUnavailableError when it does not come up, ControlUnsupportedError when it is not ours.
        """
        self._control.start()

    def stop(self) -> None:
        """Shut down in order and block until it is down. Raises ControlUnsupportedError."""
        self._control.stop()

    def kill(self) -> None:
        """Crash: SIGKILL every process, and block until they are gone. Raises ControlUnsupportedError."""
        self._control.kill()

    def pause(self) -> None:
        """Freeze (SIGSTOP): connections stay open, no answer comes. Raises ControlUnsupportedError."""
        self._control.pause()

    def resume(self) -> None:
        """Undo ``pause``. Raises ControlUnsupportedError."""
        self._control.resume()

    def restart(self) -> None:
        """``stop``, then ``start``."""
        self.stop()
        self.start()


S = TypeVar("S", bound=Server)
Source = Callable[[], AbstractContextManager[S]]


@contextmanager
def first_available(
    what: str,
    sources: Mapping[str, Source[S]],
    *,
    prefer: str | None,
    prefer_variable: str,
    address_variable: str,
) -> Iterator[S]:
    """The server of the first source that has one.

    ``prefer``, else the variable ``prefer_variable``, names the only source to try; else, where
    ``address_variable`` is set, that server is the only one, since silently testing against another would
    mislead. Raises ServerUnavailableError, and ValueError for the name of no source.
    """
    prefer = prefer or os.environ.get(prefer_variable) or None
    if prefer is None and os.environ.get(address_variable):
        prefer = "environment"
    if prefer is not None and prefer not in sources:
        raise ValueError(f"{prefer!r} is no source of {what}; {prefer_variable} is one of {', '.join(sources)}")
    reasons = []
    for name in [prefer] if prefer else sources:
        with ExitStack() as stack:
            try:
                server = stack.enter_context(sources[name]())
            except ServerUnavailableError as error:
                _log.debug("%s from source %s is not available", what, name, exc_info=True)
                reasons.append(f"{name}: {error}")
                continue
            yield server
            return
    raise ServerUnavailableError(f"no {what} could be had. " + "; ".join(reasons))


def wait_until_ready(
    ready: Callable[[], bool],
    timeout: float,
    evidence: Callable[[], str],
    *,
    failed: Callable[[], bool] = lambda: False,
) -> None:
    """Block until ``ready`` says yes. Raises ServerUnavailableError, with the evidence, when it does not."""
    deadline = time.monotonic() + timeout
    while not ready():
        if failed():
            raise ServerUnavailableError(f"the server ended while it started: {evidence()}")
        if time.monotonic() > deadline:
            raise ServerUnavailableError(f"the server gave no answer within {timeout:.0f} s: {evidence()}")
        time.sleep(POLL_SECONDS)


def free_ports(count: int) -> list[int]:
    """TCP ports that are free on the loopback address now.

    Below the range from which the kernel picks ports of outgoing connections: a client that keeps trying
    a stopped server's port from that range may end up connected to itself, and keep the port.
    """
    with ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            probe = held.enter_context(socket.socket())
            port = random.randrange(20000, 32000)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
        return ports
