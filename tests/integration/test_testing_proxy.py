"""The proxy for fault tests, before a server that sends back what it gets."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import ClassVar

import pytest

from postroom.testing import TcpProxy
from postroom.testing.proxy import Direction


class Echo(BaseRequestHandler):
    heard: ClassVar[list[bytes]] = []

    def handle(self) -> None:
        while data := self.request.recv(4096):
            self.heard.append(data)
            self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    with ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with TcpProxy(*server.server_address[:2]) as proxy:  # type: ignore[arg-type]
                yield proxy
        finally:
            server.shutdown()
            thread.join()


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def echoed(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return connection.recv(4096)


def test_it_forwards_both_ways(proxy: TcpProxy) -> None:
    with connect(proxy) as connection:
        assert echoed(connection, b"hello") == b"hello"


def test_cut_breaks_and_refuses_until_restore(proxy: TcpProxy) -> None:
    with connect(proxy) as connection:
        assert echoed(connection, b"hello") == b"hello"
        proxy.cut()
        with suppress(ConnectionResetError):
            assert connection.recv(4096) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.restore()
    with connect(proxy) as connection:
        assert echoed(connection, b"again") == b"again"


def test_alter_changes_what_goes_to_the_server_until_restore(proxy: TcpProxy) -> None:
    with connect(proxy) as connection:
        proxy.alter(bytes.upper)
        assert echoed(connection, b"hello") == b"HELLO"
        proxy.restore()
        assert echoed(connection, b"hello") == b"hello"


def test_freeze_is_silence_and_restore_delivers_what_waited(proxy: TcpProxy) -> None:
    with connect(proxy) as old:
        assert echoed(old, b"hello") == b"hello"
        proxy.freeze()
        with connect(proxy) as new:
            for connection in (old, new):
                connection.sendall(b"late")
                connection.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    connection.recv(4096)
            proxy.restore()
            for connection in (old, new):
                connection.settimeout(5)
                assert connection.recv(4096) == b"late"


@pytest.mark.parametrize("direction", ["to-server", "to-client"])
def test_half_open_in_one_direction_is_silence_until_restore(proxy: TcpProxy, direction: Direction) -> None:
    with connect(proxy) as connection:
        assert echoed(connection, b"hello") == b"hello"
        Echo.heard.clear()
        proxy.freeze(direction)
        connection.sendall(b"late")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(4096)
        assert Echo.heard == ([] if direction == "to-server" else [b"late"])
        proxy.restore()
        connection.settimeout(5)
        assert connection.recv(4096) == b"late"


def test_delay_holds_up_both_directions_until_restore(proxy: TcpProxy) -> None:
    with connect(proxy) as connection:
        proxy.delay(0.2)
        began = time.monotonic()
        assert echoed(connection, b"slow") == b"slow"
        assert time.monotonic() - began >= 0.4
        proxy.restore()
        proxy.delay(30)  # and no delay keeps a proxy from its end
        connection.sendall(b"never")
    began = time.monotonic()
    proxy.close()
    assert time.monotonic() - began < 5


def test_close_ends_it_in_any_state(proxy: TcpProxy) -> None:
    with connect(proxy):
        proxy.freeze()
        proxy.close()
    proxy.close()
    proxy.restore()
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
