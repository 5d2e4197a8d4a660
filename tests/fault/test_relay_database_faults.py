"""P2, P3, P4, P8, P9 when PostgreSQL goes: killed, frozen, cut off from one relay."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from postroom.outbox import schema
from postroom.outbox.postgres import PostgresLog
from postroom.outbox.postgres_reader import PostgresReader
from postroom.testing import TcpProxy, postgres_server
from postroom.testing.server import ControlUnsupportedError

WINDOW = 400
LEASE = 2.0
SHUTDOWN = 5.0
#: Trying to connect once more, and a busy machine.
A_FEW_SECONDS = 7.0


@pytest.fixture(scope="module")
def own_server() -> Iterator[Any]:
    """A PostgreSQL server for the tests of this file, which they kill and freeze."""
    with postgres_server() as server:
        try:
            server.resume()
        except ControlUnsupportedError as error:
            pytest.skip(str(error))
        yield server


@pytest.fixture
def breakable(workload: Any, own_server: Any) -> Iterator[Any]:
    """The workload on that server, which is well again after the test."""
    with own_server.database() as database:
        schema.upgrade(database.url)
        yield replace(workload, url=database.url)
        own_server.resume()
        own_server.start()


def test_the_database_killed_in_mid_flow_loses_nothing(
    breakable: Any, own_server: Any, steps: Any, relays: Any, eventually: Any
) -> None:
    breakable.publish(3_000)
    relay = relays(breakable)
    steps.await_step("settled", 3)
    own_server.kill()
    steps.await_step("paused", 2)
    assert not relay.health.ready().ok
    own_server.start()
    eventually(lambda: breakable.unsettled() == 0, "all is settled")
    eventually(lambda: relay.health.ready().ok, "it is ready again")
    relay.stop()
    assert relay.join(30)

    assert not steps.of("parked")
    assert breakable.check(duplicates=0) == 0, "it remembers what Kafka has"


@pytest.mark.parametrize(("part", "call"), [(PostgresReader, "settle"), (PostgresLog, "move_due")])
def test_a_relay_at_a_frozen_database_is_not_ready_and_stops_in_time(
    breakable: Any,
    own_server: Any,
    steps: Any,
    relays: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
    part: type,
    call: str,
) -> None:
    """The server freezes when the relay is about to settle, or to look after delayed messages."""
    frozen: list[float] = []
    original = getattr(part, call)

    def freeze_and_call(*arguments: Any, **more: Any) -> Any:
        if len(steps.of("settled")) >= 2 and not frozen:
            frozen.append(time.monotonic())
            own_server.pause()
        return original(*arguments, **more)

    monkeypatch.setattr(part, call, freeze_and_call)
    breakable.publish(3_000)
    stopped = relays(breakable, upkeep_seconds=0.05)
    eventually(lambda: bool(frozen), "the server froze")
    eventually(lambda: not stopped.health.ready().ok, "not ready", LEASE + 3)
    began = time.monotonic()
    stopped.stop()
    assert stopped.join(60)
    took = time.monotonic() - began
    own_server.resume()
    goes_on = relays(breakable)
    eventually(lambda: breakable.unsettled() == 0, "all is settled")
    eventually(lambda: goes_on.health.ready().ok, "ready again")

    assert took <= LEASE + SHUTDOWN + A_FEW_SECONDS
    breakable.check(duplicates=WINDOW)


def test_a_relay_goes_on_after_the_database_was_frozen(
    breakable: Any, own_server: Any, steps: Any, relays: Any, eventually: Any
) -> None:
    breakable.publish(3_000)
    relay = relays(breakable)
    steps.await_step("settled", 3)
    own_server.pause()
    eventually(lambda: not relay.health.ready().ok, "not ready", LEASE + 3)
    steps.await_step("paused", 2)
    own_server.resume()
    eventually(lambda: breakable.unsettled() == 0, "all is settled")
    eventually(lambda: relay.health.ready().ok, "ready again")

    assert breakable.check(duplicates=0) == 0, "it remembers what Kafka has"


@pytest.mark.parametrize("fault", ["cut", "freeze"])
def test_a_broken_network_to_the_database_loses_nothing(
    workload: Any, steps: Any, relays: Any, eventually: Any, fault: str
) -> None:
    parts = urlsplit(workload.url)
    workload.publish(3_000)
    with TcpProxy(parts.hostname or "", parts.port or 5432) as proxy:
        url = workload.url.replace(f":{parts.port}/", f":{proxy.port}/").replace(str(parts.hostname), "127.0.0.1")
        relay = relays(workload, url=url)
        steps.await_step("settled", 3)
        (proxy.cut if fault == "cut" else proxy.freeze)()
        if fault == "cut":
            steps.await_step("paused", 2)
        else:
            successor = relays(workload)
            eventually(lambda: workload.unsettled() == 0, "another relay takes over after the lease")
            successor.stop()
            assert successor.join(30)
        proxy.restore()
        workload.publish(200)
        eventually(lambda: workload.unsettled() == 0, "all is settled", 120)
        relay.stop()
        assert relay.join(60)

    workload.check(duplicates=WINDOW if fault == "freeze" else 0)
