"""``postroom outbox``: the log, message by message; what waits in it, and what operators did to it."""

import re
from dataclasses import asdict
from itertools import islice
from typing import Any
from uuid import UUID

import click

from .app import App
from .command import Group
from .filters import filters, wanted_by
from .params import TOPIC
from .parked import parked
from .prune import prune
from .replay import replay

_ACTIONS = ("retry", "discard", "pause", "resume", "limit", "replay", "prune", "notify")


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
        waiting, oldest, exact = store.backlog()
    statistics = Statistics(app.database_url, app.names)
    scheduled, of_topics = statistics.scheduled(), statistics.parked()
    if app.as_json:
        document = {"waiting": waiting, "waiting_exact": exact, "oldest_seconds": oldest}
        output.emit({**document, "scheduled": asdict(scheduled), "parked": [asdict(each) for each in of_topics]})
        return
    age = f", the oldest for {output.duration(oldest)}" if waiting else ""
    click.echo(f"waiting    {output.amount(waiting, exact=exact)}{age}")
    due = f", the next in {output.duration(scheduled.next_in_seconds)}" if scheduled.next_in_seconds else ""
    click.echo(f"scheduled  {scheduled.count}{due}")
    click.echo(f"parked     {sum(each.refused + each.waiting + each.waiting_for_topic for each in of_topics)}")
    if of_topics:
        numbers = ("refused", "behind them", "for the topic", "to retry")
        table = output.table("topic", *numbers, right=numbers)
        for each in of_topics:
            counts = (each.refused, each.waiting, each.waiting_for_topic, each.retrying)
            table.add_row(output.clean(each.topic), *map(str, counts))
        click.echo()
        output.console().print(table)


@outbox.command("list")
@filters
@click.option("--waiting", "state", flag_value="waiting", help="Only those that no relay has settled yet.")
@click.option("--published", "state", flag_value="settled", help="Only those that are settled and not parked.")
@click.option("--oldest", "oldest_first", is_flag=True, help="The oldest first.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="No more than so many.")
@click.pass_obj
def list_(app: App, /, state: Any, oldest_first: bool, limit: int, **given: Any) -> None:
    """List the messages that the log still holds, the newest first.

    \b
    Examples:
      postroom outbox list --topic orders --since 1h
      postroom outbox list --waiting --oldest
      postroom outbox list --key o-17 --json | jq '.messages[].position'
    """
    from . import output
    from .messages import print_list, summary

    wanted = wanted_by(given, state=state)
    with app.archive() as archive:
        head = archive.head()
        found = list(islice(archive.scan(wanted, upto=head, newest=not oldest_first), limit + 1))
    more, shown = len(found) > limit, found[:limit]
    if app.as_json:
        output.emit({"messages": [summary(each, app.redaction) for each in shown], "more": more})
        return
    if not shown:
        click.echo("No message in the log matches." if head else "The log is empty.")
        return
    print_list(output.console(), shown, app.redaction)
    click.echo(f"\nThere are more; --limit shows more than {limit}." if more else "")
    click.echo(f"For one of them: postroom outbox show {shown[0].row.position}")


@outbox.command("show")
@click.argument("message", metavar="ID|POSITION")
@click.pass_obj
def show(app: App, message: str) -> None:
    """Show all about one message: its columns, headers and payload, its state, and what operators did to it.

    By message id it is the latest one of that id, as a replay makes copies; there is no index of ids, so it takes a
    while in a large log.

    States: waiting (no relay has settled it), settled (published), parked (`outbox parked show` says why), scheduled.

    \b
    Examples:
      postroom outbox show 1234
      postroom outbox show 0199c5f2-7d2e-7c6e-9a6e-0c4b9d7e5a11 --json | jq -r .payload
    """
    from ..outbox.archive import Wanted
    from . import output
    from .messages import full, print_message, told

    position = int(message) if re.fullmatch(r"[0-9]{1,18}", message) else None
    id_ = _uuid(message) if position is None else ""
    with app.archive() as archive:
        if position is not None:
            found, scheduled = archive.at(position), None
        else:
            scheduled = archive.scheduled(id_)
            seen = archive.scan(Wanted(id=id_), upto=archive.head(), newest=True)
            latest = None if scheduled else next(seen, None)
            found = latest and archive.at(latest.row.position)
        if found is None and scheduled is None:
            raise click.ClickException(f"The log holds no message {message}; it may have been pruned.")
        actions = archive.actions(position=found.row.position) if found else []
    if found is not None:
        row, state, due_at = found.row, str(found.state), None
    else:
        assert scheduled is not None  # noqa: S101  one of them was found
        row, state, due_at = scheduled.row, "scheduled", scheduled.due_at
    if app.as_json:
        output.emit({**full(row, state, app.redaction), "due_at": due_at, "actions": [told(each) for each in actions]})
        return
    due = output.local(due_at) if due_at else None
    print_message(output.console(), row, app.redaction, {"state": state, "due": due}, actions)
    if state == "parked":
        click.echo(f"\nWhy it is parked: postroom outbox parked show {row.position}")


@outbox.command("actions")
@click.option("--action", type=click.Choice(_ACTIONS), help="Only of this kind.")
@click.option("--topic", type=TOPIC, help="Only of this topic.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="No more than so many.")
@click.pass_obj
def actions(app: App, action: str | None, topic: str | None, limit: int) -> None:
    """List what operators did to the outbox and the relays, the latest first.

    Also what a relay did for them: to stop a topic by its policy. What was done to dead letters: `postroom dlq show`.

    \b
    Examples:
      postroom outbox actions --topic orders
      postroom outbox actions --action discard --json
    """
    from . import output
    from .messages import print_actions, told

    with app.archive() as archive:
        found = archive.actions(limit, action=action, topic=topic)
    if app.as_json:
        output.emit({"actions": [told(each) for each in found]})
    elif found:
        print_actions(output.console(), found)
    else:
        click.echo("Nothing of that was done." if action or topic else "Nothing was done yet.")


for _command in (parked, replay, prune):
    outbox.add_command(_command)


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise click.UsageError(f"{text!r} is neither a message id (a UUID) nor a position.") from None
