"""P2 and P3 under writers that commit out of order: nothing lost, nothing twice, no key out of order."""

import random
import re
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.sql import SQL, Literal
from sqlalchemy.orm import Session

from postroom.messaging.errors import ConfigurationError
from postroom.outbox import Message, Names, Outbox, schema
from postroom.outbox.database import open_store, parse_url
from postroom.outbox.names import queries
from postroom.testing.postgres import Database

OUTBOX = Outbox(source="/test")
WRITERS = 8
KEYS = 12
SECONDS = 4.0
RAISE_VERSION = sa.text("UPDATE version SET number = number + 1 WHERE key = :key RETURNING number")


@pytest.fixture
def database(postroom_postgres: Database) -> Database:
    schema.upgrade(postroom_postgres.url)
    with psycopg.connect(postroom_postgres.url) as connection:
        connection.execute("CREATE TABLE version (key int PRIMARY KEY, number int NOT NULL)")
        connection.execute("INSERT INTO version SELECT k, 0 FROM generate_series(0, %s) k", [KEYS])
    return postroom_postgres


def numbered(key: int, number: int) -> Message:
    return Message(topic="t", key=str(key), payload=f"{key} {number}".encode(), type="x")


class Reading:
    """Drains the log and remembers (key, number) as they came."""

    def __init__(self, database: Database, limit: int) -> None:
        self.found: list[tuple[int, int]] = []
        self._limit = limit
        self._store = open_store(database.url)
        self._reader = self._store.reader("test", 60)
        self._reader.claim()

    def step(self) -> bool:
        """One batch; True when caught up."""
        batch = self._reader.read(self._limit)
        for row in batch.rows:
            key, number = map(int, (row.payload or b"").split())
            self.found.append((key, number))
        if not batch.caught_up:
            self._reader.settle([batch])
        return batch.caught_up

    def all(self) -> None:
        while not self.step():
            pass

    def close(self) -> None:
        self._reader.close()
        self._store.close()


def write(engine: sa.Engine, started: Barrier, stop: Event, seed: int) -> list[tuple[int, int]]:
    """Transactions that take an xid, then row locks, sleep, and commit or not; what was committed."""
    rng = random.Random(seed)
    committed: list[tuple[int, int]] = []
    started.wait()
    while not stop.is_set():
        with Session(engine) as session:
            session.execute(sa.text("SELECT pg_current_xact_id()"))  # an xid from before the row lock
            sent = []
            for key in sorted(rng.sample(range(KEYS), rng.randint(1, 3))):
                number = session.execute(RAISE_VERSION, {"key": key}).scalar_one()
                OUTBOX.publish(session, numbered(key, number))
                sent.append((key, number))
                with session.begin_nested() as savepoint:
                    OUTBOX.publish(session, numbered(key, -1))
                    savepoint.rollback()
            session.execute(sa.text("SELECT pg_sleep(:s)"), {"s": rng.random() * 0.02})
            if rng.random() < 0.1:
                session.rollback()
            else:
                session.commit()
                committed += sent
    return committed


@pytest.mark.parametrize("limit", [1000, 20])
def test_writers_that_commit_out_of_order_lose_nothing_and_invert_nothing(database: Database, limit: int) -> None:
    engine = sa.create_engine(parse_url(database.url), pool_size=WRITERS)
    started, stop = Barrier(WRITERS + 1), Event()
    reading = Reading(database, limit)
    with psycopg.connect(database.url) as early, ThreadPoolExecutor(WRITERS) as pool:
        early.execute("UPDATE version SET number = 1 WHERE key = %s", [KEYS])
        OUTBOX.publish(early, numbered(KEYS, 1))  # first of all, and open for the whole run
        writers = [pool.submit(write, engine, started, stop, seed) for seed in range(WRITERS)]
        started.wait()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            reading.step()
        stop.set()
        committed = [each for writer in writers for each in writer.result()]
        reading.all()
        assert (KEYS, 1) not in reading.found
        early.commit()
        committed.append((KEYS, 1))
    reading.all()
    reading.close()
    engine.dispose()

    assert len(committed) > 300, "the run was too small to mean anything"
    assert sorted(reading.found) == sorted(committed)
    by_key: dict[int, list[int]] = defaultdict(list)
    for key, number in reading.found:
        by_key[key].append(number)
    assert {key: numbers for key, numbers in by_key.items() if numbers != sorted(numbers)} == {}


def test_a_session_takes_its_positions_after_its_row_locks(database: Database) -> None:
    """The first to publish is the second to get the row: its message must come second."""
    engine = sa.create_engine(parse_url(database.url))
    with Session(engine) as first, Session(engine) as second:
        OUTBOX.publish(first, numbered(0, 2))
        second.execute(RAISE_VERSION, {"key": 0})
        OUTBOX.publish(second, numbered(0, 1))
        second.commit()
        first.execute(RAISE_VERSION, {"key": 0})
        first.commit()
    engine.dispose()
    store = open_store(database.url)
    reader = store.reader("test", 60)
    reader.claim()

    assert [row.payload for row in reader.read(10).rows] == [b"0 1", b"0 2"]
    reader.close()
    store.close()


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_the_order_is_by_position_also_where_transaction_ids_say_otherwise(database: Database, limit: int) -> None:
    """The first to get a transaction id is the second to publish, read at once or in pages."""
    reading = Reading(database, limit)
    with psycopg.connect(database.url) as early, psycopg.connect(database.url) as late:
        early.execute("SELECT pg_current_xact_id()")
        for number in (1, 2, 3):
            OUTBOX.publish(late, numbered(0, number))
        late.commit()
        for number in (4, 5, 6):
            OUTBOX.publish(early, numbered(0, number))
    reading.all()
    reading.close()

    assert reading.found == [(0, number) for number in range(1, 7)]


def explained(connection: psycopg.Connection[Any], query: str, params: dict[str, Any], *, generic: bool) -> str:
    """The plan, with the values known or, as a prepared statement may be run, for any values."""
    if not generic:
        return "\n".join(row[0] for row in connection.execute(f"EXPLAIN (ANALYZE, BUFFERS) {query}", params))
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", query)))
    for number, name in enumerate(names, 1):
        query = query.replace(f"%({name})s", f"${number}")
    types = ", ".join(TYPES[name.removesuffix("_0")] for name in names)
    connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    connection.execute(f"PREPARE statement ({types}) AS {query}")
    values = SQL(", ").join(Literal(params[name]) for name in names)
    plan = connection.execute(SQL("EXPLAIN (ANALYZE, BUFFERS) EXECUTE statement ({})").format(values)).fetchall()
    connection.execute("DEALLOCATE statement")
    assert any("$1" in row[0] for row in plan), "no generic plan"
    return "\n".join(row[0] for row in plan)


#: Of the parameters, as psycopg sends them.
TYPES = {
    **dict.fromkeys(("limit", "shard"), "smallint"),
    **dict.fromkeys(("after", "end", "bytes"), "bigint"),
    **dict.fromkeys(("upto", "snapshot"), "text"),
    "shards": "smallint[]",
}


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("analysed", [False, True])
def test_the_plans_read_by_index_and_only_what_is_new(database: Database, analysed: bool, generic: bool) -> None:
    sql = queries(Names(), "postgres")
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("ALTER TABLE postroom.outbox_000000000 SET (autovacuum_enabled = off)")
        connection.execute(
            "INSERT INTO postroom.outbox (id, topic, key, type, payload) SELECT gen_random_uuid(), 't', "
            "convert_to((n % 100)::text, 'utf8'), 'x', '' FROM generate_series(1, 30000) n"
        )
        if analysed:
            connection.execute("ANALYZE postroom.outbox")
        row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
        seen = row and row[0]
        params = {
            "shards": list(range(16)),
            "shards_0": list(range(16)),
            "snapshot_0": seen,
            "limit": 1001,
            "bytes": 8_000_000,
            "shard": 3,
            "after": 0,
            "end": 30_000,
            "upto": seen,
            "snapshot": "1:1:",
        }
        poll = sql["poll"].replace("#", sql["poll_new"].replace("#", "0"))
        cases = (
            ("poll", poll, params),
            ("page", sql["page"], params),
            ("freeze", sql["freeze"], {**params, "snapshot": seen}),
        )
        plans = {}
        for name, query, values in cases:
            with connection.transaction():
                connection.execute(sql["plan"])
                plans[name] = explained(connection, query, values, generic=generic)

    for name in ("poll", "freeze"):
        assert "xid_idx" in plans[name], name
        assert "pkey" not in plans[name], "the primary key would read the whole log at each poll"
    assert "pkey" in plans["page"]
    for name, plan in plans.items():
        assert not re.search(r"Seq Scan on outbox(?!_position)", plan), name
        assert "JIT" not in plan, name


def test_a_log_from_another_cluster_is_not_read_until_the_cursor_is_reset(database: Database) -> None:
    store = open_store(database.url)
    reader = store.reader("test", 60)
    with psycopg.connect(database.url) as connection:
        for number in range(3):
            OUTBOX.publish(connection, numbered(0, number))
    reader.claim()
    reader.settle([reader.read(10)])
    with psycopg.connect(database.url) as connection:
        for number in range(3, 6):
            OUTBOX.publish(connection, numbered(0, number))
        # As after a restore: the rows keep ids that this cluster has not given out yet.
        connection.execute("UPDATE postroom.outbox SET xid = (xid::text::bigint + 1000000)::text::xid8")
        connection.execute(
            "UPDATE postroom.relay_cursor SET cluster = 1, snapshot = ("
            "(pg_snapshot_xmax(snapshot)::text::bigint + 1000000)::text || ':' || "
            "(pg_snapshot_xmax(snapshot)::text::bigint + 1000000)::text || ':')::pg_snapshot"
        )
    with pytest.raises(ConfigurationError, match="reset-cursor"):
        reader.claim()

    assert hasattr(store, "reset_cursor")
    assert store.reset_cursor() == 6
    reader.claim()
    assert [row.payload for row in reader.read(10).rows] == [b"0 3", b"0 4", b"0 5"]
    reader.close()
    store.close()
