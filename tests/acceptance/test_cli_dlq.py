"""Finding dead letters by the command line, on real servers: list, show, stats, watch, sync."""

import json
import signal
import struct
from typing import Any

import pytest

from postroom.messaging.records import OutgoingRecord

Desk = Any  # DeadLetters of tests/acceptance/conftest.py
NO_KAFKA = {
    "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "POSTROOM_KAFKA_OPTIONS": '{"bootstrap_timeout_ms": 300}',
}
SPRING = [
    ("kafka_dlt-original-partition", struct.pack(">i", 3)),
    ("kafka_dlt-original-offset", struct.pack(">q", 5)),
    ("kafka_dlt-original-consumer-group", b"billing"),
    ("kafka_dlt-exception-fqcn", b"java.lang.IllegalStateException"),
    ("kafka_dlt-exception-message", b"no stock"),
]
CONNECT = [
    ("__connect.errors.connector.name", b"s3"),
    ("__connect.errors.exception.class.name", b"java.lang.Bad"),
]


def test_what_is_listed_filtered_sorted_and_paged(dead_letters: Desk) -> None:
    topic, ids = dead_letters.topic, dead_letters.die(5)
    dead_letters.die(2, group="audit", first=5)
    everything = dead_letters.json("list", "--sort", "oldest")
    letters = everything["dead_letters"]
    assert {letter["message_id"] for letter in letters} == {f"{topic}-{n}" for n in range(7)}
    assert [letter["failed_at"] for letter in letters] == sorted(letter["failed_at"] for letter in letters)
    assert everything["next"] is None
    assert letters[0] == {
        **letters[0],
        "message_id": ids[0],
        "place": f"{topic}.billing.dlq/{letters[0]['place'].split('/', 1)[1]}",
        "state": "dead",
        "family": "postroom",
        "original": {"topic": topic, "partition": 0, "offset": 0},
        "group": "billing",
        "error": "TimeoutError",
        "message": "gateway 0",
        "handler": "shop.charge",
        "deliveries": 5,
        "replays": 0,
        "plan": None,
    }
    for arguments, numbers in (
        (["--topic", topic, "--group", "bill*"], {0, 1, 2, 3, 4}),
        (["--topic", f"{topic}.audit.dlq"], {5, 6}),
        (["--topic", "nosuch"], set()),
        (["--type", "shop.*"], set(range(7))),
        (["--key", "k3"], {3}),
        (["--error", "TIMEOUT"], {0, 2, 4, 6}),
        (["--error", "no stock 3"], {3}),
        (["--message-id", ids[2]], {2}),
        (["--fingerprint", letters[0]["fingerprint"][:6], "--group", "billing"], {0, 2, 4}),
        (["--since", "150s"], {3, 4, 5, 6}),
        (["--until", "150s"], {0, 1, 2}),
        (["--state", "quarantined"], set()),
        (["--header", "tenant=tenant-4"], {4}),
        (["--match", "payload.n >= 2 and payload.n < 4"], {2, 3}),
        (["--match", "payload.n >= 2", "--error", "gateway", "--group", "billing"], {2, 4}),
    ):
        found = {letter["message_id"] for letter in dead_letters.listed("--no-sync", *arguments)}
        assert found == {f"{topic}-{n}" for n in numbers}, arguments

    pages: list[str] = []
    after = "0"
    while after != "None":
        page = dead_letters.json("list", "--no-sync", "--sort", "newest", "--limit", "3", "--after", after)
        pages += [letter["message_id"] for letter in page["dead_letters"]]
        after = str(page["next"])
    assert pages == [letter["message_id"] for letter in reversed(letters)], "each once, whatever the page"
    told = dead_letters("list", "--no-sync", "--limit", "3").stdout
    assert "There are more; to go on: --after " in told
    assert dead_letters("list", "--no-sync", "--key", "nosuch").stdout == "No dead letter matches.\n"


def test_one_is_shown_whole_by_id_place_and_message_id(dead_letters: Desk) -> None:
    ids = dead_letters.die(3, key=b"same")
    binary = bytes(range(256)) * 3_900  # about 1 MB, and no text
    dead_letters.die(1, key=b"\xff", value=binary, first=3)
    first = dead_letters.listed("--message-id", ids[1])[0]
    shown = dead_letters.json("show", str(first["id"]))
    for name in (first["place"], ids[1]):
        assert dead_letters.json("show", name) == shown
    assert (shown["payload"], shown["key"]) == ('{"n": 1, "x": "ä"}', "same")
    assert ["ce_id", ids[1]] in shown["headers"]
    assert [each["id"] for each in shown["neighbours"]] == [
        letter["id"] for letter in dead_letters.listed("--key", "same", "--sort", "oldest")
    ]
    assert (shown["history"], shown["deaths"]) == ([], [])
    text = dead_letters("show", "--no-sync", ids[1], COLUMNS="80").stdout
    assert '"n": 1,' in text
    assert f"▶ {first['id']}" in text
    assert max(map(len, text.splitlines()[:-1])) <= 80
    [large] = dead_letters.listed("--key", "0xff")
    assert large["payload_bytes"] == len(binary)
    assert large["id"] == dead_letters.listed("--sort", "largest")[0]["id"]
    assert len(dead_letters.json("show", str(large["id"]))["payload"]["base64"]) > len(binary)
    assert len(dead_letters("show", str(large["id"])).stdout) < 100_000, "a terminal is not flooded"


def test_other_producers_letters_are_read_as_far_as_they_tell(dead_letters: Desk) -> None:
    topic = dead_letters.topic
    named = topic.encode()
    dead_letters.put(
        OutgoingRecord(topic, b"", b"", []),
        OutgoingRecord(f"{topic}.dlt", b"k", b"{}", [*SPRING, ("kafka_dlt-original-topic", named)]),
        OutgoingRecord(f"{topic}.dlt", b"k", b"{}", [*CONNECT, ("__connect.errors.topic", named)]),
        OutgoingRecord(f"{topic}.dlt", None, None, [("__dlq.errors.topic", named), ("__dlq.errors.group", b"g")]),
        OutgoingRecord(f"{topic}.dlt", b"\xff", b"\x00\xff", [("weird", b"\xff")]),
    )
    found = {letter["family"]: letter for letter in dead_letters.listed()}
    assert {family: letter["group"] for family, letter in found.items()} == {
        "spring": "billing",
        "connect": "connect-s3",
        "kafka": "g",
        "unknown": None,
    }
    assert found["unknown"]["key"] == {"base64": "/w=="}
    for letter in found.values():
        assert str(letter["id"]) in dead_letters("show", "--no-sync", str(letter["id"])).stdout
    done = dead_letters.json("replay", "--yes", code=1)
    assert (done["replayed_now"], done["state"]) == (2, "done")
    reasons = {tuple(each["examples"]): each["reason"] for each in done["refused"]}
    assert "holds no copy" in reasons[found["kafka"]["id"],]
    assert "original topic is unknown" in reasons[found["unknown"]["id"],]


def test_failures_are_counted_by_what_they_share(dead_letters: Desk) -> None:
    dead_letters.die(5)
    by_failure = dead_letters.json("stats")
    assert [(group["count"], group["error"]) for group in by_failure["groups"]] == [
        (3, "TimeoutError"),
        (2, "ValueError"),
    ]
    assert (by_failure["total"], by_failure["distinct"]) == (5, 2)
    assert sum(by_failure["groups"][0]["trend"]) == 3
    for by, values in {
        "error": {"TimeoutError", "ValueError"},
        "topic": {dead_letters.topic},
        "group": {"billing"},
        "type": {"shop.order.placed"},
        "handler": {"shop.charge"},
        "state": {"dead"},
        "key": {f"k{n}" for n in range(5)},
    }.items():
        assert {group["value"] for group in dead_letters.json("stats", "--no-sync", "--by", by)["groups"]} == values
        assert max(map(len, dead_letters("stats", "--no-sync", "--by", by, COLUMNS="80").stdout.splitlines())) <= 80
    told = dead_letters("stats", "--no-sync", "--error", "stock").stdout
    assert "2 dead letters in 1 group." in told
    assert f"postroom dlq list --fingerprint {by_failure['groups'][1]['value']}" in told


def test_a_letter_is_seen_as_it_comes_whoever_reads_it_and_ctrl_c_is_no_failure(dead_letters: Desk) -> None:
    dead_letters.die(1)
    with dead_letters.shell.running("dlq", "watch", "--interval", "0.1") as process:
        assert process.stderr.readline() == "Watching; Ctrl-C ends it.\n"
        dead_letters.die(1, first=1)
        assert "no stock 1" in process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        dead_letters.die(1, first=2)
        assert dead_letters.json("sync")["read"] == 1
        process.send_signal(signal.SIGCONT)
        assert "gateway 2" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", ""), "what was there before is not shown"


def test_a_sync_that_is_killed_leaves_nothing_out_and_takes_nothing_twice(dead_letters: Desk, eventually: Any) -> None:
    first, second = dead_letters.die(3, group="a"), dead_letters.die(3, group="b", first=3)
    with dead_letters.standstill("dead_letter", "NEW.consumer_group = 'b' AND NEW.topic_offset = 4") as waits:
        with dead_letters.shell.running("dlq", "sync") as process:
            eventually(waits, "the first topic is in, the second one half")
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert {letter["message_id"] for letter in dead_letters.listed("--no-sync")} == set(first)
    assert dead_letters.json("sync") == {"read": 3, "missed": 0, "renewed": [], "gone": []}
    assert sorted(letter["message_id"] for letter in dead_letters.listed()) == sorted(first + second)
    assert dead_letters("sync").stdout == "0 new dead letters.\n"


def test_without_kafka_the_ledger_is_shown_with_a_warning_and_nothing_is_replayed(dead_letters: Desk) -> None:
    dead_letters.die(1)
    before = dead_letters("list", **NO_KAFKA)
    assert before.stdout == "There are no dead letters.\n"
    assert "was never brought up to date" in before.stderr
    [letter] = dead_letters.listed()
    for arguments in (["list"], ["show", str(letter["id"])], ["stats"]):
        done = dead_letters(*arguments, **NO_KAFKA)
        assert "What came lately may be missing: the last one came into the ledger" in done.stderr
        assert "gateway 0" in done.stdout
    warned = dead_letters("list", "--json", **NO_KAFKA)
    assert list(json.loads(warned.stderr)) == ["warning"]
    assert len(json.loads(warned.stdout)["dead_letters"]) == 1
    assert dead_letters("list", "--no-sync", **NO_KAFKA).stderr == ""
    for arguments in (["sync"], ["watch"], ["replay", "--yes"], ["replay", "--no-sync", "--yes"]):
        assert "Kafka does not answer" in dead_letters(*arguments, code=4, **NO_KAFKA).stderr
    assert dead_letters.published() == []


SECRET, NUMBER = "Blomqvist", "4000123412341234"


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_what_is_to_be_redacted_is_shown_nowhere(dead_letters: Desk, arguments: list[str]) -> None:
    redacted = {"POSTROOM_REDACT": '["payload.card.number", "headers.tenant", "key"]'}
    value = json.dumps({"card": {"number": NUMBER}, "n": 1}).encode()
    error = ValueError(f"card {NUMBER} of {SECRET} refused")
    [name] = dead_letters.die(1, key=SECRET.encode(), value=value, error=error)
    dead_letters.die(1, key=SECRET.encode(), value=value, error=error, first=1)
    plain = dead_letters("show", name, *arguments).stdout
    assert NUMBER in plain
    assert SECRET in plain
    seen = [
        dead_letters(*command, *arguments, **redacted).stdout
        for command in (
            ["list"],
            ["show", name],
            ["stats"],
            ["stats", "--by", "key"],
            ["stats", "--match", "payload.n == 1"],
        )
    ]
    if not arguments:  # with --json nothing tells when it has begun; what it prints is what ``list`` does
        with dead_letters.shell.running("dlq", "watch", "--interval", "0.1", **redacted) as process:
            process.stderr.readline()
            dead_letters.die(1, key=SECRET.encode(), value=value, error=error, first=2)
            seen.append(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
    for text in seen:
        assert "redacted" in text
        assert NUMBER not in text
        assert SECRET not in text
        assert "tenant-" not in text


def test_wrong_input_gets_one_sentence_and_changes_nothing(dead_letters: Desk) -> None:
    dead_letters.die(1)
    for line, code, sentence in (
        ("show nosuch", 2, "There is no dead letter 'nosuch' in the ledger"),
        ("show 999", 2, "There is no dead letter '999'"),
        ("show orders.billing.dlq/0/77", 2, "There is no dead letter"),
        ("list --in nosuch", 1, "Kafka knows no topic 'nosuch'"),
        ("sync --in nosuch", 1, "Kafka knows no topic 'nosuch'"),
        ("list --after 999", 2, "no dead letter with the id 999"),
        ("list --since soon", 2, "is no time"),
        ("list --since 1h --until 2h", 2, "--since must be before --until"),
        ("list --state DEAD", 2, "is not one of 'dead'"),
        ("list --match payload.n>", 2, "--match"),
        ("list --fingerprint xyz", 2, "--fingerprint"),
        ("list --sort worst", 2, "is not one of 'newest'"),
        ("stats --by nonsense", 2, "is not one of 'fingerprint'"),
        ("watch --interval 0", 2, "--interval"),
        ("replay", 2, "There is no terminal to answer on; add --yes"),
        ("replay 999 --yes", 2, "There is no dead letter '999'"),
        ("replay 1 --topic orders --yes", 2, "Give ids or filters, not both"),
        ("replay --plan 9 --yes", 2, "There is no plan 9; `postroom dlq plans` lists them"),
        ("replay --plan 1 --limit 3 --yes", 2, "A plan is frozen"),
        ("replay --to-group a --every-group --yes", 2, "not both"),
        ("replay --freeze --wait 1m --yes", 2, "--freeze only makes a plan"),
        ("replay --canary 0 --yes", 2, "such as 1,10,100"),
        ("replay --max-failures 200% --yes", 2, "is no share; write 10% or 0.1"),
        ("replay --rate 0 --yes", 2, "--rate"),
        ("replay --wait --yes", 2, "There is no inbox of 'billing' in this database"),
        ("replay --canary 1 --yes", 2, "add --unconfirmed go-on"),
        ("cancel 9 --yes", 2, "There is no plan 9"),
        ("plans 9", 2, "There is no plan 9"),
    ):
        done = dead_letters(*line.split(), code=code)
        text, *rest = done.stderr.splitlines()
        assert text.startswith("Error: "), line
        assert sentence in text, line
        assert all(each.startswith("Try 'postroom ") for each in rest), line
        assert done.stdout == "", line
    assert dead_letters.published() == []
    assert dead_letters("plans").stdout == "There are no plans.\n"
    assert [letter["state"] for letter in dead_letters.listed()] == ["dead"]
