"""Debezium takes over from the relay on the same table and gives it back, as the how-to on it says."""

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from postroom.messaging.envelope import wire_headers
from postroom.messaging.headers import dump_pairs
from postroom.messaging.records import ReceivedRecord
from postroom.outbox import Message, Names
from postroom.outbox.write import write_psycopg
from postroom.testing.kafka_maven import KAFKA_VERSION, fetch
from postroom.testing.process import supervised, tail
from postroom.testing.server import ServerUnavailableError, free_ports

DEBEZIUM = "3.3.1.Final"
POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>postroom</groupId><artifactId>{name}</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""
FAILED = re.compile("unrecoverable exception|Failed to create job|Stopping due to error")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.usefixtures("postroom_real_kafka")]


@pytest.fixture
def jars() -> tuple[Path, Path]:
    """Kafka Connect, and Debezium's connector."""
    if missing := [program for program in ("java", "javac", "jar", "mvn") if shutil.which(program) is None]:
        pytest.skip(f"needs {', '.join(missing)} (install a JDK of version 17 or later, and Maven)")
    runtime = {"group": "org.apache.kafka", "name": "connect-runtime", "version": KAFKA_VERSION}
    connector = {"group": "io.debezium", "name": "debezium-connector-postgres", "version": DEBEZIUM}
    try:
        return (
            fetch(f"connect-{KAFKA_VERSION}", POM.format(**runtime)),
            fetch(f"debezium-{DEBEZIUM}", POM.format(**connector)),
        )
    except ServerUnavailableError as error:
        pytest.skip(f"the jars cannot be had: {error}")


@contextmanager
def connect(url: str, bootstrap_servers: str, files: Path, jars: tuple[Path, Path]) -> Iterator[Path]:
    """A standalone worker with the connector as it is deployed; its log."""
    runtime, debezium = jars
    with supervised() as supervisor:
        folder = supervisor.folder
        plugin = folder / "plugins" / "postroom"
        shutil.copytree(debezium, plugin)
        classes = folder / "classes"
        source, path = str(files / "PostroomHeaders.java"), f"{runtime}/*:{debezium}/*"
        subprocess.run(["javac", "--release", "17", "-Werror", "-d", classes, "-cp", path, source], check=True)
        subprocess.run(["jar", "cf", plugin / "postroom-headers.jar", "-C", classes, "."], check=True)
        [port] = free_ports(1)
        worker = (files / "worker.properties").read_text() + (
            f"bootstrap.servers={bootstrap_servers}\nplugin.path={folder}/plugins\nplugin.discovery=only_scan\n"
            f"listeners=http://127.0.0.1:{port}\noffset.storage.file.filename={folder}/offsets\n"
            "offset.flush.interval.ms=500\n"
        )
        made = json.loads((files / "connector.json").read_text())
        settings = {"name": made["name"], **made["config"]}
        connector = "".join(f"{name}={value}\n" for name, value in settings.items())
        (folder / "worker.properties").write_text(worker)
        (folder / "connector.properties").write_text(connector)
        where = make_url(url)
        environment = {
            "POSTROOM_DEBEZIUM_HOST": where.host,
            "POSTROOM_DEBEZIUM_PORT": str(where.port),
            "POSTROOM_DEBEZIUM_USER": where.username,
            "POSTROOM_DEBEZIUM_PASSWORD": str(where.password),
            "POSTROOM_DEBEZIUM_DATABASE": where.database,
        }
        java = ["java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{runtime}/*"]
        main = ["org.apache.kafka.connect.cli.ConnectStandalone"]
        arguments = [str(folder / f"{name}.properties") for name in ("worker", "connector")]
        log = folder / "connect.log"
        variables = {**os.environ, **{name: str(value) for name, value in environment.items()}}
        supervisor.run([*java, *main, *arguments], log=log, environment=variables)
        yield log


@pytest.fixture
def debezium(workload: Any) -> Iterator[str]:
    """The database's URL for a role that may do what Debezium needs, and nothing else."""
    name = f"debezium_{token_hex(4)}"
    with psycopg.connect(workload.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN REPLICATION PASSWORD 'secret'".encode())
        connection.execute(f"GRANT USAGE ON SCHEMA postroom TO {name}".encode())
        connection.execute(f"GRANT SELECT ON postroom.outbox TO {name}".encode())
        yield make_url(workload.url).set(username=name, password="secret").render_as_string(hide_password=False)
        connection.execute(f"DROP OWNED BY {name}".encode())
        connection.execute(f"DROP ROLE {name}".encode())


@dataclass(frozen=True)
class Connector:
    """Kafka Connect with Debezium, not yet running."""

    files: Path
    url: str
    jars: tuple[Path, Path]

    def running(self, bootstrap_servers: str) -> AbstractContextManager[Path]:
        return connect(self.url, bootstrap_servers, self.files, self.jars)


@pytest.fixture
def connector(rooms: Path, debezium: str, jars: tuple[Path, Path]) -> Connector:
    return Connector(rooms / "deploy" / "debezium", debezium, jars)


def messages(workload: Any, count: int, first: int) -> None:
    """Of every kind: with headers, forwarded complete, keyless, with a key that is no text, a tombstone, empty."""
    with psycopg.connect(workload.url) as connection:
        for n in range(first, first + count):
            key: bytes | None = b"key-%d" % (n % 5)
            payload: bytes | None = b'{"n": %d}' % n
            headers = {"tenant": "zürich", "n": str(n)}
            match n % 10:
                case 6:
                    key = None
                case 7:
                    key = b"\xff\x00"
                case 8:
                    payload = None
                case 9:
                    payload = b""
                case 5:
                    headers = {"ce_subject": "mine", "correlation_id": "c-1"}
            entry = workload.outbox.entry(
                Message(topic=workload.topic, key=key, type="n", payload=payload, headers=headers)
            )
            if n % 10 == 4:
                pairs = [("ce_id", str(entry.id).encode()), ("odd", b"\xff"), ("odd", b"two"), ("empty", b"")]
                entry = replace(entry, headers=dump_pairs(pairs))
            write_psycopg(connection, [entry], Names())
            connection.commit()


def expected(url: str) -> dict[bytes, tuple[Any, ...]]:
    """Each row as our relay would write it, by message id."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT id::text, key, payload, type, created_at, headers::text FROM postroom.outbox ORDER BY position"
        ).fetchall()
    return {row[0].encode(): (row[1], row[2], wire_headers(row[0], row[3], row[4], row[1], row[5])) for row in rows}


def ask(url: str, query: str, *params: object) -> list[Any]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(query.encode(), params or None)
        return cursor.fetchall() if cursor.description else []


def by_id(records: list[ReceivedRecord]) -> dict[bytes, list[tuple[Any, ...]]]:
    found: dict[bytes, list[tuple[Any, ...]]] = defaultdict(list)
    for record in records:
        found[dict(record.headers)["ce_id"]].append((record.key, record.value, list(record.headers)))
    return found


def test_debezium_takes_over_with_the_same_records_and_gives_back(
    workload: Any, relays: Any, connector: Connector, eventually: Callable[..., None]
) -> None:
    files = connector.files
    messages(workload, 100, 0)
    relay = relays(workload)
    eventually(lambda: workload.unsettled() == 0, "the relay published the first part")
    with psycopg.connect(workload.url, autocommit=True) as connection:
        for statement in (files / "publication.sql").read_text().split(";\n"):
            if statement.strip():
                connection.execute(statement.encode())
    messages(workload, 20, 100)  # published by both
    eventually(lambda: workload.unsettled() == 0, "the relay published what committed before it was stopped")
    relay.stop()
    assert relay.join(30)
    messages(workload, 100, 120)

    rows = expected(workload.url)
    with connector.running(workload.broker.bootstrap_servers) as log:
        eventually(
            lambda: by_id(workload.records()).keys() == rows.keys() or FAILED.search(tail(log, 1000)) is not None,
            "Debezium published the rest",
            150,
        )
        assert by_id(workload.records()).keys() == rows.keys(), tail(log, 60)
        [(lsn, snapshot)] = ask(workload.url, "SELECT pg_current_wal_lsn()::text, pg_current_snapshot()::text")
        messages(workload, 5, 220)  # published by both
        confirmed = "SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots WHERE slot_name = 'postroom_outbox'"
        eventually(lambda: ask(workload.url, confirmed, lsn) == [(True,)], "the slot is past the snapshot")
        eventually(lambda: by_id(workload.records()).keys() == expected(workload.url).keys(), "Debezium has it all")
    settled = (files / "settled.sql").read_text().replace(":'snapshot'", f"'{snapshot}'")
    ask(workload.url, settled)
    relays(workload)
    messages(workload, 20, 225)
    eventually(lambda: workload.unsettled() == 0, "the relay went on")

    rows, records = expected(workload.url), workload.records()
    found = by_id(records)
    assert found.keys() == rows.keys()
    for message_id, row in rows.items():
        assert all(record == row for record in found[message_id]), (found[message_id], row)
    place = {message_id: number for number, message_id in enumerate(rows)}
    doubled = sorted(place[message_id] for message_id, copies in found.items() if len(copies) > 1)
    assert doubled == [*range(100, 120), *range(220, 225)], "only what committed while both were at it comes twice"
    order: dict[bytes, list[int]] = defaultdict(list)
    for record in records:
        if record.key is not None:
            order[record.key].append(place[dict(record.headers)["ce_id"]])
    for key, numbers in order.items():
        first_seen = list(dict.fromkeys(numbers))
        assert first_seen == sorted(first_seen), key
