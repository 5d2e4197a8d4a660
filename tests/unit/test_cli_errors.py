"""Every failure has one sentence and one exit code; help is quick; nothing on the terminal is taken over."""

import inspect
import json
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import click
import pytest
from rich.cells import cell_len
from rich.console import Console

from postroom.cli import errors as cli_errors
from postroom.cli.dlq.letters import print_letter, print_list, print_statistics
from postroom.cli.output import as_text, clean, duration, hexdump
from postroom.cli.params import MOMENT
from postroom.cli.record import decoded
from postroom.cli.root import postroom, run
from postroom.dlq import Action, DeadLetter, Group, State, Statistics
from postroom.messaging import errors
from postroom.messaging.dead_letter import Failure, dead_letter_headers
from postroom.messaging.records import Partition, ReceivedRecord

CODES = {
    errors.UsageError: 2,
    errors.NotInTransaction: 2,
    errors.InvalidMessage: 2,
    errors.MessageTooLarge: 2,
    errors.InvalidHandler: 2,
    errors.InvalidUpcaster: 2,
    errors.ConfigurationError: 3,
    errors.SchemaError: 3,
    errors.SchemaMissing: 3,
    errors.SchemaOutdated: 3,
    errors.SchemaTooNew: 3,
    errors.Unavailable: 4,
    errors.KafkaUnavailable: 4,
    errors.DatabaseUnavailable: 4,
    errors.PostroomError: 1,
    errors.Fenced: 1,
    errors.Interrupted: 1,
    errors.HandlerTimeout: 1,
    errors.Refused: 1,
    errors.RecordTooLarge: 1,
    errors.UnknownTopic: 1,
    errors.NotAuthorized: 1,
    errors.InvalidRecord: 1,
    errors.Poison: 1,
    errors.UndecodablePayload: 1,
    errors.PayloadRefused: 1,
    errors.UnknownVersion: 1,
    errors.MissingField: 1,
    errors.WrongType: 1,
    errors.HandlerCrashed: 1,
    errors.Unhandled: 1,
}


def test_the_table_of_exit_codes_knows_every_error() -> None:
    tree = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.PostroomError)}
    assert tree == set(CODES)
    assert {kind: cli_errors.exit_code(kind("x")) for kind in tree} == CODES


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (BrokenPipeError(), 141),
        (click.UsageError("x"), 2),
        (click.ClickException("x"), 1),
        (RuntimeError("x"), 1),
    ],
)
def test_what_is_not_ours_has_a_code_too(error: BaseException, code: int) -> None:
    assert cli_errors.exit_code(error) == code


def test_an_error_is_one_line_and_json_if_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.DatabaseUnavailable("It does\nnot answer: s3cret.")
    assert cli_errors.report(error, as_json=False, debug=False, secrets=["s3cret"]) == 4
    assert capsys.readouterr().err == "Error: It does not answer: ***.\n"
    assert cli_errors.report(error, as_json=True, debug=False) == 4
    told = json.loads(capsys.readouterr().err)
    assert (told["type"], told["exit_code"]) == ("DatabaseUnavailable", 4)


def test_an_unexpected_error_has_a_traceback_only_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError("boom s3cret")
    cli_errors.report(error, as_json=False, debug=False)
    assert capsys.readouterr().err == (
        "Error: Unexpected RuntimeError: boom s3cret; run it again with --debug for the traceback.\n"
    )
    cli_errors.report(error, as_json=False, debug=True, secrets=["s3cret"])
    told = capsys.readouterr().err
    assert "s3cret" not in told
    assert "RuntimeError: boom ***" in told


@pytest.mark.parametrize("arguments", [["nosuch"], ["dlq", "list", "--limit", "0"], ["--json", "dlq", "nosuch"], []])
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    if "--json" in arguments:
        assert json.loads(told.err)["exit_code"] == 2


def test_every_command_has_help_with_an_example_and_json() -> None:
    def leaves(command: click.Command, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], click.Command]]:
        if isinstance(command, click.Group):
            return [leaf for name, sub in command.commands.items() for leaf in leaves(sub, (*path, name))]
        return [(path, command)]

    for path, command in leaves(postroom, ()):
        assert "Examples:" in (command.help or ""), path
        assert any("--json" in option.opts for option in command.params), path


def test_help_imports_no_heavy_library() -> None:
    heavy = ["sqlalchemy", "kafka", "psycopg", "pydantic", "pydantic_settings", "rich", "structlog"]
    code = (
        "import sys\nfrom postroom.cli.root import run\nrun(['--help'])\nrun(['dlq', 'replay', '--help'])\n"
        f"sys.exit(repr([name for name in {heavy} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_POSTROOM_COMPLETE" in capsys.readouterr().out


def test_moments_are_ages_or_iso_times() -> None:
    now = datetime.now(UTC)
    for text, age in {"90s": 90, "30m": 1_800, "2h": 7_200, "7d": 604_800, "1w": 604_800}.items():
        assert abs(now - timedelta(seconds=age) - MOMENT.convert(text, None, None)) < timedelta(seconds=5)
    assert MOMENT.convert("2026-01-31T12:00:00Z", None, None) == datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
    assert MOMENT.convert("2026-01-31", None, None).tzinfo is not None
    for text in ("soon", "2", "h", "2y", ""):
        with pytest.raises(click.BadParameter, match="is no time"):
            MOMENT.convert(text, None, None)


EVIL = "\x1b[31m\x07red\x9b2J\u202eabc"


def letter(**changes: bytes | None) -> DeadLetter:
    error = ValueError(f"no stock {EVIL} " + "and so on " * 40)
    moment = datetime.now(UTC)
    headers = [("ce_id", b"0199c5f2-7d2e-7c6e-9a6e-0c4b9d7e5a11"), ("ce_type", b"shop.order." + b"placed" * 9)]
    original = ReceivedRecord(Partition("orders", 3), 5, b"k" * 70, b"{}", [*headers, (EVIL, EVIL.encode())], moment)
    told = dead_letter_headers(original, "billing", Failure(error, "shop.charge", 5, moment, moment))
    key, value = changes.get("key", "schlüssel-漢字".encode() * 5), changes.get("value", b'{"a": [1, "\xc3\xa4"]}')
    return DeadLetter.of(ReceivedRecord(Partition("orders.billing.dlq", 11), 1_234_567, key, value, told, moment))


@pytest.mark.parametrize("width", [80, 200])
def test_nothing_overflows_and_the_id_is_whole(width: int) -> None:
    console = Console(width=width, file=StringIO(), highlight=False, emoji=False, markup=False)
    letters = [letter()._replace(id=123_456_789, state=State.FAILED_AGAIN), letter(key=b"\xff\x00")._replace(id=1)]
    print_list(console, letters)
    action = Action(1, datetime.now(UTC), EVIL * 9, "discard", 1, 7, "dead", "discarded", EVIL * 9)
    print_letter(console, letter(value=bytes(range(256))), [action], letters, letters)
    now = datetime.now(UTC)
    groups = [
        Group(EVIL * 9, 1_234_567, now, now, Counter({State.DEAD: 1_234_567}), EVIL * 9, EVIL, EVIL, EVIL, EVIL, 1),
        Group(None, 1, now, now),
    ]
    for by in ("fingerprint", "state", "handler"):
        print_statistics(console, Statistics(groups, 2, 2, now - timedelta(days=1), now), by, {1: EVIL * 9})
    written: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(cell_len(line) for line in written.splitlines()) <= width
    for whole in ("123456789", "orders.billing.dlq/11/1234567", "failed-again", "1,234,567"):
        assert whole in written
    assert not set(written) & set("\x1b\x07\x9b\u202e"), "a dead letter must not speak to the terminal"


def test_payloads_are_shown_as_what_they_are() -> None:
    assert decoded(b'{"a":[1,"\xc3\xa4"]}') == '{\n  "a": [\n    1,\n    "ä"\n  ]\n}'
    assert decoded(b"plain\ntext") == "plain\ntext"
    assert decoded(b"\xff\x00\x01").startswith("000000  ff 00 01")
    assert decoded(b"a\x1bb").startswith("000000  61 1b 62")
    assert decoded(b"[" * 100_000)
    assert hexdump(b"x" * 100, 32).endswith("68 more bytes; --json shows all")


def test_json_keeps_every_byte() -> None:
    assert as_text("ä".encode()) == "ä"
    assert as_text(b"\xff") == {"base64": "/w=="}
    assert as_text(None) is None


def test_durations_are_short() -> None:
    assert [duration(seconds) for seconds in (-1, 5, 119, 120, 7_200, 172_800)] == [
        "0s",
        "5s",
        "119s",
        "2m",
        "2h",
        "2d",
    ]
    assert clean("a\nb\x00") == "a\\nb\\x00"


def test_only_the_command_line_reads_the_environment() -> None:
    root = Path(__file__).resolve().parents[2]
    readers = {
        path.parent.name
        for room in ("messaging", "outbox", "relay", "inbox", "dlq")
        for path in (root / room).rglob("*.py")
        if re.search(r"os\.environ|getenv", path.read_text())
    }
    assert readers == set()
