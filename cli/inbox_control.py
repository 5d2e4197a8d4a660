"""``postroom inbox pause|resume|actions``: what operators tell the members of a group, and the record of it."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .actor import actor
from .app import App
from .command import Command
from .params import GROUP, TEXT, TOPIC

if TYPE_CHECKING:
    from ..inbox.desk import Control, Desk

_SOON = "Members look once a second."
_ACTIONS = ("pause", "resume", "policy", "retry", "discard", "prune")


@click.command("pause", cls=Command)
@click.option("--group", type=GROUP, help="The group; not needed where there is only one.")
@click.option("--topic", type=TOPIC, help="Only this topic of it.")
@click.option("--handler", type=TEXT, help="Only this handler of it, by its name in the log: module.function.")
@click.option("--reason", type=TEXT, required=True, help="Why, for those who wonder: in status, health and the record.")
@click.pass_obj
def pause(app: App, group: str | None, topic: str | None, handler: str | None, reason: str) -> None:
    """Let a group, or a topic or a handler of it, rest until `resume`. Nothing is lost; messages wait, in order.

    What is being handled comes to its end.

    \b
    Examples:
      postroom inbox pause --group billing --reason "the gateway is being moved"
      postroom inbox pause --group billing --topic orders --reason "prices are wrong since 14:00"
      postroom inbox pause --handler shop.billing.charge --reason "charges twice"
    """
    from . import output

    subject = _subject(topic, handler)
    with app.desk() as desk:
        of, known = group_of(desk, group)
        before = _paused(desk.controls(of), subject)
        changed = desk.pause(of, subject, reason, actor())
    if app.as_json:
        told = {"group": of, "topic": topic, "handler": handler, "paused": reason}
        output.emit({**told, "before": before, "changed": changed})
    elif not changed:
        click.echo(f"{_what(of, topic, handler)} paused already: {reason}\nNothing was changed.")
    elif before is not None:
        click.echo(f"{_what(of, topic, handler)} paused already; the reason is now: {reason}")
    else:
        options = f" --topic {topic}" if topic else f" --handler {handler}" if handler else ""
        click.echo(f"{_what(of, topic, handler)} paused: {reason}")
        click.echo(f"{_SOON} To go on: postroom inbox resume --group {of}{options}")
    if not known and not app.as_json:
        click.echo(unknown(of))


@click.command("resume", cls=Command)
@click.option("--group", type=GROUP, help="The group; not needed where there is only one.")
@click.option("--topic", type=TOPIC, help="Only this topic of it.")
@click.option("--handler", type=TEXT, help="Only this handler of it.")
@click.pass_obj
def resume(app: App, group: str | None, topic: str | None, handler: str | None) -> None:
    """Let it go on, where it stopped. What was paused by itself is resumed by itself.

    \b
    Examples:
      postroom inbox resume --group billing
      postroom inbox resume --group billing --topic orders
    """
    from . import output
    from .holding import named

    subject = _subject(topic, handler)
    with app.desk() as desk:
        of, _ = group_of(desk, group)
        controls = desk.controls(of)
        changed = desk.resume(of, subject, actor())
    others = [each.subject for each in controls if each.paused is not None and each.subject != subject]
    if app.as_json:
        told = {"group": of, "topic": topic, "handler": handler, "paused": None}
        output.emit({**told, "before": _paused(controls, subject), "changed": changed, "still_paused": others})
        return
    what = _what(of, topic, handler)
    click.echo(f"{what} no longer paused. {_SOON}" if changed else f"{what} not paused.\nNothing was changed.")
    if others:
        listed = ", ".join(named(each) or "the whole group" for each in others)
        click.echo(output.clean(f"Still paused by themselves: {listed}"))


@click.command("actions", cls=Command)
@click.option("--group", type=GROUP, help="Only of this group.")
@click.option("--action", type=click.Choice(_ACTIONS), help="Only of this kind.")
@click.option("--message-id", help="Only of this message.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="No more than so many.")
@click.pass_obj
def actions(app: App, group: str | None, action: str | None, message_id: str | None, limit: int) -> None:
    """List what operators did to inboxes, the latest first.

    What was done to dead letters: `postroom dlq show`; to the outbox and the relays: `postroom outbox actions`.

    \b
    Examples:
      postroom inbox actions --group billing
      postroom inbox actions --action discard --json
    """
    from . import output
    from .holding import print_actions

    with app.desk() as desk:
        found = desk.actions(limit, group=group, action=action, message_id=message_id)
    if app.as_json:
        output.emit({"actions": [asdict(each) for each in found]})
    elif found:
        print_actions(output.console(), found)
    else:
        click.echo("Nothing of that was done." if group or action or message_id else "Nothing was done yet.")


def group_of(desk: "Desk", group: str | None) -> tuple[str, bool]:
    """The group that is meant, and whether the tables know it. Raises click.UsageError where that is not clear."""
    known = desk.groups()
    if group is not None:
        return group, group in known
    if len(known) == 1:
        return known[0], True
    there = f"there are {', '.join(known)}" if known else "the tables know none yet"
    raise click.UsageError(f"Say which group, with --group; {there}.")


def unknown(group: str) -> str:
    """A hint, should the name be mistyped."""
    return f"The tables know no group {group} yet; it holds from its first start."


def _subject(topic: str | None, handler: str | None) -> str:
    from ..inbox.desk import subject_of

    return subject_of(topic, handler)


def _paused(controls: "list[Control]", subject: str) -> str | None:
    return next((each.paused for each in controls if each.subject == subject), None)


def _what(group: str, topic: str | None, handler: str | None) -> str:
    part = f"Topic {topic} of group" if topic else f"Handler {handler} of group" if handler else "Group"
    return f"{part} {group} is"
