"""Retention on PostgreSQL: old partitions go, and never one that holds a message which was not published."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from threading import Thread
from typing import Any

import psycopg
import pytest

from postroom.messaging.errors import DatabaseUnavailable
from postroom.outbox import Message, Names, Outbox, schema
from postroom.outbox.archive import Archive
from postroom.outbox.log import LogReader
from postroom.outbox.postgres import PostgresLog
from postroom.outbox.write import write_psycopg
from postroom.testing.postgres import Database

OUTBOX = Outbox(source="/test")
SIZE = 10
NOW = timedelta(0)


@pytest.fixture
def url(postroom_postgres: Database) -> str:
    """A log whose partitions have 10 positions."""
    schema.upgrade(postroom_postgres.url)
    with psycopg.connect(postroom_postgres.url) as connection:
        for (name,) in partitions(connection):
            if not name.endswith("overflow"):
                connection.execute(f"DROP TABLE postroom.{name}")
        connection.execute("SELECT postroom.outbox_add_partitions(10, %s)", [SIZE])
    return postroom_postgres.url


@pytest.fixture
def store(url: str) -> Iterator[PostgresLog]:
    log = PostgresLog(url, Names())
    yield log
    log.close()


@pytest.fixture
def reader(store: PostgresLog) -> Iterator[LogReader]:
    found = store.reader("test", 60)
    found.claim()
    yield found
    found.release()
    found.close()


def partitions(connection: psycopg.Connection[Any]) -> list[Any]:
    return connection.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'postroom.outbox'::regclass ORDER BY c.relname"
    ).fetchall()


def write(connection: psycopg.Connection[Any], count: int, key: str = "k") -> None:
    entries = [OUTBOX.entry(Message(topic="t", key=key, payload=b"%d" % n, type="x")) for n in range(count)]
    write_psycopg(connection, entries, Names())


def publish(url: str, count: int, key: str = "k") -> None:
    with psycopg.connect(url) as connection:
        write(connection, count, key)


def drain(reader: LogReader) -> int:
    count = 0
    while not (batch := reader.read(100)).caught_up:
        reader.settle([batch])
        count += len(batch.rows)
    return count


def whys(store: PostgresLog, keep: timedelta = NOW) -> list[str | None]:
    return [part.why for part in store.parts(keep)]


def test_settled_partitions_go_and_the_one_written_to_stays(url: str, store: PostgresLog, reader: LogReader) -> None:
    publish(url, 35)
    drain(reader)

    assert whys(store) == [None, None, None, "head"]
    assert list(store.prune(NOW, dry_run=True)) == [f"outbox_00000000{n}" for n in range(3)]
    assert list(store.prune(NOW)) == [f"outbox_00000000{n}" for n in range(3)]
    assert list(store.prune(NOW)) == []
    publish(url, 3)
    assert drain(reader) == 3, "the log goes on"


def test_a_partition_that_is_not_settled_stays_and_so_do_those_after_it(
    url: str, store: PostgresLog, reader: LogReader
) -> None:
    publish(url, 15)
    drain(reader)
    publish(url, 20)

    assert whys(store) == [None, "unsettled"]
    assert list(store.prune(NOW)) == ["outbox_000000000"]
    assert drain(reader) == 20
    assert list(store.prune(NOW)) == ["outbox_000000001", "outbox_000000002"]


def test_what_is_young_stays(url: str, store: PostgresLog, reader: LogReader) -> None:
    publish(url, 35)
    drain(reader)
    assert whys(store, timedelta(minutes=1)) == ["young"]
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE postroom.outbox SET created_at = created_at - interval '1 hour' WHERE position < 15")
    drain(reader)
    assert whys(store, timedelta(minutes=1)) == [None, "young"], "one young message keeps its partition"
    assert list(store.prune(timedelta(minutes=1), actor="ann")) == ["outbox_000000000"]

    archive = Archive(url)
    assert [(each.actor, each.action, "outbox_000000000" in (each.reason or "")) for each in archive.actions()] == [
        ("ann", "prune", True)
    ]
    archive.close()


def test_shards_that_never_had_a_message_keep_nothing_once_the_cursors_are_brought_up_to_date(
    url: str, store: PostgresLog, reader: LogReader
) -> None:
    publish(url, 35, key="the only one")
    batch = reader.read(5)  # a page: the cursor of its shard alone moves
    while batch.rows:
        reader.settle([batch])
        batch = reader.read(5)
    assert whys(store) == ["unsettled"], "another shard's cursor is at the beginning"

    drain(reader)
    reader.checkpoint()
    assert whys(store) == [None, None, None, "head"]


def test_a_partition_with_rows_of_an_open_transaction_stays(url: str, store: PostgresLog, reader: LogReader) -> None:
    with psycopg.connect(url) as late:
        write(late, 1, "late")
        publish(url, 34)
        drain(reader)
        time.sleep(1.1)  # a transaction that is younger may end any moment, and is waited for
        assert whys(store) == ["unsettled"], "no cursor goes past a transaction in progress"
        assert list(store.prune(NOW)) == []
        late.commit()
    assert drain(reader) == 1
    reader.checkpoint()
    assert list(store.prune(NOW)) == [f"outbox_00000000{n}" for n in range(3)]


def test_a_partition_in_use_stays_and_publishers_do_not_wait_for_it(
    url: str, store: PostgresLog, reader: LogReader
) -> None:
    publish(url, 35)
    drain(reader)
    reader.checkpoint()
    with psycopg.connect(url) as backup:
        backup.execute("SELECT count(*) FROM postroom.outbox_000000000")
        time.sleep(1.1)
        assert whys(store) == ["in use"]
        began = time.monotonic()
        assert list(store.prune(NOW)) == []
        assert time.monotonic() - began < 0.15, "it does not queue for the lock"
    assert len(store.prune(NOW)) == 3


def test_a_transaction_that_commits_while_the_drop_waits_for_it_is_not_dropped(
    url: str, store: PostgresLog, reader: LogReader
) -> None:
    """The look before the lock cannot see its rows; the one after it must."""
    publish(url, 35)
    drain(reader)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "ALTER FUNCTION postroom.outbox_drop_partitions(interval, boolean, integer) SET lock_timeout = '30s'"
        )
    dropped: list[str] = []
    # A transaction without a transaction id yet, so that the cursors can go past all that there is.
    with psycopg.connect(url) as late:
        late.execute("SET LOCAL application_name = 'late'")
        late.execute("LOCK TABLE postroom.outbox IN ROW EXCLUSIVE MODE")
        reader.checkpoint()
        pruning = Thread(target=lambda: dropped.extend(store.prune(NOW)))
        pruning.start()
        with psycopg.connect(url, autocommit=True) as watch:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'postroom.outbox'::regclass"
            while watch.execute(waiting).fetchall() == [(0,)]:
                time.sleep(0.01)
        # As if its position had been taken before all others.
        late.execute(
            "INSERT INTO postroom.outbox (position, id, topic, key, type) VALUES (0, gen_random_uuid(), 't', 'k', 'x')"
        )
        late.commit()
    pruning.join(60)

    assert dropped == []
    assert drain(reader) == 1


def test_a_prepared_transaction_keeps_its_partition(url: str, store: PostgresLog, reader: LogReader) -> None:
    connection = psycopg.connect(url)
    connection.tpc_begin(connection.xid(1, "postroom", "test"))
    write(connection, 1)
    connection.tpc_prepare()
    publish(url, 34)
    drain(reader)

    assert whys(store) in (["unsettled"], ["in use"])
    connection.tpc_commit()
    connection.close()
    assert drain(reader) == 1


def test_the_default_isolation_of_the_database_does_not_matter(url: str, store: PostgresLog, reader: LogReader) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        [name] = connection.execute("SELECT current_database()").fetchall()[0]
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable')
    publish(url, 35)
    drain(reader)
    other = PostgresLog(url, Names())
    assert len(other.prune(NOW)) == 3
    other.close()


def test_a_transaction_that_wrote_and_stays_open_is_named(url: str, store: PostgresLog) -> None:
    with psycopg.connect(url, application_name="importer") as late, psycopg.connect(url) as other:
        other.execute("SELECT 1")
        write(late, 1)
        time.sleep(0.3)
        [found] = store.open_transactions(0.2)
        assert (found.pid, found.application, found.state) == (late.info.backend_pid, "importer", "idle in transaction")
        assert found.user == late.info.user
        assert 0.2 <= found.age < 30
        assert list(store.open_transactions(60)) == []


def test_commits_tell_once_they_are_asked_to(url: str, store: PostgresLog, eventually: Callable[..., None]) -> None:
    waker = store.waker()
    assert waker.wait(0.01), "the first look is the poll's"
    assert not store.notifies()
    publish(url, 1)
    assert not waker.wait(0.3)
    assert [store.notify("ann", on=True), store.notify("ann", on=True)] == [True, False]
    publish(url, 1)
    assert waker.wait(10)
    assert store.notifies()
    assert [store.notify("ann", on=False), store.notify("ann", on=False)] == [True, False]
    publish(url, 1)
    assert not waker.wait(0.3)
    waker.close()


def test_telling_is_not_switched_under_an_open_transaction(url: str, store: PostgresLog) -> None:
    with psycopg.connect(url, application_name="importer") as late:
        write(late, 1)
        with pytest.raises(DatabaseUnavailable, match=r"Nothing was switched.*\(pid \d+, importer\)"):
            store.notify("ann", on=True)
    assert not store.notifies()
    archive = Archive(url)
    assert archive.actions() == []
    archive.close()


@pytest.mark.parametrize("paging", [False, True])
def test_a_backlog_too_large_to_count_is_extrapolated(
    url: str, store: PostgresLog, reader: LogReader, monkeypatch: pytest.MonkeyPatch, paging: bool
) -> None:
    monkeypatch.setattr("postroom.outbox.postgres._COUNTED", 20)
    with psycopg.connect(url) as connection:
        for _ in range(20):
            for key in range(50):
                write(connection, 1, str(key))
            connection.commit()
    if paging:
        for _ in range(16):
            reader.settle([reader.read(1)])
    backlog = store.backlog()

    assert not backlog.exact
    assert 900 <= backlog.messages <= 1100
    drain(reader)
    publish(url, 7)
    assert store.backlog()[0::2] == (7, True)
