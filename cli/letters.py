"""How dead letters look: in a list, one by one, and in JSON."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from ..dlq import Action, DeadLetter, Place
from . import output
from .record import print_headers, print_pairs, print_payload

_WIDE = 120
_STATES = {"replay": "replayed", "discard": "discarded"}
States = Mapping[Place, Action] | None


def state(letter: DeadLetter, states: States) -> str:
    """``dead``, ``replayed``, ``discarded``; ``unknown`` without a database."""
    if states is None:
        return "unknown"
    action = states.get(letter.place)
    return "dead" if action is None else _STATES.get(action.action, action.action)


def summary(letter: DeadLetter, states: States) -> dict[str, Any]:
    """A dead letter in JSON, without payload, headers and stack."""
    action = (states or {}).get(letter.place)
    return {
        "place": str(letter.place),
        "family": letter.family,
        "message_id": letter.message_id,
        "type": letter.type,
        "key": output.as_text(letter.key),
        "payload_bytes": None if letter.payload is None else len(letter.payload),
        "timestamp": letter.timestamp,
        "original": {
            "topic": letter.original_topic,
            "partition": letter.original_partition,
            "offset": letter.original_offset,
        },
        "group": letter.group,
        "error": letter.error,
        "message": letter.message,
        "handler": letter.handler,
        "deliveries": letter.deliveries,
        "first_failed_at": letter.first_failed_at,
        "last_failed_at": letter.last_failed_at,
        "fingerprint": letter.fingerprint,
        "replay_count": letter.replay_count,
        "state": state(letter, states),
        "action": action and {"at": action.at, "actor": action.actor, "reason": action.reason},
    }


def full(letter: DeadLetter, states: States) -> dict[str, Any]:
    """A dead letter in JSON, whole and without loss."""
    return {
        **summary(letter, states),
        "stack": letter.stack,
        "headers": [[name, output.as_text(value)] for name, value in letter.headers],
        "payload": output.as_text(letter.payload),
    }


def print_list(console: Console, letters: Sequence[DeadLetter], states: States) -> None:
    """A table for each dead-letter topic, in the order of ``letters`` otherwise."""
    wide = console.width >= _WIDE
    by_topic = sorted(letters, key=lambda letter: letter.place.topic)  # stable: the order within stays
    for number, (topic, group) in enumerate(groupby(by_topic, key=lambda letter: letter.place.topic)):
        if number:
            console.print()
        console.print(Text(output.clean(topic), style="bold"), overflow="fold")
        headings = ("place", "failed", *(["message id", "tries"] if wide else []), "type", "key", "error", "state")
        table = output.table(*headings, right=("tries",))
        table.expand = True
        widths = {"type": 32 if wide else 15, "key": 20 if wide else 9, "message id": 36, "state": 20 if wide else 9}
        for column in table.columns:
            column.max_width = widths.get(str(column.header))
            column.ratio = 1 if column.header == "error" else None
        for letter in group:
            cells = [
                f"{letter.place.partition}/{letter.place.offset}",
                output.local(letter.failed_at) if wide else output.ago(letter.failed_at),
                *([letter.message_id, str(letter.deliveries or "-")] if wide else []),
                letter.type or "-" if wide else _end(letter.type or "-", widths["type"]),
                output.shown(letter.key),
                _error(letter),
                _brief_state(letter, states) if wide else state(letter, states),
            ]
            table.add_row(*(output.clean(cell) for cell in cells))
        console.print(table)


def print_letter(console: Console, letter: DeadLetter, states: States) -> None:
    """All about one: facts, error, headers, payload, stack."""
    facts = {
        "place": str(letter.place),
        "state": _state(letter, states),
        "message id": letter.message_id,
        "type": letter.type,
        "key": output.shown(letter.key),
        "original": _original(letter),
        "group": letter.group,
        "handler": letter.handler,
        "error": _error(letter),
        "failed": _failed(letter),
        "replayed": f"{letter.replay_count} times before" if letter.replay_count else None,
        "fingerprint": letter.fingerprint,
        "written by": letter.family if letter.family != "unknown" else "an unknown producer",
    }
    print_pairs(console, [(name, value) for name, value in facts.items() if value], style="bold")
    told = {name for name, _ in letter.headers}
    # The stack has its own part below.
    print_headers(console, [pair for pair in letter.headers if not _is_stack(pair[1], letter)], len(told))
    print_payload(console, letter.payload)
    if letter.stack:
        console.print(Text("\nstack", style="bold"))
        console.print(Text(output.clean(letter.stack.replace("\r\n", "\n"), lines=True).rstrip()), overflow="fold")


def _error(letter: DeadLetter) -> str:
    """The class without its module, and the message."""
    name = (letter.error or "").rsplit(".", 1)[-1]
    return ": ".join(filter(None, (name, letter.message))) or "-"


def _end(text: str, width: int) -> str:
    """The end of ``text``, which tells more of a dotted name than its beginning."""
    return text if len(text) <= width else "…" + text[1 - width :]


def _state(letter: DeadLetter, states: States) -> str:
    action = (states or {}).get(letter.place)
    if action is None:
        return state(letter, states)
    reason = f": {action.reason}" if action.reason else ""
    return f"{state(letter, states)} {output.local(action.at)} by {action.actor}{reason}"


def _brief_state(letter: DeadLetter, states: States) -> str:
    action = (states or {}).get(letter.place)
    return state(letter, states) if action is None else f"{state(letter, states)} {output.ago(action.at)} ago"


def _original(letter: DeadLetter) -> str:
    if letter.original_topic is None:
        return "unknown"
    place = (letter.original_topic, letter.original_partition, letter.original_offset)
    return "/".join("?" if part is None else str(part) for part in place)


def _failed(letter: DeadLetter) -> str:
    tries = f"after {output.counted(letter.deliveries, 'attempt')}, " if letter.deliveries else ""
    first = letter.first_failed_at
    began = f"first {output.local(first)}, " if first and first != letter.last_failed_at else ""
    return f"{tries}{began}last {output.local(letter.failed_at)} ({output.ago(letter.failed_at)} ago)"


def _is_stack(value: bytes, letter: DeadLetter) -> bool:
    return letter.stack is not None and value.decode(errors="replace") == letter.stack
