"""How messages of the log look: in a list, one by one, and in JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from ..messaging.errors import InvalidRecord
from ..messaging.redact import Redaction
from ..outbox.archive import Found
from ..outbox.audit import Action
from ..outbox.entry import LogRow
from . import output
from .masking import log_row
from .record import print_headers, print_pairs, print_payload

_WIDE = 120


def summary(found: Found, redaction: Redaction) -> dict[str, Any]:
    """A message in JSON, without payload and headers."""
    return {**_columns(log_row(found.row, redaction)), "payload_bytes": found.size, "state": found.state}


def full(row: LogRow, state: str, redaction: Redaction) -> dict[str, Any]:
    """A message in JSON, whole, and without loss but for what is masked; ``headers`` as in Kafka's record."""
    size, row = _size(row), log_row(row, redaction)
    headers, wrong = _headers(row)
    return {
        **_columns(row),
        "payload_bytes": size,
        "state": state,
        "headers": [[name, output.as_text(value)] for name, value in headers],
        "headers_error": wrong,
        "payload": output.as_text(row.payload),
    }


def told(action: Action) -> dict[str, Any]:
    """An operator's action in JSON."""
    return {**action.params(), "at": action.at}


def print_list(console: Console, messages: Sequence[Found], redaction: Redaction) -> None:
    """A table."""
    table = output.table("position", "written", "topic", "key", "type", "bytes", "state", right=("position", "bytes"))
    table.expand = True
    for index, ratio in ((2, 3), (3, 3), (4, 4)):
        table.columns[index].ratio = ratio
    for each in messages:
        row = each.row
        table.add_row(
            str(row.position),
            output.ago(row.created_at),
            output.clean(row.topic),
            output.shown(redaction.key(row.key)),
            output.clean(row.type),
            "-" if each.size is None else str(each.size),
            each.state,
        )
    console.print(table)


def print_message(
    console: Console,
    row: LogRow,
    redaction: Redaction,
    facts: Mapping[str, str | None],
    actions: Sequence[Action] = (),
) -> None:
    """All about one: ``facts`` first, then its columns, headers and payload, and what was done to it."""
    size, row = _size(row), log_row(row, redaction)
    headers, wrong = _headers(row)
    written = f"{output.local(row.created_at)} ({output.ago(row.created_at)} ago)"
    pairs = {
        "position": f"{row.position} (shard {row.shard})" if row.position else None,
        **facts,
        "message id": row.id,
        "topic": row.topic,
        "key": output.shown(row.key),
        "type": row.type,
        "written": written,
        "headers": wrong,
    }
    print_pairs(console, [(name, value) for name, value in pairs.items() if value], style="bold")
    print_headers(console, headers)
    print_payload(console, row.payload, size)
    if actions:
        console.print("\nwhat was done to it", style="bold")
        print_actions(console, actions)


def print_actions(console: Console, actions: Sequence[Action]) -> None:
    """A table, the latest first."""
    wide = console.width >= _WIDE
    table = output.table("at" if wide else "ago", "who", "action", "what", "reason")
    table.expand = True
    for column, ratio in zip(table.columns, (None, 2, None, 4, 5), strict=True):
        column.ratio = ratio
        column.no_wrap, column.overflow = ratio is None, "fold"
    for each in actions:
        at = "-" if each.at is None else output.local(each.at) if wide else output.ago(each.at)
        cells = (at, each.actor or "-", each.action, _what(each), each.reason or "")
        table.add_row(*map(output.clean, cells))
    console.print(table)


def _what(action: Action) -> str:
    counted = output.counted(action.messages, "message") if action.messages != 1 else None
    place = None
    if action.position is not None:
        place = f"{'up to ' if action.action == 'replay' else ''}position {action.position}"
    everything = "all topics" if action.action in ("pause", "resume") else None
    parts = [action.topic or everything, counted if action.messages else None, place]
    return ", ".join(part for part in parts if part) or "-"


def _headers(row: LogRow) -> tuple[Sequence[tuple[str, bytes]], str | None]:
    """Those of the record, or what is wrong with them."""
    try:
        return row.record().headers, None
    except InvalidRecord as error:
        return [], f"{error} ({row.headers})"


def _size(row: LogRow) -> int | None:
    return None if row.payload is None else len(row.payload)


def _columns(row: LogRow) -> dict[str, Any]:
    return {
        "position": row.position or None,
        "shard": row.shard if row.position else None,
        "id": row.id,
        "topic": row.topic,
        "key": output.as_text(row.key),
        "type": row.type,
        "created_at": row.created_at,
    }
