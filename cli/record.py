"""How the parts of a record look to people: its payload, its headers, pairs of a name and a value."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..messaging import document
from . import output

_PAYLOAD_BYTES = 4_096


def decoded(payload: bytes) -> str:
    """The payload for people: JSON indented, text as it is, else a hex dump of its beginning."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return output.hexdump(payload, _PAYLOAD_BYTES)
    try:
        text = document.spread(document.read(payload))
    except ValueError:
        if any(not (char.isprintable() or char in "\r\n\t") for char in text):
            return output.hexdump(payload, _PAYLOAD_BYTES)
    return output.clean(text.replace("\r\n", "\n"), lines=True)


def header(value: bytes) -> str:
    """A header's value on one line; Spring writes numbers as bytes."""
    if len(value) in (4, 8) and not value.decode(errors="ignore").isprintable():
        return f"{int.from_bytes(value, signed=True)} (0x{value.hex()})"
    return output.shown(value)


def print_pairs(console: Console, pairs: Sequence[tuple[str, str]], style: str = "") -> None:
    """Names and values, side by side."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=style, no_wrap=len(pairs) > 0 and max(len(name) for name, _ in pairs) <= console.width // 3)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(name), Text(output.clean(value)))
    console.print(grid)


def print_headers(console: Console, headers: Sequence[tuple[str, bytes]], total: int | None = None) -> None:
    """A heading with how many there are, and the headers."""
    console.print(Text(f"\nheaders ({len(headers) if total is None else total})", style="bold"))
    print_pairs(console, [(output.clean(name), header(value)) for name, value in headers])


def print_payload(console: Console, payload: bytes | None, size: int | None = None) -> None:
    """A heading with its size, and the payload. ``size``: of the original, where ``payload`` is masked."""
    told = "none: a tombstone" if payload is None else output.counted(len(payload) if size is None else size, "byte")
    console.print(Text(f"\npayload ({told})", style="bold"))
    if payload is not None:
        console.print(Text(decoded(payload)), overflow="fold")
