"""What the how-to pages of the inbox show is done here."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from postroom.inbox import BatchContext, InboxSettings
from postroom.inbox.fate import Fates
from postroom.inbox.policy import Policy
from postroom.messaging.errors import Poison, Unavailable, Verdict


class Bank(ModuleType):
    """Stands for what the example calls."""

    class Timeout(Exception): ...

    class ServerError(Exception): ...

    class ConnectError(Exception): ...

    closed = False
    answer: Exception | None = None
    calls: list[tuple[str, int, str]]

    def maintenance(self) -> bool:
        return self.closed

    def post(self, path: str, cents: int, *, idempotency_key: str) -> None:
        self.calls.append((path, cents, idempotency_key))
        if self.answer is not None:
            raise self.answer


def example(rooms: Path, page: str, name: str) -> dict[str, Any]:
    text = (rooms / "docs" / "how-to" / page).read_text()
    code = dict(re.findall(r"<!-- example: (\S+) -->\n```python\n(.*?)```", text, re.DOTALL))[name]
    namespace: dict[str, Any] = {"__name__": name.removesuffix(".py")}
    exec(compile(code, name, "exec"), namespace)
    return namespace


def test_handle_failures(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = Bank("bank")
    bank.calls = []
    monkeypatch.setitem(sys.modules, "bank", bank)
    shown = example(rooms, "handle-failures.md", "failures.py")
    [handler] = shown["inbox"].handlers

    def verdict(cents: int) -> Verdict | None:
        try:
            handler.function(shown["Invoice"](customer="c", cents=cents), SimpleNamespace(message_id="m"))
        except Exception as error:  # noqa: BLE001  judged
            return Fates.verdict(cast("Fates", None), handler, error)
        return None

    assert verdict(5) is None
    assert bank.calls == [("/charge", 5, "m")]
    assert verdict(0) is Verdict.DEAD_LETTER
    for answer, expected in (
        (bank.Timeout(), Verdict.RETRY),
        (bank.ServerError(), Verdict.RETRY),
        (bank.ConnectError(), Verdict.PAUSE),
        (shown["Declined"](), Verdict.DEAD_LETTER),
        (KeyError("a mistake"), Verdict.DEAD_LETTER),
        (Poison(), Verdict.DEAD_LETTER),
        (Unavailable(), Verdict.PAUSE),
    ):
        bank.answer = answer
        assert verdict(5) is expected, answer
    bank.closed = True
    assert verdict(5) is Verdict.PAUSE
    policy = handler.policy_by(InboxSettings())
    assert (policy.attempts, policy.immediate, policy.on_dead_letter, policy.timeout) == (10, 3, "wait", 30.0)


def test_the_table_of_options_tells_the_defaults(rooms: Path) -> None:
    page = (rooms / "docs" / "how-to" / "handle-failures.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)`(?:, `cap`)? \| (.*?) \|", page, re.MULTILINE))
    policy = Policy()

    assert told["attempts"].endswith(f", {policy.attempts}")
    assert told["immediate"].endswith(f", {policy.immediate}")
    assert told["base"] == f"{policy.base} s, {policy.cap:g} s"
    assert told["on_dead_letter"] == f"`{policy.on_dead_letter}`"
    assert told["dead_letters_per_minute"] == f"{policy.dead_letters_per_minute}"
    assert told["breaker_threshold"] == f"{policy.breaker_threshold}"
    assert told["breaker_window"] == f"{policy.breaker_window}"
    assert told["breaker_open_seconds"] == f"{policy.breaker_open_seconds:g} s"


def test_go_faster(rooms: Path) -> None:
    shown = example(rooms, "go-faster.md", "faster.py")
    count, send = shown["inbox"].handlers
    engine = sa.create_engine("sqlite://")
    with Session(engine) as session:
        session.execute(sa.text("CREATE TABLE views (page TEXT, message_id TEXT)"))
        messages = cast("Any", [SimpleNamespace(message_id=f"m{number}") for number in range(3)])
        events = [shown["Seen"](page=page) for page in "aab"]
        count.function(events, BatchContext(messages=messages, session=session))
        assert session.execute(sa.text("SELECT * FROM views")).all() == [("a", "m0"), ("a", "m1"), ("b", "m2")]
    assert count.batch
    policy = send.policy_by(InboxSettings())
    assert (policy.rate, policy.concurrency, send.adaptive, send.priority) == (20.0, 4, True, -1)
