"""Probes over HTTP: what they answer, and that no client holds the daemon up."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from postroom.cli import health
from postroom.cli.address import parse_address
from postroom.cli.health import HealthServer, probed, whole
from postroom.messaging.errors import ConfigurationError
from postroom.messaging.health import Finding

GOOD = Finding(True, "running", {"state": "running"})
BAD = Finding(False, "messages wait and none was done for 31 s", {"state": "running"})


@pytest.fixture
def server() -> Iterator[HealthServer]:
    with HealthServer("127.0.0.1:0", {"/livez": lambda: GOOD, "/readyz": lambda: BAD}) as server:
        yield server


def ask(port: int, path: str, method: str = "GET") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, json.loads(body) if body and answer.getheader("Content-Type") == "application/json" else None


def test_the_answer_is_200_or_503_with_the_reason_and_facts(server: HealthServer) -> None:
    assert ask(server.port, "/livez") == (200, {"status": "ok", "state": "running"})
    assert ask(server.port, "/readyz?verbose") == (503, {"status": BAD.reason, "state": "running"})
    assert ask(server.port, "/readyz", "HEAD") == (503, None)


def test_nothing_else_is_answered(server: HealthServer) -> None:
    assert ask(server.port, "/")[0] == 404
    assert ask(server.port, "/livez/../../etc/passwd")[0] == 404
    assert ask(server.port, "/livez", "POST")[0] == 501
    assert ask(server.port, "/" + "x" * 70_000)[0] == 414


def test_clients_that_say_nothing_take_nothing_from_others_for_long(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setattr(health, "_DEADLINE", 0.5)

    def served() -> bool:
        try:
            return ask(server.port, "/livez")[0] == 200
        except OSError:  # turned away, while others of the silent ones have the places
            return False

    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(30)]
    for each in silent:
        each.sendall(b"GET /livez HTTP/1.0\r\nX-Slow: ")
    dripping = time.monotonic()
    while True:  # one byte at a time keeps each wait short; the whole has a deadline
        try:
            silent[0].sendall(b"x")
        except OSError:
            break
        assert time.monotonic() - dripping < 10
        time.sleep(0.05)
    eventually(served, "it is answered", 10)
    for each in silent:
        each.close()


def test_too_many_at_once_are_turned_away(server: HealthServer) -> None:
    waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(8)]
    for each in waiting:
        each.sendall(b"GET ")
    time.sleep(0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as ninth:
        assert ninth.recv(1) == b""
    for each in waiting:
        each.close()


def test_an_address_that_is_taken_is_told_in_one_sentence(server: HealthServer) -> None:
    address = f"127.0.0.1:{server.port}"
    with pytest.raises(
        ConfigurationError, match=rf"^health_address {address}: cannot listen there \(address.*\); free"
    ):
        HealthServer(address, {})


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("0.0.0.0:8080", ("0.0.0.0", 8080)), ("[::1]:0", ("::1", 0)), (" localhost:65535 ", ("localhost", 65535))],
)
def test_addresses(text: str, parsed: tuple[str, int]) -> None:
    assert parse_address(text) == parsed


@pytest.mark.parametrize(
    "text", ["", "8080", ":8080", "host:", "host:x", "host:65536", "host:-1", "::1:80", "[]:80", "h:٣"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        parse_address(text)


def test_several_services_are_ready_when_all_are() -> None:
    assert whole({"inbox": lambda: GOOD})() is GOOD
    both = whole({"inbox": lambda: GOOD, "relay": lambda: BAD})()
    assert (both.ok, both.reason) == (False, f"relay: {BAD.reason}")
    assert both.facts == {
        "inbox": {"status": "ok", "state": "running"},
        "relay": {"status": BAD.reason, "state": "running"},
    }
    assert whole({"inbox": lambda: GOOD, "relay": lambda: GOOD})().ok


def test_without_an_address_nothing_listens() -> None:
    told: list[str] = []
    with probed(None, {}, lambda step, /, **_: told.append(step)):
        assert told == []
