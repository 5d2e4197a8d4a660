"""``postroom verify``: is all in the topics that the log says is there, once and in order?"""

import shlex
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from .app import App
from .command import Command
from .errors import Incomplete
from .params import KEY, MOMENT, TOPIC

if TYPE_CHECKING:
    from rich.console import Console

    from ..outbox.verification import Example, TopicResult, Verification

#: The counts and how they are headed; the first four are always shown.
_COUNTS = {
    "logged": "in log",
    "arrived": "arrived",
    "waiting": "waiting",
    "lost": "lost",
    "parked": "parked",
    "discarded": "discarded",
    "expired": "expired",
    "disordered": "disordered",
    "altered": "altered",
    "misplaced": "misplaced",
    "doubled": "doubled",
    "replayed": "replayed",
    "foreign": "foreign",
}
_ALWAYS = 4
_BAD = ("lost", "disordered", "altered", "misplaced")
_TODO = {
    "lost": "Settled, and not in the topic. Find the cause first: did a broker lose its disk, was acks or unclean "
    "leader election changed? To publish it again:",
    "disordered": "It came after a later message of its key. Either the two transactions did not serialise on "
    "anything (then no order of theirs is the right one: docs/explanation/ordering.md), or something else "
    "than a relay published. What the key's consumers made of it has to be looked at.",
    "altered": "Key or payload in the topic are not those of the log: another program wrote under this message's id, "
    "or the row was changed by hand.",
    "misplaced": "Records of one key are in several partitions, so that they have no order: the topic got more "
    "partitions, or another program's partitioner put it there.",
    "doubled": "Published more than once, as after a crash or a lost lease (at most one in-flight window each time). "
    "Inboxes drop the second one; other consumers have to look at ce_id. --strict counts it as a fault.",
}


@click.command("verify", cls=Command)
@click.option("--topic", "topics", type=TOPIC, multiple=True, help="Of this topic; repeat it for several  [all].")
@click.option("--key", type=KEY, help="Of this key; base64:… or 0x… for bytes that are no text.")
@click.option("--since", type=MOMENT, help="Not older: 30m, 2h, 7d, or a date or time  [all that the log holds].")
@click.option("--until", type=MOMENT, help="Older.")
@click.option("--limit", type=click.IntRange(min=0), default=5, show_default=True, help="Examples of each finding.")
@click.option("--strict", is_flag=True, help="Messages that are there twice are a fault, too.")
@click.pass_obj
def verify(
    app: App,
    /,
    *,
    topics: tuple[str, ...],
    key: bytes | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    strict: bool,
) -> None:
    """Compare the log with the topics: what is lost, doubled, or out of order within a key. Changes and stops nothing.

    What a relay has settled must be in its topic, with the same key and payload, in the order of its key. What waits,
    is parked or was discarded is not lost, nor is what Kafka's retention or compaction took. Relays may run and
    applications publish meanwhile. A window (--since) saves time: all records since it began are read.

    Exit code 1 where something is lost, disordered, altered or misplaced; doubled messages are told, and count with
    --strict only, as a crash may double what was on its way.

    \b
    Examples:
      postroom verify --since 1h
      postroom verify --topic orders --topic payments --since 2d --until 1d
      postroom verify --topic orders --key o-17
      postroom verify --since 1h --strict --json | jq '.topics[] | {topic, lost, doubled}'
    """
    from ..outbox.verification import verify as compared
    from . import output

    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since must be before --until.")
    app.require_tables()
    relay = app.settings.relay
    found = compared(
        app.database_url,
        app.kafka(),
        names=app.names,
        topics=topics,
        key=key,
        since=since,
        until=until,
        examples=limit,
        goes_on=lambda topic: relay.on_refused_by_topic.get(topic, relay.on_refused) == "park-message",
        progress=partial(output.progress, hidden=app.as_json),
    )
    if app.as_json:
        output.emit(_document(app, found, strict=strict))
    else:
        _print(app, output.console(), found, strict=strict)
    if not found.ok or (strict and found.doubled):
        raise Incomplete(_verdict(found, strict=strict))


def _document(app: App, found: "Verification", *, strict: bool) -> dict[str, Any]:
    from . import output

    examples = [{**asdict(each), "key": output.as_text(app.redaction.key(each.key))} for each in found.examples]
    return {
        "ok": found.ok and not (strict and found.doubled),
        "since": found.since,
        "until": found.until,
        "topics": [asdict(each) for each in found.topics],
        "examples": examples,
    }


def _print(app: App, console: "Console", found: "Verification", *, strict: bool) -> None:
    from rich.text import Text

    from . import output

    if found.since is None:
        click.echo("The log is empty: there is nothing to compare.")
        return
    click.echo(f"Written from {output.local(found.since)} to {output.local(found.until)}.\n")
    logged = [each for each in found.topics if each.logged]
    if logged:
        _print_counts(console, logged)
    else:
        click.echo("The log holds no such message.")
    for each in found.topics:
        for note in each.notes:
            console.print(Text(f"\n{output.clean(each.topic)}: {note}"), overflow="fold")
    kinds = dict.fromkeys(each.kind for each in found.examples)
    for kind in (kind for kind in _TODO if kind in kinds):
        total = sum(getattr(each, kind) for each in found.topics)
        _print_kind(app, console, kind, [each for each in found.examples if each.kind == kind], total)
    if found.ok and not (strict and found.doubled):
        click.echo("\nNothing is lost, and every key is in order.")


def _print_counts(console: "Console", topics: "list[TopicResult]") -> None:
    """A table of what there is any of; a line for each topic where that is too wide."""
    from rich.text import Text

    from . import output

    shown = [
        name for index, name in enumerate(_COUNTS) if index < _ALWAYS or any(getattr(each, name) for each in topics)
    ]
    heads = [_COUNTS[name] for name in shown]
    cells = [[f"{getattr(each, name):,}" for name in shown] for each in topics]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    if sum(widths) + 3 * len(widths) + max(len(each.topic) for each in topics) > console.width:
        for each, row in zip(topics, cells, strict=True):
            told = ", ".join(f"{head} {count}" for head, count in zip(heads, row, strict=True))
            console.print(Text(f"{output.clean(each.topic)}: {told}"))
        return
    table = output.table("topic", *heads, right=heads)
    for each, row in zip(topics, cells, strict=True):
        marked = (
            Text(cell, style="bold red" if name in _BAD and getattr(each, name) else "")
            for name, cell in zip(shown, row, strict=True)
        )
        table.add_row(output.clean(each.topic), *marked)
    console.print(table)


def _print_kind(app: App, console: "Console", kind: str, examples: "list[Example]", total: int) -> None:
    from rich.text import Text

    from . import output

    console.print(Text(f"\n{kind}", style="bold"), Text(f"({len(examples)} of {total:,})"))
    for each in examples:
        place = "" if each.partition is None else f", partition {each.partition}, offset {each.offset}"
        after = "" if each.after is None else f", after position {each.after}"
        key = output.shown(app.redaction.key(each.key))
        written = "" if each.written_at is None else f", written {output.local(each.written_at)}"
        console.print(Text(f"  {output.clean(each.topic)}: position {each.position}, key {key}{place}{after}"))
        console.print(Text(f"    id {output.clean(each.id)}{written}"))
    console.print(Text(_TODO[kind]))
    if kind == "lost":
        for command in _replays(examples):
            console.print(Text(f"  {command}"), soft_wrap=True)


def _replays(examples: "list[Example]") -> list[str]:
    """The commands that publish what is lost again; of one topic in one, which takes what lies between, too."""
    commands = []
    for topic in dict.fromkeys(each.topic for each in examples):
        positions = [each.position for each in examples if each.topic == topic]
        given = f"--topic {shlex.quote(topic)} --after {min(positions) - 1} --upto {max(positions)}"
        commands.append(f"postroom outbox replay {given} --dry-run")
    return commands


def _verdict(found: "Verification", *, strict: bool) -> str:
    names = (*_BAD, "doubled") if strict else _BAD
    sums = {name: sum(getattr(each, name) for each in found.topics) for name in names}
    told = ", ".join(f"{count:,} {_COUNTS[name]}" for name, count in sums.items() if count)
    return f"The topics are not as the log says: {told}."
