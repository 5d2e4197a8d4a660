"""Replaying dead letters by the command line, on real servers: plans, canaries, interruptions, kills, confirmation."""

import json
import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg

from postroom.messaging.records import OutgoingRecord
from postroom.outbox import Message, Names, Outbox
from postroom.outbox.write import write_psycopg

Desk = Any  # DeadLetters of tests/acceptance/conftest.py
SERVICE = """
from pathlib import Path
from postroom.inbox import Context, Inbox

inbox = Inbox(group="billing")

@inbox.handler("{topic}")
def charge(event: object, ctx: Context) -> None:
    if not Path("mended").exists():
        raise ValueError("no rate")
"""


def test_each_goes_once_and_a_plan_is_frozen_shown_and_given_up(dead_letters: Desk) -> None:
    topic, ids = dead_letters.topic, dead_letters.die(5)
    dry = dead_letters.json("replay", "--topic", topic, "--dry-run")
    assert (len(dry["would_replay"]), dry["targets"]) == (5, [{"topic": topic, "group": "billing", "count": 5}])
    assert dead_letters.published() == []
    one = dead_letters.json("replay", ids[3], "--yes", "--reason", "customer was added")
    assert (one["replayed_now"], one["state"], one["counts"]) == (1, "done", {"replayed": 1})
    shown = dead_letters.json("show", ids[3])
    assert [(each["action"], each["to"], each["reason"]) for each in reversed(shown["history"])] == [
        ("plan", "planned", "customer was added"),
        ("replay", "replayed", "customer was added"),
    ]
    assert "@" in shown["history"][0]["actor"]

    frozen = dead_letters.json("replay", "--error", "stock", "--freeze", "--yes", "--reason", "later")
    assert (frozen["state"], frozen["total"], frozen["filter"]) == ("open", 1, "error stock")
    dead_letters.die(2, first=5)
    rest = dead_letters.json("replay", "--yes")
    assert (rest["replayed_now"], rest["in_plans"]) == (5, [frozen["plan"]])
    held_up = dead_letters("replay", "--yes", code=1)
    assert f"Some are in plan {frozen['plan']} already" in held_up.stdout
    assert "1 dead letter could not be replayed." in held_up.stderr
    assert dead_letters.published() == [ids[3], ids[0], ids[2], ids[4], f"{topic}-5", f"{topic}-6"]

    [_, listed, _] = dead_letters.json("plans")["plans"]
    assert (listed["plan"], listed["counts"], listed["reason"]) == (frozen["plan"], {"planned": 1}, "later")
    assert max(map(len, dead_letters("plans", COLUMNS="80").stdout.splitlines())) <= 80
    told = dead_letters("plans", str(frozen["plan"])).stdout
    assert "To go on: postroom dlq replay --plan 2; to give it up: postroom dlq cancel 2" in told
    assert dead_letters.json("cancel", str(frozen["plan"]), "--dry-run")["cancelled"] == 1
    assert "1 dead letter of plan 2 is dead again." in dead_letters("cancel", str(frozen["plan"]), "--yes").stdout
    assert "Nothing is left of plan 2" in dead_letters("cancel", str(frozen["plan"])).stdout
    assert "Plan 2 was cancelled" in dead_letters("replay", "--plan", "2", "--yes", code=1).stderr
    assert [letter["message_id"] for letter in dead_letters.listed("--state", "dead")] == [ids[1]]
    assert dead_letters.json("replay", ids[0], "--again", "--yes")["replayed_now"] == 1
    assert dead_letters("replay", ids[0], "--yes").stdout == "Nothing to replay.\nLeft out: 1 replayed.\n"


def test_whatever_interrupts_a_replay_each_goes_once(dead_letters: Desk, eventually: Callable[..., None]) -> None:
    ids = dead_letters.die(1_100)
    shell = dead_letters.shell
    with ExitStack() as stack:
        with dead_letters.standstill("dead_letter_state", "NEW.state = 'replayed' AND NEW.ordinal = 500") as waits:
            process = stack.enter_context(shell.running("dlq", "replay", "--yes"))
            eventually(waits, "the first batch is on its way")
            process.send_signal(signal.SIGINT)
        out, err = _ended(process)
    assert process.returncode == 130, err
    assert "100 dead letters" not in err, "an interruption is no failure"
    assert "To go on: postroom dlq replay --plan 1" in out
    assert len(dead_letters.published()) == 1_000

    with (
        dead_letters.standstill("dead_letter_state", "NEW.state = 'replayed' AND NEW.ordinal = 1050") as waits,
        shell.running("dlq", "replay", "--plan", "1", "--yes"),
    ):
        eventually(waits, "the second batch is on its way, and is killed there")
    assert dead_letters.json("plans", "1")["plans"][0]["counts"] == {"replayed": 1_000, "planned": 100}
    assert len(dead_letters.published()) == 1_000

    operators = [shell.start("dlq", "replay", "--plan", "1", "--yes", "--json") for _ in range(2)]
    reports = [json.loads(_ended(operator)[0]) for operator in operators]
    assert [operator.returncode for operator in operators] == [0, 0]
    assert sum(report["replayed_now"] for report in reports) == 100
    assert dead_letters.published() == ids, "each once, in the order of their partition"


def test_a_canary_stops_at_the_first_failure_and_what_goes_on_is_confirmed_by_the_inbox(
    dead_letters: Desk, daemon: Callable[..., Any], eventually: Callable[..., None]
) -> None:
    topic, shell = dead_letters.topic, dead_letters.shell
    (shell.folder / "shop.py").write_text(SERVICE.format(topic=topic))
    url = shell.environment["POSTROOM_DATABASE_URL"]
    outbox = Outbox(source="/test")
    with psycopg.connect(url) as connection:
        messages = [Message(topic=topic, key=b"k%d" % n, payload=b"{}", type="t") for n in range(3)]
        write_psycopg(connection, [outbox.entry(message) for message in messages], Names())
    settings = {"POSTROOM_INBOX__ATTEMPTS": "1", "POSTROOM_LOG_LEVEL": "debug"}
    with daemon({**shell.environment, **settings}, "inbox", "run", "shop:inbox", "--relay"):
        eventually(lambda: len(dead_letters.listed()) == 3, "all three are dead")
        stopped = dead_letters("replay", "--canary", "1", "--wait", "1m", "--yes", code=1)
        assert "1 of the 1 of a step failed again, more than 10%." in stopped.stdout
        assert "To go on: postroom dlq replay --plan 1; to give it up: postroom dlq cancel 1" in stopped.stdout
        assert "2 dead letters of plan 1 did not go; 1 failed again." in stopped.stderr
        (shell.folder / "mended").touch()
        went_on = dead_letters.json("replay", "--plan", "1", "--wait", "1m", "--yes", code=1)
        assert (went_on["state"], went_on["replayed_now"]) == ("done", 2)
        assert went_on["counts"] == {"failed-again": 1, "confirmed": 2}
        [again] = dead_letters.listed("--state", "dead")
        done = dead_letters.json("replay", str(again["id"]), "--canary", "1", "--wait", "1m", "--yes")
        assert done["counts"] == {"confirmed": 1}
    assert (again["replays"], again["same_failures"]) == (1, 1)
    [first] = dead_letters.listed("--state", "failed-again")
    assert again["follows"] == first["id"]
    assert dead_letters.json("show", str(again["id"]))["deaths"] == [first["id"]]


def test_whose_group_nobody_knows_goes_where_the_operator_says(dead_letters: Desk) -> None:
    topic = dead_letters.topic
    streams = [("__streams.errors.topic", topic.encode()), ("__streams.errors.exception", b"java.lang.Bad: x")]
    dead_letters.put(
        OutgoingRecord(topic, b"", b"", []), *(OutgoingRecord(f"{topic}.dlt", b"k", b"{}", streams) for _ in range(2))
    )
    first, second = (letter["id"] for letter in dead_letters.listed("--sort", "oldest"))
    refused = dead_letters("replay", str(first), "--yes", code=1)
    assert "aim it with --to-group" in refused.stdout
    assert dead_letters.json("replay", str(first), "--to-group", "audit", "--yes")["targets"] == [
        {"topic": topic, "group": "audit"}
    ]
    dead_letters("replay", str(second), "--every-group", "--yes")
    with psycopg.connect(dead_letters.shell.environment["POSTROOM_DATABASE_URL"]) as connection:
        rows = connection.execute("SELECT headers::text FROM postroom.outbox ORDER BY position").fetchall()
    assert ["audit" in row[0] for row in rows] == [True, False]


def _ended(process: "subprocess.Popen[str]") -> tuple[str, str]:
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return out, err
