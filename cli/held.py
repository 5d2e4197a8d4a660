"""``postroom inbox held``: messages that failed and wait for their next attempt, and those that wait behind them."""

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from . import scan
from .actor import actor
from .app import App
from .command import Group, changes_data
from .export import to_file
from .finding import Finding, finding, paging
from .params import TEXT

if TYPE_CHECKING:
    from ..inbox.desk import Desk, Held

_AT_ONCE = 1_000
_SHOWN_BEHIND = 5
_STATES = ("retry", "behind", "dead-letter")
_ID = click.IntRange(min=1, max=2**63 - 1)


@click.group("held", cls=Group)
def held() -> None:
    """Messages that failed and wait for their next attempt, and those of their keys that wait behind them."""


@held.command("list")
@finding(states=_STATES)
@paging("id")
@click.pass_obj
def list_(app: App, /, found: Finding, *, sort: str, after: int, limit: int) -> None:
    """List them, the oldest first.

    States: retry (its next attempt comes by itself), behind (it waits for one of its key), dead-letter (its key waits
    until the dead letter was replayed, or this is discarded).

    \b
    Examples:
      postroom inbox held list --group billing --state retry
      postroom inbox held list --error Timeout --since 2h --sort newest
      postroom inbox held list --match 'payload.total > 100'
      postroom inbox held list --json | jq '.held[].id'
    """
    from . import output
    from .holding import print_list, summary

    with app.desk() as desk:
        looked = scan.held(desk, found, after=after, newest=sort == "newest", whole=app.redaction.of_record)
        rows = list(islice(looked, limit + 1))
        counts = desk.count(scan.wanted_held(found)) if found.in_database else None
    following = rows[limit - 1].id if len(rows) > limit else None
    rows, total = rows[:limit], None if counts is None else sum(counts.values())
    if app.as_json:
        counted = {"total": total, "states": counts}
        output.emit({"held": [summary(row, app.redaction) for row in rows], **counted, "next": following})
        return
    if not rows:
        click.echo("Nothing of that is held." if found or after else "Nothing is held.")
        return
    print_list(output.console(), rows, app.redaction)
    if following is not None:
        click.echo(f"\nThere are more{'' if total is None else f', {total} in all'}; to go on: --after {following}")
    click.echo(f"\nFor one of them: postroom inbox held show {rows[0].id}")


@held.command("show")
@click.argument("held_id", metavar="ID", type=_ID)
@click.pass_obj
def show(app: App, held_id: int) -> None:
    """Show all about one: its error, headers and payload, what waits behind it, and what operators did to it.

    \b
    Examples:
      postroom inbox held show 17
      postroom inbox held show 17 --json | jq -r .payload
    """
    from . import output
    from .holding import full, print_held

    with app.desk() as desk:
        [row] = _at(desk, [held_id])
        behind = desk.behind(row, _AT_ONCE)
        actions = desk.actions(_AT_ONCE, group=row.group, message_id=row.message_id)
        head = _head(desk, row) if row.state == "behind" else None
    if app.as_json:
        output.emit(full(row, behind, actions, app.redaction))
        return
    facts = {"behind it": _listed(behind), "waits for": None if head is None else f"{head.id} ({head.state})"}
    print_held(output.console(), row, app.redaction, facts, actions)
    told = {
        "retry": f"To try it now: postroom inbox held retry {row.id}",
        "behind": None if head is None else f"What it waits for: postroom inbox held show {head.id}",
        "dead-letter": f"To replay it: postroom dlq replay {row.message_id}",
    }[row.state]
    if told:
        click.echo(f"\n{output.clean(told)}")


@held.command("stats")
@finding(states=_STATES)
@click.pass_obj
def stats(app: App, /, found: Finding) -> None:
    """Count them by failure: how many, since when, and their trend of the last 24 hours.

    \b
    Examples:
      postroom inbox held stats
      postroom inbox held stats --group billing --json | jq '.failures[0].error'
    """
    from .failures import failures, masked, troubles_of_held
    from .failures import tell as tell_failures
    from .masking import held as shown

    with app.desk() as desk:
        grouped = failures(troubles_of_held(scan.held(desk, found)))
        if app.redaction:
            masked(grouped, lambda ids: {row.id: shown(row, app.redaction).error for row in desk.at(ids)})
    tell_failures(app, grouped, "held", "postroom inbox held list --fingerprint")


@held.command("retry")
@click.argument("ids", nargs=-1, type=_ID, metavar="[ID]...")
@finding()
@click.option("--all", "everything", is_flag=True, help="All that wait for their next attempt.")
@click.option("--reason", type=TEXT, help="Written down with each of them.")
@changes_data
@click.pass_obj
def retry(app: App, /, ids: tuple[int, ...], **options: Any) -> None:
    """Try them now, and with all their attempts again; what waits behind them follows, in order.

    \b
    Examples:
      postroom inbox held retry 17 18
      postroom inbox held retry --group billing --error Timeout --reason "the gateway is back" --yes
      postroom inbox held retry --fingerprint 3f2a --dry-run
    """
    _change(app, ids, "retry", "to be retried", **options)


@held.command("discard")
@click.argument("ids", nargs=-1, type=_ID, metavar="[ID]...")
@finding(states=_STATES)
@click.option("--all", "everything", is_flag=True, help="All that are held.")
@click.option("--reason", type=TEXT, help="Written down with each of them.")
@changes_data
@click.pass_obj
def discard(app: App, /, ids: tuple[int, ...], **options: Any) -> None:
    """Forget them for good: they are not run, also when they are delivered again. What waits behind them goes on.

    What is a dead letter by now stays one, and can be replayed; only its key does not wait for it any more.

    \b
    Examples:
      postroom inbox held discard 17 --reason "a test order"
      postroom inbox held discard --topic orders --key o-17 --dry-run
      postroom inbox held discard --match 'payload.test' --header 'x-origin=load-test'
    """
    _change(app, ids, "discard", "discarded", **options)


@held.command("export")
@finding(states=_STATES)
@to_file
@click.pass_obj
def export(app: App, /, found: Finding, out: str) -> None:
    """Write them to a file, whole, as JSON Lines; what the setting `redact` names is masked.

    \b
    Examples:
      postroom inbox held export --out held.jsonl
      postroom inbox held export --group billing --out - | jq -c .payload
    """
    from .export import export as write
    from .holding import whole

    with app.desk() as desk:
        looked = scan.held(desk, found, whole=True)
        write(app, out, ({"kind": "held", **whole(row, app.redaction)} for row in looked), "held message")


def _change(
    app: App,
    ids: Sequence[int],
    verb: str,
    done: str,
    *,
    found: Finding,
    everything: bool,
    reason: str | None,
    yes: bool,
    dry_run: bool,
) -> None:
    from . import output

    if not (ids or found or everything):
        raise click.UsageError(f"Say which to {verb}: ids, filters such as --topic and --key, or --all.")
    if ids and (found or everything):
        raise click.UsageError("Give ids or filters, not both.")
    only: dict[str, Any] = {"state": "retry"} if verb == "retry" else {}
    with app.desk() as desk:
        chosen, whose = [], set()
        for row in _at(desk, ids) if ids else scan.held(desk, found, **only):
            if verb == "retry" and row.state != "retry":
                raise click.ClickException(_why_not(desk, row))
            chosen.append(row.id)
            whose.add(f"{row.topic} (group {row.group})")
        changed = len(chosen)
        if chosen and not dry_run:
            told = output.counted(len(chosen), "message")
            output.confirm(f"{verb.capitalize()} {told} of {', '.join(sorted(whose))}?", yes=yes)
            who, changed = actor(), 0
            with output.progress(verb, len(chosen), hidden=app.as_json) as advance:
                for start in range(0, len(chosen), _AT_ONCE):
                    part = chosen[start : start + _AT_ONCE]
                    changed += (desk.retry if verb == "retry" else desk.discard)(part, who, reason)
                    advance(len(part))
    if app.as_json:
        output.emit({"ids": chosen, "changed": 0 if dry_run else changed, "dry_run": dry_run})
    else:
        would = f"would be {done}" if dry_run else f"{'is' if changed == 1 else 'are'} {done}"
        click.echo(f"{output.counted(changed, 'message')} {would}.")
        if gone := len(chosen) - changed:
            click.echo(f"{output.counted(gone, 'message')} came to an end meanwhile.")


def _at(desk: "Desk", ids: Sequence[int]) -> "list[Held]":
    """Those of the ids. Raises click.ClickException where one is not there."""
    found = desk.at(sorted(set(ids)))
    if missing := sorted(set(ids) - {row.id for row in found}):
        raise click.ClickException(f"Nothing is held with the id {', '.join(map(str, missing))}.")
    return found


def _head(desk: "Desk", row: "Held") -> "Held | None":
    """The first of its key."""
    of_key = scan.held(desk, Finding(group=row.group, topic=row.topic, key=row.key))
    before = [each for each in of_key if each.partition == row.partition and each.offset < row.offset]
    return min(before, key=lambda each: each.offset, default=None)


def _why_not(desk: "Desk", row: "Held") -> str:
    if row.state == "dead-letter":
        return (
            f"Held message {row.id} is a dead letter by now: replay it with `postroom dlq replay {row.message_id}`, "
            "or discard it here."
        )
    head = _head(desk, row)
    where = "one of its key" if head is None else f"{head.id} of its key"
    return f"Held message {row.id} waits behind {where} and cannot be retried alone; it follows by itself."


def _listed(behind: "Sequence[Held]") -> str:
    if not behind:
        return "nothing"
    shown = ", ".join(str(each.id) for each in behind[:_SHOWN_BEHIND])
    more = f" and {len(behind) - _SHOWN_BEHIND} more" if len(behind) > _SHOWN_BEHIND else ""
    return f"{'at least ' if len(behind) == _AT_ONCE else ''}{len(behind)} of its key: {shown}{more}"
