"""How parked messages look: in a list, one by one, and in JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from ..messaging.redact import Redaction
from ..outbox.parking import Parked
from . import masking, messages, output
from .finding import failure_of

_WIDE = 120


def summary(row: Parked, redaction: Redaction) -> dict[str, Any]:
    """A parked message in JSON, without payload and headers."""
    shown = masking.parked(row, redaction)
    return {
        "position": row.row.position,
        "shard": row.row.shard,
        "id": row.row.id,
        "topic": row.row.topic,
        "key": output.as_text(shown.row.key),
        "type": row.row.type,
        "payload_bytes": row.size or 0,
        "created_at": row.row.created_at,
        "parked_at": row.parked_at,
        "state": row.state,
        "error": shown.error,
        "fingerprint": failure_of(row.error),
        "retry": row.retry,
        "by_topic": row.by_topic,
    }


def whole(row: Parked, redaction: Redaction) -> dict[str, Any]:
    """A parked message in JSON, without loss but for what is masked."""
    return {**messages.full(row.row, row.state, redaction), **summary(row, redaction)}


def print_list(console: Console, rows: Sequence[Parked], redaction: Redaction) -> None:
    """A table."""
    table = output.table("position", "parked", "topic", "key", "type", "reason", right=("position",))
    limits = (24, 16, 20) if console.width >= _WIDE else (12, 8, 12)
    for column, width in zip(table.columns[2:5], limits, strict=True):
        column.max_width = width
    reason_ = table.columns[5]
    reason_.ratio, reason_.no_wrap, reason_.overflow = 1, False, "fold"
    table.expand = True
    for row in rows:
        cells = (
            str(row.row.position),
            output.ago(row.parked_at),
            row.row.topic,
            output.shown(redaction.key(row.row.key)),
            row.row.type,
            reason(row, redaction),
        )
        table.add_row(*map(output.clean, cells))
    console.print(table)


def print_parked(console: Console, row: Parked, redaction: Redaction, facts: Mapping[str, str | None]) -> None:
    """All about one; ``facts`` after why it is parked."""
    told = {
        "state": f"parked {output.local(row.parked_at)} ({output.ago(row.parked_at)} ago)",
        "reason": reason(row, redaction),
        "fingerprint": failure_of(row.error),
        **facts,
    }
    messages.print_message(console, row.row, redaction, told)


def reason(row: Parked, redaction: Redaction) -> str:
    """Why it is parked."""
    if row.error is None:
        return "waits until its topic goes on" if row.by_topic else "waits behind one of its key"
    error = masking.parked(row, redaction).error
    return f"to be retried: {error}" if row.retry else str(error)
