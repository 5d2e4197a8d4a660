"""``postroom dlq``: dead letters. Parses and prints; the work is done in the room of that name."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .actor import actor
from .app import App
from .command import Group, changes_data
from .errors import Incomplete
from .params import MOMENT
from .selection import at, existing_topics, selected, states_of, topics_of, wanted_by

if TYPE_CHECKING:
    from ..dlq import Ledger, Plan
    from ..messaging.ports import TopicReader

F = TypeVar("F", bound=Callable[..., Any])
_EXAMPLES = 3


@click.group("dlq", cls=Group)
def dlq() -> None:
    """Dead letters: look at them, replay them."""


def _filters(function: F) -> F:
    options = (
        click.option("--topic", help="Of this topic, or in this dead-letter topic."),
        click.option("--in", "named", multiple=True, metavar="TOPIC", help="In this topic, whatever its name is."),
        click.option("--group", help="Of this consumer group; * and ? are wildcards."),
        click.option("--type", "type_", help="Of this type; * and ? are wildcards."),
        click.option("--key", help="Of this key."),
        click.option("--error", help="With this in the error's class or message."),
        click.option("--id", "message_id", help="Of this message id."),
        click.option("--since", type=MOMENT, help="Not older: 30m, 2h, 7d, or a date or time."),
        click.option("--until", type=MOMENT, help="Older."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@dlq.command("list")
@_filters
@click.option("--oldest", "oldest_first", is_flag=True, help="The oldest first.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="No more than so many.")
@click.pass_obj
def list_(app: App, /, oldest_first: bool, limit: int, **filters: Any) -> None:
    """List dead letters, the newest first, and whether they were replayed.

    \b
    Examples:
      postroom dlq list
      postroom dlq list --topic orders --group billing --since 2h
      postroom dlq list --error Timeout --json | jq -r '.dead_letters[].place'
    """
    from ..dlq import newest, oldest
    from . import output
    from .letters import print_list, summary

    with app.reader() as reader:
        topics = topics_of(app, filters)
        wanted = wanted_by(filters, topics)
        found = (oldest if oldest_first else newest)(reader, topics, wanted, limit + 1)
    more, letters = len(found) > limit, found[:limit]
    states = states_of(app, letters)
    if app.as_json:
        output.emit({"topics": topics, "dead_letters": [summary(each, states) for each in letters], "more": more})
        return
    if not letters:
        click.echo(f"No dead letter matches in {_listed(topics)}." if topics else "There are no dead-letter topics.")
        return
    print_list(output.console(), letters, states)
    click.echo(f"\nThere are more; --limit shows more than {limit}." if more else "")
    click.echo(f"For one of them: postroom dlq show {letters[0].place}")


@dlq.command("show")
@click.argument("place", metavar="PLACE")
@click.option("--in", "named", multiple=True, metavar="TOPIC", help="Look in this topic, whatever its name is.")
@click.pass_obj
def show(app: App, place: str, named: tuple[str, ...]) -> None:
    """Show all about one dead letter. PLACE is topic/partition/offset, as `list` has it, or a message id.

    \b
    Examples:
      postroom dlq show orders.billing.dlq/0/12
      postroom dlq show 0199c5f2-7d2e-7c6e-9a6e-0c4b9d7e5a11 --json | jq -r .payload
    """
    from . import output
    from .letters import full, print_letter

    with app.reader() as reader:
        letter, *others = at(app, reader, place, named)
    states = states_of(app, [letter])
    if app.as_json:
        output.emit({**full(letter, states), "others": [str(other.place) for other in others]})
        return
    print_letter(output.console(), letter, states)
    if others:
        click.echo(f"\nIt died before: {', '.join(str(other.place) for other in others)}")


@dlq.command("replay")
@click.argument("places", nargs=-1, metavar="[PLACE]...")
@_filters
@click.option("--limit", type=click.IntRange(min=1), help="No more than so many, the oldest.")
@click.option("--max-replays", type=click.IntRange(min=1), default=3, show_default=True, help="Refuse after so many.")
@click.option("--again", is_flag=True, help="Those, too, that were replayed or discarded before.")
@click.option("--reason", help="Written down with each of them.")
@changes_data
@click.pass_obj
def replay(
    app: App,
    /,
    places: tuple[str, ...],
    *,
    limit: int | None,
    max_replays: int,
    again: bool,
    reason: str | None,
    yes: bool,
    dry_run: bool,
    **filters: Any,
) -> None:
    """Send dead letters back to their topics, for the group that failed; all of them, unless told which.

    Each goes once, through the outbox; the relay publishes it. Interrupted, or run again, it does what is left.
    PLACE is topic/partition/offset or a message id.

    \b
    Examples:
      postroom dlq replay --topic orders --group billing --error Timeout --dry-run
      postroom dlq replay orders.billing.dlq/0/12 --reason "customer was added"
      postroom dlq replay --since 1d --limit 100 --yes --json
    """
    from ..dlq import make_plan
    from . import output

    if places and any(value for name, value in filters.items() if name != "named"):
        raise click.UsageError("Give places or filters, not both.")
    with ExitStack() as stack:
        ledger = stack.enter_context(app.ledger())
        reader = stack.enter_context(app.reader())
        existing = existing_topics(app)
        plan = make_plan(
            selected(app, reader, places, filters),
            ledger,
            existing=existing,
            max_replays=max_replays,
            again=again,
            limit=limit,
        )
        if dry_run:
            _tell_plan(app, plan)
            return
        if plan.replay:
            if not app.as_json:
                _tell_refused(plan)
            output.confirm(f"Replay {output.counted(len(plan.replay), 'dead letter')} to {_targets(plan)}?", yes=yes)
        _run(app, plan, reader, ledger, reason)


def _run(app: App, plan: "Plan", reader: "TopicReader", ledger: "Ledger", reason: str | None) -> None:
    from ..dlq import run_plan
    from . import output

    replayed = 0

    def observe(step: str, /, **facts: Any) -> None:
        nonlocal replayed
        if step == "replayed":
            replayed += facts["count"]
            advance(facts["count"] + facts["already"])

    with output.progress("replaying", len(plan.replay), hidden=app.as_json) as advance:
        try:
            done = run_plan(plan, reader, ledger, actor=actor(), reason=reason, observer=observe)
        except BaseException:
            if not app.as_json:
                left = len(plan.replay) - replayed
                click.echo(f"{replayed} replayed, {left} left; run the command again to go on.", err=True)
            raise
    already = len(plan.already) + done.already
    if app.as_json:
        output.emit(
            {
                "replayed": done.replayed,
                "already": already,
                "refused": [_refusal(each) for each in plan.refused],
                "gone": [str(place) for place in done.gone],
                "dry_run": False,
            }
        )
    else:
        click.echo(f"replayed          {done.replayed}" + (" (the relay publishes them)" if done.replayed else ""))
        click.echo(f"already replayed  {already}")
        click.echo(f"refused           {len(plan.refused)}")
        if done.gone:
            click.echo(f"gone              {len(done.gone)} (the topic's retention took them)")
        if not plan.replay:
            _tell_refused(plan)
    if plan.refused or done.gone:
        raise Incomplete(f"{output.counted(len(plan.refused) + len(done.gone), 'dead letter')} could not be replayed.")


def _tell_plan(app: App, plan: "Plan") -> None:
    from . import output

    if app.as_json:
        output.emit(
            {
                "would_replay": [
                    {"place": str(each.place), "message_id": each.message_id, "to": each.target, "group": each.group}
                    for each in plan.replay
                ],
                "already": len(plan.already),
                "refused": [_refusal(each) for each in plan.refused],
                "dry_run": True,
            }
        )
        return
    if plan.replay:
        click.echo(f"Would replay {output.counted(len(plan.replay), 'dead letter')} to {_targets(plan)}.")
    else:
        click.echo("Nothing to replay.")
    if plan.already:
        click.echo(f"{len(plan.already)} were replayed or discarded already; --again takes them too.")
    _tell_refused(plan)


def _tell_refused(plan: "Plan") -> None:
    from . import output

    reasons: dict[str, list[str]] = {}
    for each in plan.refused:
        reasons.setdefault(each.reason or "", []).append(str(each.place))
    for reason, places in reasons.items():
        more = f" and {len(places) - _EXAMPLES} more" if len(places) > _EXAMPLES else ""
        click.echo(output.clean(f"Refused: {', '.join(places[:_EXAMPLES])}{more}. {reason}"))


def _targets(plan: "Plan") -> str:
    targets = sorted({f"{each.target} (group {each.group or 'unknown: any'})" for each in plan.replay})
    return _listed(targets)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
    return ", ".join(names[:_EXAMPLES]) + more


def _refusal(each: Any) -> dict[str, Any]:
    return {"place": str(each.place), "message_id": each.message_id, "reason": each.reason}
