"""``postroom dlq list|show|stats|watch|sync``: finding dead letters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ...dlq import BYS, SORTS, State
from ..app import App
from ..command import Command
from ..finding import finding, paging
from .desk import bring_up_to_date, catch, looks, opened, wanted, warn

if TYPE_CHECKING:
    from ...dlq import By, DeadLetter, Filter, Ledger, Sort
    from ..finding import Finding

STATES = tuple(state.value for state in State)
_AROUND = 3


@click.command("list", cls=Command)
@finding(states=STATES)
@paging("id", sorts=SORTS, default="newest")
@looks
@click.pass_obj
def list_(
    app: App, /, *, found: "Finding", sort: "Sort", after: int, limit: int, fresh: bool, named: tuple[str, ...]
) -> None:
    """List dead letters, and where each stands.

    States: dead, planned (in a replay that has not reached it), replayed, confirmed (its inbox handled it),
    failed-again, discarded, quarantined (it failed in the same way after too many replays).

    \b
    Examples:
      postroom dlq list
      postroom dlq list --topic orders --group billing --since 2h
      postroom dlq list --match 'payload.total > 100' --sort largest
      postroom dlq list --error Timeout --json | jq -r '.dead_letters[].id'
    """
    from ...dlq import find
    from .. import output
    from .letters import print_list, summary

    with opened(app, fresh=fresh, named=named) as ledger:
        page = find(ledger, wanted(found), sort=sort, limit=limit, after=after or None, records=app.redaction.of_record)
    letters = [_masked(app, letter) for letter in page.letters]
    if app.as_json:
        output.emit({"dead_letters": [summary(each) for each in letters], "next": page.next})
        return
    if not letters:
        click.echo("No dead letter matches." if found or after else "There are no dead letters.")
        return
    print_list(output.console(), letters)
    if page.next is not None:
        click.echo(f"\nThere are more; to go on: --after {page.next}")
    click.echo(f"\nFor one of them: postroom dlq show {letters[0].id}")


@click.command("show", cls=Command)
@click.argument("letter", metavar="ID")
@looks
@click.pass_obj
def show(app: App, /, *, letter: str, fresh: bool, named: tuple[str, ...]) -> None:
    """Show all about one: headers, payload, stack, history, and what stands before and after it in its key.

    ID is that of `list`, a place topic/partition/offset, or a message id.

    \b
    Examples:
      postroom dlq show 17
      postroom dlq show orders.billing.dlq/0/12
      postroom dlq show 0199c5f2-7d2e-7c6e-9a6e-0c4b9d7e5a11 --json | jq -r .payload
    """
    from ...dlq import get, neighbours
    from .. import output
    from .letters import full, print_letter

    with opened(app, fresh=fresh, named=named) as ledger:
        first, *others = get(ledger, letter)
        if not others:
            others = [each for each in ledger.of_message(first.message_id) if each.id != first.id]
        actions = ledger.actions(letter=first.id)
        around = _whole(ledger, neighbours(ledger, first, _AROUND), app)
    shown, around = _masked(app, first), [_masked(app, each) for each in around]
    if app.as_json:
        output.emit(full(shown, actions, around, others))
        return
    print_letter(output.console(), shown, actions, around, others)
    if told := _next_step(first):
        click.echo(f"\n{told}")


@click.command("stats", cls=Command)
@finding(states=STATES)
@click.option("--by", type=click.Choice(BYS), default="fingerprint", show_default=True, help="What they share.")
@click.option("--limit", type=click.IntRange(min=1, max=1_000), default=20, show_default=True, help="No more groups.")
@looks
@click.pass_obj
def stats(app: App, /, *, found: "Finding", by: "By", limit: int, fresh: bool, named: tuple[str, ...]) -> None:
    """Count dead letters by failure: class, place and handler, without numbers and ids; or by something else.

    The trend is that of the last day, or of --since to --until.

    \b
    Examples:
      postroom dlq stats --state dead
      postroom dlq stats --by group --since 2h
      postroom dlq stats --json | jq -r '.groups[] | [.value, .count] | @tsv'
    """
    from ...dlq import statistics
    from .. import output
    from .letters import group_summary, print_statistics

    with opened(app, fresh=fresh, named=named) as ledger:
        made = statistics(ledger, wanted(found), by=by, limit=limit)
        messages = {group.example: group.message for group in made.groups}
        if app.redaction:
            examples = ledger.letters(list(messages))
            messages = {letter.id: _masked(app, letter).message for letter in examples}
        if by == "key":
            for group in made.groups:
                group.value = app.redaction.key(group.value)
    if app.as_json:
        groups = [{**group_summary(group), "message": messages.get(group.example)} for group in made.groups]
        span = {"since": made.since, "until": made.until}
        output.emit({"by": by, "groups": groups, "distinct": made.distinct, "total": made.total, "trend": span})
        return
    if not made.groups:
        click.echo("No dead letter matches." if found else "There are no dead letters.")
        return
    print_statistics(output.console(), made, by, messages)
    click.echo(f"{output.counted(made.total, 'dead letter')} in {output.counted(made.distinct, 'group')}.")
    if by == "fingerprint":
        click.echo(f"For one of them: postroom dlq list --fingerprint {made.groups[0].value}")


@click.command("watch", cls=Command)
@finding(states=STATES)
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds to wait.")
@click.option("--in", "named", multiple=True, metavar="TOPIC", help="Read this topic, too, whatever its name is.")
@click.pass_obj
def watch(app: App, /, *, found: "Finding", interval: float, named: tuple[str, ...]) -> None:
    """Show dead letters as they come, until Ctrl-C, which is no failure. With --json, one object on each line.

    Those of now are not shown. While Kafka does not answer, it waits.

    \b
    Examples:
      postroom dlq watch --group billing
      postroom dlq watch --json | jq -r '[.group, .error] | @tsv'
    """
    from ...dlq import last_id
    from ...messaging.errors import KafkaUnavailable
    from ...messaging.observer import unobserved
    from ..serve import Signals

    asked = wanted(found)
    away = False
    with app.ledger() as ledger, app.reader() as reader, app.topics() as topics, Signals(unobserved) as signals:
        catch(app, ledger, reader, dict(topics.partitions()), named)
        newest = last_id(ledger)
        if not app.as_json:
            click.echo("Watching; Ctrl-C ends it.", err=True)
        while not signals.wait(interval):
            try:
                catch(app, ledger, reader, dict(topics.partitions()), named)
            except KafkaUnavailable as error:
                if not away:
                    warn(app, f"{error} It goes on when Kafka does.")
                away = True
            else:
                away = False
            newest = _print_new(app, ledger, asked, newest)  # those, too, that another command has read meanwhile


@click.command("sync", cls=Command)
@click.option("--in", "named", multiple=True, metavar="TOPIC", help="Read this topic, too, whatever its name is.")
@click.pass_obj
def sync(app: App, /, *, named: tuple[str, ...]) -> None:
    """Bring the ledger up to date with the dead-letter topics, as the other commands do first.

    The topics are those of the setting dlq.topics, those of --in, and all that were read before.

    \b
    Examples:
      postroom dlq sync
      postroom dlq sync --in orders-dlt --json
    """
    from .. import output

    with app.ledger() as ledger:
        caught = bring_up_to_date(app, ledger, named)
    if app.as_json:
        output.emit({"read": caught.read, "missed": caught.missed, "renewed": caught.renewed, "gone": caught.gone})
        return
    click.echo(f"{output.counted(caught.read, 'new dead letter')}.")


def _print_new(app: App, ledger: "Ledger", asked: "Filter", newest: int) -> int:
    """Those that came after ``newest``, the oldest first; the id of the last one now."""
    import json
    from dataclasses import replace

    from ...dlq import each
    from .. import output
    from .letters import line, summary

    for letter in each(ledger, replace(asked, after=newest), sort="arrival", records=app.redaction.of_record):
        shown = _masked(app, letter)
        if app.as_json:
            click.echo(json.dumps(summary(shown), default=output.plain))
        else:
            click.echo(line(shown, output.console().width))
        newest = max(newest, letter.id)
    return newest


def _masked(app: App, letter: "DeadLetter") -> "DeadLetter":
    from ...dlq import masked

    return masked(letter, app.redaction)


def _whole(ledger: "Ledger", letters: "Sequence[DeadLetter]", app: App) -> "list[DeadLetter]":
    """With their records, where what is shown depends on them."""
    if not app.redaction.of_record:
        return list(letters)
    found = {letter.id: letter for letter in ledger.letters([letter.id for letter in letters])}
    return [found.get(letter.id, letter) for letter in letters]


def _next_step(letter: "DeadLetter") -> str | None:
    """What one would do about it."""
    return {
        State.DEAD: f"To replay it: postroom dlq replay {letter.id}; to repair it: postroom dlq edit {letter.id}",
        State.PLANNED: f"To go on with its plan: postroom dlq replay --plan {letter.plan_id}",
        State.QUARANTINED: f"To repair it: postroom dlq edit {letter.id}; to free it: postroom dlq release {letter.id}",
    }.get(letter.state)
