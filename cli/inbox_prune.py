"""``postroom inbox prune``: forget messages that were processed long ago."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from .actor import actor
from .app import App
from .command import Command, changes_data
from .params import SPAN

if TYPE_CHECKING:
    from ..outbox.log import Forgotten


@click.command("prune", cls=Command)
@click.option(
    "--older-than", type=SPAN, metavar="DURATION", help="12h, 30d, 8w  [relay.inbox_retention_hours]. At least 1h."
)
@changes_data
@click.pass_obj
def prune(app: App, older_than: timedelta | None, yes: bool, dry_run: bool) -> None:
    """Forget messages that were processed longer ago: whole days, and one by one those whose ids tell no time.

    Relays do this by themselves, once a minute; the command is for those that are not allowed to drop tables. What is
    forgotten runs again when it is delivered again: `postroom doctor` tells whether anything could deliver it. A day
    in which anything was processed later, as by a replay, stays.

    \b
    Examples:
      postroom inbox prune --dry-run
      postroom inbox prune --older-than 30d --yes
    """
    from . import output

    keep = timedelta(hours=app.settings.relay.inbox_retention_hours) if older_than is None else older_than
    if keep < timedelta(hours=1):
        raise click.UsageError(f"--older-than is {output.span(keep)}; it must be at least 1h.")
    with app.store() as store:
        gone = list(store.prune_inbox(keep, dry_run=True))
        if gone and not dry_run:
            output.confirm(f"Forget {_listed(gone)}, processed longer than {output.span(keep)} ago?", yes=yes)
            who, gone = actor(), []
            while True:
                more = store.prune_inbox(keep, actor=who)
                gone += more
                if not any(each.more for each in more):
                    break
    if app.as_json:
        parts = [{"part": name, "messages": messages} for name, messages in _summed(gone).items()]
        output.emit({"forgotten": parts, "older_than_seconds": keep.total_seconds(), "dry_run": dry_run})
    elif gone:
        click.echo(f"{'Would forget' if dry_run else 'Forgot'} {_listed(gone)}.")
    else:
        click.echo("Nothing can be forgotten." if dry_run else "Nothing was forgotten.")


def _summed(parts: "Sequence[Forgotten]") -> dict[str, int]:
    found: dict[str, int] = {}
    for each in parts:
        found[each.part] = found.get(each.part, 0) + each.messages
    return found


def _listed(parts: "Sequence[Forgotten]") -> str:
    from . import output

    by_name = _summed(parts)
    rows = {name: count for name, count in by_name.items() if name == "rows" or name.endswith("_other")}
    days = sorted(by_name.keys() - rows.keys())
    told = [f"{output.counted(count, 'message')}" for count in rows.values()]
    if days:
        told.insert(0, days[0] if len(days) == 1 else f"{len(days)} days, {days[0]} to {days[-1]}")
    return " and ".join(told)
