"""What operators do to relays and the outbox from the command line, and the record of it."""

import json
import signal
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from postroom.outbox import Message, Names, Outbox, schema
from postroom.outbox.database import open_store
from postroom.outbox.log import Refusal, Report
from postroom.outbox.write import write_psycopg

Shell = Any  # tests/acceptance/conftest.py
OUTBOX = Outbox(source="/test")
URL = "POSTROOM_DATABASE_URL"


@pytest.fixture
def tables(database_shell: Shell) -> Shell:
    """With tables and without Kafka."""
    schema.upgrade(database_shell.environment[URL])
    return database_shell


@pytest.fixture(params=["postgres", "sqlite"])
def either(request: pytest.FixtureRequest, shell: Shell) -> Shell:
    """With tables on each database."""
    if request.param == "postgres":
        return request.getfixturevalue("tables")
    shell.environment[URL] = f"sqlite:///{shell.folder}/log.db"
    schema.upgrade(shell.environment[URL])
    return shell


def publish(shell: Shell, count: int, topic: str = "orders", key: bytes | None = b"k") -> list[str]:
    """Their message ids."""
    made = [
        OUTBOX.entry(Message(topic=topic, key=key, payload=b'{"n": %d}' % n, type="shop.order")) for n in range(count)
    ]
    store = open_store(shell.environment[URL])
    store.append(made)
    store.close()
    return [str(entry.id) for entry in made]


def settle(shell: Shell, errors: dict[Any, str | None] | None = None, *, by_topic: bool = False) -> list[int]:
    """As a relay does; those of the keys in ``errors`` are parked. All positions."""
    store = open_store(shell.environment[URL])
    reader = store.reader("test", 60)
    reader.claim()
    positions = []
    while not (batch := reader.read(1000)).caught_up:
        refusals = [Refusal(row, errors[row.key], by_topic) for row in batch.rows if errors and row.key in errors]
        reader.settle([batch], refusals)
        positions += [row.position for row in batch.rows]
    reader.release()
    reader.close()
    store.close()
    return sorted(positions)


def done(shell: Shell, *arguments: str) -> list[tuple[Any, ...]]:
    """What was recorded, the oldest first."""
    found = shell.json("outbox", "actions", *arguments)["actions"]
    assert all("@" in each["actor"] for each in found)
    return [(each["action"], each["topic"], each["position"], each["reason"]) for each in found[::-1]]


# What goes wrong


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["relay", "pause"], "Missing option '--reason'"),
        (["relay", "pause", "--reason", " "], "1 to 500 printable characters"),
        (["relay", "pause", "--reason", "x" * 501], "1 to 500 printable characters"),
        (["relay", "pause", "--reason", "x", "--topic", "a b"], "no legal Kafka topic name"),
        (["relay", "limit"], "Say what to limit"),
        (["relay", "limit", "--rate", "0"], "a number from 0.001 to 10,000,000, or none"),
        (["relay", "limit", "--rate", "nan"], "a number from 0.001"),
        (["relay", "limit", "--rate", "fast"], "a number from 0.001"),
        (["relay", "limit", "--batch-size", "1.5"], "a whole number from 1 to 50,000, or none"),
        (["relay", "limit", "--batch-size", "50001"], "a whole number from 1 to 50,000, or none"),
        (["relay", "status", "--watch"], "needs a terminal"),
        (["outbox", "list", "--since", "soon"], "is no time"),
        (["outbox", "list", "--since", "1h", "--until", "2h"], "--since must be before --until"),
        (["outbox", "list", "--limit", "0"], "not in the range"),
        (["outbox", "show", "nonsense"], "neither a message id (a UUID) nor a position"),
        (["outbox", "show", "9" * 30], "neither a message id (a UUID) nor a position"),
        (["outbox", "replay"], "Say what to replay"),
        (["outbox", "replay", "--all", "--rate", "-1"], "a number from 0.1"),
        (["outbox", "replay", "--all", "--after", "-1"], "not in the range"),
        (["outbox", "prune", "--keep", "3x"], "is no duration; write 90s, 30m, 12h, 3d or 2w"),
        (["outbox", "prune", "--keep", "-1h"], "is no duration"),
        (["outbox", "actions", "--action", "x"], "is not one of"),
        (["outbox", "parked", "retry"], "Say which to retry"),
        (["outbox", "parked", "discard", "5", "--topic", "t"], "positions or filters, not both"),
        (["db", "notify", "maybe"], "is not one of"),
    ],
)
def test_wrong_usage_gets_one_sentence_and_2(shell: Shell, command: list[str], sentence: str) -> None:
    done = shell.run(*command, **{URL: "postgresql://u:s3cret@127.0.0.1:1/x"})
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    text, *rest = done.stderr.splitlines()
    assert text.startswith("Error: ")
    assert sentence in text
    assert all(line.startswith("Try 'postroom ") for line in rest)


@pytest.mark.parametrize(
    "command",
    [
        ["relay", "pause", "--reason", "x"],
        ["relay", "resume"],
        ["relay", "limit", "--rate", "5"],
        ["outbox", "list"],
        ["outbox", "show", "1"],
        ["outbox", "actions"],
        ["outbox", "replay", "--all", "--yes"],
        ["outbox", "prune", "--yes"],
        ["outbox", "parked", "show", "1"],
        ["db", "notify", "on"],
    ],
)
def test_missing_tables_and_absent_databases_are_told(database_shell: Shell, command: list[str]) -> None:
    missing = database_shell.run(*command)
    assert (missing.returncode, missing.stdout) == (3, "")
    assert "run `postroom init`" in missing.stderr
    away = database_shell.run(*command, **{URL: "postgresql://u@127.0.0.1:1/x"})
    assert (away.returncode, away.stdout) == (4, "")
    assert len(away.stderr.splitlines()) == 1


def test_what_is_not_there_is_told_with_1(tables: Shell) -> None:
    for command in (
        ["outbox", "show", "77"],
        ["outbox", "show", "0199c5f2-7d2e-7c6e-9a6e-0c4b9d7e5a11"],
        ["outbox", "show", "9" * 18],
        ["outbox", "parked", "show", "77"],
        ["outbox", "parked", "retry", "77", "--yes"],
    ):
        done = tables.run(*command)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert len(done.stderr.splitlines()) == 1


# Pauses, limits, status


def test_pauses_and_limits_are_idempotent_and_recorded(either: Shell) -> None:
    first = either.json("relay", "pause", "--reason", "kafka upgrade")
    again = either.json("relay", "pause", "--reason", "kafka upgrade")
    assert (first["changed"], first["before"]) == (True, None)
    assert (again["changed"], again["before"]) == (False, "kafka upgrade")
    assert either.json("relay", "pause", "--topic", "orders", "--reason", "wrong prices")["changed"]
    assert either.json("relay", "limit", "--rate", "500")["rate"] == 500
    limits = either.json("relay", "limit", "--batch-size", "10")
    assert (limits["rate"], limits["batch_size"], limits["changed"]) == (500, 10, True)
    assert not either.json("relay", "limit", "--batch-size", "10")["changed"]

    status = either.json("relay", "status")
    assert (status["paused"]["reason"], "@" in status["paused"]["by"]) == ("kafka upgrade", True)
    assert [(each["topic"], each["reason"]) for each in status["paused_topics"]] == [("orders", "wrong prices")]
    assert (status["limits"]["rate"], status["limits"]["batch_size"]) == (500, 10)
    told = either.run("relay", "status").stdout
    assert "Publishing is paused since" in told
    assert "Topic orders is paused since" in told
    assert "Limited to 500 messages/s and batches of 10" in told
    assert "No relay is running." in told

    resumed = either.json("relay", "resume")
    assert (resumed["changed"], resumed["still_paused"]) == (True, ["orders"])
    assert not either.json("relay", "resume")["changed"]
    assert either.json("relay", "resume", "--topic", "orders")["changed"]
    limits = either.json("relay", "limit", "--rate", "none", "--batch-size", "none")
    assert (limits["rate"], limits["batch_size"]) == (None, None)
    assert done(either) == [
        ("pause", None, None, "kafka upgrade"),
        ("pause", "orders", None, "wrong prices"),
        ("limit", None, None, "rate 500, batch size none"),
        ("limit", None, None, "rate 500, batch size 10"),
        ("resume", None, None, None),
        ("resume", "orders", None, None),
        ("limit", None, None, "rate none, batch size none"),
    ]
    assert len(done(either, "--topic", "orders")) == 2
    assert len(done(either, "--action", "limit", "--limit", "2")) == 2


def test_status_tells_the_relays_their_shards_and_what_waits(either: Shell) -> None:
    publish(either, 3)
    store = open_store(either.environment[URL])
    busy, idle = store.reader("busy", 60), store.reader("idle", 60)
    busy.claim(Report(published=1200, rate=34.5))
    idle.claim(Report(able=False, state="unavailable", detail="Kafka does not answer"))
    gone = store.reader("gone", 0.0)
    gone.claim(Report(able=False))
    status = either.json("relay", "status")

    relays = {each["owner"]: each for each in status["relays"]}
    assert (relays["busy"]["published"], relays["busy"]["rate"]) == (1200, 34.5)
    assert relays["busy"]["shards"] == [shard["shard"] for shard in status["shards"]]
    assert 0 < relays["busy"]["lease_seconds"] <= 60
    assert (relays["idle"]["state"], relays["idle"]["shards"]) == ("unavailable", [])
    assert (relays["idle"]["alive"], relays["gone"]["alive"]) == (True, False)
    assert status["shards_without_relay"] == []
    assert (status["backlog"]["messages"], status["backlog"]["exact"]) == (3, True)
    for width in (80, 200):
        told = either.run("relay", "status", COLUMNS=str(width)).stdout
        assert "idle: unavailable: Kafka does not answer" in told
        assert "silent for" in told
        assert "3 messages waiting to be published, the oldest for" in told
        assert max(map(len, told.splitlines())) <= width
    busy.release()
    told = either.run("relay", "status").stdout
    assert "No relay holds the shards 0" in told
    for reader in (busy, idle, gone):
        reader.close()
    store.close()


def test_status_names_transactions_that_keep_their_messages_waiting(tables: Shell) -> None:
    url = tables.environment[URL]
    with psycopg.connect(url, application_name="importer") as late:
        entry = OUTBOX.entry(Message(topic="orders", key=b"k", payload=b"{}", type="t"))
        write_psycopg(late, [entry], Names())
        time.sleep(5.2)
        [found] = tables.json("relay", "status")["open_transactions"]
        assert (found["pid"], found["application"]) == (late.info.backend_pid, "importer")
        assert (found["state"], found["age"] > 5) == ("idle in transaction", True)
        assert "importer" in tables.run("relay", "status").stdout
    assert tables.json("relay", "status")["open_transactions"] == []


def test_status_can_be_watched_until_ctrl_c(tables: Shell) -> None:
    with tables.start("relay", "status", "--watch", "--json") as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert all("backlog" in line for line in lines)


# The log


def test_messages_are_listed_by_filter_and_order(either: Shell) -> None:
    publish(either, 3)
    publish(either, 2, key=b"other")
    publish(either, 2, topic="payments", key=None)
    positions = settle(either)
    publish(either, 1)

    def listed(*arguments: str) -> list[int]:
        return [each["position"] for each in either.json("outbox", "list", *arguments)["messages"]]

    first, last = positions[0], positions[-1] + 1
    assert listed() == list(range(last, first - 1, -1))
    assert listed("--oldest", "--limit", "2") == positions[:2]
    assert either.json("outbox", "list", "--limit", "2")["more"]
    assert listed("--topic", "payments") == positions[:-3:-1]
    assert listed("--topic", "orders", "--key", "other") == [positions[4], positions[3]]
    assert listed("--waiting") == [last]
    assert listed("--published") == positions[::-1]
    assert listed("--type", "shop.other") == []
    assert listed("--since", "1h") == listed()
    assert listed("--until", "1h") == []
    assert "No message in the log matches." in either.run("outbox", "list", "--until", "1h").stdout
    for width in (80, 200):
        told = either.run("outbox", "list", COLUMNS=str(width)).stdout
        assert max(map(len, told.splitlines())) <= width


def test_a_message_is_shown_whole_by_position_and_by_id(either: Shell) -> None:
    [id_] = publish(either, 1)
    shown = either.json("outbox", "show", id_)
    position = shown["position"]
    assert (shown["state"], shown["payload"], shown["key"], shown["topic"]) == ("waiting", '{"n": 0}', "k", "orders")
    assert ["ce_id", id_] in shown["headers"]
    settle(either)
    assert either.json("outbox", "show", str(position))["state"] == "settled"
    assert '"n": 0' in either.run("outbox", "show", str(position)).stdout

    publish(either, 1, key=b"bad")
    [parked] = settle(either, {b"bad": "too large"})
    assert either.json("outbox", "show", str(parked))["state"] == "parked"
    assert either.run("outbox", "parked", "discard", str(parked), "--yes", "--reason", "a test").returncode == 0
    shown = either.json("outbox", "show", str(parked))
    assert (shown["state"], [each["reason"] for each in shown["actions"]]) == ("discarded", ["a test"])


def test_a_delayed_message_is_shown_by_its_id(either: Shell) -> None:
    entry = OUTBOX.entry(
        Message(topic="orders", key=b"k", payload=b"{}", type="t"), deliver_at=datetime.now(UTC) + timedelta(hours=2)
    )
    store = open_store(either.environment[URL])
    store.append([entry])
    store.close()
    shown = either.json("outbox", "show", str(entry.id))
    assert (shown["state"], shown["position"], shown["due_at"] is not None) == ("scheduled", None, True)


# Parked messages


def test_parked_messages_are_listed_shown_retried_and_discarded(either: Shell) -> None:
    for key in (b"a", b"a", b"b", None):
        publish(either, 1, key=key)
    positions = settle(either, {b"a": "too large", b"b": "too large", None: "too large"})
    listed = either.json("outbox", "parked", "list", "--topic", "orders")
    assert [(row["position"], row["error"]) for row in listed["parked"]] == [(each, "too large") for each in positions]
    limited = either.json("outbox", "parked", "list", "--limit", "1", "--key", "a")
    assert ([row["position"] for row in limited["parked"]], limited["total"]) == (positions[:1], 2)
    shown = either.json("outbox", "parked", "show", str(positions[0]))
    assert (shown["error"], shown["payload"], shown["behind"]) == ("too large", '{"n": 0}', [positions[1]])
    assert f"parked retry {positions[0]}" in either.run("outbox", "parked", "show", str(positions[0])).stdout

    assert either.run("outbox", "parked", "discard", "--all").returncode == 2, "nobody answered the question"
    assert either.json("outbox", "parked", "discard", "--all", "--dry-run")["positions"] == positions
    assert either.json("outbox", "parked", "retry", "--key", "a", "--yes", "--reason", "raised")["changed"] == 2
    assert either.json("outbox", "parked", "discard", str(positions[2]), "--yes")["changed"] == 1
    left = either.json("outbox", "parked", "list")["parked"]
    assert [(row["position"], row["retry"]) for row in left] == [
        (positions[0], True),
        (positions[1], True),
        (positions[3], False),
    ]
    stats = either.json("outbox", "stats")
    assert stats["parked"] == [{"topic": "orders", "refused": 3, "waiting": 0, "retrying": 2, "waiting_for_topic": 0}]
    assert either.json("relay", "status")["backlog"]["messages"] == 0
    assert done(either) == [
        ("retry", "orders", positions[0], "raised"),
        ("retry", "orders", positions[1], "raised"),
        ("discard", "orders", positions[2], None),
    ]


def test_what_waits_for_its_topic_says_so_and_how_to_let_it_go(either: Shell) -> None:
    publish(either, 2)
    either.json("relay", "pause", "--topic", "orders", "--reason", "wrong prices")
    [first, _] = settle(either, {b"k": None}, by_topic=True)
    told = either.run("outbox", "parked", "list").stdout
    assert "waits until its topic goes on" in told
    assert "Topic orders is paused: wrong prices" in told
    assert "postroom relay resume --topic orders" in told
    assert either.json("outbox", "parked", "list", "--refused")["total"] == 0
    assert either.json("outbox", "parked", "show", str(first))["topic_paused"] == "wrong prices"
    assert either.json("outbox", "parked", "retry", "--all", "--yes")["changed"] == 0, "nothing of that was refused"
    assert either.json("outbox", "stats")["parked"][0]["waiting_for_topic"] == 2


# Replay


def test_a_replay_copies_byte_for_byte_what_was_published_once(either: Shell) -> None:
    ids = publish(either, 3)
    publish(either, 2, topic="payments")
    publish(either, 1, key=b"bad")
    settle(either, {b"bad": "too large"})
    publish(either, 1)  # not published yet
    assert either.run("outbox", "replay", "--topic", "orders").returncode == 2, "nobody answered the question"
    plan = either.json("outbox", "replay", "--topic", "orders", "--dry-run")
    assert (plan["total"], plan["topics"], plan["copied"]) == (3, {"orders": 3}, 0)
    done_ = either.json("outbox", "replay", "--topic", "orders", "--yes", "--reason", "lost by billing")
    assert (done_["copied"], done_["upto"]) == (3, 7)

    copies = either.json("outbox", "list", "--waiting", "--oldest")["messages"][1:]
    assert [each["id"] for each in copies] == ids
    original, copy = (either.json("outbox", "show", str(each)) for each in (1, copies[0]["position"]))
    assert copy["headers"] == [["postroom_replay", done_["plan"]], *original["headers"]]
    assert all(copy[name] == original[name] for name in ("id", "topic", "key", "type", "payload", "shard"))
    [record] = done(either)
    assert record[:3] == ("replay", "orders", 3)
    assert "lost by billing" in record[3]

    settle(either)
    again = either.json("outbox", "replay", "--topic", "orders", "--dry-run")
    assert again["total"] == 4, "copies are not copied"
    assert either.json("outbox", "replay", "--topic", "orders", "--dry-run", "--copies")["total"] == 7
    assert either.json("outbox", "replay", "--all", "--dry-run", "--after", "2", "--upto", "4")["total"] == 2
    nothing = either.run("outbox", "replay", "--topic", "nosuch", "--yes")
    assert (nothing.returncode, "Nothing to replay" in nothing.stdout) == (0, True)


def test_a_replay_goes_on_where_ctrl_c_ended_it(tables: Shell, eventually: Callable[..., None]) -> None:
    ids = publish(tables, 300)
    settle(tables)
    with tables.start("outbox", "replay", "--topic", "orders", "--rate", "100", "--yes") as process:
        store = open_store(tables.environment[URL])
        eventually(lambda: store.backlog().messages > 20, "it copies")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    line = next(line.strip() for line in err.splitlines() if line.strip().startswith("postroom "))
    assert " --after " in line
    copied = store.backlog().messages
    assert 20 < copied < 300
    assert f"{copied} of 300 copied, up to position {copied}." in err
    assert done(tables)[-1][2] == copied, "the record says so, too"

    rest = tables.json(*line.split()[1:], "--yes")
    assert rest["copied"] == 300 - copied
    waiting = tables.json("outbox", "list", "--waiting", "--oldest", "--limit", "400")["messages"]
    assert [each["id"] for each in waiting] == ids
    store.close()


def test_a_replay_keeps_to_its_rate(tables: Shell) -> None:
    publish(tables, 60)
    settle(tables)
    began = time.monotonic()
    assert tables.json("outbox", "replay", "--all", "--rate", "40", "--yes")["copied"] == 60
    assert time.monotonic() - began > 1.3


def test_a_replay_leaves_out_headers_that_cannot_be_published(tables: Shell) -> None:
    publish(tables, 1)
    with psycopg.connect(tables.environment[URL]) as connection:
        connection.execute(
            "INSERT INTO postroom.outbox (id, topic, key, type, payload, headers) "
            "VALUES (gen_random_uuid(), 'orders', 'bad', 'x', '', '{\"n\": 5}')"
        )
    [_, bad] = settle(tables)
    told = tables.json("outbox", "replay", "--all", "--yes")
    assert (told["copied"], told["skipped"]) == (1, [bad])


# Retention, waking up


def test_prune_drops_what_is_settled_and_says_why_the_rest_stays(tables: Shell) -> None:
    url = tables.environment[URL]
    with psycopg.connect(url) as connection:
        for number in range(5):
            connection.execute(f"DROP TABLE postroom.outbox_00000000{number}")
        connection.execute("SELECT postroom.outbox_add_partitions(6, 10)")
    publish(tables, 35)
    assert "stays: a shard has not settled all of it" in tables.run("outbox", "prune", "--keep", "0s").stdout
    settle(tables)
    assert "stays: it holds messages (" in tables.run("outbox", "prune", "--yes").stdout, "the retention is 72 h"
    assert tables.run("outbox", "prune", "--keep", "0s").returncode == 2, "nobody answered the question"
    names = [f"outbox_00000000{number}" for number in range(3)]
    dry = tables.json("outbox", "prune", "--keep", "0s", "--dry-run")
    assert (dry["dropped"], dry["stays"]["why"], dry["dry_run"]) == (names, "head", True)
    told = tables.run("outbox", "prune", "--keep", "0s", "--yes").stdout
    assert "Dropped 3 parts, outbox_000000000 to outbox_000000002" in told
    assert "outbox_000000003 stays: it is the one that is written to." in told
    assert tables.json("outbox", "prune", "--keep", "0s", "--yes")["dropped"] == []
    assert [each[:2] for each in done(tables)] == [("prune", None)] * 3


def test_prune_on_sqlite_deletes_rows(shell: Shell) -> None:
    shell.environment[URL] = f"sqlite:///{shell.folder}/log.db"
    schema.upgrade(shell.environment[URL])
    publish(shell, 5)
    settle(shell)
    publish(shell, 2)
    time.sleep(0.01)
    assert shell.json("outbox", "prune", "--keep", "0s", "--yes")["dropped"] == ["5 rows"]
    connection = sqlite3.connect(shell.folder / "log.db")
    assert connection.execute("SELECT count(*) FROM postroom_outbox").fetchall() == [(2,)]
    connection.close()
    assert [each[:2] for each in done(shell)] == [("prune", None)]


def test_notify_is_switched_on_and_off_and_recorded(tables: Shell) -> None:
    assert tables.json("db", "notify", "status") == {"notify": False, "changed": False, "listen": False}
    assert tables.json("db", "notify", "on")["changed"]
    assert not tables.json("db", "notify", "on")["changed"]
    assert "relay.listen = true" in tables.run("db", "notify", "status").stdout
    with psycopg.connect(tables.environment[URL], application_name="importer") as late:
        late.execute("LOCK TABLE postroom.outbox IN ROW EXCLUSIVE MODE")
        blocked = tables.run("db", "notify", "off")
        assert (blocked.returncode, blocked.stdout) == (4, "")
        assert "Nothing was switched: an open transaction holds the log" in blocked.stderr
        assert "importer" in blocked.stderr
    assert tables.json("db", "notify", "off") == {"notify": False, "changed": True, "listen": False}
    assert [each[3] for each in done(tables)] == ["on", "off"]


def test_notify_is_for_postgresql(shell: Shell) -> None:
    shell.environment[URL] = f"sqlite:///{shell.folder}/log.db"
    schema.upgrade(shell.environment[URL])
    done_ = shell.run("db", "notify", "on")
    assert (done_.returncode, "SQLite cannot tell of a commit" in done_.stderr) == (2, True)
