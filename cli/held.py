"""``postroom inbox held``: messages that failed and wait for their next attempt, and those that wait behind them."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .actor import actor
from .app import App
from .command import Group, changes_data
from .params import GROUP, MOMENT, TEXT, TOPIC

if TYPE_CHECKING:
    from ..inbox.desk import Desk, Held, Wanted

F = TypeVar("F", bound=Callable[..., Any])
_AT_ONCE = 1_000
_SHOWN_BEHIND = 5
_STATES = ("retry", "behind", "dead-letter")
_ID = click.IntRange(min=1, max=2**63 - 1)


@click.group("held", cls=Group)
def held() -> None:
    """Messages that failed and wait for their next attempt, and those of their keys that wait behind them."""


def _filters(function: F) -> F:
    options = (
        click.option("--group", type=GROUP, help="Of this group."),
        click.option("--topic", type=TOPIC, help="Of this topic."),
        click.option("--key", help="Of this key."),
        click.option("--type", "type_", help="Of this type."),
        click.option("--message-id", help="Of this message id."),
        click.option("--error", help="Whose error has this in it, in any case."),
        click.option("--since", type=MOMENT, help="Not held for longer: 30m, 2h, 7d, or a date or time."),
        click.option("--until", type=MOMENT, help="Held for longer."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@held.command("list")
@_filters
@click.option("--state", type=click.Choice(_STATES), help="Of this state.")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Go on after this id.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="No more than so many.")
@click.pass_obj
def list_(app: App, /, state: Any, after: int, limit: int, **given: Any) -> None:
    """List them, the oldest first.

    States: retry (its next attempt comes by itself), behind (it waits for one of its key), dead-letter (its key waits
    until the dead letter was replayed, or this is discarded).

    \b
    Examples:
      postroom inbox held list --group billing --state retry
      postroom inbox held list --error Timeout --since 2h
      postroom inbox held list --json | jq '.held[].id'
    """
    from . import output
    from .holding import print_list, summary

    wanted = _wanted(given, state)
    with app.desk() as desk:
        found = desk.held(wanted, limit + 1, after=after)
        counts = desk.count(wanted)
    more, rows = len(found) > limit, found[:limit]
    if app.as_json:
        following = rows[-1].id if more else None
        counted = {"total": sum(counts.values()), "states": counts}
        output.emit({"held": [summary(row) for row in rows], **counted, "next": following})
        return
    if not rows:
        anything = state is not None or after or any(value is not None for value in given.values())
        click.echo("Nothing of that is held." if anything else "Nothing is held.")
        return
    print_list(output.console(), rows)
    if more:
        click.echo(f"\nThere are more, {sum(counts.values())} in all; to go on: --after {rows[-1].id}")
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
        output.emit(full(row, behind, actions))
        return
    facts = {"behind it": _listed(behind), "waits for": None if head is None else f"{head.id} ({head.state})"}
    print_held(output.console(), row, facts, actions)
    told = {
        "retry": f"To try it now: postroom inbox held retry {row.id}",
        "behind": None if head is None else f"What it waits for: postroom inbox held show {head.id}",
        "dead-letter": f"To replay it: postroom dlq replay {row.message_id}",
    }[row.state]
    if told:
        click.echo(f"\n{output.clean(told)}")


@held.command("retry")
@click.argument("ids", nargs=-1, type=_ID, metavar="[ID]...")
@_filters
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
    """
    _change(app, ids, "retry", "to be retried", **options)


@held.command("discard")
@click.argument("ids", nargs=-1, type=_ID, metavar="[ID]...")
@_filters
@click.option("--state", type=click.Choice(_STATES), help="Of this state.")
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
    """
    _change(app, ids, "discard", "discarded", **options)


def _change(
    app: App,
    ids: Sequence[int],
    verb: str,
    done: str,
    *,
    everything: bool,
    reason: str | None,
    yes: bool,
    dry_run: bool,
    state: Any = None,
    **given: Any,
) -> None:
    from . import output

    filtered = state is not None or any(value is not None for value in given.values())
    if not (ids or filtered or everything):
        raise click.UsageError(f"Say which to {verb}: ids, filters such as --topic and --key, or --all.")
    if ids and (filtered or everything):
        raise click.UsageError("Give ids or filters, not both.")
    wanted = _wanted(given, "retry" if verb == "retry" else state)
    with app.desk() as desk:
        chosen, whose = [], set()
        for row in _at(desk, ids) if ids else _of(desk, wanted):
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


def _wanted(given: dict[str, Any], state: Any) -> "Wanted":
    from ..inbox.desk import Wanted

    since, until = given["since"], given["until"]
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since must be before --until.")
    key = None if given["key"] is None else given["key"].encode()
    named = {name: given[name] for name in ("group", "topic", "error", "message_id", "since", "until")}
    return Wanted(key=key, type=given["type_"], state=state, **named)


def _at(desk: "Desk", ids: Sequence[int]) -> "list[Held]":
    """Those of the ids. Raises click.ClickException where one is not there."""
    found = desk.at(sorted(set(ids)))
    if missing := sorted(set(ids) - {row.id for row in found}):
        raise click.ClickException(f"Nothing is held with the id {', '.join(map(str, missing))}.")
    return found


def _of(desk: "Desk", wanted: "Wanted") -> "Iterator[Held]":
    after = 0
    while found := desk.held(wanted, _AT_ONCE, after=after):
        yield from found
        after = found[-1].id


def _head(desk: "Desk", row: "Held") -> "Held | None":
    """The first of its key."""
    from ..inbox.desk import Wanted

    of_key = _of(desk, Wanted(group=row.group, topic=row.topic, key=row.key))
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
