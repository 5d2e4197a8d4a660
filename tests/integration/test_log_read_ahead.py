"""P2 and P3 when reading runs ahead of settling: whoever comes next begins where it was settled, and misses nothing."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from postroom.outbox import Message, Names, Outbox, schema
from postroom.outbox.database import open_store
from postroom.outbox.log import Batch, LogReader
from postroom.outbox.write import write_psycopg
from postroom.testing.postgres import Database

OUTBOX = Outbox(source="/test")
EXPIRE = "UPDATE postroom.relay_cursor SET lease_until = clock_timestamp() - interval '1 second'"


class Log:
    """A log with numbered messages by key, and an owner that may be replaced as if it had been killed."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._url = url
        self._stack = stack
        self._store = open_store(url)
        stack.callback(self._store.close)
        self._connection = stack.enter_context(psycopg.connect(url, autocommit=True))
        self._owners = 0
        self.written: Counter[bytes] = Counter()
        self.settled: defaultdict[bytes, list[int]] = defaultdict(list)
        self.flying: list[Batch] = []
        self.reader = self._next_owner()

    def write(self, count: int, keys: int = 7) -> None:
        with self._connection.transaction():
            self._write(self._connection, [b"%d" % (n % keys) for n in range(count)])

    def write_and_wait(self, key: bytes, count: int) -> psycopg.Connection[Any]:
        """A transaction that has written and stays open."""
        connection = self._stack.enter_context(psycopg.connect(self._url))
        self._write(connection, [key] * count)
        return connection

    def read(self, limit: int) -> bool:
        """Read on, and settle nothing; whether there was something."""
        batch = self.reader.read(limit)
        if batch.caught_up:
            return False
        self.flying.append(batch)
        return True

    def settle(self, batches: int) -> None:
        """The oldest ones."""
        done, self.flying = self.flying[:batches], self.flying[batches:]
        self.reader.settle(done)
        for batch in done:
            for row in batch.rows:
                self.settled[row.key or b""].append(int(row.payload or b"0"))

    def kill(self) -> None:
        """The owner is gone with what it had read; another one takes over."""
        self.flying.clear()
        self._connection.execute(EXPIRE)
        self._connection.execute("DELETE FROM postroom.relay_instance")
        self.reader = self._next_owner()

    def heartbeat(self) -> None:
        """With whatever is in flight."""
        self.reader.claim()

    def rewind(self) -> None:
        """The owner itself begins again."""
        self.flying.clear()
        self.reader.rewind()
        self.reader.claim()

    def hand_over_and_take_back(self, shards: list[int]) -> None:
        """Only what has nothing in flight is handed over."""
        self.settle(len(self.flying))
        self.reader.release(shards)
        assert len(self.reader.claim().shards) == 16

    def drain(self, limit: int) -> None:
        while self.read(limit):
            self.settle(1)

    def check(self) -> None:
        expected = {key: list(range(1, count + 1)) for key, count in self.written.items()}
        assert dict(self.settled) == expected

    def _next_owner(self) -> LogReader:
        self._owners += 1
        reader = self._store.reader(f"owner-{self._owners}", 60)
        self._stack.callback(reader.close)
        assert len(reader.claim().shards) == 16
        return reader

    def _write(self, connection: psycopg.Connection[Any], keys: list[bytes]) -> None:
        entries = []
        for key in keys:
            self.written[key] += 1
            entries.append(OUTBOX.entry(Message(topic="t", key=key, payload=b"%d" % self.written[key], type="x")))
        write_psycopg(connection, entries, Names())


@pytest.fixture
def log(postroom_postgres: Database) -> Any:
    schema.upgrade(postroom_postgres.url)
    with ExitStack() as stack:
        yield Log(postroom_postgres.url, stack)


@pytest.mark.parametrize("after", ["kill", "rewind"])
def test_what_was_read_and_not_settled_is_read_again_in_order_wherever_it_stopped(log: Log, after: str) -> None:
    """A batch, then a backlog of many pages while the batch is not settled; each number of batches settled."""
    for settled in range(13):
        late = log.write_and_wait(b"late", 3)
        log.write(8)
        assert log.read(10)
        log.write(80)
        assert log.read(10)  # more than a batch: it is paged from here on
        late.commit()
        while len(log.flying) < 12:
            assert log.read(10)
        log.settle(settled)
        getattr(log, after)()
        log.drain(10)
        log.check()


@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_writing_reading_settling_and_dying_settles_each_message_once_and_in_order(
    log: Log, seed: int
) -> None:
    rng = random.Random(seed)
    waiting: list[psycopg.Connection[Any]] = []

    def begin() -> None:
        if len(waiting) < 3:
            waiting.append(log.write_and_wait(b"open-%d-%d" % (seed, rng.randrange(10**9)), rng.randint(1, 8)))

    def end() -> None:
        if waiting:
            waiting.pop(rng.randrange(len(waiting))).commit()

    steps = [
        (4, lambda: log.write(rng.choice([1, 5, 40]))),
        (2, begin),
        (2, end),
        (9, lambda: log.read(rng.choice([3, 10, 50]))),
        (5, lambda: log.settle(rng.randint(1, max(1, len(log.flying))))),
        (3, log.heartbeat),
        (1, log.kill),
        (1, log.rewind),
        (1, lambda: log.reader.checkpoint() if not log.flying else None),
        (1, lambda: log.hand_over_and_take_back(rng.sample(range(16), 5))),
    ]
    acts: list[Callable[[], object]] = [act for _, act in steps]
    for act in rng.choices(acts, [weight for weight, _ in steps], k=150):
        act()
    for connection in waiting:
        connection.commit()
    log.kill()
    log.drain(20)

    assert sum(log.written.values()) > 100
    log.check()
