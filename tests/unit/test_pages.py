"""The pages: their links lead somewhere, their commands exist, and the alerts' runbooks are there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from postroom.cli.root import postroom

_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?![a-z]+:)([^)\s]+)\)")
_COMMAND = re.compile(r"(?:^ {4}|^|`)(postroom (?!=)[^`\n#…]*)", re.MULTILINE)
RUNBOOKS = (
    *("backlog-grows", "dead-letters-grow", "fenced-relay", "long-transaction"),
    *("kafka-down", "replay-after-a-fix", "disk-full"),
)
SECTIONS = (
    *("What you see", "What it means", "First look", "Causes and decisions"),
    *("Mend it", "It is over when", "Never"),
)


def pages(rooms: Path) -> list[Path]:
    return [rooms / "README.md", rooms / "CONTRIBUTING.md", *sorted((rooms / "docs").rglob("*.md"))]


def anchors(text: str) -> set[str]:
    """The places in a page, as GitHub and MkDocs both name them where words and hyphens are all there is."""
    titles = re.findall(r"^#+ (.*)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


def test_every_link_leads_somewhere(rooms: Path) -> None:
    broken = []
    for page in pages(rooms):
        for link in _LINK.findall(_FENCE.sub("", page.read_text())):
            address, _, place = link.partition("#")
            target = (page.parent / address).resolve() if address else page
            if not target.is_file():
                broken.append(f"{page.name}: {link}")
            elif place and place not in anchors(target.read_text()):
                broken.append(f"{page.name}: {link} has no such heading")
    assert broken == []


def commands(text: str) -> Iterator[str]:
    """What a page says to type: indented or in a shell block, or between backticks."""
    for found in _COMMAND.findall(text):
        yield re.split(r"\s{2,}|[;|]", found.strip())[0]


def mistakes(command: str) -> Iterator[str]:
    """What ``postroom`` would not know of it."""
    try:
        words = shlex.split(command)[1:]
    except ValueError:
        words = command.split()[1:]
    known: click.Command = postroom
    while words and isinstance(known, click.Group) and not words[0].startswith("-"):
        names = words.pop(0).split("|")
        if set(names) - known.commands.keys():
            yield f"{command}: no such command"
            return
        known = known.commands[names[0]]
    options = {name for parameter in known.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and not {*name.split("|")} <= options | {"--help"}:
            yield f"{command}: no option {name}"


def test_every_command_that_is_shown_exists(rooms: Path) -> None:
    shown = [
        command
        for page in pages(rooms)
        if "reference" not in page.parts and "adr" not in page.parts
        for command in commands(page.read_text())
    ]
    assert len(shown) > 150
    assert [told for command in shown for told in mistakes(command)] == []


@pytest.mark.parametrize("name", RUNBOOKS)
def test_a_runbook_says_what_to_do(rooms: Path, name: str) -> None:
    titles = re.findall(r"^## (.*)$", (rooms / "docs" / "runbooks" / f"{name}.md").read_text(), re.MULTILINE)
    assert tuple(titles) == SECTIONS
