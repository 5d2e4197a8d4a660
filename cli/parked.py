"""``postroom outbox parked``: what Kafka refused, and what waits behind it or for its topic."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .actor import actor
from .app import App
from .command import Group, changes_data
from .params import TEXT, TOPIC

if TYPE_CHECKING:
    from ..outbox.log import LogStore, ParkedRow

F = TypeVar("F", bound=Callable[..., Any])
_AT_ONCE = 1_000
_SHOWN_BEHIND = 5


@click.group("parked", cls=Group)
def parked() -> None:
    """Messages that Kafka refused for good, and those that wait behind them or for their topic to go on."""


def _selects(function: F) -> F:
    for option in (
        click.option("--key", help="Only of this key."),
        click.option("--topic", type=TOPIC, help="Only of this topic."),
    ):
        function = option(function)
    return function


@parked.command("list")
@_selects
@click.option("--refused", is_flag=True, help="Only those that Kafka refused.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="No more than so many.")
@click.pass_obj
def list_(app: App, topic: str | None, key: str | None, refused: bool, limit: int) -> None:
    """List them, the oldest first.

    \b
    Examples:
      postroom outbox parked list --topic orders --refused
      postroom outbox parked list --json | jq '.parked[].position'
    """
    from . import output
    from .statistics import Statistics

    wanted = None if key is None else key.encode()
    with app.store() as store:
        rows = store.parked(limit, topic=topic, key=wanted, refused=refused or None)
        standing = store.control().topics
    total, only_refused = Statistics(app.database_url, app.names).parked_count(topic, wanted)
    total = only_refused if refused else total
    if app.as_json:
        output.emit({"parked": [_summary(row) for row in rows], "total": total, "paused_topics": standing})
        return
    if not rows:
        click.echo("Nothing is parked." if topic is None and key is None else "Nothing of that is parked.")
        return
    table = output.table("position", "parked", "topic", "key", "type", "reason", right=("position",))
    for index, width in ((2, 24), (3, 16), (4, 20)):
        table.columns[index].max_width = width
    reason = table.columns[5]
    reason.ratio, reason.no_wrap, reason.overflow = 1, False, "fold"
    table.expand = True
    for row in rows:
        table.add_row(
            str(row.row.position),
            output.ago(row.parked_at),
            output.clean(row.row.topic),
            output.shown(row.row.key),
            output.clean(row.row.type),
            output.clean(_reason(row)),
        )
    output.console().print(table)
    if total > len(rows):
        click.echo(f"\n{total - len(rows)} more; --limit shows more.")
    for name in sorted({row.row.topic for row in rows if row.by_topic} & set(standing)):
        click.echo(f"\nTopic {name} is paused: {standing[name]}\nTo go on: postroom relay resume --topic {name}")


@parked.command("show")
@click.argument("position", type=click.IntRange(min=0))
@click.pass_obj
def show(app: App, position: int) -> None:
    """Show all about one: why it is parked, its headers and payload, and what waits behind it.

    \b
    Examples:
      postroom outbox parked show 1234
      postroom outbox parked show 1234 --json | jq -r .error
    """
    from . import output
    from .messages import full, print_message

    with app.store() as store:
        found = store.parked(1, after=position - 1)
        if not found or found[0].row.position != position:
            raise click.ClickException(f"Nothing is parked at position {position}.")
        row = found[0]
        behind = [] if row.row.key is None else _behind(store, row)
        standing = store.control().topics.get(row.row.topic)
    if app.as_json:
        document = {**full(row.row, "parked"), **_summary(row), "topic_paused": standing}
        output.emit({**document, "behind": [each.row.position for each in behind]})
        return
    facts = {
        "state": f"parked {output.local(row.parked_at)} ({output.ago(row.parked_at)} ago)",
        "reason": _reason(row),
        "topic paused": standing,
        "behind it": _listed(behind),
    }
    print_message(output.console(), row.row, facts)
    if row.error is not None and not row.retry:
        click.echo(f"\nTo publish it after all: postroom outbox parked retry {position}")


@parked.command("retry")
@click.argument("positions", nargs=-1, type=click.IntRange(min=0), metavar="[POSITION]...")
@_selects
@click.option("--all", "everything", is_flag=True, help="All that Kafka refused.")
@click.option("--reason", type=TEXT, help="Written down with each of them.")
@changes_data
@click.pass_obj
def retry(app: App, /, positions: tuple[int, ...], **options: Any) -> None:
    """Let the relay publish them again, and what waits behind them, in order.

    \b
    Examples:
      postroom outbox parked retry 1234 1235
      postroom outbox parked retry --topic orders --reason "max.message.bytes was raised" --yes
    """
    _change(app, positions, "retry", "retried", lambda store: store.request_retry, refused=True, **options)


@parked.command("discard")
@click.argument("positions", nargs=-1, type=click.IntRange(min=0), metavar="[POSITION]...")
@_selects
@click.option("--all", "everything", is_flag=True, help="All that are parked.")
@click.option("--reason", type=TEXT, help="Written down with each of them.")
@changes_data
@click.pass_obj
def discard(app: App, /, positions: tuple[int, ...], **options: Any) -> None:
    """Forget them for good; what waited behind them goes on.

    \b
    Examples:
      postroom outbox parked discard 1234 --reason "a test order"
      postroom outbox parked discard --topic orders --key o-17 --dry-run
    """
    _change(app, positions, "discard", "discarded", lambda store: store.discard, refused=None, **options)


def _change(
    app: App,
    positions: Sequence[int],
    verb: str,
    done: str,
    change: "Callable[[LogStore], Callable[..., int]]",
    *,
    refused: bool | None,
    topic: str | None,
    key: str | None,
    everything: bool,
    reason: str | None,
    yes: bool,
    dry_run: bool,
) -> None:
    from . import output

    if not (positions or topic or key or everything):
        raise click.UsageError(f"Say which to {verb}: positions, --topic, --key, or --all.")
    if positions and (topic or key or everything):
        raise click.UsageError("Give positions or filters, not both.")
    with app.store() as store:
        rows = _at(store, positions) if positions else _of(store, topic, key, refused)
        chosen, topics = [], set()
        for row in rows:
            chosen.append(row.row.position)
            topics.add(row.row.topic)
        changed = len(chosen)
        if chosen and not dry_run:
            told = output.counted(len(chosen), "message")
            output.confirm(f"{verb.capitalize()} {told} of {', '.join(sorted(topics))}?", yes=yes)
            who, changed = actor(), 0
            with output.progress(verb, len(chosen), hidden=app.as_json) as advance:
                for start in range(0, len(chosen), _AT_ONCE):
                    part = chosen[start : start + _AT_ONCE]
                    changed += change(store)(part, who, reason)
                    advance(len(part))
    if app.as_json:
        output.emit({"positions": chosen, "changed": 0 if dry_run else changed, "dry_run": dry_run})
    else:
        would = (
            f"would be {done}" if dry_run else f"{'is' if changed == 1 else 'are'} {'to be ' if refused else ''}{done}"
        )
        click.echo(f"{output.counted(changed, 'message')} {would}.")


def _at(store: "LogStore", positions: Sequence[int]) -> "Iterator[ParkedRow]":
    """Those at the positions. Raises click.ClickException where there is none."""
    missing = []
    for position in sorted(set(positions)):
        found = store.parked(1, after=position - 1)
        if found and found[0].row.position == position:
            yield found[0]
        else:
            missing.append(position)
    if missing:
        raise click.ClickException(f"Nothing is parked at position {', '.join(map(str, missing))}.")


def _of(store: "LogStore", topic: str | None, key: str | None, refused: bool | None) -> "Iterator[ParkedRow]":
    wanted, after = None if key is None else key.encode(), 0
    while found := store.parked(_AT_ONCE, after=after, topic=topic, key=wanted, refused=refused):
        yield from found
        after = found[-1].row.position


def _behind(store: "LogStore", row: "ParkedRow") -> "Sequence[ParkedRow]":
    return store.parked(_AT_ONCE, after=row.row.position, topic=row.row.topic, key=row.row.key)


def _listed(behind: "Sequence[ParkedRow]") -> str:
    if not behind:
        return "nothing"
    shown = ", ".join(str(each.row.position) for each in behind[:_SHOWN_BEHIND])
    more = f" and {len(behind) - _SHOWN_BEHIND} more" if len(behind) > _SHOWN_BEHIND else ""
    refused = sum(each.error is not None for each in behind)
    also = f"; {refused} of them refused, too" if refused else ""
    return f"{'at least ' if len(behind) == _AT_ONCE else ''}{len(behind)} of its key: {shown}{more}{also}"


def _reason(row: "ParkedRow") -> str:
    if row.error is None:
        return "waits until its topic goes on" if row.by_topic else "waits behind one of its key"
    return f"to be retried: {row.error}" if row.retry else row.error


def _summary(row: "ParkedRow") -> dict[str, Any]:
    from . import output

    return {
        "position": row.row.position,
        "shard": row.row.shard,
        "id": row.row.id,
        "topic": row.row.topic,
        "key": output.as_text(row.row.key),
        "type": row.row.type,
        "payload_bytes": len(row.row.payload or b""),
        "created_at": row.row.created_at,
        "parked_at": row.parked_at,
        "error": row.error,
        "retry": row.retry,
        "by_topic": row.by_topic,
    }
