"""Servers in Docker containers, through testcontainers."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .server import ServerUnavailableError, wait_until_ready

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

_ENGINE_SECONDS = 2.0


class _EngineConnection(HTTPConnection):
    """HTTP to a Docker engine at ``unix://`` or ``tcp://``."""

    def __init__(self, address: str) -> None:
        self._address = urlsplit(address)
        super().__init__(self._address.hostname or "localhost", self._address.port, timeout=_ENGINE_SECONDS)

    def connect(self) -> None:
        if self._address.scheme != "unix":
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_ENGINE_SECONDS)
        self.sock.connect(self._address.path)


def require_engine() -> None:
    """Return when a Docker engine answers; blocks for two seconds at most.

    Asked for by hand: the Docker library leaves its socket open when there is no engine. Raises
    ServerUnavailableError.
    """
    try:
        from testcontainers.core.docker_client import get_docker_host  # noqa: PLC0415 - optional, and slow
    except ImportError:
        raise ServerUnavailableError("testcontainers is not installed") from None
    address = get_docker_host() or "unix:///var/run/docker.sock"
    if urlsplit(address).scheme not in {"unix", "tcp", "http"}:
        return  # ssh and the like: the Docker library itself will find out
    connection = _EngineConnection(address)
    try:
        connection.connect()
        if not os.environ.get("DOCKER_TLS_VERIFY"):
            connection.request("GET", "/_ping")
            connection.getresponse().read()
    except (OSError, HTTPException) as error:
        raise ServerUnavailableError(f"no Docker engine answers at {address} ({error})") from None
    finally:
        connection.close()


@contextmanager
def running_container(
    image: str,
    *,
    port: int,
    environment: Mapping[str, str],
    command: Sequence[str] = (),
    more_ports: Sequence[int] = (),
) -> Iterator["DockerContainer"]:
    """A container of ``image`` whose ``port`` is the same port of the loopback address here, and ``more_ports``.

    The port is fixed, since Docker would hand out another one after a restart. Blocks while the image is
    pulled; the server inside may not answer yet. Raises ServerUnavailableError. The container is removed
    at the end; when we are killed, testcontainers' reaper does it.
    """
    require_engine()
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - optional, and slow

    container = DockerContainer(image).with_envs(**environment)
    ports: dict[str, Any] = container.ports
    ports |= {f"{each}/tcp": ("127.0.0.1", each) for each in (port, *more_ports)}
    if command:
        container.with_command(list(command))
    with ExitStack() as stack:
        try:
            stack.enter_context(container)
        except Exception as error:
            raise ServerUnavailableError(f"Docker could not run {image}: {error}") from error
        yield container


class ContainerControl:
    """One server as a container (see ``server.Control``). ``ready`` as in ``process.ProcessControl``."""

    def __init__(self, container: "DockerContainer", ready: Callable[[], bool], *, timeout: float = 90.0) -> None:
        self._container = container.get_wrapped_container()
        self._ready = ready
        self._timeout = timeout

    def start(self) -> None:
        if self._state() not in {"running", "paused"}:
            self._container.start()
        wait_until_ready(self._ready, self._timeout, lambda: self._container.logs(tail=15).decode(errors="replace"))

    def stop(self) -> None:
        self.resume()
        if self._state() == "running":
            self._container.stop()

    def kill(self) -> None:
        if self._state() in {"running", "paused"}:
            self._container.kill()
            self._container.wait()

    def pause(self) -> None:
        if self._state() == "running":
            self._container.pause()

    def resume(self) -> None:
        if self._state() == "paused":
            self._container.unpause()

    def _state(self) -> str:
        self._container.reload()
        return str(self._container.status)
