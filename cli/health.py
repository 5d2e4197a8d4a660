"""A daemon over HTTP: ``/livez`` (leave the process alone?), ``/readyz`` (is there progress?) and ``/metrics``.

Probes are 200 or 503, and JSON: ``status`` is ``ok`` or the reason, the rest are facts. For probes on a trusted
network: no TLS, nobody is asked who they are, and nothing can be changed. Small on purpose: few connections, each
answered once and with a deadline, so that a slow or hostile client takes nothing from the daemon but a thread.
"""

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import BoundedSemaphore, Thread, Timer
from types import TracebackType
from typing import Any, Self

from ..messaging.errors import ConfigurationError
from ..messaging.health import Finding
from ..messaging.observer import Observer
from .address import parse_address

_CONNECTIONS = 8
_DEADLINE = 5.0
#: Prometheus' text format.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Probe = Callable[[], Finding]
Page = Callable[[], bytes]
_PAGE = "/metrics"


def whole(parts: Mapping[str, Probe]) -> Probe:
    """One probe of several; the facts of each by its name. Of one alone, that one."""
    if len(parts) == 1:
        return next(iter(parts.values()))

    def probe() -> Finding:
        found = {name: part() for name, part in parts.items()}
        wrong = [f"{name}: {each.reason}" for name, each in found.items() if not each.ok]
        facts = {name: {"status": _status(each), **each.facts} for name, each in found.items()}
        return Finding(not wrong, "; ".join(wrong) or "running", facts)

    return probe


@contextmanager
def probed(
    address: str | None, services: Mapping[str, tuple[Probe, Probe]], observe: Observer, metrics: Page | None = None
) -> Iterator[None]:
    """Answer probes at ``address``, if there is one: of each service by its name whether it lives and is ready.

    ``metrics``: what /metrics answers, in Prometheus' text format.
    """
    if address is None:
        yield
        return
    live = whole({name: probes[0] for name, probes in services.items()})
    ready = whole({name: probes[1] for name, probes in services.items()})
    with HealthServer(address, {"/livez": live, "/readyz": ready}, metrics) as server:
        observe("probed", address=address, port=server.port)
        yield


class HealthServer:
    """Answers probes while it is open, on threads of its own. Raises ConfigurationError where it cannot listen.

    ``port`` is the one it listens on, where the address says 0.
    """

    def __init__(self, address: str, probes: Mapping[str, Probe], metrics: Page | None = None) -> None:
        try:
            self._server = _Server(*parse_address(address), probes, metrics)
        except OSError as error:
            why = error.strerror or str(error)
            raise ConfigurationError(
                f"health_address {address}: cannot listen there ({why[:1].lower()}{why[1:]}); free the port, or set "
                "another address."
            ) from error
        self.port = int(self._server.server_address[1])
        Thread(target=self._server.serve_forever, args=(0.2,), name="postroom-health", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = _CONNECTIONS

    def __init__(self, host: str, port: int, probes: Mapping[str, Probe], metrics: Page | None) -> None:
        [(self.address_family, *_), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.probes = probes
        self.metrics = metrics
        self._free = BoundedSemaphore(_CONNECTIONS)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # not HTTPServer's, which asks the name service for our name and may wait for it
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)  # too many at once
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        deadline = Timer(_DEADLINE, _hang_up, [request])  # of the whole, whatever comes how slowly
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's business."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "postroom"
    sys_version = ""
    protocol_version = "HTTP/1.0"  # one request, then the connection ends
    timeout = _DEADLINE

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path == _PAGE and self.server.metrics is not None:
            self._send(HTTPStatus.OK, self.server.metrics(), CONTENT_TYPE, body=body)
            return
        probe = self.server.probes.get(path)
        if probe is None:
            known = [*self.server.probes, *([_PAGE] if self.server.metrics is not None else [])]
            self._tell(HTTPStatus.NOT_FOUND, {"status": "there is no such probe", "probes": known}, body=body)
            return
        finding = probe()
        status = HTTPStatus.OK if finding.ok else HTTPStatus.SERVICE_UNAVAILABLE
        self._tell(status, {"status": _status(finding), **finding.facts}, body=body)

    def _tell(self, status: HTTPStatus, document: Mapping[str, Any], *, body: bool) -> None:
        self._send(status, json.dumps(document, default=str).encode() + b"\n", "application/json", body=body)

    def _send(self, status: HTTPStatus, text: bytes, kind: str, *, body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if body:
            self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds; they are not logged."""


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _status(finding: Finding) -> str:
    return "ok" if finding.ok else finding.reason
