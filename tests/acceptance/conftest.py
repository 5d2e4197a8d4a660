"""The command line as users have it: processes in a folder of their own."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from io import StringIO
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import psycopg
import pytest

from postroom.cli.root import run
from postroom.messaging.dead_letter import Failure, dead_letter_headers
from postroom.messaging.headers import load
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.records import OutgoingRecord, Partition, ReceivedRecord
from postroom.outbox import schema
from postroom.testing.kafka import Broker
from postroom.testing.postgres import Database


@dataclass
class Shell:
    """Runs ``postroom`` in a folder of its own, with an environment that holds what the test says."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
        return subprocess.Popen(
            [sys.executable, "-m", "postroom.cli.main", *arguments],
            cwd=self.folder,
            env={**inherited, "COLUMNS": "200", **self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def running(self, *arguments: str, **environment: str) -> "Iterator[subprocess.Popen[str]]":
        """As ``start``; killed at the end of the block, if it still runs."""
        with self.start(*arguments, **environment) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str, code: int = 0) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def database_shell(shell: Shell, postroom_postgres: Database) -> Shell:
    """With an empty database."""
    shell.environment |= {"POSTROOM_DATABASE_URL": postroom_postgres.url}
    return shell


@pytest.fixture
def ready(database_shell: Shell, postroom_kafka: Broker) -> Shell:
    """With tables and Kafka."""
    schema.upgrade(database_shell.environment["POSTROOM_DATABASE_URL"])
    database_shell.environment |= {
        "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": postroom_kafka.bootstrap_servers,
        "POSTROOM_KAFKA_OPTIONS": json.dumps(dict(postroom_kafka.client_config)),
    }
    return database_shell


@dataclass
class Daemon:
    """A command that runs until it is stopped, and the events of its log."""

    process: "subprocess.Popen[str]"
    seen: list[dict[str, Any]] = field(default_factory=list)
    _lines: "Queue[str]" = field(default_factory=Queue)

    def __post_init__(self) -> None:
        Thread(target=self._listen, daemon=True).start()

    def await_event(self, event: str, **facts: Any) -> dict[str, Any]:
        while True:
            try:
                line = self._lines.get(timeout=60)
            except Empty:
                pytest.fail(f"no {event!r} in the log: {self.seen}")
            if not line:
                pytest.fail(f"ended without {event!r}: {self.seen}")
            self.seen.append(json.loads(line))
            if self.seen[-1]["event"] == event and facts.items() <= self.seen[-1].items():
                return self.seen[-1]

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put("")


@contextmanager
def _daemon(folder: Path, environment: dict[str, str], *arguments: str) -> Iterator[Daemon]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    with subprocess.Popen(
        [sys.executable, "-m", "postroom.cli.main", *arguments],
        cwd=folder,
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Daemon(process)
        finally:
            process.kill()


@pytest.fixture
def daemon(tmp_path: Path) -> Callable[..., AbstractContextManager[Daemon]]:
    """Runs a command that does not end by itself: ``daemon(environment, *arguments)``."""
    return partial(_daemon, tmp_path)


@pytest.fixture
def environment(postroom_postgres: Database, postroom_kafka: Broker) -> dict[str, str]:
    schema.upgrade(postroom_postgres.url)
    return {
        "POSTROOM_DATABASE_URL": postroom_postgres.url,
        "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": postroom_kafka.bootstrap_servers,
        "POSTROOM_KAFKA_OPTIONS": json.dumps(dict(postroom_kafka.client_config)),
        "POSTROOM_LOG_LEVEL": "debug",
    }


@dataclass
class DeadLetters:
    """The dead letters of one topic, and ``postroom dlq`` on them: in this process, which is quicker, or in its own."""

    shell: Shell
    broker: Broker
    topic: str

    def __post_init__(self) -> None:
        self.shell.environment |= {"POSTROOM_DLQ__TOPICS": json.dumps([f"{self.topic}.*"])}

    def __call__(self, *arguments: str, code: int = 0, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run ``postroom dlq`` in this process."""
        out, err = StringIO(), StringIO()
        before, library = dict(os.environ), logging.getLogger("kafka")
        level = library.level
        os.environ.update({"COLUMNS": "200", **self.shell.environment, **environment})
        try:
            with redirect_stdout(out), redirect_stderr(err):
                found = run(["dlq", *arguments])
        finally:
            os.environ.clear()
            os.environ.update(before)
            library.setLevel(level)
        assert "Traceback" not in err.getvalue(), err.getvalue()
        assert found == code, (found, out.getvalue(), err.getvalue())
        return subprocess.CompletedProcess(arguments, found, out.getvalue(), err.getvalue())

    def json(self, *arguments: str, code: int = 0, **environment: str) -> Any:
        return json.loads(self(*arguments, "--json", code=code, **environment).stdout)

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.json("list", *arguments)["dead_letters"]
        return found

    def put(self, *records: OutgoingRecord) -> None:
        publisher = connect(KafkaOptions(self.broker.bootstrap_servers, options=dict(self.broker.client_config)))
        sending = publisher.publisher()
        publication = sending.send(records)
        assert publication.wait(30)
        assert publication.errors() == {}
        sending.close(5)

    def die(self, count: int = 1, *, group: str = "billing", first: int = 0, **given: Any) -> list[str]:
        """So many messages of ``group`` die, by turns of TimeoutError and ValueError; their ids.

        ``given``: ``key``, ``value`` and ``error`` of all of them.
        """
        now, ids, records = datetime.now(UTC), [], []
        for n in range(first, first + count):
            own = [
                ("ce_id", f"{self.topic}-{n}".encode()),
                ("ce_type", b"shop.order.placed"),
                ("tenant", b"tenant-%d" % n),
            ]
            value = given.get("value", b'{"n": %d, "x": "\xc3\xa4"}' % n)
            original = ReceivedRecord(Partition(self.topic, 0), n, given.get("key", b"k%d" % n), value, own, now)
            error = given.get("error") or (TimeoutError(f"gateway {n}") if n % 2 == 0 else ValueError(f"no stock {n}"))
            failed_at = now - timedelta(minutes=count + first - n)
            failure = Failure(error, "shop.charge", 5, failed_at, failed_at)
            headers = dead_letter_headers(original, group, failure)
            records.append(OutgoingRecord(f"{self.topic}.{group}.dlq", original.key, original.value, headers))
            ids.append(f"{self.topic}-{n}")
        self.put(OutgoingRecord(self.topic, b"", b"", []), *records)
        return ids

    def published(self) -> list[str]:
        """The message ids in the outbox, in their order."""
        with psycopg.connect(self.shell.environment["POSTROOM_DATABASE_URL"]) as connection:
            rows = connection.execute("SELECT headers FROM postroom.outbox ORDER BY position").fetchall()
        return [dict(load(json.dumps(row[0]))[0])["ce_id"].decode() for row in rows]

    @contextmanager
    def standstill(self, table: str, condition: str) -> Iterator[Callable[[], bool]]:
        """Who writes a row of ``condition`` waits there until the end of the block; gives whether somebody does."""
        url = self.shell.environment["POSTROOM_DATABASE_URL"]
        with psycopg.connect(url, autocommit=True) as holder, psycopg.connect(url, autocommit=True) as other:
            holder.execute("SELECT pg_advisory_lock(4711)")
            other.execute(
                "CREATE OR REPLACE FUNCTION standstill() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END'"
            )
            other.execute(
                f"CREATE TRIGGER standstill BEFORE INSERT OR UPDATE ON postroom.{table} "
                f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION standstill()".encode()
            )
            waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"
            try:
                yield lambda: other.execute(waiting).fetchone() is not None
            finally:
                holder.execute("SELECT pg_advisory_unlock(4711)")
        with psycopg.connect(url, autocommit=True) as last:
            last.execute(f"DROP TRIGGER standstill ON postroom.{table}".encode())


@pytest.fixture
def dead_letters(ready: Shell, postroom_kafka: Broker, postroom_topic: Callable[[str], str]) -> DeadLetters:
    return DeadLetters(ready, postroom_kafka, postroom_topic("orders"))
