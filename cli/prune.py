"""``postroom outbox prune``: drop what was published long ago."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from .actor import actor
from .app import App
from .command import Command, changes_data
from .params import SPAN

if TYPE_CHECKING:
    from ..outbox.log import LogStore, Part


@click.command("prune", cls=Command)
@click.option("--keep", type=SPAN, metavar="DURATION", help="How much to keep: 30m, 12h, 3d  [relay.retention_hours].")
@changes_data
@click.pass_obj
def prune(app: App, keep: timedelta | None, yes: bool, dry_run: bool) -> None:
    """Drop the old end of the log: whole partitions that are published and older than --keep.

    Relays do this by themselves, once a minute; the command is for those that are not allowed to drop tables, and to
    see why something stays. What is dropped cannot be replayed any more. Nothing is dropped that was not published.

    \b
    Examples:
      postroom outbox prune --dry-run
      postroom outbox prune --keep 12h --yes
    """
    from . import output

    kept = timedelta(hours=app.settings.relay.retention_hours) if keep is None else keep
    with app.store() as store:
        parts = store.parts(kept)
        going = [part for part in parts if part.why is None]
        dropped: Sequence[str] = [part.name for part in going]
        if going and not dry_run:
            size = f" ({_size(going)})" if _size(going) else ""
            output.confirm(f"Drop {_listed(dropped)}{size}, older than {output.span(kept)}?", yes=yes)
            dropped = store.prune(kept, actor=actor())
            parts = store.parts(kept)
        staying = next((part for part in parts if part.why is not None), None)
        why = None if staying is None else _why(store, staying, kept)
    if app.as_json:
        stays = staying and {"part": staying.name, "why": staying.why, "newest": staying.newest, "told": why}
        keep_seconds = kept.total_seconds()
        output.emit({"dropped": dropped, "stays": stays, "keep_seconds": keep_seconds, "dry_run": dry_run})
        return
    if dropped:
        size = f", {_size(going)}" if _size(going) else ""
        click.echo(f"{'Would drop' if dry_run else 'Dropped'} {_listed(dropped)}{size}.")
    else:
        click.echo("Nothing can be dropped." if dry_run else "Nothing was dropped.")
    if staying is not None:
        click.echo(f"{staying.name} stays: {why}.")


def _why(store: "LogStore", part: "Part", keep: timedelta) -> str:
    from . import output

    match part.why:
        case "head":
            return "it is the one that is written to"
        case "young":
            newest = f" ({output.local(part.newest)})" if part.newest else ""
            return f"it holds messages{newest} that are younger than {output.span(keep)}"
        case "unsettled":
            held = _holders(store)
            return "a shard has not settled all of it; see `postroom relay status`" + (held and f"; {held}")
        case _:
            return "a transaction holds it; try again later" + (f" ({held})" if (held := _holders(store)) else "")


def _holders(store: "LogStore") -> str:
    from . import output

    found = [
        f"pid {each.pid}, {each.application or each.user}, open for {output.duration(each.age)}"
        for each in store.open_transactions(1.0)
    ]
    return f"open: {'; '.join(found[:3])}" if found else ""


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} parts, {names[0]} to {names[-1]}"


def _size(parts: "Sequence[Part]") -> str:
    total = sum(part.bytes or 0 for part in parts)
    return f"{total / 1_000_000:,.0f} MB" if total else ""
