"""What scripts rely on: exit codes, one sentence for what is wrong, and lines on stdout."""

import json
from typing import Any

import pytest

from postroom.outbox import Message, Outbox, schema
from postroom.outbox.database import open_store
from postroom.outbox.log import Refusal

Shell = Any  # tests/acceptance/conftest.py
URL = "POSTROOM_DATABASE_URL"


@pytest.fixture
def parked(shell: Shell) -> Shell:
    """With one message parked."""
    shell.environment[URL] = f"sqlite:///{shell.folder}/log.db"
    schema.upgrade(shell.environment[URL])
    store = open_store(shell.environment[URL])
    store.append([Outbox(source="/s").entry(Message(topic="orders", key="k", payload=b'{"card": "4111"}', type="t"))])
    reader = store.reader("test", 60)
    reader.claim()
    batch = reader.read(10)
    reader.settle([batch], [Refusal(row, "RecordTooLarge: 4111") for row in batch.rows])
    reader.close()
    store.close()
    return shell


def test_scripts_are_told_that_something_is_stuck(parked: Shell) -> None:
    assert parked.run("stuck", "--no-sync").returncode == 0
    ended = parked.run("stuck", "--no-sync", "--fail", COLUMNS="80", POSTROOM_REDACT="payload.card")
    assert (ended.returncode, ended.stderr, "4111" in ended.stdout) == (1, "", False)
    assert "postroom outbox parked list --topic orders --state refused" in ended.stdout
    assert parked.run("stuck", "--no-sync", "--fail", "--topic", "payments").returncode == 0


def test_an_export_can_be_piped(parked: Shell) -> None:
    ended = parked.run("outbox", "parked", "export", "--match", "payload.card == '4111'", "--out", "-")
    assert [json.loads(line)["payload"] for line in ended.stdout.splitlines()] == ['{"card": "4111"}']


def test_a_wrong_condition_gets_one_sentence_that_points_at_the_place(shell: Shell) -> None:
    ended = shell.run("inbox", "held", "retry", "--match", "payload.total > abc")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        "'--match': The condition is wrong at character 17, 'abc': abc is no name here" in ended.stderr.splitlines()[0]
    )
