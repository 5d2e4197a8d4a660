"""What the documents show is there: links, commands with their options, and pictures as the code prints them."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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


def test_links_to_elsewhere_are_whole_addresses() -> None:
    """Their targets are not asked: the tests need no network."""
    broken, count = [], 0
    for document in documents():
        for link in re.findall(r"\]\(([a-z]+:[^)\s]*)\)", document.read_text()):
            parts = urlsplit(link)
            count += 1
            host = parts.hostname or ""
            if parts.scheme != "https" or "." not in host or host != host.lower() or parts.query or parts.username:
                broken.append(f"{document.name}: {link}")
    assert broken == []
    assert count > 10, "they are found"


def test_tests_that_pages_name_are_there() -> None:
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    missing = []
    for document in documents():
        for folder, name in re.findall(r"`(tests/[\w/]*/)?(test_\w+\.py)`", document.read_text()):
            if name not in there or (folder and not (ROOT / folder / name).exists()):
                missing.append(f"{document.name}: {folder}{name}")
    assert missing == []


#: Fragments that are too small to be programs, or that are run where they stand in a test of their own.
FRAGMENTS = {
    "README.md": 2,  # once(), which test_inbox_once.py has; the signature of a test
    "index.md": 1,  # the tutorial has it whole
    "alembic.md": 1,  # run by test_schema.py
    "leave-a-home-made-outbox.md": 1,  # the test of the page does the same with writers of its own
}


def test_every_program_on_a_page_is_run_by_a_test() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))
    not_run = []
    for document in documents():
        if document.parent.name == "reference":
            continue
        blocks = re.findall(r"(<!-- (?:example|edit): \S+ -->\n)?```python\n", document.read_text())
        if blocks.count("") > FRAGMENTS.get(document.name, 0):
            not_run.append(f"{document.name} has a program without a mark")
        if any(blocks) and not re.search(rf"\b{re.escape(document.stem)}\b", tests):
            not_run.append(f"no test names {document.name}")
    assert not_run == []


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
        if isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
            absent = [name for name in arguments[0].split("|") if name not in command.commands]
            wrong += [f"{told}: there is no command {name!r}" for name in absent]
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
