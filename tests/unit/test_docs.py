"""What the documents show is there: links, commands with their options, and pictures as the code prints them."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from rich.cells import cell_len

from postroom.cli.app import App
from postroom.cli.root import postroom

ROOT = Path(__file__).parent.parent.parent
_GENERATED = ROOT / "docs" / "reference" / "cli.md"
_PLACEHOLDER = re.compile(r"…|\.\.\.|[<>]|\b[A-Z]{2,}\b(?!=)")


def documents() -> list[Path]:
    return [ROOT / "README.md", *(path for path in (ROOT / "docs").rglob("*.md") if path != _GENERATED)]


@pytest.fixture(scope="module")
def pictures() -> Any:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for document in documents():
        for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
            path, _, anchor = link.partition("#")
            if "://" in path:
                continue
            target = (document.parent / path).resolve() if path else document
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{document.name}: {link}")
    assert broken == []


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command line of a code block or of an example in a help text, as far as it is one command."""
    for document in [*documents(), _GENERATED]:
        for line in re.findall(r"^    (postroom [a-z].*)$", document.read_text(), re.MULTILINE):
            told = re.split(r" \| | && | # | {2,}", line)[0]
            if _PLACEHOLDER.search(told) or told.endswith("\\"):
                continue
            yield f"{document.name}: {told}", shlex.split(told)[1:]


def test_commands_that_are_shown_are_understood() -> None:
    wrong, count = [], 0
    for told, arguments in commands():
        command: click.Command = postroom
        context = click.Context(postroom, info_name="postroom", obj=App(), **postroom.context_settings)
        while isinstance(command, click.Group) and arguments and arguments[0] in command.commands:
            command = command.commands[arguments.pop(0)]
        try:
            command.make_context(command.name, arguments, parent=context)
        except click.UsageError as error:
            if not isinstance(getattr(error, "param", None), click.Argument) or "does not exist" not in str(error):
                wrong.append(f"{told}: {error.format_message()}")
        count += 1
    assert wrong == []
    assert count > 100, "the lines are found"


def test_pictures_are_what_is_printed(pictures: Any) -> None:
    for path, text in pictures.generated().items():
        assert path.read_text() == text, "run `make reference`"
    assert set((ROOT / "docs" / "pictures").iterdir()) == set(pictures.generated())


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("name", ["stats", "list", "show", "replay"])
def test_nothing_in_a_picture_overflows_or_loses_what_counts(pictures: Any, name: str, width: int) -> None:
    text = pictures.draw(name, width).export_text()
    assert max(cell_len(line) for line in text.splitlines()) <= width
    for told in {
        "stats": (
            "fingerprint",
            "27f5fd19bdb",
            "1,204",
            "12m" if width < 120 else "14:18:00",
            "ConnectionRefused: gate",
        ),
        "list": ("orders.billing.dlq", "quarantined", "failed-again", "o-0944", "UnknownCurrency: no rate"),
        "show": ("0199c5f2-7d2e-7c6e-9a6e-0c4b9d7e0031", "▶ 31", "ada@desk", '"currency": "ISK"'),
        "replay": ("confirmed      1201", "failed again   3"),
    }[name]:
        assert told in text
