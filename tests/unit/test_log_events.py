"""The daemons' logs: every event is in the table, every row of the table is an event, and no secret is in either."""

import ast
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from postroom.cli.events import EVENTS, LEVELS, MESSAGE, Event
from postroom.cli.logs import observer
from postroom.inbox import runner
from postroom.messaging.correlation import inheriting
from postroom.messaging.errors import KafkaUnavailable
from postroom.messaging.redact import Redaction
from postroom.relay import relay

BY_NAME = {event.name: event for event in EVENTS}
TELLS = {"observe", "_observe", "tell", "_tell"}
#: Places that tell a step whose name they are given.
PASSING_ON = {("step",), ("step", "each")}


def calls(rooms: Path) -> Iterator[tuple[str, set[str], set[str], bool]]:
    """Place, steps and facts of every call of an observer in what a daemon runs, and whether it is of a message."""
    files = [
        *(rooms / "relay").glob("*.py"),
        *(rooms / "inbox").glob("*.py"),
        *(rooms / "cli" / name for name in ("relay.py", "inbox.py", "serve.py", "health.py")),
    ]
    for path in sorted(files):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in TELLS:
                parts = [each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)]
                steps = {part for part in parts if isinstance(part, str)}
                facts = {keyword.arg for keyword in node.keywords if keyword.arg}
                yield f"{path.name}:{node.lineno}", steps, facts, name in {"tell", "_tell"}


def documented(text: str | None) -> set[str]:
    """The steps in a module's docstring: names in the first column of its table."""
    table = (text or "").partition("facts")[2]
    return {
        name
        for line in table.splitlines()
        if (match := re.match(r"    ([a-z_]+(?:, [a-z_]+)*)(?= |$)", line))
        for name in match[1].split(", ")
    }


def test_every_step_that_is_told_is_in_the_table_with_its_facts(rooms: Path) -> None:
    seen = set()
    for place, steps, facts, of_message in calls(rooms):
        for step in steps:
            assert step in BY_NAME, f"{place}: {step} is not in cli/events.py"
            event = BY_NAME[step]
            assert facts <= {*event.facts, *(MESSAGE if event.of_message else ())}, f"{place}: {step} tells more"
            assert event.of_message or not of_message, f"{place}: {step} is of a message"
        seen |= steps
    assert len(seen) > 40


@pytest.mark.parametrize(("module", "service"), [(relay, "relay"), (runner, "inbox")])
def test_the_table_and_the_docstrings_have_the_same_steps(module: Any, service: str) -> None:
    of_process = {"starting", "started", "signalled", "probed"}
    assert documented(module.__doc__) == {e.name for e in EVENTS if service in e.services} - of_process


def test_every_row_of_the_table_is_told_somewhere(rooms: Path) -> None:
    told = {step for _, steps, _, _ in calls(rooms) for step in steps}
    # Those whose name is passed on to where it is told.
    passed = {"assigned", "revoked", "expired", "handled", "duplicate"}
    assert {event.name for event in EVENTS} - told <= passed


def test_an_event_stands_once() -> None:
    assert len(BY_NAME) == len(EVENTS)


Written = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """Writes one event and reads the log."""

    def write(
        step: str, level: str = "debug", redact: Sequence[str] = (), secrets: Sequence[str] = (), **facts: Any
    ) -> list[dict[str, Any]]:
        observer("json", level, Redaction(tuple(redact)), secrets, service="test")(step, **facts)
        return [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    yield write
    structlog.reset_defaults()


#: Events about no single message: of processes, batches, partitions.
OF_NO_MESSAGE = {
    *("starting", "probed", "started", "signalled", "stopping", "stopped"),
    *("paused", "resumed", "held_back", "claimed", "read", "published", "settled", "interrupted", "in_doubt"),
    *("unparked", "moved_due", "pruned", "inbox_pruned", "transaction_open", "not_allowed", "waiting"),
    *("stepped_aside", "fenced", "assigned", "revoked", "batch_failed", "limited", "policy_changed"),
    *("policy_refused", "kafka_unavailable", "committed", "not_committed"),
}


def test_every_line_about_a_message_has_its_correlation_id() -> None:
    correlated = {event.name for event in EVENTS if event.of_message or "correlation_id" in event.facts}
    assert {event.name for event in EVENTS} - correlated == OF_NO_MESSAGE


@contextmanager
def bare_logging() -> Iterator[None]:
    """As a process has it in which nobody has set up ``logging``."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def test_what_a_handler_logs_is_a_line_of_the_same_form_with_its_message(
    written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = logging.getLogger("shop")
    with bare_logging():
        written("started", "info")
        with inheriting({"correlation_id": "c-1", "causation_id": "m-1"}):
            structlog.get_logger().info("charged", cents=5)
            shop.info("charged %s", "postgresql://shop:hunter2@db")
            shop.error("failed", exc_info=ValueError("password=hunter2"))
        shop.debug("not told")
    text = capsys.readouterr().err
    own, foreign, failed = (json.loads(line) for line in text.splitlines())
    assert own["cents"] == 5
    assert (foreign["event"], foreign["logger"]) == ("charged postgresql://shop:***@db", "shop")
    assert "ValueError: password=***" in failed["exception"]
    for line in (own, foreign, failed):
        assert (line["correlation_id"], line["message_id"]) == ("c-1", "m-1")
        assert line["timestamp"]
    assert [line["level"] for line in (own, foreign, failed)] == ["info", "info", "error"]
    assert "hunter2" not in text


def test_logging_that_is_set_up_already_is_left_alone(written: Written) -> None:
    mine = logging.NullHandler()
    with bare_logging():
        logging.getLogger().addHandler(mine)
        written("started", "info")
        assert logging.getLogger().handlers == [mine]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_each_event_is_written_from_its_level_up(written: Written, event: Event) -> None:
    levels = ["debug", "info", "warning", "error"]
    for level in levels:
        found = written(event.name, level)
        assert [each["level"] for each in found] == (
            [event.level] if levels.index(level) <= levels.index(LEVELS[event.name]) else []
        )


@pytest.mark.parametrize(
    "text",
    [
        "cannot reach postgresql://shop:hunter2@db/shop",
        "GET https://:hunter2@bank.example/pay failed",
        "connection failed: host=db password=hunter2 user=shop",
        '{"client_secret": "hunter2"}',
        "SASL: hunter2 was refused",
    ],
)
def test_no_password_is_logged_wherever_it_stands(written: Written, text: str) -> None:
    for facts in ({"error": KafkaUnavailable(text)}, {"detail": text}, {"inside": {"a": [text]}}):
        [found] = written("paused", secrets=["hunter2"] if "SASL" in text else [], **facts)
        assert "hunter2" not in json.dumps(found)
        assert "***" in json.dumps(found)


def test_with_redaction_no_text_of_a_handlers_error_is_logged(written: Written) -> None:
    message = dict.fromkeys(MESSAGE, "x")
    for step in ("raised", "retried", "dead_lettered", "condemned", "batch_failed", "paused"):
        [found] = written(step, redact=["payload.card"], **message, handler="h", error=ValueError("card 4711"))
        assert found["error"] == "ValueError: ‹redacted›"


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("headers.correlation_id", {"correlation_id"}),
        ("headers.ce_id", {"correlation_id", "id", "message_id"}),
        ("headers.idempotency_key", {"correlation_id", "message_id"}),
        ("payload.id", set()),
    ],
)
def test_facts_that_stand_in_redacted_headers_are_hidden(written: Written, path: str, hidden: set[str]) -> None:
    facts: dict[str, Any] = {**dict.fromkeys(MESSAGE, "4711"), "id": "4711", "sent_at": datetime.now(UTC)}
    [found] = written("received", redact=[path], **facts)
    assert {name for name in facts if found[name] == "‹redacted›"} == hidden
