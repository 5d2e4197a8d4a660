"""A dump restored into another cluster, where transaction ids start again, in the middle of a backlog."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from postroom.messaging.errors import ConfigurationError
from postroom.outbox import Message, postgres
from postroom.outbox.database import open_store
from postroom.relay import Relay
from postroom.testing import ServerUnavailableError, postgres_server
from postroom.testing.postgres import Database
from postroom.testing.postgres_binaries import local_binaries

CLUSTER = "SELECT system_identifier FROM pg_control_system()"


def program(name: str) -> str:
    """One of PostgreSQL's programs, from where the server's are."""
    try:
        beside = str(local_binaries(None).initdb.parent)
    except ServerUnavailableError:
        beside = None
    found = shutil.which(name, path=beside) or shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name!r} on this machine")
    return found


def move(source: str, target: str) -> None:
    """Dump and restore, as an operator does it."""
    dump = subprocess.run([program("pg_dump"), "--no-owner", source], capture_output=True, check=False)
    if b"server version mismatch" in dump.stderr:
        pytest.skip(dump.stderr.decode())
    assert dump.returncode == 0, dump.stderr.decode()
    restore = subprocess.run(
        [program("psql"), "--quiet", "--set", "ON_ERROR_STOP=1", target],
        input=dump.stdout,
        capture_output=True,
        check=False,
    )
    assert restore.returncode == 0, restore.stderr.decode()


@pytest.fixture
def elsewhere(workload: Any) -> Iterator[Database]:
    """An empty database on another cluster."""
    with postgres_server() as server, server.database() as database:
        with psycopg.connect(workload.url) as here, psycopg.connect(database.url) as there:
            if here.execute(CLUSTER).fetchone() == there.execute(CLUSTER).fetchone():
                pytest.skip("needs two PostgreSQL clusters")
        yield database


def test_after_a_restore_the_relay_refuses_to_run_until_a_reset_that_loses_nothing_and_doubles_nothing(
    workload: Any, elsewhere: Database, steps: Any, relays: Callable[..., Any], eventually: Any
) -> None:
    def publish_late(connection: psycopg.Connection[Any]) -> None:
        workload.sent[b"late"] += 1
        payload = b"%d" % workload.sent[b"late"]
        workload.outbox.publish(connection, Message(topic=workload.topic, key=b"late", payload=payload, type="n"))

    settled: list[int] = []

    def stop_in_the_middle(step: str, **facts: Any) -> None:
        if step == "settled":
            settled.append(facts["count"])
            if len(settled) == 4:
                relay.stop()

    with psycopg.connect(workload.url) as late:
        publish_late(late)  # in progress while the relay works: its transaction id is below its snapshot
        workload.publish(400)
        relay = relays(workload, observer=stop_in_the_middle, batch_size=20, max_in_flight=40)
        relay_ended = relay.join(30)
    assert relay_ended
    assert 0 < sum(settled) < 400
    with psycopg.connect(workload.url) as connection:
        row = connection.execute("SELECT count(*) FROM postroom.relay_cursor WHERE upto IS NOT NULL").fetchone()
        assert row is not None
        assert row[0] > 0, "the dump falls into the middle of a page"

    move(workload.url, elsewhere.url)
    moved = replace(workload, url=elsewhere.url)
    refused = Relay(open_store(moved.url), moved.kafka)
    refused.start()
    with pytest.raises(ConfigurationError, match="postroom relay reset-cursor"):
        refused.join(30)
    arrived = workload.arrived()
    assert len(arrived) == sum(settled)
    store = open_store(moved.url)
    assert isinstance(store, postgres.PostgresLog)
    assert store.reset_cursor() == 401
    store.close()
    relays(moved)
    moved.publish(100)
    with psycopg.connect(moved.url) as connection:
        publish_late(connection)
    eventually(lambda: moved.unsettled() == 0, "all is settled")

    assert sum(facts["count"] for facts in steps.of("read")) == 401 + 101 - sum(settled)
    assert moved.check(duplicates=0) == 0


def test_a_reset_may_take_longer_than_other_commands(
    workload: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes every row that is retained; given up half-way it would never succeed."""
    monkeypatch.setattr(postgres, "_PATIENCE", 0.2)
    workload.publish(10)
    store = open_store(workload.url)
    assert isinstance(store, postgres.PostgresLog)
    with psycopg.connect(workload.url) as busy, psycopg.connect(workload.url, autocommit=True) as watching:
        busy.execute("SELECT FROM postroom.outbox FOR UPDATE")
        with ThreadPoolExecutor(1) as pool:
            reset = pool.submit(store.reset_cursor)

            def overdue() -> bool:
                row = watching.execute(
                    "SELECT coalesce(max(clock_timestamp() - query_start) > interval '1.5 seconds', false) "
                    "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'postroom'"
                ).fetchone()
                return bool(reset.done() or (row and row[0]))

            eventually(overdue, "the reset waits")
            busy.rollback()
            assert reset.result(30) == 10
    store.close()
