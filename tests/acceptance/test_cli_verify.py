"""``postroom verify`` as a process: what it prints, its exit codes, and that what it advises helps."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from postroom.messaging.kafka import connect
from postroom.outbox import Message, Outbox
from postroom.outbox.database import open_store
from postroom.outbox.entry import LogRow
from postroom.testing.kafka import Broker

Shell = Any  # tests/acceptance/conftest.py


class Shop:
    """A log whose messages were settled; what of them is in Kafka is said by hand."""

    def __init__(self, shell: Shell, broker: Broker, topic: str) -> None:
        self.shell, self.topic = shell, topic
        self._store = open_store(shell.environment["POSTROOM_DATABASE_URL"])
        self._publisher = connect(broker.options_for()).publisher()

    def settled(self, *payloads: bytes) -> list[LogRow]:
        outbox = Outbox(source="/shop")
        messages = (Message(topic=self.topic, key=b"card-4111", payload=payload, type="t") for payload in payloads)
        self._store.append([outbox.entry(message) for message in messages])
        with closing(self._store.reader("test", 60)) as reader:
            reader.claim()
            batch = reader.read(100)
            reader.settle([batch])
            reader.release()
            return list(batch.rows)

    def put(self, *rows: LogRow) -> None:
        publication = self._publisher.send([row.record() for row in rows])
        assert publication.wait(30)
        assert not publication.errors()

    def close(self) -> None:
        self._publisher.close(5)
        self._store.close()


@pytest.fixture
def shop(ready: Shell, postroom_kafka: Broker, postroom_topic: Callable[[str], str]) -> Iterator[Shop]:
    with closing(Shop(ready, postroom_kafka, postroom_topic("orders"))) as shop:
        yield shop


def test_doubles_are_told_and_count_when_strict(shop: Shop) -> None:
    empty = shop.shell.run("verify")
    assert (empty.returncode, empty.stdout) == (0, "The log is empty: there is nothing to compare.\n")
    rows = shop.settled(b"1", b"2")
    shop.put(*rows, rows[1])
    well = shop.shell.run("verify", COLUMNS="80")
    assert (well.returncode, well.stderr) == (0, "")
    assert max(map(len, well.stdout.splitlines())) <= 80
    assert "Nothing is lost, and every key is in order." in well.stdout
    assert f"position {rows[1].position}" in well.stdout
    strict = shop.shell.run("verify", "--strict", "--json")
    assert strict.returncode == 1
    document = json.loads(strict.stdout)
    assert document["ok"] is False
    [topic] = document["topics"]
    assert (topic["topic"], topic["logged"], topic["arrived"], topic["doubled"]) == (shop.topic, 2, 2, 1)
    assert [each["kind"] for each in document["examples"]] == ["doubled"]
    assert "1 doubled" in json.loads(strict.stderr)["error"]
    assert shop.shell.json("verify", "--topic", shop.topic, "--key", "card-4111", "--since", "1h")["ok"] is True


def test_what_is_lost_is_named_and_the_command_that_is_told_publishes_it_again(shop: Shop) -> None:
    rows = shop.settled(b"1", b"2", b"3")
    shop.put(rows[0], rows[2])
    ended = shop.shell.run("verify", COLUMNS="80", POSTROOM_REDACT="key")
    assert ended.returncode == 1
    assert "1 lost" in ended.stderr
    assert "4111" not in ended.stdout
    assert rows[1].id in ended.stdout
    [command] = [line.strip() for line in ended.stdout.splitlines() if "outbox replay" in line]
    arguments = command.removeprefix("postroom ").removesuffix(" --dry-run").split()
    assert shop.shell.json(*arguments, "--yes")["copied"] == 1
    assert shop.shell.json("verify", "--limit", "0", code=1)["topics"][0]["waiting"] == 1
    shop.put(*shop.settled())
    [topic] = shop.shell.json("verify")["topics"]
    assert (topic["lost"], topic["replayed"]) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--topic", "no-such-topic"], 2, "Neither the log (in this window) nor Kafka knows the topic 'no-such-topic'"),
        (["--since", "1h", "--until", "2h"], 2, "--since must be before --until."),
        (["--topic", "a b"], 2, "no legal Kafka topic name"),
    ],
)
def test_wrong_usage_gets_one_sentence(ready: Shell, arguments: list[str], code: int, told: str) -> None:
    ended = ready.run("verify", *arguments)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert told in ended.stderr.splitlines()[0]


def test_without_kafka_or_tables_it_says_so(database_shell: Shell) -> None:
    nowhere = {
        "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "POSTROOM_KAFKA_OPTIONS": '{"bootstrap_timeout_ms": 300}',
    }
    assert database_shell.run("verify", **nowhere).returncode == 3
    assert database_shell.run("init", **nowhere).returncode == 4
    ended = database_shell.run("verify", **nowhere)
    assert (ended.returncode, ended.stdout) == (4, "")
    assert "Kafka does not answer" in ended.stderr
