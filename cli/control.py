"""``postroom relay pause|resume|limit``: what operators tell the relays, which look once a second."""

from typing import TYPE_CHECKING, Any

import click

from .actor import actor
from .app import App
from .command import Command
from .params import TEXT, TOPIC, Limit

if TYPE_CHECKING:
    from ..outbox.log import Control

_HIGHEST_RATE = 10_000_000
_LARGEST_BATCH = 50_000
_SOON = "Relays look once a second."


@click.command("pause", cls=Command)
@click.option("--topic", type=TOPIC, help="Only this topic; the others go on.")
@click.option("--reason", type=TEXT, required=True, help="Why, for those who wonder: in status, health and the record.")
@click.pass_obj
def pause(app: App, topic: str | None, reason: str) -> None:
    """Let no relay publish, or nothing of one topic, until `resume`. Nothing is lost; messages wait.

    Paused as a whole, messages stay in the log. Those of a paused topic wait beside it, so that other topics go on.

    \b
    Examples:
      postroom relay pause --reason "Kafka is being upgraded"
      postroom relay pause --topic orders --reason "prices are wrong since 14:00"
    """
    with app.store() as store:
        before = _paused(store.control(), topic)
        changed = store.pause(topic, reason, actor())
    if app.as_json:
        _emit({"topic": topic, "paused": reason, "before": before, "changed": changed})
    elif not changed:
        click.echo(f"{_what(topic)} paused already: {reason}")
    elif before is not None:
        click.echo(f"{_what(topic)} paused already; the reason is now: {reason}")
    else:
        click.echo(f"{_what(topic)} paused: {reason}\n{_SOON} To go on: postroom relay resume{_option(topic)}")


@click.command("resume", cls=Command)
@click.option("--topic", type=TOPIC, help="Only this topic: paused, or stopped at a refused message.")
@click.pass_obj
def resume(app: App, topic: str | None) -> None:
    """Let relays publish again. What waited goes first, in order.

    \b
    Examples:
      postroom relay resume
      postroom relay resume --topic orders
    """
    with app.store() as store:
        control = store.control()
        before = _paused(control, topic)
        changed = store.resume(topic, actor())
    others = sorted(set(control.topics) - {topic})
    if app.as_json:
        _emit({"topic": topic, "paused": None, "before": before, "changed": changed, "still_paused": others})
        return
    click.echo(f"{_what(topic)} no longer paused. {_SOON}" if changed else f"{_what(topic)} not paused.")
    if topic is not None and control.paused is not None:
        click.echo(f"Publishing as a whole is still paused: {control.paused}")
    if others:
        click.echo(f"Still paused by themselves: {', '.join(others)}")


@click.command("limit", cls=Command)
@click.option(
    "--rate", type=Limit(0.001, _HIGHEST_RATE), metavar="N|none", help="Messages per second, of all relays together."
)
@click.option(
    "--batch-size",
    type=Limit(1, _LARGEST_BATCH, whole=True),
    metavar="N|none",
    help="Messages read and sent together; none: as the relays' settings say.",
)
@click.pass_obj
def limit(app: App, rate: float | None, batch_size: float | None) -> None:
    """Limit how fast relays publish, or take the limit away. What is not named stays as it is.

    \b
    Examples:
      postroom relay limit --rate 500
      postroom relay limit --rate none
      postroom relay limit --batch-size 100
    """
    if rate is None and batch_size is None:
        raise click.UsageError("Say what to limit: --rate, --batch-size, or both.")
    with app.store() as store:
        before = store.control()
        wanted_rate = before.rate if rate is None else rate or None
        wanted_size = before.batch_size if batch_size is None else int(batch_size) or None
        changed = store.limit(wanted_rate, wanted_size, actor())
    if app.as_json:
        told = {"rate": wanted_rate, "batch_size": wanted_size, "changed": changed}
        _emit({**told, "before": {"rate": before.rate, "batch_size": before.batch_size}})
        return
    click.echo(f"rate        {_told(wanted_rate, 'messages/s of all relays together')}{_was(wanted_rate, before.rate)}")
    click.echo(f"batch size  {_told(wanted_size, 'messages')}{_was(wanted_size, before.batch_size)}")
    click.echo(_SOON if changed else "Nothing was changed.")


def _paused(control: "Control", topic: str | None) -> str | None:
    return control.paused if topic is None else control.topics.get(topic)


def _what(topic: str | None) -> str:
    return "Publishing is" if topic is None else f"Topic {topic} is"


def _option(topic: str | None) -> str:
    return "" if topic is None else f" --topic {topic}"


def _told(limit: float | None, unit: str) -> str:
    return "no limit" if limit is None else f"{limit:g} {unit}"


def _was(now: float | None, before: float | None) -> str:
    return "" if now == before else f" (was {'none' if before is None else f'{before:g}'})"


def _emit(document: dict[str, Any]) -> None:
    from . import output

    output.emit(document)
