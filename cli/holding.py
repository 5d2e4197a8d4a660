"""How held messages, and what operators did to inboxes, look: in a list, one by one, and in JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from ..inbox.desk import Action, Held
from ..messaging.redact import Redaction
from . import masking, output
from .finding import failure_of
from .record import print_headers, print_pairs, print_payload

_WIDE = 120


def summary(row: Held, redaction: Redaction) -> dict[str, Any]:
    """A held message in JSON, without payload and headers."""
    held = masking.held(row, redaction)
    return {
        "id": held.id,
        "group": held.group,
        "topic": held.topic,
        "partition": held.partition,
        "offset": held.offset,
        "message_id": held.message_id,
        "key": output.as_text(held.key),
        "type": held.type,
        "payload_bytes": held.size,
        "timestamp": held.timestamp,
        "handler": held.handler or None,
        "state": held.state,
        "attempts": held.attempts,
        "error": held.error,
        "fingerprint": failure_of(row.error, row.handler),
        "first_failed_at": held.first_failed_at,
        "next_attempt_at": held.next_attempt_at,
        "held_at": held.held_at,
    }


def whole(row: Held, redaction: Redaction) -> dict[str, Any]:
    """A held message in JSON, without loss but for what is masked."""
    held = masking.held(row, redaction)
    headers, wrong = held.pairs()
    return {
        **summary(row, redaction),
        "headers": [[name, output.as_text(value)] for name, value in headers],
        "headers_error": wrong,
        "payload": output.as_text(held.payload),
    }


def full(row: Held, behind: Sequence[Held], actions: Sequence[Action], redaction: Redaction) -> dict[str, Any]:
    """Likewise, with what waits behind it and what was done to it."""
    return {
        **whole(row, redaction),
        "behind": [{"id": each.id, "offset": each.offset, "message_id": each.message_id} for each in behind],
        "actions": [asdict(each) for each in actions],
    }


def print_list(console: Console, found: Sequence[Held], redaction: Redaction) -> None:
    """A table."""
    wide = console.width >= _WIDE
    more = ("type", "tries") if wide else ()
    table = output.table("id", "held", "group", "topic", "key", *more, "state", "next", "error", right=("id", "tries"))
    limits = {"group": 24 if wide else 9, "topic": 24 if wide else 9, "key": 16 if wide else 6, "type": 20}
    for column in table.columns:
        column.max_width = limits.get(str(column.header))
    error = table.columns[-1]
    error.ratio, error.no_wrap, error.overflow = 1, False, "fold"
    table.expand = True
    for row in found:
        each = masking.held(row, redaction)
        cells = (
            str(each.id),
            output.ago(each.held_at),
            each.group,
            each.topic,
            output.shown(each.key),
            *((each.type or "-", str(each.attempts)) if wide else ()),
            each.state,
            due(each.next_attempt_at),
            each.error or "-",
        )
        table.add_row(*map(output.clean, cells))
    console.print(table)


def print_held(
    console: Console, row: Held, redaction: Redaction, facts: Mapping[str, str | None], actions: Sequence[Action]
) -> None:
    """All about one: ``facts`` after its state, then its record, and what was done to it."""
    held = masking.held(row, redaction)
    headers, wrong = held.pairs()
    first, next_ = held.first_failed_at, held.next_attempt_at
    pairs = {
        "id": str(held.id),
        "state": f"{_STATES[held.state]}, held {_when(held.held_at)}",
        **facts,
        "group": held.group,
        "handler": held.handler,
        "attempts": f"{held.attempts}{f', the first failed {_when(first)}' if first else ''}",
        "next attempt": f"{output.local(next_)} ({due(next_)})" if next_ else None,
        "error": held.error,
        "fingerprint": failure_of(row.error, row.handler),
        "message id": held.message_id,
        "place": held.place,
        "key": output.shown(held.key),
        "type": held.type,
        "written": _when(held.timestamp),
        "headers": wrong,
    }
    print_pairs(console, [(name, value) for name, value in pairs.items() if value], style="bold")
    print_headers(console, headers)
    print_payload(console, held.payload, held.size)
    if actions:
        console.print(Text("\nwhat was done to it", style="bold"))
        print_actions(console, actions)


def print_actions(console: Console, actions: Sequence[Action]) -> None:
    """A table, the latest first."""
    wide = console.width >= _WIDE
    table = output.table("at" if wide else "ago", "who", "action", "group", "what", "reason")
    table.expand = True
    for column, ratio in zip(table.columns, (None, 2, None, 2, 4, 5), strict=True):
        column.ratio = ratio
        column.no_wrap, column.overflow = ratio is None, "fold"
    for each in actions:
        at = output.local(each.at) if wide else output.ago(each.at)
        what = ", ".join(filter(None, (named(each.subject), each.message_id)))
        cells = (at, each.actor, each.action, each.group or "all", what, each.reason or "")
        table.add_row(*map(output.clean, cells))
    console.print(table)


def named(subject: str) -> str:
    """The subject of a control or an action, for people; empty for a whole group."""
    kind, _, name = subject.partition(":")
    return f"{kind} {name}" if name else kind


def due(moment: datetime | None) -> str:
    """In how long, short."""
    if moment is None:
        return "-"
    seconds = (moment - datetime.now(UTC)).total_seconds()
    return f"in {output.duration(seconds)}" if seconds > 0 else "now"


_STATES = {
    "retry": "waits for its next attempt",
    "behind": "waits behind one of its key",
    "dead-letter": "a dead letter, which its key waits for",
}


def _when(moment: datetime) -> str:
    return f"{output.local(moment)} ({output.ago(moment)} ago)"
