"""Tables of what is stuck keep to the width of the terminal; trends are seen."""

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from postroom.cli import holding, messages, parking
from postroom.cli.app import App
from postroom.cli.failures import Trouble, failures, print_failures, sparkline
from postroom.cli.finding import Finding, finding, paging
from postroom.cli.logs import observer
from postroom.cli.stuck import StuckRow, command_of, print_stuck
from postroom.inbox.desk import Held
from postroom.messaging.fingerprint import fingerprint_of, normalised
from postroom.messaging.redact import MASK, Redaction
from postroom.outbox.entry import LogRow
from postroom.outbox.parking import Parked

NOW = datetime.now(UTC)
LONG = "x" * 250
ERROR = "ValueError: " + "it was refused " * 30 + LONG


def printed(width: int, print_: Any, *arguments: Any) -> str:
    file = StringIO()
    print_(Console(file=file, width=width, highlight=False, emoji=False, markup=False), *arguments)
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= width, text
    return text


def trouble(number: int, error: str | None = ERROR, hours: float = 0) -> Trouble:
    return Trouble(number, LONG, LONG, b"k", "retry", error, "shop." + LONG, NOW - timedelta(hours=hours))


@pytest.mark.parametrize("width", [80, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    nothing = Redaction([])
    log_row = LogRow(1, 123_456_789, "id", LONG, LONG.encode(), LONG, b"{}", "{}", NOW)
    parked = Parked(log_row, ERROR, NOW, retry=False, by_topic=False, state="refused", size=2)
    held = Held(
        *(123_456_789, LONG, LONG, 0, 7, LONG, LONG.encode(), LONG, b"{}", "[]", NOW, LONG, "dead-letter", 999, ERROR),
        *(NOW, NOW, NOW, 2),
    )
    stuck = StuckRow(
        "dead-letter", LONG, LONG, "dead-letter", 1_234_567, NOW, ERROR, f"postroom dlq list --topic {LONG}"
    )
    assert "ValueError" in printed(width, print_failures, failures([trouble(number) for number in range(3)]))
    assert "ValueError" in printed(width, parking.print_list, [parked], nothing)
    assert "ValueError" in printed(width, parking.print_parked, parked, nothing, {"behind it": ERROR})
    assert "Value" in printed(width, holding.print_list, [held], nothing)
    assert "ValueError" in printed(width, holding.print_held, held, nothing, {"behind it": ERROR}, [])
    told = printed(width, print_stuck, [stuck, stuck])
    assert "Value" in told
    assert "postroom dlq list" in told.replace("\n", "")


def test_failures_are_grouped_counted_and_dated() -> None:
    rows = [
        trouble(1, "KeyError: 'a' of order 7", hours=30),
        trouble(2, "KeyError: 'bb' of order 99", hours=1.9),
        trouble(3, "KeyError: 'c' of order 100", hours=0.1),
        trouble(4, "ValueError: 'c' of order 100", hours=5),
        trouble(5, None),
    ]
    first, *others = failures(rows, NOW)
    assert (first.count, first.error, first.sample) == (3, "KeyError: 'c' of order 100", 3)
    assert (first.first_at, first.last_at) == (rows[0].at, rows[2].at)
    assert first.trend == [0] * 11 + [2]
    assert [(each.error, each.fingerprint is None) for each in others] == [(rows[3].error, False), (None, True)]
    assert others[0].trend[-3] == 1
    assert failures([]) == []


def test_a_fingerprint_leaves_data_out_and_keeps_the_handler() -> None:
    assert normalised("KeyError: 'a' \"b\" 17 0199c5f2-7d2e-7c6e-9a6e-0c4b9d7e5a11") == "KeyError: # # # #"
    assert fingerprint_of("E: 1", "h") == fingerprint_of("E: 2", "h")
    assert len({fingerprint_of(text, handler) for text in ("E: a", "F: a", "E: b") for handler in ("g", "h")}) == 6


def test_a_small_number_is_seen_beside_a_large_one() -> None:
    assert sparkline([0, 1, 500, 1000]) == " ▁▄█"
    assert sparkline([0, 0]) == "  "


def test_the_command_to_look_closer_keeps_the_filters() -> None:
    since = datetime(2026, 1, 31, 12, tzinfo=UTC)
    found = Finding(key=b"\xff", type="shop.*", error="it's", since=since)
    assert command_of("parked", "orders", None, "refused", found) == (
        "postroom outbox parked list --topic orders --state refused --type 'shop.*' --key 0xff --error 'it'\"'\"'s' "
        "--since 2026-01-31T12:00:00+00:00"
    )


def test_options_become_a_finding() -> None:
    seen: list[tuple[Finding, dict[str, Any]]] = []

    @click.command()
    @finding(without=("message_id",), states=("a", "b"))
    @paging("id")
    def command(found: Finding, **more: Any) -> None:
        seen.append((found, more))

    def run(*arguments: str) -> int:
        return CliRunner().invoke(command, arguments).exit_code

    assert run() == 0
    assert (bool(seen[-1][0]), seen[-1][1]) == (False, {"sort": "oldest", "after": 0, "limit": 50})
    headers = ["--header", "a=b=c", "--header", "there"]
    assert run(*headers, "--key", "base64:AAE=", "--match", "payload.n > 1", "--state", "b", "--group", "b*") == 0
    found, _ = seen[-1]
    assert (found.headers, found.key, found.state, found.group) == (
        (("a", b"b=c"), ("there", None)),
        b"\x00\x01",
        "b",
        "b*",
    )
    assert bool(found)
    assert not found.in_database
    assert found.suits(None, b'{"n": 2}', [("a", b"b=c"), ("there", b"")])
    assert not found.suits(None, b'{"n": 2}', [("a", b"b=c")])
    assert not found.suits(None, b'{"n": 1}', [("a", b"b=c"), ("there", b"")])
    assert Finding(fingerprint="ab").suits("abc")
    assert not Finding(fingerprint="ab").suits(None)
    assert run("--message-id", "x") == 2
    assert run("--since", "1h", "--until", "2h") == 2
    assert run("--key", "base64:???") == 2
    for name in ("--match", "--header", "--state", "--group", "--type", "--fingerprint"):
        assert run(name, "") == 2


def test_a_handlers_error_is_logged_without_its_text_where_something_is_redacted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for paths, text in (([], "card 4111"), (["payload.card"], MASK)):
        observe = observer("json", "info", Redaction(paths), service="inbox")
        observe("retried", topic="t", message_id="m", error=ValueError("card 4111"), seconds=1.0)
        observe("paused", handler="h", error=ValueError("card 4111"))
        observe("kafka_unavailable", error=ConnectionError("broker 1"), seconds=1.0)
        *lines, kafka = capsys.readouterr().err.splitlines()
        assert "broker 1" in kafka
        for line in lines:
            assert text in line
            assert ("4111" in line) is (not paths)
            assert ("ValueError" in line) is bool(paths)


def test_the_setting_reaches_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_REDACT", "key")
    assert App().redaction.key(b"k") == MASK.encode()


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ('{"Auth": "4111", "seen": "yes"}', ["seen"]),
        ('[["auth", "4111"], ["odd", {"base64": "/w=="}], ["ce_id", "m"]]', ["odd", "ce_id"]),
        ('"4111"', []),
        ("[4111]", []),
    ],
)
def test_stored_headers_of_every_form_are_masked(stored: str, shown: list[str]) -> None:
    row = LogRow(1, 1, "0199c5f2-7d2e-7c6e-9a6e-0c4b9d7e5a11", "t", b"k", "t", b"{}", stored, NOW)
    document = messages.full(row, "settled", Redaction(["headers.auth"]))
    assert "4111" not in repr(document)
    assert {name for name, value in document["headers"] if value != MASK} >= set(shown)
    assert (document["headers_error"] is None) is bool(shown)
    assert "4111" in repr(messages.full(row, "settled", Redaction([])))
