"""Printing: tables for people, JSON for machines, questions, progress."""

import json
import os
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def emit(document: Any) -> None:
    """One JSON document on stdout."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    click.echo(json.dumps(document, ensure_ascii=not unicode, default=plain))


def console() -> "Console":
    """For stdout; as wide as the terminal or ``COLUMNS``, without colours where ``NO_COLOR`` is set."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False)


def table(*columns: str, right: Sequence[str] = ()) -> "Table":
    """A table with these headings; ``right`` are the columns of numbers."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        made.add_column(column, no_wrap=True, overflow="ellipsis", justify="right" if column in right else "left")
    return made


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless ``yes``. Raises click.UsageError without a terminal, click.ClickException for a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to answer on; add --yes.")
    if not click.confirm(question, err=True):
        raise click.ClickException("Nothing was changed.")


@contextmanager
def progress(what: str, total: int | None, *, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, if that is a terminal; call what it gives with how many more are done."""
    if hidden or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)


def clean(text: str, *, lines: bool = False) -> str:
    """``text`` without control characters, which could take over a terminal; ``lines`` keeps line ends and tabs."""
    kept = "\n\t" if lines else ""
    return "".join(char if char.isprintable() or char in kept else _escaped(char) for char in text)


def shown(value: bytes | None) -> str:
    """Bytes on one line: text where they are text, else hexadecimal."""
    if value is None:
        return "-"
    try:
        return clean(value.decode())
    except UnicodeDecodeError:
        return "0x" + value.hex()


def as_text(value: bytes | None) -> Any:
    """Bytes in JSON without loss: a string for UTF-8, else ``{"base64": …}``."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def hexdump(value: bytes, limit: int) -> str:
    """Offset, hexadecimal and text, 16 bytes to a line, of the first ``limit`` bytes."""
    lines = []
    for start in range(0, min(len(value), limit), 16):
        row = value[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)  # noqa: PLR2004  printable ASCII
        lines.append(f"{start:06x}  {row.hex(' '):<47}  {text}")
    if len(value) > limit:
        lines.append(f"… {len(value) - limit} more bytes; --json shows all")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Short, in one unit: ``12s``, ``5m``, ``3h``, ``2d``."""
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def span(length: timedelta) -> str:
    """Exact, in the largest unit that is: ``36h``, ``30d``."""
    seconds = length.total_seconds()
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if seconds and seconds % size == 0:
            return f"{seconds / size:,.0f}{unit}"
    return f"{seconds:,.0f}s"


def ago(moment: datetime) -> str:
    """How long ago, short."""
    return duration((datetime.now(UTC) - moment).total_seconds())


def local(moment: datetime) -> str:
    """In the local time zone, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def counted(number: int, noun: str) -> str:
    """``1 dead letter``, ``2 dead letters``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def amount(number: int, *, exact: bool = True) -> str:
    """``1,200,000``, with ``about`` before it where it was not counted."""
    return f"{number:,}" if exact else f"about {number:,}"


def colours(stream: Any) -> bool:
    """Whether to colour what goes to ``stream``."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode() if ord(char) < 0x10000 else f"\\U{ord(char):08x}"  # noqa: PLR2004  those that \u can say


def plain(value: Any) -> Any:
    """What JSON has no form for."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)
