"""The editor gets readable, masked JSON; what comes back is stored without loss, and only when something changed."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from postroom.cli.dlq.editing import differences, given, in_editor
from postroom.dlq import DeadLetter, Repair, edited
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.messaging.redact import MASK, Redaction

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def app(*paths: str) -> Any:
    return SimpleNamespace(redaction=Redaction(paths))


def letter(payload: bytes | None, *headers: tuple[str, bytes]) -> DeadLetter:
    record = ReceivedRecord(Partition("t.g.dlq", 0), 1, b"k", payload, [("ce_id", b"m-1"), *headers], NOW)
    return DeadLetter.of(record)._replace(id=7)


class Editor:
    """Stands for $EDITOR: makes of each text what the next change says, and remembers what it was shown."""

    def __init__(self, *edits: Any) -> None:
        self.edits = list(edits)
        self.shown: list[str] = []

    def __call__(self, text: str, extension: str) -> str | None:
        self.shown.append(text)
        edit = self.edits.pop(0)
        result: str | None = edit(text) if callable(edit) else edit
        return result


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A terminal with an editor, whose user answers yes."""

    def use(*edits: Any) -> Editor:
        editor = Editor(*edits)
        for stream in ("stdin", "stdout"):
            monkeypatch.setattr(sys, stream, SimpleNamespace(isatty=lambda: True))
        monkeypatch.setattr(click, "edit", editor)
        monkeypatch.setattr(click, "confirm", lambda *_, **__: True)
        monkeypatch.setattr(click, "echo", lambda *_, **__: None)
        return editor

    return use


def test_masked_values_come_back(terminal: Any) -> None:
    editor = terminal(lambda text: text.replace("1.50", "2.50"))
    own = letter(b'{"total":1.50,"card":{"number":"4711"},"n":1E2}')
    assert in_editor(app("payload.card.number"), own) == b'{"total":2.50,"card":{"number":"4711"},"n":1E2}'
    assert "4711" not in editor.shown[0]
    assert f'    "number": "{MASK}"' in editor.shown[0]


@pytest.mark.parametrize("edit", [None, lambda text: text, lambda text: text.replace("\n", "\n\n")])
def test_nothing_changed_is_nothing(terminal: Any, edit: Any) -> None:
    terminal(edit)
    assert in_editor(app(), letter(b'{"a": 1}')) is None


def test_what_is_no_json_any_more_can_be_edited_again(terminal: Any) -> None:
    editor = terminal("{", '{"a": 2}')
    assert in_editor(app(), letter(b'{"a": 1}')) == b'{"a":2}'
    assert editor.shown[1] == "{"


def test_a_mask_at_another_place_can_be_edited_again(terminal: Any) -> None:
    editor = terminal(f'{{"x": "{MASK}"}}', '{"x": 1}')
    assert in_editor(app("payload.card"), letter(b'{"card": 1}')) == b'{"x":1}'
    assert len(editor.shown) == 2


def test_text_stays_as_it_is_but_for_the_end_that_editors_add(terminal: Any) -> None:
    terminal(lambda text: text + "!\n")
    assert in_editor(app(), letter(b"a  b")) == b"a  b!"


@pytest.mark.parametrize(("payload", "told"), [(b"\xff\xfe", "no text"), (None, "tombstone")])
def test_what_no_editor_can_show_is_refused(terminal: Any, payload: bytes | None, told: str) -> None:
    terminal()
    with pytest.raises(click.UsageError, match=told):
        in_editor(app(), letter(payload))
    with pytest.raises(click.UsageError, match="redacted"):
        in_editor(app("payload.a"), letter(b"text"))


def test_the_difference_shows_headers_and_key_and_masks_them() -> None:
    before = letter(b'{"a":1,"b":2}', ("x", b"1"), ("secret", b"one"))
    after = edited(before, Repair(payload=b'{"a":1,"b":3}', key=b"new", set={"x": "2", "secret": "two"}))
    lines = differences(app("payload.b", "headers.secret"), before, after)
    assert lines == [
        "  a masked field of the payload changes",
        "- key: k",
        "+ key: new",
        "- header x: 1",
        "+ header x: 2",
    ]
    assert '-  "b": 2' in differences(app(), before, after)


def test_an_option_is_a_text_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "payload"
    file.write_bytes(b"\xff\n")
    assert given("text") == b"text"
    assert given(f"@{file}") == b"\xff\n"
    with pytest.raises(click.UsageError, match="cannot be read: No such file"):
        given("@nothing")
