"""How dead letters look: in a list, one by one, in groups, and in JSON. They come masked."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from ...dlq import Action, DeadLetter, Group, State, Statistics
from ...messaging.fingerprint import LENGTH
from .. import output
from ..record import print_headers, print_pairs, print_payload

_WIDE = 120
_WIDE_STATISTICS = 160  # they have more columns, and the error needs what is left
_TOGETHER = 3  # parts of a trend in one bar, where there is little room
_BARS = " ▁▂▃▄▅▆▇█"


def summary(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter in JSON, without payload, headers and stack."""
    return {
        "id": letter.id,
        "place": str(letter.place),
        "incarnation": letter.incarnation,
        "state": letter.state,
        "state_at": letter.state_at,
        "family": letter.family,
        "message_id": letter.message_id,
        "type": letter.type,
        "key": output.as_text(letter.key),
        "payload_bytes": letter.size,
        "written_at": letter.written_at,
        "original": {"topic": letter.topic, "partition": letter.topic_partition, "offset": letter.topic_offset},
        "group": letter.group,
        "error": letter.error,
        "message": letter.message,
        "handler": letter.handler,
        "deliveries": letter.deliveries,
        "first_failed_at": letter.first_failed_at,
        "failed_at": letter.failed_at,
        "fingerprint": letter.fingerprint,
        "replays": letter.replays,
        "same_failures": letter.same_failures,
        "expires_at": letter.expires_at,
        "plan": letter.plan_id,
        "follows": letter.follows,
        "masked": letter.masked,
        "forgotten_at": letter.forgotten_at,
    }


def full(
    letter: DeadLetter, actions: Sequence[Action], around: Sequence[DeadLetter], others: Sequence[DeadLetter]
) -> dict[str, Any]:
    """A dead letter in JSON, whole and without loss."""
    return {
        **summary(letter),
        "stack": letter.stack,
        "headers": [[name, output.as_text(value)] for name, value in letter.headers or ()],
        "payload": output.as_text(letter.payload),
        "history": [done(each) for each in actions],
        "neighbours": [{"id": each.id, "state": each.state, "failed_at": each.failed_at} for each in around],
        "deaths": [each.id for each in others],
    }


def done(action: Action) -> dict[str, Any]:
    """Something done, in JSON."""
    return {
        "id": action.id,
        "at": action.at,
        "actor": action.actor,
        "action": action.action,
        "letter": action.letter,
        "plan": action.plan,
        "from": action.before,
        "to": action.after,
        "reason": action.reason,
    }


def print_list(console: Console, letters: Sequence[DeadLetter]) -> None:
    """A table for each dead-letter topic, in the order of ``letters`` otherwise."""
    wide = console.width >= _WIDE
    by_topic = sorted(letters, key=lambda letter: letter.dead_letter_topic)  # stable: the order within stays
    for number, (topic, group) in enumerate(groupby(by_topic, key=lambda letter: letter.dead_letter_topic)):
        if number:
            console.print()
        console.print(Text(output.clean(topic), style="bold"), overflow="fold")
        extra = ("place", "message id", "tries", "replays") if wide else ()
        table = output.table("id", "failed", *extra, "type", "key", "error", "state", right=("id", "tries", "replays"))
        table.expand, table.collapse_padding = True, not wide
        widths = {"type": 32 if wide else 15, "key": 20 if wide else 9, "message id": 36, "state": 12}
        for column in table.columns:
            column.max_width = widths.get(str(column.header))
            column.ratio = 1 if column.header == "error" else None
        for letter in group:
            table.add_row(*(output.clean(cell) for cell in _cells(letter, wide=wide)))
        console.print(table)


def print_letter(
    console: Console,
    letter: DeadLetter,
    actions: Sequence[Action],
    around: Sequence[DeadLetter],
    others: Sequence[DeadLetter],
) -> None:
    """All about one: facts, headers, payload, stack, what was done, what stands around it."""
    facts = {
        "id": str(letter.id),
        "state": f"{letter.state}, since {output.local(letter.state_at)}",
        "place": f"{letter.place}{_origin(letter)}",
        "message id": letter.message_id,
        "type": letter.type,
        "key": output.shown(letter.key),
        "original": _original(letter),
        "group": letter.group or "unknown",
        "handler": letter.handler,
        "error": error_of(letter),
        "failed": _failed(letter),
        "replayed": _replayed(letter),
        "expires": output.local(letter.expires_at) if letter.expires_at else None,
        "fingerprint": letter.fingerprint,
        "written by": letter.family if letter.family != "unknown" else "an unknown producer",
        "erased": output.local(letter.forgotten_at) if letter.forgotten_at else None,
        "other deaths": ", ".join(f"{each.id} ({each.state})" for each in others) or None,
    }
    print_pairs(console, [(name, value) for name, value in facts.items() if value], style="bold")
    headers, stack = letter.headers or (), letter.stack
    print_headers(console, [pair for pair in headers if stack is None or _text(pair[1]) != stack], len(headers))
    print_payload(console, letter.payload, letter.size)
    if stack:
        console.print(Text("\nstack", style="bold"))
        console.print(Text(output.clean(stack.replace("\r\n", "\n"), lines=True).rstrip()), overflow="fold")
    if actions:
        console.print(Text("\nhistory", style="bold"))
        print_pairs(console, [(output.local(each.at), _done(each)) for each in reversed(actions)])
    if len(around) > 1:
        console.print(Text(f"\nkey {output.shown(letter.key)}, in order", style="bold"), overflow="fold")
        pairs = [(f"{'▶' if each.id == letter.id else ' '} {each.id}", _brief(each)) for each in around]
        print_pairs(console, pairs)


def group_summary(group: Group) -> dict[str, Any]:
    """A group in JSON."""
    return {
        "value": output.as_text(group.value) if isinstance(group.value, bytes) else group.value,
        "count": group.count,
        "states": dict(group.states),
        "first": group.first,
        "last": group.last,
        "error": group.error,
        "message": group.message,
        "handler": group.handler,
        "topic": group.topic,
        "group": group.consumer_group,
        "example": group.example,
        "trend": group.trend,
    }


def print_statistics(console: Console, found: Statistics, by: str, messages: Mapping[int, str | None]) -> None:
    """The groups as a table. ``messages``: what the example of each says, masked."""
    wide = console.width >= _WIDE_STATISTICS
    failure = by in ("fingerprint", "error")
    extra = ("first", "last", "trend") if wide else ("last", "trend")
    told = ("topic", "handler", "error") if wide and failure else ("error",) if failure else ()
    columns = (by, "all", "dead", *extra, *told) if by != "state" else (by, "all", *extra, *told)
    table = output.table(*columns, right=("all", "dead"))
    table.expand, table.collapse_padding = True, not wide
    widths = {"topic": 24, "handler": 32, "fingerprint": LENGTH if wide else len("fingerprint")}
    for column in table.columns:
        column.max_width = widths.get(str(column.header))
        column.ratio = 1 if column.header in ("error", by) and column.header != "fingerprint" else None
    trends = [group.trend if wide else _coarser(group.trend) for group in found.groups]
    most = max((max(parts) for parts in trends), default=0)
    for group, parts in zip(found.groups, trends, strict=True):
        value = output.shown(group.value) if isinstance(group.value, bytes) else str(group.value or "-")
        cells = {
            by: value[: widths.get(by)],
            "all": f"{group.count:,}",
            "dead": f"{group.states[State.DEAD] + group.states[State.QUARANTINED]:,}",
            "first": output.local(group.first),
            "last": output.local(group.last) if wide else output.ago(group.last),
            "trend": trend(parts, most),
            "topic": group.topic or "-",
            "handler": group.handler or "-",
        }
        text = ": ".join(filter(None, (_class(group.error), messages.get(group.example)))) or "-"
        cells["error"] = text if by != "error" else str(group.value or "-")
        table.add_row(*(output.clean(cells[name]) for name in columns))
    console.print(table)
    console.print()
    hours = output.span(found.until - found.since) if not _odd(found) else "the span asked for"
    console.print(Text(f"trend: {hours}, up to {output.local(found.until)}", style="dim"))


def line(letter: DeadLetter, width: int) -> str:
    """On one line, no wider than ``width``."""
    facts = (output.local(letter.failed_at), str(letter.id), letter.dead_letter_topic, output.shown(letter.key))
    told = output.clean("  ".join((*facts, error_of(letter))))
    return told if len(told) <= width else told[: width - 1] + "…"


def trend(parts: Sequence[int], most: int) -> str:
    """A bar for each part; the highest of all has ``most``."""
    return "".join(_BARS[-(-part * (len(_BARS) - 1) // most) if most else 0] for part in parts)


def error_of(letter: DeadLetter) -> str:
    """The class without its module, and the message."""
    return ": ".join(filter(None, (_class(letter.error), letter.message))) or "-"


def _cells(letter: DeadLetter, *, wide: bool) -> list[str]:
    extra = [f"{letter.partition}/{letter.offset}", letter.message_id, str(letter.deliveries or "-")]
    return [
        str(letter.id),
        output.local(letter.failed_at) if wide else output.ago(letter.failed_at),
        *([*extra, str(letter.replays)] if wide else []),
        letter.type or "-" if wide else _end(letter.type or "-", 15),
        output.shown(letter.key),
        error_of(letter),
        letter.state,
    ]


def _class(error: str | None) -> str:
    return (error or "").rsplit(".", 1)[-1]


def _coarser(parts: Sequence[int]) -> list[int]:
    return [sum(parts[start : start + _TOGETHER]) for start in range(0, len(parts), _TOGETHER)]


def _odd(found: Statistics) -> bool:
    return (found.until - found.since).total_seconds() % 3600 != 0


def _end(text: str, width: int) -> str:
    """The end of ``text``, which tells more of a dotted name than its beginning."""
    return text if len(text) <= width else "…" + text[1 - width :]


def _origin(letter: DeadLetter) -> str:
    if letter.incarnation > 0:
        return " (of the topic as it was made anew)"
    if letter.incarnation < 0:
        return " (imported)" if letter.follows is None else f" (edited from {letter.follows})"
    return ""


def _original(letter: DeadLetter) -> str:
    if letter.topic is None:
        return "unknown"
    place = (letter.topic, letter.topic_partition, letter.topic_offset)
    return "/".join("?" if part is None else str(part) for part in place)


def _failed(letter: DeadLetter) -> str:
    tries = f"after {output.counted(letter.deliveries, 'attempt')}, " if letter.deliveries else ""
    first = letter.first_failed_at
    began = f"first {output.local(first)}, " if first and first != letter.failed_at else ""
    return f"{tries}{began}last {output.local(letter.failed_at)} ({output.ago(letter.failed_at)} ago)"


def _replayed(letter: DeadLetter) -> str | None:
    if not letter.replays:
        return None
    same = f", the last {letter.same_failures} ended in the same failure" if letter.same_failures else ""
    return f"{output.counted(letter.replays, 'time')} before{same}"


def _done(action: Action) -> str:
    plan = f" (plan {action.plan})" if action.plan is not None else ""
    way = f" {action.before} → {action.after}" if action.after else ""
    return f"{action.action}{way}{plan} by {action.actor}" + (f": {action.reason}" if action.reason else "")


def _brief(letter: DeadLetter) -> str:
    return f"{letter.state}, failed {output.local(letter.failed_at)}, {error_of(letter)}"


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
