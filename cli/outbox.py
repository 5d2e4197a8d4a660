"""``postroom outbox``: what waits, and what Kafka refused."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .app import App
from .command import Group, changes_data

if TYPE_CHECKING:
    from ..outbox.log import LogStore, ParkedRow

F = TypeVar("F", bound=Callable[..., Any])
_ALL = 2**31 - 1


@click.group("outbox", cls=Group)
def outbox() -> None:
    """What was published and is on its way."""


@outbox.command("stats")
@click.pass_obj
def stats(app: App) -> None:
    """Count the messages that wait, are delayed, or are parked.

    \b
    Examples:
      postroom outbox stats
      postroom outbox stats --json | jq .waiting
    """
    from . import output
    from .statistics import Statistics

    with app.store() as store:
        waiting, oldest = store.backlog()
    statistics = Statistics(app.database_url, app.names)
    scheduled, parked = statistics.scheduled(), statistics.parked()
    if app.as_json:
        document = {"waiting": waiting, "oldest_seconds": oldest, "scheduled": asdict(scheduled)}
        output.emit({**document, "parked": [asdict(each) for each in parked]})
        return
    click.echo(f"waiting    {waiting}" + (f", the oldest for {output.duration(oldest)}" if waiting else ""))
    due = f", the next in {output.duration(scheduled.next_in_seconds)}" if scheduled.next_in_seconds else ""
    click.echo(f"scheduled  {scheduled.count}{due}")
    click.echo(f"parked     {sum(each.refused + each.waiting for each in parked)}")
    if parked:
        table = output.table(
            "topic", "refused", "behind them", "to retry", right=("refused", "behind them", "to retry")
        )
        for each in parked:
            table.add_row(output.clean(each.topic), str(each.refused), str(each.waiting), str(each.retrying))
        click.echo()
        output.console().print(table)


@outbox.group("parked")
def parked() -> None:
    """Messages that Kafka refused for good, and those of their keys that wait behind them."""


def _selects(function: F) -> F:
    for option in (
        click.option("--key", help="Only of this key."),
        click.option("--topic", help="Only of this topic."),
    ):
        function = option(function)
    return function


@parked.command("list")
@_selects
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="No more than so many.")
@click.pass_obj
def list_(app: App, topic: str | None, key: str | None, limit: int) -> None:
    """List them, the oldest first.

    \b
    Examples:
      postroom outbox parked list --topic orders
      postroom outbox parked list --json | jq '.parked[].position'
    """
    from . import output

    with app.store() as store:
        rows = _found(store, topic, key)
    if app.as_json:
        output.emit({"parked": [_document(row) for row in rows[:limit]], "total": len(rows)})
        return
    if not rows:
        click.echo("Nothing is parked.")
        return
    table = output.table("position", "parked", "topic", "key", "type", "reason", right=("position",))
    for index, width in ((2, 24), (3, 16), (4, 20)):
        table.columns[index].max_width = width
    table.columns[5].ratio = 1
    table.expand = True
    for row in rows[:limit]:
        reason = row.error or "waits behind one of its key"
        if row.retry:
            reason = f"to be retried: {reason}"
        table.add_row(
            str(row.row.position),
            output.ago(row.parked_at),
            output.clean(row.row.topic),
            output.shown(row.row.key),
            output.clean(row.row.type),
            output.clean(reason),
        )
    output.console().print(table)
    if len(rows) > limit:
        click.echo(f"\n{len(rows) - limit} more; --limit shows more.")


@parked.command("retry")
@click.argument("positions", nargs=-1, type=click.IntRange(min=0), metavar="[POSITION]...")
@_selects
@click.option("--all", "everything", is_flag=True, help="All that are parked.")
@changes_data
@click.pass_obj
def retry(app: App, /, positions: tuple[int, ...], **options: Any) -> None:
    """Let the relay publish them again, and what waits behind them, in order.

    \b
    Examples:
      postroom outbox parked retry 1234 1235
      postroom outbox parked retry --topic orders --yes
    """
    _change(app, positions, "retry", "to be retried", lambda store: store.request_retry, **options)


@parked.command("discard")
@click.argument("positions", nargs=-1, type=click.IntRange(min=0), metavar="[POSITION]...")
@_selects
@click.option("--all", "everything", is_flag=True, help="All that are parked.")
@changes_data
@click.pass_obj
def discard(app: App, /, positions: tuple[int, ...], **options: Any) -> None:
    """Forget them for good; what waited behind them goes on.

    \b
    Examples:
      postroom outbox parked discard 1234
      postroom outbox parked discard --topic orders --key o-17 --dry-run
    """
    _change(app, positions, "discard", "discarded", lambda store: store.discard, **options)


def _change(
    app: App,
    positions: Sequence[int],
    verb: str,
    done: str,
    change: "Callable[[LogStore], Callable[[Sequence[int]], int]]",
    *,
    topic: str | None,
    key: str | None,
    everything: bool,
    yes: bool,
    dry_run: bool,
) -> None:
    from . import output

    if not (positions or topic or key or everything):
        raise click.UsageError(f"Say which to {verb}: positions, --topic, --key, or --all.")
    with app.store() as store:
        rows = _found(store, topic, key)
        if positions:
            there = {row.row.position for row in rows}
            if missing := [position for position in positions if position not in there]:
                raise click.ClickException(f"Nothing is parked at position {', '.join(map(str, missing))}.")
            rows = [row for row in rows if row.row.position in positions]
        chosen = [row.row.position for row in rows]
        changed = len(chosen)
        if chosen and not dry_run:
            topics = ", ".join(sorted({row.row.topic for row in rows}))
            output.confirm(f"{verb.capitalize()} {output.counted(len(chosen), 'message')} of {topics}?", yes=yes)
            changed = change(store)(chosen)
    if app.as_json:
        output.emit({"positions": chosen, "changed": 0 if dry_run else changed, "dry_run": dry_run})
    else:
        verb_done = f"would be {done.removeprefix('to be ')}" if dry_run else f"{'are ' if ' ' in done else ''}{done}"
        click.echo(f"{output.counted(changed, 'message')} {verb_done}.")


def _found(store: "LogStore", topic: str | None, key: str | None) -> "list[ParkedRow]":
    wanted = None if key is None else key.encode()
    return [row for row in store.parked(_ALL) if topic in (None, row.row.topic) and wanted in (None, row.row.key)]


def _document(row: "ParkedRow") -> dict[str, Any]:
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
    }
