"""Repairing, moving and erasing dead letters from the command line."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from postroom.dlq import DeadLetter, Filter, Ledger, State, count
from postroom.dlq.ingest import insert
from postroom.messaging.dead_letter import Failure, dead_letter_headers
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.outbox import schema

Shell = Any  # tests/acceptance/conftest.py
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MODEL = """
from decimal import Decimal
from postroom.outbox import Event

class OrderPlaced(Event, topic="orders", type="order.placed", version=2):
    amount: Decimal

@OrderPlaced.upcast(1, 2)
def named(payload):
    return {"amount": payload["total"]}
"""


def letter(offset: int, key: bytes = b"jane") -> DeadLetter:
    payload = b'{"total": %d.50, "card": {"number": "4711"}}' % offset
    record = ReceivedRecord(
        Partition("orders", 0), offset, key, payload, [("ce_id", b"m-%d" % offset), ("ce_type", b"order.placed")], NOW
    )
    failure = Failure(ValueError("no such customer"), "charge", 3, NOW, NOW)
    dead = dead_letter_headers(record, "billing", failure)
    return DeadLetter.of(ReceivedRecord(Partition("orders.billing.dlq", 0), offset, key, payload, dead, NOW))


@pytest.fixture
def desk(shell: Shell, tmp_path: Path) -> Shell:
    """A ledger with four dead letters, and no Kafka."""
    url = f"sqlite:///{tmp_path / 'app.db'}"
    schema.upgrade(url)
    shell.environment |= {"POSTROOM_DATABASE_URL": url, "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    ledger = Ledger(url)
    with ledger.changing() as work:
        insert(work, [letter(1), letter(2), letter(3, b"joe"), letter(4, b"joe")])
    ledger.close()
    return shell


def states(shell: Shell) -> dict[str, int]:
    ledger = Ledger(shell.environment["POSTROOM_DATABASE_URL"])
    try:
        return dict(count(ledger, Filter()))
    finally:
        ledger.close()


def test_an_edit_is_validated_shown_and_stored(desk: Shell) -> None:
    (desk.folder / "shop.py").write_text(MODEL)
    (desk.folder / "fix.json").write_text('[{"op": "replace", "path": "/total", "value": 7.250}]')
    desk.environment |= {"POSTROOM_REDACT": "payload.card.number", "POSTROOM_DLQ__MODELS": '["shop"]'}
    bad = desk.run(
        "dlq", "edit", "1", "--no-sync", "--yes", "--patch", '[{"op": "replace", "path": "/total", "value": "x"}]'
    )
    assert bad.returncode == 1
    assert "OrderPlaced refuses the payload: amount" in bad.stderr
    assert "--force stores it all the same" in bad.stderr
    assert states(desk) == {"dead": 4}
    done = desk.run("dlq", "edit", "1", "--no-sync", "--yes", "--patch", "@fix.json", "--reason", "typo")
    assert done.returncode == 0, done.stderr
    assert '-  "total": 1.50,\n+  "total": 7.250,' in done.stdout
    assert "validated by shop.OrderPlaced" in done.stdout
    assert "4711" not in done.stdout
    assert "postroom dlq replay 5" in done.stdout
    assert states(desk) == {"dead": 4, "discarded": 1}
    ledger = Ledger(desk.environment["POSTROOM_DATABASE_URL"])
    [made] = ledger.letters([5])
    ledger.close()
    assert made.payload == b'{"total":7.250,"card":{"number":"4711"}}'
    told = desk.json("dlq", "edit", "2", "--no-sync", "--payload", "{}", "--force", "--dry-run")
    assert (told["changed"], told["replaces"], told["dry_run"]) == (0, 2, True)
    assert told["validation"].startswith("refused: ")


def test_an_edit_of_what_is_discarded_or_without_a_terminal_is_refused(desk: Shell) -> None:
    told = desk.json("dlq", "discard", "1", "--no-sync", "--reason", "a test", "--yes")
    assert told == {"changed": 1, "would_change": 1, "others": 0, "dry_run": False}
    refused = desk.run("dlq", "edit", "1", "--no-sync", "--payload", "1", "--yes")
    assert (refused.returncode, "is discarded, and only dead" in refused.stderr) == (2, True)
    refused = desk.run("dlq", "edit", "2", "--no-sync")
    assert (refused.returncode, "There is no terminal for an editor" in refused.stderr) == (2, True)
    same = desk.run("dlq", "edit", "2", "--no-sync", "--key", "jane")
    assert (same.returncode, same.stdout) == (0, "Nothing was changed.\n")


def test_discard_wants_a_reason_and_to_be_told_which(desk: Shell) -> None:
    assert desk.run("dlq", "discard", "--all", "--no-sync").returncode == 2
    refused = desk.run("dlq", "discard", "--no-sync", "--reason", "x")
    assert (refused.returncode, "ids, filters, or --all" in refused.stderr) == (2, True)
    asked = desk.run("dlq", "discard", "--key", "joe", "--no-sync", "--reason", "x")
    assert (asked.returncode, "Discard 2 dead letters (key joe)?" in asked.stderr) == (2, True)
    assert states(desk) == {"dead": 4}


def test_what_was_exported_masked_is_imported_masked(desk: Shell, tmp_path: Path) -> None:
    desk.environment |= {"POSTROOM_REDACT": "payload.card.number"}
    told = desk.json("dlq", "export", "--no-sync", "--key", "joe", "--out", "out.jsonl")
    assert told == {"exported": 2, "masked": 2, "file": "out.jsonl", "format": "jsonl"}
    lines = [json.loads(line) for line in (desk.folder / "out.jsonl").read_text().splitlines()]
    assert [(line["masked"], "4711" in line["payload"]) for line in lines] == [(True, False)] * 2
    again = desk.run("dlq", "export", "--no-sync", "--out", "out.jsonl")
    assert (again.returncode, "exists" in again.stderr) == (2, True)
    assert len((desk.folder / "out.jsonl").read_text().splitlines()) == 2
    piped = desk.run("dlq", "export", "--no-sync", "--out", "-")
    assert len(piped.stdout.splitlines()) == 4
    assert not list(desk.folder.glob(".out.jsonl*"))
    other = f"sqlite:///{tmp_path / 'other.db'}"
    schema.upgrade(other)
    desk.environment |= {"POSTROOM_DATABASE_URL": other}
    assert desk.json("dlq", "import", "out.jsonl", "--dry-run") == {"imported": 2, "skipped": 0, "dry_run": True}
    assert states(desk) == {}
    assert desk.json("dlq", "import", "out.jsonl", "--yes") == {"imported": 2, "skipped": 0, "dry_run": False}
    assert desk.json("dlq", "import", "out.jsonl", "--yes")["skipped"] == 2
    (desk.folder / "bad.jsonl").write_text("{}\n")
    bad = desk.run("dlq", "import", "bad.jsonl", "--yes")
    assert (bad.returncode, "Line 1 is no dead letter: its format is None" in bad.stderr) == (2, True)


def test_forgetting_and_purging_tell_what_goes_and_what_stays(desk: Shell) -> None:
    would = desk.json("dlq", "forget", "--key", "jane", "--no-sync", "--dry-run")
    assert (would["erased"], would["dry_run"]) == ({"dead_letters": 2, "held": 0, "parked": 0}, True)
    done = desk.run("dlq", "forget", "--key", "jane", "--no-sync", "--reason", "asked for", "--yes", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert "Erased: 2 dead letters, 0 held and 0 parked messages." in done.stdout
    assert "In Kafka, as far as it was seen here: orders.billing.dlq, 2 records." in done.stdout
    assert "retention.ms" in done.stdout
    assert desk.run("dlq", "forget", "--no-sync").returncode == 2
    assert desk.json("dlq", "purge", "--older-than", "0s", "--dry-run")["deleted"] == {State.DISCARDED: 2}
    assert desk.json("dlq", "purge", "--older-than", "0s", "--yes")["total"] == 2
    assert states(desk) == {"dead": 2}
    refused = desk.run("dlq", "purge", "--older-than", "0s", "--state", "planned")
    assert refused.returncode == 2
