"""``postroom inbox status``: what groups are at, what is held, and what operators asked of them."""

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from .app import App
from .command import Command
from .params import GROUP

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..inbox.desk import Control, Desk, HeldCount
    from .lag import Lag, Lagging

_EVERY = 1.0
_STATES = ("retry", "behind", "dead-letter")


@click.command("status", cls=Command)
@click.option("--group", type=GROUP, help="Only this group.")
@click.option("--no-lag", is_flag=True, help="Do not ask Kafka.")
@click.option("--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
@click.pass_obj
def status(app: App, group: str | None, no_lag: bool, watch: bool) -> None:
    """Show the groups: how far they are behind, what is held and since when, what is paused or changed, and why.

    The lag counts the records up to the end of the topic that the group has not read; held messages are read. A
    partition of which the group never read anything counts from its beginning. "Begun" is what a member works on, by
    partition; what a crash left is done a few at a time, or tried one by one.

    \b
    Examples:
      postroom inbox status
      postroom inbox status --group billing --watch
      postroom inbox status --json | jq '.groups[].topics[].lag'
    """
    from . import output
    from .lag import Lagging

    if watch and not app.as_json and not sys.stdout.isatty():
        raise click.UsageError("--watch needs a terminal, or --json.")
    with app.desk() as desk, closing(Lagging(app)) as lagging:
        kafka = None if no_lag else lagging
        if watch:
            _watch(app, desk, kafka, group)
        elif app.as_json:
            output.emit(_gathered(desk, kafka, group))
        else:
            output.console().print(_rendered(_gathered(desk, kafka, group)))


def _watch(app: App, desk: "Desk", lagging: "Lagging | None", group: str | None) -> None:
    from rich.live import Live

    from . import output

    try:
        if app.as_json:
            while True:
                output.emit(_gathered(desk, lagging, group))
                sys.stdout.flush()
                time.sleep(_EVERY)
        with Live(console=output.console(), auto_refresh=False) as live:
            while True:
                live.update(_rendered(_gathered(desk, lagging, group)), refresh=True)
                time.sleep(_EVERY)
    except KeyboardInterrupt:  # the way to end it
        return


def _gathered(desk: "Desk", lagging: "Lagging | None", group: str | None) -> dict[str, Any]:
    """All of it, as JSON has it."""
    groups = desk.groups() if group is None else [group]
    counts, begun, controls = desk.held_counts(), desk.begun(), desk.controls(group)
    lags: dict[str, dict[str, Lag]] = {}
    error = None
    if lagging is not None:
        known = {
            name: {*(c.topic for c in counts if c.group == name), *(b.topic for b in begun if b.group == name)}
            for name in groups
        }
        lags, error = lagging.measure(known)
    found = [
        {
            "group": name,
            **_asked([each for each in controls if each.group == name]),
            **_held([each for each in counts if each.group == name]),
            "topics": _topics([each for each in counts if each.group == name], lags.get(name, {})),
            "begun": [_without_group(each) for each in begun if each.group == name],
        }
        for name in groups
    ]
    return {"groups": found, "kafka_error": error}


def _asked(controls: "Sequence[Control]") -> dict[str, Any]:
    def who(each: "Control") -> dict[str, Any]:
        kind, _, name = each.subject.partition(":")
        subject = {"topic": name if kind == "topic" else None, "handler": name if kind == "handler" else None}
        return {**subject, "at": each.changed_at, "by": each.changed_by}

    return {
        "paused": [{**who(each), "reason": each.paused} for each in controls if each.paused is not None],
        "policies": [{**who(each), "policy": dict(each.policy)} for each in controls if each.policy],
    }


def _held(counts: "Sequence[HeldCount]") -> dict[str, Any]:
    due = [each.next_attempt_at for each in counts if each.next_attempt_at is not None]
    return {
        "held": {state: sum(each.messages for each in counts if each.state == state) for state in _STATES},
        "oldest_held_at": min((each.oldest_at for each in counts), default=None),
        "next_attempt_at": min(due, default=None),
    }


def _topics(counts: "Sequence[HeldCount]", lags: "dict[str, Lag]") -> list[dict[str, Any]]:
    found = []
    for topic in sorted({*lags, *(each.topic for each in counts)}):
        lag = lags.get(topic)
        found.append(
            {
                "topic": topic,
                "lag": None if lag is None else lag.messages,
                "partitions": None if lag is None else lag.partitions,
                "uncommitted_partitions": None if lag is None else lag.uncommitted,
                **_held([each for each in counts if each.topic == topic]),
            }
        )
    return found


def _without_group(begun: Any) -> dict[str, Any]:
    """What a member has begun, without the group, in which it stands."""
    return {name: value for name, value in begun._asdict().items() if name != "group"}


def _rendered(found: dict[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from . import output

    parts: list[RenderableType] = []
    for each in found["groups"]:
        parts += [Text(output.clean(f"group {each['group']}"), style="bold"), *_lines(each)]
        if each["topics"]:
            parts.append(_table(each["topics"]))
        else:
            parts.append(Text("Nothing is held, and no topic is known that it reads."))
        if each["begun"]:
            parts += [Text("\nbegun"), _begun(each["begun"])]
        parts.append(Text(""))
    if not found["groups"]:
        parts.append(Text("The tables know no group yet."))
    if found["kafka_error"]:
        line = f"The lag is not known: {found['kafka_error']}"
        parts.append(Text(output.clean(line), style="yellow", overflow="fold"))
    return Group(*parts)


def _lines(group: dict[str, Any]) -> "list[RenderableType]":
    """What operators asked, one line each."""
    from rich.text import Text

    from ..inbox.desk import told
    from . import output

    lines: list[RenderableType] = []
    for each in group["paused"]:
        line = f"{_subject(each).capitalize()} is paused since {_since(each)}: {each['reason']}"
        lines.append(Text(output.clean(line), style="yellow", overflow="fold"))
    for each in group["policies"]:
        line = f"Changed for {_subject(each)} since {_since(each)}: {told(each['policy'])}"
        lines.append(Text(output.clean(line), overflow="fold"))
    return lines


def _table(topics: Sequence[dict[str, Any]]) -> "RenderableType":
    from . import output
    from .holding import due

    right = ("lag", "to retry", "behind", "dead", "oldest", "next")
    table = output.table("topic", *right, right=right)
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    for each in topics:
        lag, oldest = each["lag"], each["oldest_held_at"]
        table.add_row(
            output.clean(each["topic"]),
            "?" if lag is None else f"{lag:,}",
            *(f"{each['held'][state]:,}" for state in _STATES),
            "-" if oldest is None else output.ago(oldest),
            due(each["next_attempt_at"]),
        )
    return table


def _begun(begun: Sequence[dict[str, Any]]) -> "RenderableType":
    from . import output

    table = output.table("partition", "offsets", "for", "member", right=("for",))
    table.columns[3].no_wrap, table.columns[3].overflow = False, "fold"
    for each in begun:
        offsets = f"{each['first_offset']} to {each['last_offset']}"
        if each["suspect_offset"] is not None:
            tried = f"{each['suspect_offset']} tried {each['suspect_attempts']} times"
            offsets += f", {tried if each['suspect_attempts'] else 'a few at a time'} after a crash"
        place = f"{each['topic']}/{each['partition']}"
        table.add_row(*map(output.clean, (place, offsets, output.ago(each["at"]), each["member"] or "nobody")))
    return table


def _subject(each: dict[str, Any]) -> str:
    if each["topic"]:
        return f"topic {each['topic']}"
    return f"handler {each['handler']}" if each["handler"] else "the group"


def _since(each: dict[str, Any]) -> str:
    from . import output

    return f"{output.local(each['at'])} by {each['by']}"
