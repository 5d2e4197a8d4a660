"""Pieces of Markdown."""

import inspect
from typing import Any

WIDTH = 90
"""What a page of the site shows without scrolling, in characters."""


def text(value: Any) -> str:
    """The docstring as a cell of a table."""
    return " ".join(doc(value).split()).replace("|", "\\|")


def doc(value: Any) -> str:
    """The docstring."""
    return markdown(inspect.cleandoc(value.__doc__ or ""))


def markdown(text: str) -> str:
    """A docstring's text, whose backticks are doubled."""
    return text.replace("``", "`")


def code(text: str) -> str:
    """A block of Python."""
    return f"```python\n{text}\n```\n"


def block(text: str) -> str:
    """A block as a terminal shows it."""
    lines = (line.rstrip() for line in text.strip("\n").splitlines())
    return "```text\n" + "\n".join(lines) + "\n```\n"
