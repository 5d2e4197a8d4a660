"""Wake-up: with NOTIFY a relay that hardly polls publishes at once; without it the poll finds everything."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from postroom.outbox import Message, Names
from postroom.outbox.database import open_store
from postroom.outbox.postgres import PostgresLog
from postroom.relay import Relay, RelaySettings

LAZY = RelaySettings(listen=True, poll_max_seconds=5.0, settle_seconds=0.0)


@pytest.fixture
def relay(workload: Any, steps: Any, request: pytest.FixtureRequest) -> Iterator[Relay]:
    """Idle for so long that it polls at its slowest."""
    relay = Relay(open_store(workload.url), workload.kafka, settings=request.param, observer=steps)
    relay.start()
    steps.await_step("claimed")
    publish(workload, 0)
    steps.await_step("published")
    time.sleep(2.0)  # the waits between polls double up to here
    yield relay
    relay.stop()
    assert relay.join(30)


def publish(workload: Any, number: int) -> None:
    with psycopg.connect(workload.url) as connection:
        message = Message(topic=workload.topic, key=b"k", payload=b"%d" % number, type="x")
        workload.outbox.publish(connection, message)


@pytest.fixture
def told(workload: Any) -> None:
    store = PostgresLog(workload.url, Names())
    assert store.notify("test", on=True)
    store.close()


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("relay", [LAZY], indirect=True)
def test_a_commit_wakes_a_relay_that_listens(workload: Any, steps: Any, relay: Relay) -> None:
    seconds = []
    for number in range(1, 12):
        publish(workload, number)
        began = time.monotonic()
        steps.await_step("published", number + 1)
        seconds.append(time.monotonic() - began)
        time.sleep(0.3)  # so that it waits again
    assert statistics.median(seconds) < 0.1, seconds


@pytest.mark.parametrize("relay", [LAZY.model_copy(update={"poll_max_seconds": 1.0})], indirect=True)
def test_without_word_the_poll_finds_it(
    workload: Any, steps: Any, relay: Relay, eventually: Callable[..., None]
) -> None:
    publish(workload, 1)
    began = time.monotonic()
    steps.await_step("published", 2, seconds=10)
    assert time.monotonic() - began < 3


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("relay", [LAZY], indirect=True)
def test_a_listener_that_was_cut_off_listens_again(
    workload: Any, steps: Any, relay: Relay, eventually: Callable[..., None]
) -> None:
    listening = "application_name = 'postroom relay (listening)' AND datname = current_database()"
    with psycopg.connect(workload.url, autocommit=True) as connection:
        cut = connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {listening}").fetchall()
        assert cut == [(True,)]

        def back() -> bool:
            found = connection.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {listening}").fetchone()
            return found == (1,)

        eventually(back, "the relay listens again")
    time.sleep(0.5)
    publish(workload, 1)
    began = time.monotonic()
    steps.await_step("published", 2, seconds=10)
    assert time.monotonic() - began < 1
