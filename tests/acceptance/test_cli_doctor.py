"""``postroom doctor``: what it looks at, what it says to do, and its exit codes; and the lag in ``inbox status``."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from postroom.messaging.kafka import connect
from postroom.messaging.ports import Kafka
from postroom.messaging.records import OutgoingRecord, Partition
from postroom.outbox import schema
from postroom.outbox.database import open_store
from postroom.testing import kafka_broker
from postroom.testing.kafka import Broker

Shell = Any  # tests/acceptance/conftest.py
URL = "POSTROOM_DATABASE_URL"
NO_KAFKA = {
    "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "POSTROOM_KAFKA_OPTIONS": '{"bootstrap_timeout_ms": 300}',
}
DAY_MS = 86_400_000


def point_to(shell: Shell, broker: Broker) -> Kafka:
    shell.environment |= {
        "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "POSTROOM_KAFKA_OPTIONS": json.dumps(dict(broker.client_config)),
    }
    return connect(broker.options_for("kafka-python"))


@pytest.fixture
def tables(shell: Shell) -> Shell:
    shell.environment[URL] = f"sqlite:///{shell.folder}/log.db"
    schema.upgrade(shell.environment[URL])
    return shell


@pytest.fixture
def cluster(tables: Shell, postroom_real_kafka: Broker) -> Kafka:
    """The mock cluster tells no settings of topics."""
    return point_to(tables, postroom_real_kafka)


def make(kafka: Kafka, topics: Mapping[str, Mapping[str, str]]) -> None:
    admin = kafka.topics()
    for topic, config in topics.items():
        assert admin.create(topic, 1, 1, {"segment.ms": str(DAY_MS), **config})
    admin.close()


def inbox_of(shell: Shell, *topics: str) -> str:
    lines = ["from postroom.inbox import Inbox", "inbox = Inbox(group='billing')"]
    for number, topic in enumerate(topics):
        lines += [f"@inbox.handler({topic!r})", f"def handle_{number}(event, ctx): ..."]
    (shell.folder / "shop.py").write_text("\n".join(lines) + "\n")
    return "shop:inbox"


def found(shell: Shell, *arguments: str, code: int = 0, **environment: str) -> dict[tuple[str, str], dict[str, str]]:
    """The findings by check and subject."""
    done = shell.run("doctor", *arguments, "--json", **environment)
    assert done.returncode == code, (done.stdout, done.stderr)
    document = json.loads(done.stdout)
    findings = document["findings"]
    for state, number in (
        ("problem", document["problems"]),
        ("warning", document["warnings"]),
        ("unknown", document["unknown"]),
    ):
        assert sum(each["state"] == state for each in findings) == number
    assert (document["problems"] > 0) == (code != 0)
    assert all(each["todo"] for each in findings if each["state"] != "ok")
    return {(each["check"], each["subject"]): each for each in findings}


def states(findings: Mapping[tuple[str, str], Mapping[str, str]]) -> dict[tuple[str, str], str]:
    return {place: each["state"] for place, each in findings.items()}


def test_all_is_well(tables: Shell, cluster: Kafka, postroom_topic: Callable[[str], str]) -> None:
    topic = postroom_topic("well")
    tables.environment["POSTROOM_HEALTH_ADDRESS"] = "127.0.0.1:8080"
    store = open_store(tables.environment[URL])
    store.reader("here:1:a", 600).claim()
    dead = f"{topic}.billing.dlq"
    make(cluster, {topic: {"retention.ms": str(7 * DAY_MS)}, dead: {"retention.ms": str(29 * DAY_MS)}})
    findings = found(tables, inbox_of(tables, topic))
    address = tables.environment["POSTROOM_KAFKA_BOOTSTRAP_SERVERS"]
    assert set(states(findings).values()) == {"ok"}, findings
    looked_at = [
        *[("settings", ""), ("options", "kafka_options"), ("database", "tables"), ("kafka", address), ("topic", topic)],
        *[("topic", dead), ("retention", "outbox"), ("retention", topic), ("retention", dead), ("retention", "ledger")],
        *[("relay", "here:1:a"), ("backlog", ""), ("copies", ""), ("lag", f"billing, {topic}"), ("versions", "Kafka")],
    ]
    assert findings.keys() >= set(looked_at)
    assert findings["database", "tables"]["told"] == f"of version {schema.LATEST}"
    assert "for 7d, the inbox 30d" in findings["retention", topic]["told"]
    for width in (80, 200):
        done = tables.run("doctor", "shop:inbox", COLUMNS=str(width))
        assert (done.returncode, done.stderr) == (0, "")
        assert max(map(len, done.stdout.splitlines())) <= width
    store.close()


def test_only_what_is_not_ok_is_shown_where_that_is_asked_for(tables: Shell) -> None:
    findings = found(tables, "--problems", code=1, **NO_KAFKA)
    assert "ok" not in states(findings).values()
    assert ("kafka", "127.0.0.1:1") in findings
    told = tables.run("doctor", "--problems", COLUMNS="80", **NO_KAFKA).stdout
    assert "→ Start it, or correct" in told
    assert ", 2 warnings, 1 problem.\n" in told


def test_a_retention_that_outlasts_the_inboxs_is_a_problem_and_names_the_setting(
    tables: Shell, cluster: Kafka, postroom_topic: Callable[[str], str]
) -> None:
    long, dead, forever, compacted, segments = map(postroom_topic, ("long", "letters", "forever", "compacted", "part"))
    letters = f"{dead}.billing.dlq"
    make(
        cluster,
        {
            long: {"retention.ms": str(45 * DAY_MS + 1)},
            dead: {"retention.ms": "1000"},
            letters: {"retention.ms": str(31 * DAY_MS)},
            forever: {"retention.ms": "-1"},
            compacted: {"cleanup.policy": "compact", "retention.ms": "1000"},
            segments: {"retention.ms": str(29 * DAY_MS), "segment.ms": str(7 * DAY_MS)},
        },
    )
    target = inbox_of(tables, long, dead, forever, compacted, segments)
    findings = found(tables, target, code=1)
    of = {subject: each for (check, subject), each in findings.items() if check == "retention"}

    assert of[long]["state"] == "problem"
    assert "the inbox only 30d" in of[long]["told"]
    assert "Raise relay.inbox_retention_hours to 1081," in of[long]["todo"]
    assert (of[letters]["state"], "to 744," in of[letters]["todo"]) == ("problem", True)
    assert of[dead]["state"] == "ok"
    assert (of[forever]["state"], "for ever (retention.ms is -1)" in of[forever]["told"]) == ("warning", True)
    assert f"retention.ms to {30 * DAY_MS} or less" in of[forever]["todo"]
    assert (of[compacted]["state"], "it is compacted" in of[compacted]["told"]) == ("warning", True)
    assert (of[segments]["state"], "Kafka drops whole segments" in of[segments]["told"]) == ("warning", True)
    assert "to 864." in of[segments]["todo"]
    done = tables.run("doctor", target)
    assert (done.returncode, done.stderr) == (1, "Error: There are 2 problems.\n")

    raised = states(found(tables, target, "--set", "relay.inbox_retention_hours=2000"))
    assert {raised["retention", each] for each in (long, letters, segments)} == {"ok"}


def test_a_topic_that_is_not_there_is_a_problem(
    tables: Shell, cluster: Kafka, postroom_topic: Callable[[str], str]
) -> None:
    topic = postroom_topic("absent")
    findings = found(tables, inbox_of(tables, topic), code=1)
    assert findings["topic", topic]["state"] == "problem"
    assert ("retention", topic) not in findings
    admin = cluster.topics()
    assert topic not in admin.partitions(), "it changes nothing"
    admin.close()


def test_a_cluster_that_tells_no_settings_is_a_warning(tables: Shell) -> None:
    with kafka_broker(prefer="mock") as mock:
        kafka = point_to(tables, mock)
        publisher = kafka.publisher()
        assert publisher.send([OutgoingRecord("orders", b"k", b"1", [])]).wait(30)
        publisher.close(5)
        findings = found(tables, inbox_of(tables, "orders"))
    assert findings["topic", "orders"]["state"] == "ok"
    assert findings["retention", "kafka"]["state"] == "warning"
    assert "the topics' retention is not known" in findings["retention", "kafka"]["told"]


def test_the_outboxs_retention_counts_too(tables: Shell) -> None:
    given = ("--set", "relay.retention_hours=721")
    findings = found(tables, *given, code=1, **NO_KAFKA)
    of = findings["retention", "outbox"]
    assert (of["state"], "Raise relay.inbox_retention_hours to 721," in of["todo"]) == ("problem", True)
    assert "the outbox can replay messages of 721h, the inbox remembers 30d" in of["told"]


def test_what_does_not_answer_is_a_problem_and_the_rest_is_looked_at(database_shell: Shell) -> None:
    findings = found(database_shell, code=1, **NO_KAFKA)
    assert [place for place, state in states(findings).items() if state == "problem"] == [
        ("database", "tables"),
        ("kafka", "127.0.0.1:1"),
    ]
    assert findings["durability", ""]["state"] == findings["retention", "outbox"]["state"] == "ok"
    assert findings["database", "tables"]["todo"] == "postroom init"
    away = {**NO_KAFKA, URL: "postgresql://u:s3cret@127.0.0.1:1/x"}
    assert "The database does not answer" in found(database_shell, code=1, **away)["database", ""]["told"]
    refused = sa.make_url(database_shell.environment[URL]).set(username="s3cret", password="s3cret")
    done = database_shell.run("doctor", **{**NO_KAFKA, URL: refused.render_as_string(hide_password=False)})
    assert (done.returncode, "s3cret" in done.stdout + done.stderr) == (1, False), "the server says the user's name"
    assert "The database refuses" in " ".join(done.stdout.split())
    none = found(database_shell, code=1, **{**NO_KAFKA, URL: ""})
    assert "No database is set" in none["database", ""]["told"]


def test_settings_that_cannot_be_read_end_the_look(tables: Shell) -> None:
    findings = found(tables, code=1, POSTROOM_RELAY__INBOX_RETENTION_HOURS="0.5")
    assert states(findings) == {("settings", ""): "problem"}
    assert "POSTROOM_RELAY__INBOX_RETENTION_HOURS" in findings["settings", ""]["told"]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [("shop", "must be MODULE:INBOX"), ("nosuch:inbox", "There is no module 'nosuch'"), ("shop:number", "is no Inbox")],
)
def test_an_inbox_that_is_none_gets_one_sentence_and_2(tables: Shell, target: str, sentence: str) -> None:
    (tables.folder / "shop.py").write_text("number = 3\n")
    done = tables.run("doctor", target)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr.splitlines()[0]


def test_status_tells_the_lag(tables: Shell, postroom_kafka: Broker, postroom_topic: Callable[[str], str]) -> None:
    kafka = point_to(tables, postroom_kafka)
    topic, group = postroom_topic("lag"), postroom_topic("group")
    publisher = kafka.publisher()
    assert publisher.send([OutgoingRecord(topic, b"k", b"%d" % n, []) for n in range(20)]).wait(30)
    publisher.close(5)
    shown = tables.json("inbox", "status", "--group", group)["groups"][0]
    assert (shown["topics"], shown["begun"]) == ([], []), "it never read anything"

    consumer = kafka.consumer(group, [topic], on_assigned=lambda _: None, on_revoked=lambda _: None)
    records: list[Any] = []
    while len(records) < 20:
        records += consumer.poll(1.0, 100)
    [number] = {record.partition.number for record in records}
    consumer.commit({Partition(topic, number): records[12].offset + 1})
    consumer.close()
    found_ = tables.json("inbox", "status", "--group", group)
    [of] = found_["groups"][0]["topics"]
    assert (found_["kafka_error"], of["topic"], of["lag"]) == (None, topic, 7)
    assert of["uncommitted_partitions"] == of["partitions"] - 1
    told = tables.run("inbox", "status", "--group", group).stdout
    assert [line.split()[:2] for line in told.splitlines() if line.startswith(topic)] == [[topic, "7"]]
