"""Retention of the inbox on PostgreSQL: old days go, and never a row that was processed within it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa

from postroom.messaging.message import Message
from postroom.outbox import Names, schema
from postroom.outbox.database import parse_url
from postroom.outbox.log import Forgotten
from postroom.outbox.postgres import PostgresLog
from postroom.outbox.write import run_query
from postroom.testing.postgres import Database

KEEP = timedelta(days=30)
OTHER = "inbox_other"


@pytest.fixture
def url(postroom_postgres: Database) -> str:
    schema.upgrade(postroom_postgres.url)
    return postroom_postgres.url


@pytest.fixture
def store(url: str) -> Iterator[PostgresLog]:
    log = PostgresLog(url, Names())
    yield log
    log.close()


def day_of(ago: int) -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=ago)


def name_of(ago: int) -> str:
    return f"inbox_{day_of(ago):%Y%m%d}"


def id_of(ago: int) -> str:
    """A message id of noon of that day, as a UUIDv7 has it."""
    milliseconds = f"{int((day_of(ago) + timedelta(hours=12)).timestamp() * 1000):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}-7{uuid4().hex[:3]}-8{uuid4().hex[:3]}-{uuid4().hex[:12]}"


def make_day(url: str, ago: int) -> None:
    """The partition of a day that is over, as it was made in time."""
    with psycopg.connect(url) as connection:
        low, high = (
            connection.execute("SELECT postroom.inbox_id_at(%s)", [day]).fetchall()[0][0]
            for day in (day_of(ago), day_of(ago - 1))
        )
        connection.execute(
            f"CREATE TABLE postroom.{name_of(ago)} PARTITION OF postroom.inbox "
            f"FOR VALUES FROM ('{low}') TO ('{high}')".encode()
        )


def process(connection: psycopg.Connection[Any], message_id: str, ago: float, group: str = "g") -> None:
    connection.execute(
        "INSERT INTO postroom.inbox (consumer_group, message_id, outcome, topic, processed_at) "
        "VALUES (%s, %s, 'handled', 't', clock_timestamp() - %s)",
        [group, message_id, timedelta(days=ago)],
    )


def fill(url: str, *rows: tuple[str, float]) -> None:
    with psycopg.connect(url) as connection:
        for message_id, ago in rows:
            process(connection, message_id, ago)


def days(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = 'postroom.inbox'::regclass"
        ).fetchall()
    return {row[0] for row in found} - {OTHER}


def ids(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {row[0] for row in connection.execute("SELECT message_id FROM postroom.inbox")}


def closes(url: str, message_id: str) -> bool:
    """Whether a delivery of the message would be the first."""
    engine = sa.create_engine(parse_url(url))
    params = {"group": "g", "message_id": message_id, "outcome": "handled", "topic": "t", "handler": None}
    with engine.begin() as connection:
        first = run_query(connection, "inbox_close", {**params, "attempts": 1, "replays": 0}, Names()) == 1
    engine.dispose()
    return first


def test_there_is_room_for_today_and_a_week_ahead_and_it_is_made_again(url: str, store: PostgresLog) -> None:
    week = {name_of(-n) for n in range(8)}
    assert days(url) == week
    with psycopg.connect(url) as connection:
        connection.execute(f"DROP TABLE postroom.{name_of(-7)}, postroom.{name_of(0)}".encode())
    store.add_inbox_partitions()
    store.add_inbox_partitions()
    assert days(url) == week

    new = str(Message(topic="t", payload=b"", type="x").id)
    assert closes(url, new)
    assert not closes(url, new)
    with psycopg.connect(url) as connection:
        [(part,)] = connection.execute("SELECT tableoid::regclass::text FROM postroom.inbox").fetchall()
    assert part.endswith(name_of(0))


def test_a_day_goes_when_nothing_in_it_was_processed_within_the_retention(url: str, store: PostgresLog) -> None:
    for ago in (31, 40, 41, 50):
        make_day(url, ago)
    replayed = id_of(40)
    fill(url, (id_of(50), 50), (id_of(41), 39), (id_of(40), 40), (replayed, 2), (id_of(31), 31))

    would = store.prune_inbox(KEEP, dry_run=True)
    assert [each.part for each in would] == [name_of(50), name_of(41), name_of(31)]
    assert days(url) >= {each.part for each in would}
    assert [each.part for each in store.prune_inbox(KEEP)] == [name_of(50), name_of(41), name_of(31)]
    assert list(store.prune_inbox(KEEP)) == []
    assert name_of(40) in days(url), "a message of that day was replayed lately"
    assert not closes(url, replayed)
    assert store.prune_inbox(timedelta(days=1)) == [Forgotten(name_of(40), 0)]


def test_a_day_that_is_not_over_for_so_long_stays_though_all_of_it_is_old(url: str, store: PostgresLog) -> None:
    """Whatever the clock that wrote processed_at says, and also without a row."""
    make_day(url, 30)
    fill(url, (id_of(30), 90))
    assert list(store.prune_inbox(KEEP)) == []
    assert days(url) == {name_of(30), *(name_of(-n) for n in range(8))}


def test_other_ids_are_deleted_row_by_row(url: str, store: PostgresLog, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(url, ("orders/0/1", 31), ("orders/0/2", 29), (id_of(60), 31), (id_of(61), 1), ("zzz", 400))
    young = {"orders/0/2"} | {each for each in ids(url) if each[:8] == id_of(61)[:8]}
    assert store.prune_inbox(KEEP, dry_run=True) == [Forgotten(OTHER, 3)]
    assert store.prune_inbox(KEEP, actor="ann") == [Forgotten(OTHER, 3)]
    assert ids(url) == young
    assert not closes(url, "orders/0/2")
    with psycopg.connect(url) as connection:
        noted = connection.execute("SELECT actor, action, consumer_group, reason FROM postroom.inbox_action").fetchall()
    assert [(*row[:3], "inbox_other, 3 rows" in row[3]) for row in noted] == [("ann", "prune", "", True)]


def test_ten_thousand_rows_go_at_once_and_there_is_more(url: str, store: PostgresLog) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO postroom.inbox (consumer_group, message_id, outcome, topic, processed_at) "
            "SELECT 'g', 'n/' || n, 'handled', 't', clock_timestamp() - interval '31 days' "
            "FROM generate_series(1, 10001) n"
        )
    assert store.prune_inbox(KEEP) == [Forgotten(OTHER, 10_000, more=True)]
    assert store.prune_inbox(KEEP) == [Forgotten(OTHER, 1)]


def test_a_row_that_is_processed_again_meanwhile_is_not_deleted_nor_waited_for(url: str, store: PostgresLog) -> None:
    fill(url, ("dead/0/1", 31), ("old/0/1", 31))
    with psycopg.connect(url) as replay:
        replay.execute("UPDATE postroom.inbox SET processed_at = clock_timestamp() WHERE message_id = 'dead/0/1'")
        began = time.monotonic()
        assert store.prune_inbox(KEEP) == [Forgotten(OTHER, 1)]
        assert time.monotonic() - began < 0.5
        replay.commit()
    assert list(store.prune_inbox(KEEP)) == []
    assert ids(url) == {"dead/0/1"}


def test_a_replay_that_commits_while_the_drop_waits_for_it_keeps_its_day(url: str, store: PostgresLog) -> None:
    """The look before the lock cannot see its row; the one after it must."""
    make_day(url, 40)
    fill(url, (id_of(40), 40))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER FUNCTION postroom.inbox_drop_partitions(interval, boolean) SET lock_timeout = '30s'")
    dropped: list[Forgotten] = []
    replayed = id_of(40)
    with psycopg.connect(url) as late:
        process(late, replayed, 0)
        pruning = Thread(target=lambda: dropped.extend(store.prune_inbox(KEEP)))
        pruning.start()
        with psycopg.connect(url, autocommit=True) as watch:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'postroom.inbox'::regclass"
            while watch.execute(waiting).fetchall() == [(0,)]:
                assert pruning.is_alive(), "it never waited"
                time.sleep(0.005)
        late.commit()
    pruning.join(60)

    assert dropped == []
    assert not closes(url, replayed)


@pytest.mark.parametrize("held_for", [0.0, 1.1])
def test_a_long_transaction_does_not_hold_up_the_duties(url: str, store: PostgresLog, held_for: float) -> None:
    make_day(url, 40)
    fill(url, (id_of(40), 40), ("old/0/1", 40))
    with psycopg.connect(url) as connection:
        connection.execute(f"DROP TABLE postroom.{name_of(-7)}".encode())
    store.control()  # connects
    with psycopg.connect(url) as long:
        long.execute("LOCK TABLE postroom.inbox IN ROW EXCLUSIVE MODE")
        time.sleep(held_for)
        began = time.monotonic()
        assert store.prune_inbox(KEEP) == [Forgotten(OTHER, 1)], "the day is in use, the old row is not"
        took = time.monotonic() - began
        assert took < (0.5 if held_for == 0.0 else 0.15), "and where it is open for long, nobody queues behind us"
        assert name_of(40) in days(url)
        began = time.monotonic()
        store.add_inbox_partitions()
        assert time.monotonic() - began < 0.5
    store.add_inbox_partitions()
    assert name_of(-7) in days(url)
    assert [each.part for each in store.prune_inbox(KEEP)] == [name_of(40)]


def test_two_relays_at_once_do_each_thing_once(url: str) -> None:
    for ago in range(40, 48):
        make_day(url, ago)
    with psycopg.connect(url) as connection:
        for ago in range(8):
            connection.execute(f"DROP TABLE postroom.{name_of(-ago)}".encode())
    start = Barrier(4)

    def relay(_: int) -> list[Forgotten]:
        log = PostgresLog(url, Names())
        try:
            log.control()
            start.wait(30)
            log.add_inbox_partitions()
            return list(log.prune_inbox(KEEP))
        finally:
            log.close()

    with ThreadPoolExecutor(4) as pool:
        dropped = [each.part for found in pool.map(relay, range(4)) for each in found]
    log = PostgresLog(url, Names())
    log.add_inbox_partitions()
    dropped += [each.part for each in log.prune_inbox(KEEP)]
    log.close()
    assert sorted(dropped) == sorted(name_of(ago) for ago in range(40, 48))
    assert days(url) == {name_of(-n) for n in range(8)}


def test_a_relay_leaves_the_days_to_one_that_is_at_it(url: str, store: PostgresLog) -> None:
    store.control()  # connects
    with psycopg.connect(url) as connection:
        connection.execute(f"DROP TABLE postroom.{name_of(-7)}".encode())
    with psycopg.connect(url) as other:
        assert other.execute("SELECT postroom.inbox_add_partitions(7)").fetchall() == [(1,)]
        began = time.monotonic()
        store.add_inbox_partitions()
        assert list(store.prune_inbox(KEEP)) == []
        assert time.monotonic() - began < 0.15, "it does not wait"
    assert name_of(-7) in days(url)


def test_the_default_isolation_of_the_database_does_not_matter(url: str) -> None:
    make_day(url, 40)
    with psycopg.connect(url, autocommit=True) as connection:
        [name] = connection.execute("SELECT current_database()").fetchall()[0]
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable'.encode())
    log = PostgresLog(url, Names())
    assert [each.part for each in log.prune_inbox(KEEP)] == [name_of(40)]
    log.close()


def test_an_upgrade_keeps_what_the_inbox_knew(postroom_postgres: Database, eventually: Callable[..., None]) -> None:
    url = postroom_postgres.url
    before = [str(Message(topic="t", payload=b"", type="x").id), "orders/0/7", str(uuid4()), id_of(3)]
    with psycopg.connect(url) as connection:
        for step in schema.migrations("postgres", Names())[:2]:
            connection.execute(step.sql.encode())
        for message_id in before:
            process(connection, message_id, 0)
    assert [step.version for step in schema.upgrade(url)] == list(range(3, schema.LATEST + 1))

    assert ids(url) == set(before)
    assert [closes(url, message_id) for message_id in before] == [False] * 4
    log = PostgresLog(url, Names())
    log.add_inbox_partitions()
    assert list(log.prune_inbox(KEEP)) == []
    assert [closes(url, message_id) for message_id in before] == [False] * 4
    log.close()
    assert days(url) == {name_of(-n) for n in range(1, 8)}, "the day of the upgrade stays where it began"
    new = str(Message(topic="t", payload=b"", type="x").id)
    assert [closes(url, new), closes(url, new)] == [True, False]
