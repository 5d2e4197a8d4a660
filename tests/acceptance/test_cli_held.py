"""What operators do to held messages, groups and policies from the command line, and the record of it."""

import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from postroom.messaging.headers import dump_pairs
from postroom.outbox import Names, schema
from postroom.outbox.database import parse_url
from postroom.outbox.sqlite import stored_moment
from postroom.outbox.write import run_query

Shell = Any  # tests/acceptance/conftest.py
URL = "POSTROOM_DATABASE_URL"
NOW = datetime.now(UTC)


class Tables:
    """As the inbox writes them."""

    def __init__(self, url: str) -> None:
        self.sqlite = url.startswith("sqlite")
        self.dialect = "sqlite" if self.sqlite else "postgres"
        self.engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)

    def run(self, query: str, **params: Any) -> int:
        moments = {name: stored_moment(each) for name, each in params.items() if isinstance(each, datetime)}
        with self.engine.begin() as connection:
            return run_query(connection, query, {**params, **(moments if self.sqlite else {})}, Names())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """``sql`` has {names}."""
        with self.engine.connect() as connection:
            found = connection.exec_driver_sql(Names().render(sql, self.dialect))
            return [tuple(row) for row in found]

    def hold(self, offset: int, state: str = "retry", **more: Any) -> int:
        """A held message; its id."""
        row: dict[str, Any] = {
            "group": "billing",
            "topic": "orders",
            "partition": 0,
            "offset": offset,
            "message_id": f"m-{offset}",
            "key": b"k",
            "type": "shop.order.placed",
            "payload": b'{"n": %d}' % offset,
            "headers": dump_pairs([("ce_id", b"m-%d" % offset), ("odd", b"\xff")]),
            "timestamp": NOW,
            "handler": "shop.charge",
            "state": state,
            "attempts": 3 if state == "retry" else 0,
            "error": "TimeoutError: the gateway" if state != "behind" else None,
            "first_failed_at": NOW if state != "behind" else None,
            "next_attempt_at": NOW + timedelta(hours=1) if state == "retry" else None,
            **more,
        }
        self.run("hold", **row)
        where = f"topic = '{row['topic']}' AND \"offset\" = {offset} AND consumer_group = '{row['group']}'"
        return int(self.rows(f"SELECT id FROM {{inbox_held}} WHERE {where}")[0][0])

    def close_message(
        self, message_id: str, outcome: str = "handled", *, group: str = "billing", replays: int = 0
    ) -> bool:
        """As a delivery does; whether it was open."""
        params = {"topic": "orders", "handler": None, "attempts": 1, "replays": replays}
        return self.run("inbox_close", group=group, message_id=message_id, outcome=outcome, **params) == 1

    def outcomes(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT message_id, outcome FROM {inbox} ORDER BY message_id")

    def control(self) -> dict[str, tuple[str | None, Any, int]]:
        """Pause, policy and revision by subject."""
        found = self.rows("SELECT subject, paused, policy, revision FROM {inbox_control}")
        return {
            subject: (paused, json.loads(policy) if isinstance(policy, str) else policy, revision)
            for subject, paused, policy, revision in found
        }


@pytest.fixture(params=["postgres", "sqlite"])
def either(request: pytest.FixtureRequest, shell: Shell) -> Shell:
    """With tables on each database."""
    if request.param == "postgres":
        found = request.getfixturevalue("database_shell")
    else:
        found = shell
        shell.environment[URL] = f"sqlite:///{shell.folder}/log.db"
    schema.upgrade(found.environment[URL])
    return found


@pytest.fixture
def tables(either: Shell) -> Iterator[Tables]:
    made = Tables(either.environment[URL])
    yield made
    made.engine.dispose()


def done(shell: Shell, *arguments: str) -> list[tuple[Any, ...]]:
    """What was recorded, the oldest first."""
    found = shell.json("inbox", "actions", *arguments)["actions"]
    assert all("@" in each["actor"] for each in found)
    assert all(each["at"] for each in found)
    return [(each["action"], each["subject"], each["message_id"], each["reason"]) for each in found[::-1]]


def narrow(shell: Shell, *command: str) -> str:
    """What is told keeps to the width of the terminal."""
    for width in (80, 200):
        told = shell.run(*command, COLUMNS=str(width)).stdout
        assert max(map(len, told.splitlines())) <= width, told
    return str(told)


# What goes wrong


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["held", "list", "--state", "dead"], "is not one of"),
        (["held", "list", "--since", "soon"], "is no time"),
        (["held", "list", "--since", "1h", "--until", "2h"], "--since must be before --until"),
        (["held", "list", "--limit", "0"], "not in the range"),
        (["held", "list", "--group", "a b"], "1 to 200 of the characters"),
        (["held", "list", "--topic", "a b"], "no legal Kafka topic name"),
        (["held", "show", "x"], "is not a valid integer"),
        (["held", "show", "9" * 30], "not in the range"),
        (["held", "retry"], "Say which to retry"),
        (["held", "discard"], "Say which to discard"),
        (["held", "retry", "1", "--topic", "t"], "ids or filters, not both"),
        (["held", "discard", "1", "--all"], "ids or filters, not both"),
        (["held", "retry", "--all", "--since", "1h", "--until", "2h"], "--since must be before --until"),
        (["pause", "--group", "g"], "Missing option '--reason'"),
        (["pause", "--group", "g", "--reason", " "], "1 to 500 printable characters"),
        (
            ["pause", "--group", "g", "--topic", "t", "--handler", "h", "--reason", "x"],
            "a topic or a handler, not both",
        ),
        (["resume", "--group", "g", "--topic", "t", "--handler", "h"], "a topic or a handler, not both"),
        (["policy", "set", "g"], "Say what to set: --attempts, --immediate"),
        (["policy", "set", "g", "--attempts", "0"], "attempts is '0'; it must be a whole number from 1 to 1,000"),
        (["policy", "set", "g", "--base", "0"], "base is '0'; it must be a number above 0"),
        (["policy", "set", "g", "--on-dead-letter", "stop"], "on_dead_letter is 'stop'; it must be go-on or wait"),
        (["policy", "reset", "g", "speed"], "is not one of"),
        (["status", "--watch"], "needs a terminal"),
        (["actions", "--action", "x"], "is not one of"),
        (["prune", "--older-than", "soon"], "is no duration; write"),
        (["prune", "--older-than", "59m"], "--older-than is 59m; it must be at least 1h"),
    ],
)
def test_wrong_usage_gets_one_sentence_and_2(shell: Shell, command: list[str], sentence: str) -> None:
    ended = shell.run("inbox", *command, **{URL: "postgresql://u:s3cret@127.0.0.1:1/x"})
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    text, *rest = ended.stderr.splitlines()
    assert text.startswith("Error: ")
    assert sentence in text
    assert all(line.startswith("Try 'postroom ") for line in rest)


@pytest.mark.parametrize(
    "command",
    [
        ["held", "list"],
        ["held", "show", "1"],
        ["held", "retry", "--all", "--yes"],
        ["held", "discard", "1", "--yes"],
        ["pause", "--group", "g", "--reason", "x"],
        ["resume", "--group", "g"],
        ["policy", "show", "g"],
        ["policy", "set", "g", "--rate", "5"],
        ["policy", "reset", "g"],
        ["status"],
        ["actions"],
        ["prune", "--yes"],
    ],
)
def test_missing_tables_and_absent_databases_are_told(database_shell: Shell, command: list[str]) -> None:
    missing = database_shell.run("inbox", *command)
    assert (missing.returncode, missing.stdout) == (3, "")
    assert "run `postroom init`" in missing.stderr
    away = database_shell.run("inbox", *command, **{URL: "postgresql://u@127.0.0.1:1/x"})
    assert (away.returncode, away.stdout) == (4, "")
    assert len(away.stderr.splitlines()) == 1


def test_what_is_not_held_or_cannot_be_retried_is_told_in_one_sentence(either: Shell, tables: Tables) -> None:
    first, behind = tables.hold(1), tables.hold(2, "behind")
    dead = tables.hold(3, "dead-letter", key=b"other")
    for command, sentence in (
        (["show", "77"], "Nothing is held with the id 77."),
        (["retry", "77", "--yes"], "Nothing is held with the id 77."),
        (["discard", str(first), "77", "78", "--yes"], "Nothing is held with the id 77, 78."),
        (
            ["retry", str(behind), "--yes"],
            f"Held message {behind} waits behind {first} of its key and cannot be retried",
        ),
        (["retry", str(first), str(behind), "--yes"], "cannot be retried alone; it follows by itself."),
        (["retry", str(dead), "--yes"], "is a dead letter by now: replay it with `postroom dlq replay m-3`"),
    ):
        ended = either.run("inbox", "held", *command)
        assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
        assert sentence in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
    assert done(either) == []
    assert tables.control() == {}, "nothing was changed"


# Held messages


def test_held_messages_are_listed_by_filter_and_page(either: Shell, tables: Tables) -> None:
    ids = [
        tables.hold(1),
        tables.hold(2, "behind"),
        tables.hold(3, "dead-letter", topic="payments", key=None, error="ValueError: No Stock"),
        tables.hold(4, group="audit", key=b"\xff", type=None),
    ]

    def listed(*arguments: str) -> list[int]:
        return [each["id"] for each in either.json("inbox", "held", "list", *arguments)["held"]]

    assert listed() == ids
    assert listed("--group", "billing") == ids[:3]
    assert listed("--topic", "payments") == [ids[2]]
    assert listed("--key", "k") == ids[:2]
    assert listed("--type", "shop.order.placed") == ids[:3]
    assert listed("--state", "behind") == [ids[1]]
    assert listed("--error", "no stock") == [ids[2]]
    assert listed("--message-id", "m-2") == [ids[1]]
    assert listed("--since", "1h") == ids
    assert listed("--until", "1h") == []
    found = either.json("inbox", "held", "list", "--limit", "3")
    assert ([each["id"] for each in found["held"]], found["total"], found["next"]) == (ids[:3], 4, ids[2])
    assert found["states"] == {"retry": 2, "behind": 1, "dead-letter": 1}
    assert (listed("--after", str(ids[2])), either.json("inbox", "held", "list")["next"]) == ([ids[3]], None)
    one = found["held"][0]
    assert (one["topic"], one["key"], one["attempts"], one["error"]) == ("orders", "k", 3, "TimeoutError: the gateway")
    assert datetime.fromisoformat(one["next_attempt_at"]) > NOW
    told = narrow(either, "inbox", "held", "list")
    assert "TimeoutError: the gateway" in told
    assert f"postroom inbox held show {ids[0]}" in told
    assert f"There are more, 4 in all; to go on: --after {ids[0]}" in narrow(
        either, "inbox", "held", "list", "--limit", "1"
    )
    assert "Nothing of that is held." in either.run("inbox", "held", "list", "--topic", "nosuch").stdout


def test_a_held_message_is_shown_whole_with_what_waits_behind_it(either: Shell, tables: Tables) -> None:
    first, behind = tables.hold(1), tables.hold(2, "behind")
    tables.hold(3, "behind", key=b"other")
    tables.hold(4, "behind", group="audit")
    dead = tables.hold(5, "dead-letter", key=None)
    shown = either.json("inbox", "held", "show", str(first))
    assert (shown["payload"], shown["handler"], shown["state"]) == ('{"n": 1}', "shop.charge", "retry")
    assert shown["headers"] == [["ce_id", "m-1"], ["odd", {"base64": "/w=="}]]
    assert shown["behind"] == [{"id": behind, "offset": 2, "message_id": "m-2"}]
    assert either.run("inbox", "held", "retry", str(first), "--yes", "--reason", "the gateway is back").returncode == 0
    shown = either.json("inbox", "held", "show", str(first))
    assert [(each["action"], each["reason"]) for each in shown["actions"]] == [("retry", "the gateway is back")]

    told = narrow(either, "inbox", "held", "show", str(first))
    for part in ("TimeoutError: the gateway", '"n": 1', "ce_id", "the gateway is back", f"1 of its key: {behind}"):
        assert part in told
    assert f"held show {first}" in either.run("inbox", "held", "show", str(behind)).stdout
    assert "postroom dlq replay m-5" in either.run("inbox", "held", "show", str(dead)).stdout
    assert either.json("inbox", "held", "show", str(dead))["behind"] == [], "without a key nothing waits"


def test_a_retry_makes_messages_due_with_all_their_attempts(either: Shell, tables: Tables) -> None:
    first = tables.hold(1)
    tables.hold(2, "behind")
    other = tables.hold(3, key=b"other")
    tables.hold(4, "dead-letter", key=b"third")
    assert either.run("inbox", "held", "retry", "--all").returncode == 2, "nobody answered the question"
    dry = either.json("inbox", "held", "retry", "--all", "--dry-run")
    assert (dry["ids"], dry["changed"], dry["dry_run"]) == ([first, other], 0, True)
    assert tables.control() == {}

    assert either.json("inbox", "held", "retry", "--key", "k", "--yes", "--reason", "back")["changed"] == 1
    rows = {row["id"]: row for row in either.json("inbox", "held", "list", "--state", "retry")["held"]}
    assert rows[first]["attempts"] == 0
    assert datetime.fromisoformat(rows[first]["next_attempt_at"]) <= datetime.now(UTC) + timedelta(seconds=5)
    assert (rows[other]["attempts"], datetime.fromisoformat(rows[other]["next_attempt_at"]) > NOW) == (3, True)
    assert tables.control() == {"": (None, {}, 1)}
    assert either.json("inbox", "held", "retry", str(first), str(other), "--yes")["changed"] == 2
    assert tables.control() == {"": (None, {}, 2)}
    assert either.json("inbox", "held", "retry", "--topic", "nosuch", "--yes")["changed"] == 0
    assert tables.control() == {"": (None, {}, 2)}
    assert done(either) == [
        ("retry", "topic:orders", "m-1", "back"),
        ("retry", "topic:orders", "m-1", None),
        ("retry", "topic:orders", "m-3", None),
    ]


def test_what_is_discarded_does_not_run_when_it_is_delivered_again(either: Shell, tables: Tables) -> None:
    first, behind, other = tables.hold(1), tables.hold(2, "behind"), tables.hold(3, group="audit", message_id="m-1")
    assert either.run("inbox", "held", "discard", str(first)).returncode == 2, "nobody answered the question"
    assert either.json("inbox", "held", "discard", "--key", "k", "--dry-run")["ids"] == [first, behind, other]
    assert tables.outcomes() == []

    told = either.run("inbox", "held", "discard", str(first), "--yes", "--reason", "a test order").stdout
    assert "1 message is discarded." in told
    assert [row["id"] for row in either.json("inbox", "held", "list")["held"]] == [behind, other], "its key goes on"
    assert tables.outcomes() == [("m-1", "discarded")]
    assert not tables.close_message("m-1")
    assert tables.close_message("m-1", group="audit"), "of another group"
    assert tables.control() == {"": (None, {}, 1)}
    assert done(either) == [("discard", "topic:orders", "m-1", "a test order")]
    stats = either.json("inbox", "stats")
    assert {(each["group"], each["outcome"]) for each in stats} == {("billing", "discarded"), ("audit", "handled")}
    assert "discarded" in either.run("inbox", "stats").stdout


def test_a_discarded_dead_letter_stays_one_and_a_failed_replay_is_closed(either: Shell, tables: Tables) -> None:
    tables.close_message("m-1", "dead-lettered")
    tables.close_message("m-2", "dead-lettered")
    tables.close_message("m-3", "dead-lettered", replays=1)
    tables.close_message("m-4", "handled")
    tables.hold(1, "dead-letter")
    tables.hold(5, "dead-letter", key=b"5")  # so old that the inbox has forgotten it
    replayed = dump_pairs([("postroom_replay_count", b"1")])
    for offset in (2, 3, 4):
        tables.hold(offset, key=b"%d" % offset, headers=replayed)
    assert either.json("inbox", "held", "discard", "--all", "--yes")["changed"] == 5

    assert either.json("inbox", "held", "list")["held"] == []
    assert tables.outcomes() == [
        ("m-1", "dead-lettered"),
        ("m-2", "discarded"),
        ("m-3", "dead-lettered"),  # by this very delivery, meanwhile
        ("m-4", "handled"),
    ]
    assert tables.close_message("m-1", replays=1), "its replay runs"
    assert tables.close_message("m-5", replays=1), "its replay runs"
    assert not tables.close_message("m-2", replays=2)


# Pauses, policies, status


def test_pauses_are_idempotent_and_recorded(either: Shell, tables: Tables) -> None:
    none = either.run("inbox", "pause", "--reason", "x")
    assert (none.returncode, "Say which group, with --group; the tables know none yet" in none.stderr) == (2, True)
    tables.hold(1)
    first = either.json("inbox", "pause", "--reason", "gateway moves")
    again = either.json("inbox", "pause", "--reason", "gateway moves")
    assert (first["group"], first["changed"], first["before"]) == ("billing", True, None)
    assert (again["changed"], again["before"]) == (False, "gateway moves")
    assert "Nothing was changed." in either.run("inbox", "pause", "--reason", "gateway moves").stdout
    assert either.json("inbox", "pause", "--topic", "orders", "--reason", "wrong prices")["changed"]
    assert either.json("inbox", "pause", "--handler", "shop.charge", "--reason", "twice")["changed"]
    assert "the reason is now: wrong" in either.run("inbox", "pause", "--topic", "orders", "--reason", "wrong").stdout
    assert {subject: paused for subject, (paused, _, _) in tables.control().items()} == {
        "": "gateway moves",
        "topic:orders": "wrong",
        "handler:shop.charge": "twice",
    }
    told = either.run("inbox", "pause", "--group", "typo", "--reason", "x").stdout
    assert "The tables know no group typo yet" in told
    several = either.run("inbox", "resume")
    assert "there are billing, typo." in several.stderr

    resumed = either.json("inbox", "resume", "--group", "billing")
    assert (resumed["changed"], resumed["still_paused"]) == (True, ["handler:shop.charge", "topic:orders"])
    told = either.run("inbox", "resume", "--group", "billing").stdout
    assert "Group billing is not paused.\nNothing was changed." in told
    assert "Still paused by themselves: handler shop.charge, topic orders" in told
    assert either.json("inbox", "resume", "--group", "billing", "--topic", "orders")["changed"]
    assert done(either, "--group", "billing") == [
        ("pause", "", None, "gateway moves"),
        ("pause", "topic:orders", None, "wrong prices"),
        ("pause", "handler:shop.charge", None, "twice"),
        ("pause", "topic:orders", None, "wrong"),
        ("resume", "", None, None),
        ("resume", "topic:orders", None, None),
    ]
    assert len(done(either, "--action", "resume", "--limit", "1")) == 1
    told = narrow(either, "inbox", "actions")
    assert "topic orders" in told
    assert "wrong prices" in told
    assert "Nothing of that was done." in either.run("inbox", "actions", "--action", "prune").stdout


def test_policies_are_changed_setting_by_setting_and_taken_back(either: Shell, tables: Tables) -> None:
    tables.hold(1)
    alone = either.run("inbox", "policy", "set", "billing", "--base", "11")
    assert (alone.returncode, "up to cap, which is 10." in alone.stderr) == (2, True), "as the settings say"
    everything = ["--attempts", "20", "--immediate", "2", "--base", "0.5", "--cap", "60", "--timeout", "5"]
    everything += ["--rate", "50", "--concurrency", "4", "--on-dead-letter", "wait", "--breaker-threshold", "1"]
    everything += ["--breaker-open-seconds", "30", "--dead-letters-per-minute", "0"]
    policy = {
        "attempts": 20,
        "immediate": 2,
        "base": 0.5,
        "cap": 60.0,
        "timeout": 5.0,
        "rate": 50.0,
        "concurrency": 4,
        "on_dead_letter": "wait",
        "dead_letters_per_minute": 0,
        "breaker_threshold": 1.0,
        "breaker_open_seconds": 30.0,
    }
    changed = either.json("inbox", "policy", "set", "billing", *everything)
    assert (changed["policy"], changed["before"], changed["changed"]) == (policy, {}, True)
    assert not either.json("inbox", "policy", "set", "billing", "--rate", "50")["changed"]
    told = either.run("inbox", "policy", "set", "billing", "--rate", "50").stdout
    assert told.endswith("Nothing was changed.\n")
    own = either.json("inbox", "policy", "set", "billing", "--handler", "shop.charge", "--attempts", "3")
    assert own["policy"] == {"attempts": 3}
    assert tables.control() == {"": (None, policy, 0), "handler:shop.charge": (None, {"attempts": 3}, 0)}

    for arguments, sentence in (
        (["--attempts", "1"], "attempts is 1; it must be at least immediate, which is 2."),
        (["--base", "90"], "base is 90; it must be above 0 and up to cap, which is 60."),
        (["--handler", "shop.refund", "--cap", "0.2"], "cap is 0.2; it must be at least base, which is 0.5."),
        (["--immediate", "4"], "immediate of handler shop.charge is 4; it must be from 1 to attempts, which is 3."),
        (["--handler", "shop.charge", "--cap", "0.1"], "cap is 0.1; it must be at least base, which is 0.5."),
    ):
        wrong = either.run("inbox", "policy", "set", "billing", *arguments)
        assert (wrong.returncode, wrong.stdout) == (2, ""), arguments
        assert sentence in wrong.stderr
    shown = either.json("inbox", "policy", "show", "billing")
    assert [(each["handler"], each["policy"]) for each in shown["policies"]] == [
        (None, policy),
        ("shop.charge", {"attempts": 3}),
    ]
    only = either.json("inbox", "policy", "show", "billing", "--handler", "shop.charge")["policies"]
    assert [each["handler"] for each in only] == ["shop.charge"]
    assert "breaker_open_seconds" in narrow(either, "inbox", "policy", "show", "billing")

    less = either.json("inbox", "policy", "reset", "billing", "rate", "attempts")["policy"]
    assert less == {name: value for name, value in policy.items() if name not in ("rate", "attempts")}
    assert either.json("inbox", "policy", "reset", "billing")["policy"] == {}
    assert not either.json("inbox", "policy", "reset", "billing")["changed"]
    assert either.json("inbox", "policy", "reset", "billing", "--handler", "shop.charge")["changed"]
    assert "Nothing is changed for group billing" in either.run("inbox", "policy", "show", "billing").stdout
    assert [each[:2] for each in done(either)] == [("policy", "")] + [("policy", "handler:shop.charge")] + [
        ("policy", "")
    ] * 2 + [("policy", "handler:shop.charge")]
    assert done(either)[1][3] == "attempts 3; before: as the handler and the settings say"


def test_status_tells_groups_what_is_held_asked_and_begun(either: Shell, tables: Tables) -> None:
    assert either.run("inbox", "status", "--no-lag").stdout == "The tables know no group yet.\n"
    due = NOW + timedelta(minutes=30)
    tables.hold(1, next_attempt_at=due)
    tables.hold(2, "behind")
    tables.hold(3, topic="payments")
    tables.hold(4, "dead-letter", group="audit")
    tables.close_message("x", group="mail")
    place = {"group": "billing", "topic": "orders", "partition": 3}
    tables.run("attempt_begin", **place, member="host-1", first_offset=10, last_offset=19)
    tables.run("attempt_suspect", **place, attempts=2, offset=12)
    either.json("inbox", "pause", "--group", "billing", "--topic", "orders", "--reason", "wrong prices")
    either.json("inbox", "policy", "set", "audit", "--rate", "5")

    found = either.json("inbox", "status", "--no-lag")
    assert found["kafka_error"] is None
    groups = {each["group"]: each for each in found["groups"]}
    assert list(groups) == ["audit", "billing", "mail"]
    billing = groups["billing"]
    assert billing["held"] == {"retry": 2, "behind": 1, "dead-letter": 0}
    assert [(each["topic"], each["handler"], each["reason"]) for each in billing["paused"]] == [
        ("orders", None, "wrong prices")
    ]
    assert abs(datetime.fromisoformat(billing["next_attempt_at"]) - due) < timedelta(seconds=1)
    assert {each["topic"]: each["held"]["retry"] for each in billing["topics"]} == {"orders": 1, "payments": 1}
    [begun] = billing["begun"]
    assert (begun["partition"], begun["first_offset"], begun["last_offset"]) == (3, 10, 19)
    assert (begun["suspect_offset"], begun["suspect_attempts"]) == (12, 2)
    assert [each["policy"] for each in groups["audit"]["policies"]] == [{"rate": 5.0}]
    assert groups["mail"]["held"] == {"retry": 0, "behind": 0, "dead-letter": 0}
    only = either.json("inbox", "status", "--no-lag", "--group", "audit")["groups"]
    assert [each["group"] for each in only] == ["audit"]

    told = narrow(either, "inbox", "status", "--no-lag")
    assert "Topic orders is paused since" in told
    assert "Changed for the group since" in told
    assert "10 to 19, 12 tried 2 times after a crash" in told
    away = either.run(
        "inbox",
        "status",
        POSTROOM_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
        POSTROOM_KAFKA_OPTIONS='{"bootstrap_timeout_ms": 300}',
    )
    assert (away.returncode, "The lag is not known: Kafka does not answer" in away.stdout) == (0, True)


def test_status_can_be_watched_until_ctrl_c(either: Shell, tables: Tables) -> None:
    tables.hold(1)
    with either.start("inbox", "status", "--watch", "--json", "--no-lag") as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert [line["groups"][0]["group"] for line in lines] == ["billing"] * 2


# Retention


def test_prune_forgets_what_was_processed_long_ago(either: Shell, tables: Tables) -> None:
    for message_id in ("old/0/1", "old/0/2", "young/0/1"):
        tables.close_message(message_id)
    ago = stored_moment(NOW - timedelta(days=31))
    with tables.engine.begin() as connection:
        sql = f"UPDATE {{inbox}} SET processed_at = '{ago}' WHERE message_id <> 'young/0/1'"
        connection.exec_driver_sql(Names().render(sql, tables.dialect))
    part = "rows" if tables.sqlite else "inbox_other"
    assert either.run("inbox", "prune").returncode == 2, "nobody answered the question"
    dry = either.json("inbox", "prune", "--dry-run")
    assert (dry["forgotten"], dry["older_than_seconds"]) == ([{"part": part, "messages": 2}], 30 * 86_400)
    assert either.json("inbox", "prune", "--older-than", "32d", "--dry-run")["forgotten"] == []
    assert len(tables.outcomes()) == 3
    assert "Forgot 2 messages." in either.run("inbox", "prune", "--yes").stdout
    assert tables.outcomes() == [("young/0/1", "handled")]
    assert "Nothing was forgotten." in either.run("inbox", "prune", "--yes").stdout
    [(action, subject, message_id, reason)] = done(either)
    assert (action, subject, message_id) == ("prune", "", None)
    assert "2 rows, older than 30 days" in reason
