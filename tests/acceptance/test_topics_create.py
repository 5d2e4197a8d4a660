"""`postroom topics create` as a process: what is made, what is left as it is, and what is refused."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.ports import Topics
from postroom.testing.kafka import Broker

Shell = Any  # tests/acceptance/conftest.py
NO_KAFKA = {
    "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "POSTROOM_KAFKA_OPTIONS": '{"bootstrap_timeout_ms": 300}',
}


@pytest.fixture
def kafka_shell(shell: Shell, postroom_real_kafka: Broker) -> Shell:
    """The mock cluster makes topics on first use only."""
    shell.environment |= {
        "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": postroom_real_kafka.bootstrap_servers,
        "POSTROOM_KAFKA_OPTIONS": json.dumps(dict(postroom_real_kafka.client_config)),
    }
    return shell


@pytest.fixture
def topics(postroom_real_kafka: Broker) -> Iterator[Topics]:
    options = KafkaOptions(postroom_real_kafka.bootstrap_servers, options=dict(postroom_real_kafka.client_config))
    topics = connect(options).topics()
    yield topics
    topics.close()


def test_topics_and_their_dead_letters_are_created_once(
    kafka_shell: Shell, topics: Topics, postroom_topic: Callable[[str], str]
) -> None:
    orders, payments = postroom_topic("orders"), postroom_topic("payments")
    names = [orders, payments, f"{orders}.billing.dlq", f"{payments}.billing.dlq"]
    command = ["topics", "create", orders, payments, orders, "--partitions", "3", "--dead-letters", "billing"]

    planned = kafka_shell.json(*command, "--dry-run")
    assert [(each["topic"], each["state"]) for each in planned["topics"]] == [(n, "would be created") for n in names]
    asked = kafka_shell.run(*command)
    assert (asked.returncode, "add --yes" in asked.stderr) == (2, True)
    assert not set(names) & topics.partitions().keys()

    made = kafka_shell.json(*command, "--yes")
    assert [(each["topic"], each["state"], each["partitions"]) for each in made["topics"]] == [
        (name, "created", 3) for name in names
    ]
    assert {name: topics.partitions()[name] for name in names} == dict.fromkeys(names, 3)

    again = kafka_shell.run(*command)  # there is nothing to confirm
    assert again.returncode == 0
    assert again.stdout.count("exists") == 4
    assert "not with" not in again.stdout


def test_another_number_of_partitions_is_told_and_stays(
    kafka_shell: Shell, topics: Topics, postroom_topic: Callable[[str], str]
) -> None:
    old, new = postroom_topic("old"), postroom_topic("new")
    topics.create(old, 2, 1, {})

    done = kafka_shell.run("topics", "create", old, new, "--partitions", "5", "--replication-factor", "1", "--yes")

    assert done.returncode == 0, done.stderr
    assert "exists, not with 5 partitions" in done.stdout
    assert "What exists was not changed" in done.stdout
    assert (topics.partitions()[old], topics.partitions()[new]) == (2, 5)
    told = kafka_shell.json("topics", "create", old, new, "--partitions", "5")
    assert [(each["partitions"], each["differs"]) for each in told["topics"]] == [(2, True), (5, False)]


def test_settings_go_to_the_topics_and_not_to_their_dead_letters(
    kafka_shell: Shell, postroom_topic: Callable[[str], str]
) -> None:
    """Kafka refuses this one, which the dead-letter topic was not given."""
    topic = postroom_topic("orders")
    command = ["topics", "create", topic, "--dead-letters", "billing", "--topic-config", "no.such.setting=1", "--yes"]

    done = kafka_shell.run(*command)

    assert done.returncode == 3
    assert done.stderr.startswith(f"Error: {topic}: Kafka refuses these settings of a topic (")
    assert len(done.stderr.splitlines()) == 1
    rows = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines()[2:]}
    assert rows == {topic: "failed", f"{topic}.billing.dlq": "created"}


def test_more_copies_than_brokers_are_refused_in_one_sentence(
    kafka_shell: Shell, postroom_topic: Callable[[str], str]
) -> None:
    done = kafka_shell.run("topics", "create", postroom_topic("x"), "--replication-factor", "300", "--yes", "--json")

    assert done.returncode == 3
    assert json.loads(done.stdout)["topics"][0]["state"] == "failed"
    assert "Kafka refuses these settings of a topic" in json.loads(done.stderr)["error"]


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "sentence"),
    [
        ([], {}, 2, "Missing argument 'TOPIC...'"),
        (["no topic"], {}, 2, "no legal Kafka topic name"),
        (["orders", "--partitions", "0"], {}, 2, "--partitions"),
        (["orders", "--replication-factor", "x"], {}, 2, "--replication-factor"),
        (["orders", "--topic-config", "retention.ms"], {}, 2, "--topic-config takes NAME=VALUE"),
        (["orders", "--dead-letters", "two words"], {}, 2, "'orders.two words.dlq' is no legal Kafka topic name"),
        (["x" * 249, "--dead-letters", "g"], {}, 2, "is no legal Kafka topic name"),
        (["orders", "--yes"], NO_KAFKA, 4, "Kafka does not answer"),
    ],
)
def test_bad_input_gets_one_sentence(
    shell: Shell, arguments: list[str], environment: dict[str, str], code: int, sentence: str
) -> None:
    done = shell.run("topics", "create", *arguments, **environment)

    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    text, *rest = done.stderr.splitlines()
    assert text.startswith("Error: ")
    assert sentence in text
    assert all(line.startswith("Try 'postroom ") for line in rest)
