"""A TCP proxy that breaks on demand, to stand between a client and its server in fault tests."""

import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Literal, Self

from .server import free_ports

_CHUNK_BYTES = 65536
_ACCEPT_SECONDS = 0.5
_CONNECT_SECONDS = 10.0
_JOIN_SECONDS = 5.0

Direction = Literal["both", "to-server", "to-client"]


class TcpProxy:
    """Forwards connections on a loopback ``port`` to ``target_host:target_port``; a context manager.

    For Kafka, whose clients go on to the address that the broker advertises, the proxy is in the way only
    where the broker advertises it. Every method is thread-safe and may be called in any state; after
    ``close`` nothing revives the proxy.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        [self.port] = free_ports(1)
        self._lock = Lock()
        self._to_server, self._to_client = Event(), Event()
        self._ended = Event()
        self._delay = 0.0
        self._change: Callable[[bytes], bytes] | None = None
        self._listener: socket.socket | None = None
        self._closed = False
        self._connections: set[socket.socket] = set()
        self._threads: set[Thread] = set()
        self._flow()
        self._listen()

    @property
    def address(self) -> str:
        """``127.0.0.1:port``."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection, and refuse new ones until ``restore``."""
        with self._lock:
            listener, self._listener = self._listener, None
            connections, self._connections = self._connections, set()
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()
        for connection in connections:
            _break(connection)

    def freeze(self, direction: Direction = "both") -> None:
        """Half-open: keep and accept connections, and forward nothing in that direction until ``restore``."""
        if direction != "to-client":
            self._to_server.clear()
        if direction != "to-server":
            self._to_client.clear()

    def delay(self, seconds: float) -> None:
        """Let what comes wait so long before it is forwarded, in both directions, until ``restore``."""
        self._delay = seconds

    def alter(self, change: Callable[[bytes], bytes]) -> None:
        """Send ``change(data)`` on to the server for what comes, a piece of any size at a time, until ``restore``.

        For a link that corrupts, and to see what goes by. ``change`` is called by several threads.
        """
        self._change = change

    def restore(self) -> None:
        """Accept and forward again, at once and as it came. What waited is delivered. Raises OSError: port taken."""
        self._flow()
        with self._lock:
            down = self._listener is None and not self._closed
        if down:
            self._listen()

    def close(self) -> None:
        """Break everything for good, and block until the proxy's threads have ended."""
        with self._lock:
            self._closed = True
        self._ended.set()
        self.cut()
        self._flow()
        while True:
            with self._lock:
                threads = list(self._threads)
            if not threads:
                return
            for thread in threads:
                thread.join(_JOIN_SECONDS)
                if thread.is_alive():
                    raise TimeoutError("a thread of the proxy did not end")
                with self._lock:
                    self._threads.discard(thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _flow(self) -> None:
        self._delay = 0.0
        self._change = None
        self._to_server.set()
        self._to_client.set()

    def _listen(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        listener.settimeout(_ACCEPT_SECONDS)
        with self._lock:
            self._listener = listener
        self._spawn(self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except TimeoutError:  # not every system wakes us when the listener is closed
                continue
            except OSError:
                return
            if self._own(client, listener):
                self._spawn(self._connect, client, listener)

    def _connect(self, client: socket.socket, listener: socket.socket) -> None:
        self._to_server.wait()
        try:
            server = socket.create_connection(self._target, timeout=_CONNECT_SECONDS)
        except OSError:
            self._drop(client)
            return
        server.settimeout(None)
        if not self._own(server, listener):
            self._drop(client)
            return
        self._spawn(self._forward, client, server, self._to_server)
        self._forward(server, client, self._to_client)

    def _forward(self, source: socket.socket, sink: socket.socket, flowing: Event) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                if flowing is self._to_server and (change := self._change) is not None:
                    data = change(data)
                self._ended.wait(self._delay)
                flowing.wait()
                sink.sendall(data)
        # One side has ended: so does the other. A half-closed connection has no use for our clients.
        self._drop(source)
        self._drop(sink)

    def _own(self, connection: socket.socket, listener: socket.socket) -> bool:
        """Keep a new connection, unless a cut came in between."""
        with self._lock:
            if self._listener is listener:
                self._connections.add(connection)
                return True
        _break(connection)
        return False

    def _drop(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)
        _break(connection)

    def _spawn(self, work: Callable[..., None], *arguments: socket.socket | Event) -> None:
        thread = Thread(target=work, args=arguments, name=f"tcp-proxy-{self.port}", daemon=True)
        with self._lock:
            self._threads = {one for one in self._threads if one.is_alive()} | {thread}
            thread.start()


def _break(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads
    connection.close()
