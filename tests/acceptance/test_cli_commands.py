"""The commands as processes: what they print, where, and with which exit code; bad input gets one sentence."""

import json
import signal
import socket
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from postroom.outbox import Message, Names, Outbox, schema
from postroom.outbox.write import write_psycopg
from postroom.testing.postgres import Database

NOWHERE = {"POSTROOM_DATABASE_URL": "postgresql://u:s3cret@127.0.0.1:1/x"}
NO_KAFKA = {
    "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "POSTROOM_KAFKA_OPTIONS": '{"bootstrap_timeout_ms": 300}',
}


Shell = Any  # tests/acceptance/conftest.py


# What goes wrong


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "sentence"),
    [
        (["db", "check"], {}, 3, "No database is set"),
        (["db", "check"], NOWHERE, 4, "The database does not answer"),
        (["init"], NOWHERE, 4, "The database does not answer"),
        (["relay", "status"], NOWHERE, 4, "The database does not answer"),
        (["dlq", "replay", "--yes"], NOWHERE, 4, "The database does not answer"),
        (["dlq", "list"], {}, 3, "No database is set"),
        (["topics", "create", "orders", "--yes"], NO_KAFKA, 4, "Kafka does not answer"),
        (["db", "check"], {"POSTROOM_DATABASE_URL": "oracle://u:s3cret@h/d"}, 3, "not on 'oracle'"),
        (["db", "check"], {"POSTROOM_DATABASE_URL": "postgresql://u:s3cret@h:port/d"}, 3, "cannot be read"),
        (["db", "check"], {"POSTROOM_DATABASE_URL": "postgresql://u:s3cret@h/d?x=1"}, 3, "unknown parameter"),
        (["db", "check", "--database-url", "postgresql://u:s3cret@h/d"], {}, 2, "A password on the command line"),
        (
            ["topics", "create", "orders", "--yes"],
            {"POSTROOM_KAFKA_OPTIONS": '{"nonsense": 1}'},
            3,
            "no option 'nonsense'",
        ),
        (["topics", "create", "orders"], {"POSTROOM_KAFKA_OPTIONS": '{"acks": 0}'}, 3, "cannot be set"),
        (["relay", "run"], {"POSTROOM_RELAY__LEASE_SECONDS": "0"}, 3, "must be a number at least 2 and at most 600"),
        (["inbox", "run", "nomodule:inbox"], {}, 2, "There is no module 'nomodule'"),
        (["inbox", "run", "shop:nothing"], {}, 2, "has no 'nothing'"),
        (["inbox", "run", "shop:number"], {}, 2, "is no Inbox"),
        (["inbox", "run", "shop"], {}, 2, "must be MODULE:INBOX"),
        (["inbox", "run", "needs_more:inbox"], {}, 2, "No module named 'not_installed'"),
        (["inbox", "run", "broken:inbox"], {}, 2, "ZeroDivisionError"),
        (["inbox", "run", "shop:empty"], {**NO_KAFKA, **NOWHERE}, 3, "has no handlers"),
        (["dlq", "list", "--since", "soon"], {}, 2, "is no time"),
        (["nonsense"], {}, 2, "No such command 'nonsense'"),
    ],
)
def test_bad_input_gets_one_sentence_and_a_fitting_code(
    shell: Shell, arguments: list[str], environment: Mapping[str, str], code: int, sentence: str
) -> None:
    (shell.folder / "shop.py").write_text(
        "from postroom.inbox import Inbox\nnumber = 3\nempty = Inbox(group='billing')\n"
    )
    (shell.folder / "needs_more.py").write_text("import not_installed\n")
    (shell.folder / "broken.py").write_text("1 / 0\n")
    done = shell.run(*arguments, **environment)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    text, *rest = done.stderr.splitlines()
    assert text.startswith("Error: ")
    assert all(line.startswith("Try 'postroom ") for line in rest)
    assert sentence in text
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "code"),
    [(["db", "check"], NOWHERE, 4), (["inbox", "run", "nomodule:inbox"], {}, 2), (["nonsense"], {}, 2)],
)
def test_errors_are_json_where_that_is_asked_for(
    shell: Shell, arguments: list[str], environment: Mapping[str, str], code: int
) -> None:
    done = shell.run(*arguments, "--json", **environment)
    assert (done.returncode, done.stdout) == (code, "")
    assert json.loads(done.stderr)["exit_code"] == code


@pytest.mark.parametrize(
    "arguments",
    [
        ["db", "check"],
        ["relay", "run"],
        ["relay", "status"],
        ["outbox", "stats"],
        ["outbox", "parked", "list"],
        ["inbox", "stats"],
        ["dlq", "replay", "--yes"],
    ],
)
def test_missing_tables_are_told_with_3(database_shell: Shell, arguments: list[str]) -> None:
    done = database_shell.run(*arguments, **NO_KAFKA)
    assert done.returncode == 3, done.stderr
    assert "are not in this database; run `postroom init`" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "version", "sentence"),
    [
        ("relay run", -1, "run `postroom db upgrade`"),
        ("db check", -1, "run `postroom db upgrade`"),
        ("relay run", 99, "upgrade Postroom"),
        ("db upgrade", 99, "upgrade Postroom"),
    ],
)
def test_tables_of_another_version_are_told_with_3(
    database_shell: Shell, command: str, version: int, sentence: str
) -> None:
    url = database_shell.environment["POSTROOM_DATABASE_URL"]
    schema.upgrade(url)
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM postroom.schema_version")
        connection.execute("INSERT INTO postroom.schema_version (version) VALUES (%s)", [version])
    done = database_shell.run(*command.split(), **NO_KAFKA)
    assert done.returncode == 3
    assert sentence in done.stderr.splitlines()[-1]


def test_ctrl_c_while_kafka_does_not_answer_ends_a_listing_with_130(database_shell: Shell) -> None:
    schema.upgrade(database_shell.environment["POSTROOM_DATABASE_URL"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        process = database_shell.start("dlq", "list", POSTROOM_KAFKA_BOOTSTRAP_SERVERS=address)
        connection, _ = listener.accept()
        with connection, process:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_a_reader_that_goes_away_is_no_error(shell: Shell) -> None:
    with shell.start("db", "sql") as process:
        assert process.stdout is not None
        process.stdout.close()  # before it writes: Python takes longer to start than this
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(30)
    assert (process.returncode, err) == (141, "")


# What goes right


def test_init_makes_the_tables_once_and_says_what_comes_next(ready: Shell, postroom_postgres: Database) -> None:
    with psycopg.connect(postroom_postgres.url) as connection:
        connection.execute("DROP SCHEMA postroom CASCADE")
    assert ready.json("init", "--dry-run")["tables"]["pending"]
    assert ready.run("db", "check").returncode == 3
    first = ready.run("init")
    assert first.returncode == 0
    assert "relay run" in first.stdout
    document = ready.json("init")
    assert document["tables"]["applied"] == []
    assert document["kafka"]["reachable"] is True
    assert ready.json("db", "check")["version"] == schema.LATEST


def test_init_without_kafka_makes_the_tables_and_says_4(database_shell: Shell) -> None:
    done = database_shell.run("init", "--json", **NO_KAFKA)
    assert done.returncode == 4
    assert json.loads(done.stdout)["kafka"]["reachable"] is False
    assert json.loads(done.stderr)["exit_code"] == 4
    assert database_shell.run("db", "check").returncode == 0


def test_the_sql_that_is_printed_makes_the_tables(database_shell: Shell, tmp_path: Path) -> None:
    script = database_shell.run("db", "sql").stdout
    with psycopg.connect(database_shell.environment["POSTROOM_DATABASE_URL"], autocommit=True) as connection:
        connection.execute(script.encode())
    assert database_shell.run("db", "check").returncode == 0
    lite = sqlite3.connect(tmp_path / "shop.db")
    lite.executescript(database_shell.json("db", "sql", "--dialect", "sqlite")["sql"])
    lite.close()
    assert database_shell.run("db", "check", "--database-url", "sqlite:///shop.db").returncode == 0


def test_the_cursor_is_reset_after_a_restore_only_when_told(ready: Shell) -> None:
    url = ready.environment["POSTROOM_DATABASE_URL"]
    with psycopg.connect(url) as connection:
        entry = Outbox(source="/test").entry(Message(topic="orders", key=b"k", payload=b"{}", type="t"))
        write_psycopg(connection, [entry], Names())
        connection.execute("UPDATE postroom.relay_cursor SET cluster = 1")
    refused = ready.run("relay", "run")
    assert (refused.returncode, "reset-cursor" in refused.stderr) == (3, True)
    assert ready.run("relay", "reset-cursor").returncode == 2
    assert ready.json("relay", "reset-cursor", "--dry-run")["to_publish"] == 1
    assert ready.json("relay", "reset-cursor", "--yes") == {"retained": 1, "to_publish": 1, "dry_run": False}
    assert ready.json("relay", "status")["backlog"]["messages"] == 1
