"""``postroom outbox parked``: what Kafka refused, and what waits behind it or for its topic."""

from collections.abc import Callable, Sequence
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
    from ..outbox.log import LogStore
    from ..outbox.parking import Parked, Parking

_AT_ONCE = 1_000
_SHOWN_BEHIND = 5
_STATES = ("refused", "retry", "behind", "topic")
_POSITION = click.IntRange(min=0, max=2**63 - 1)


@click.group("parked", cls=Group)
def parked() -> None:
    """Messages that Kafka refused for good, and those that wait behind them or for their topic to go on."""


@parked.command("list")
@finding(without=("group",), states=_STATES)
@click.option("--refused", is_flag=True, help="Only those that Kafka refused.")
@paging("position")
@click.pass_obj
def list_(app: App, /, found: Finding, *, refused: bool, sort: str, after: int, limit: int) -> None:
    """List them, the oldest first.

    States: refused (by Kafka), retry (the relay publishes it soon), behind (it waits for one of its key), topic (it
    waits until its topic goes on).

    \b
    Examples:
      postroom outbox parked list --topic orders --refused
      postroom outbox parked list --match 'payload.total > 100' --sort newest
      postroom outbox parked list --json | jq '.parked[].position'
    """
    from . import output
    from .parking import print_list, summary

    more = {"refused": refused or None}
    with app.parking() as parking, app.store() as store:
        whole = app.redaction.of_record
        looked = scan.parked(parking, found, after=after, newest=sort == "newest", whole=whole, **more)
        rows = list(islice(looked, limit + 1))
        counts = parking.count(scan.wanted_parked(found, **more)) if found.in_database else None
        standing = store.control().topics
    following = rows[limit - 1].row.position if len(rows) > limit else None
    rows, total = rows[:limit], None if counts is None else sum(counts.values())
    if app.as_json:
        told = {"total": total, "states": counts, "next": following, "paused_topics": standing}
        output.emit({"parked": [summary(row, app.redaction) for row in rows], **told})
        return
    if not rows:
        click.echo("Nothing of that is parked." if found or refused or after else "Nothing is parked.")
        return
    print_list(output.console(), rows, app.redaction)
    if following is not None:
        click.echo(f"\nThere are more{'' if total is None else f', {total} in all'}; to go on: --after {following}")
    for name in sorted({row.row.topic for row in rows if row.by_topic} & set(standing)):
        click.echo(f"\nTopic {name} is paused: {standing[name]}\nTo go on: postroom relay resume --topic {name}")


@parked.command("show")
@click.argument("position", type=_POSITION)
@click.pass_obj
def show(app: App, position: int) -> None:
    """Show all about one: why it is parked, its headers and payload, and what waits behind it.

    \b
    Examples:
      postroom outbox parked show 1234
      postroom outbox parked show 1234 --json | jq -r .error
    """
    from . import output
    from .parking import print_parked, whole

    with app.parking() as parking, app.store() as store:
        [row] = _at(parking, [position])
        behind = [] if row.row.key is None else _behind(parking, row)
        standing = store.control().topics.get(row.row.topic)
    if app.as_json:
        document = {**whole(row, app.redaction), "topic_paused": standing}
        output.emit({**document, "behind": [each.row.position for each in behind]})
        return
    facts = {"topic paused": standing, "behind it": _listed(behind)}
    print_parked(output.console(), row, app.redaction, facts)
    if row.state == "refused":
        click.echo(f"\nTo publish it after all: postroom outbox parked retry {position}")


@parked.command("stats")
@finding(without=("group",), states=_STATES)
@click.pass_obj
def stats(app: App, /, found: Finding) -> None:
    """Count them by failure: how many, since when, and their trend of the last 24 hours.

    \b
    Examples:
      postroom outbox parked stats
      postroom outbox parked stats --topic orders --json | jq '.failures[0].error'
    """
    from .failures import failures, masked, troubles_of_parked
    from .failures import tell as tell_failures
    from .masking import parked as shown

    with app.parking() as parking:
        grouped = failures(troubles_of_parked(scan.parked(parking, found)))
        if app.redaction:
            masked(grouped, lambda ids: {row.row.position: shown(row, app.redaction).error for row in parking.at(ids)})
    tell_failures(app, grouped, "parked", "postroom outbox parked list --fingerprint")


@parked.command("retry")
@click.argument("positions", nargs=-1, type=_POSITION, metavar="[POSITION]...")
@finding(without=("group",))
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
      postroom outbox parked retry --fingerprint 3f2a --dry-run
    """
    _change(app, positions, "retry", "retried", lambda store: store.request_retry, refused=True, **options)


@parked.command("discard")
@click.argument("positions", nargs=-1, type=_POSITION, metavar="[POSITION]...")
@finding(without=("group",), states=_STATES)
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
      postroom outbox parked discard --match 'payload.test' --header 'x-origin=load-test'
    """
    _change(app, positions, "discard", "discarded", lambda store: store.discard, refused=None, **options)


@parked.command("export")
@finding(without=("group",), states=_STATES)
@to_file
@click.pass_obj
def export(app: App, /, found: Finding, out: str) -> None:
    """Write them to a file, whole, as JSON Lines; what the setting `redact` names is masked.

    \b
    Examples:
      postroom outbox parked export --out parked.jsonl
      postroom outbox parked export --topic orders --out - | jq -c .payload
    """
    from .export import export as write
    from .parking import whole

    with app.parking() as parking:
        looked = scan.parked(parking, found, whole=True)
        write(app, out, ({"kind": "parked", **whole(row, app.redaction)} for row in looked), "parked message")


def _change(
    app: App,
    positions: Sequence[int],
    verb: str,
    done: str,
    change: "Callable[[LogStore], Callable[..., int]]",
    *,
    refused: bool | None,
    found: Finding,
    everything: bool,
    reason: str | None,
    yes: bool,
    dry_run: bool,
) -> None:
    from . import output

    if not (positions or found or everything):
        raise click.UsageError(f"Say which to {verb}: positions, filters such as --topic and --key, or --all.")
    if positions and (found or everything):
        raise click.UsageError("Give positions or filters, not both.")
    with app.parking() as parking:
        rows = _at(parking, positions) if positions else scan.parked(parking, found, refused=refused)
        chosen, topics = [], set()
        for row in rows:
            chosen.append(row.row.position)
            topics.add(row.row.topic)
    changed = len(chosen)
    if chosen and not dry_run:
        told = output.counted(len(chosen), "message")
        output.confirm(f"{verb.capitalize()} {told} of {', '.join(sorted(topics))}?", yes=yes)
        who, changed = actor(), 0
        with app.store() as store, output.progress(verb, len(chosen), hidden=app.as_json) as advance:
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


def _at(parking: "Parking", positions: Sequence[int]) -> "list[Parked]":
    """Those at the positions. Raises click.ClickException where there is none."""
    found = parking.at(sorted(set(positions)))
    if missing := sorted(set(positions) - {row.row.position for row in found}):
        raise click.ClickException(f"Nothing is parked at position {', '.join(map(str, missing))}.")
    return found


def _behind(parking: "Parking", row: "Parked") -> "Sequence[Parked]":
    from ..outbox.parking import Wanted

    return parking.find(Wanted(topic=row.row.topic, key=row.row.key), _AT_ONCE, after=row.row.position)


def _listed(behind: "Sequence[Parked]") -> str:
    if not behind:
        return "nothing"
    shown = ", ".join(str(each.row.position) for each in behind[:_SHOWN_BEHIND])
    more = f" and {len(behind) - _SHOWN_BEHIND} more" if len(behind) > _SHOWN_BEHIND else ""
    refused = sum(each.error is not None for each in behind)
    also = f"; {refused} of them refused, too" if refused else ""
    return f"{'at least ' if len(behind) == _AT_ONCE else ''}{len(behind)} of its key: {shown}{more}{also}"
