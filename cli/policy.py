"""``postroom inbox policy``: how handlers are retried and how much they do at once, changed while they run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .actor import actor
from .app import App
from .command import Group
from .inbox_control import group_of, unknown
from .params import GROUP, TEXT

if TYPE_CHECKING:
    from ..inbox.desk import Desk

F = TypeVar("F", bound=Callable[..., Any])
_SOON = "Members look once a second."
_HANDLER = click.option("--handler", type=TEXT, help="Only this handler: its own policy wins over the group's.")
#: As in ``inbox.desk.SETTINGS``, which knows what they may be; a test compares.
_OPTIONS = {
    "attempts": ("N", "Tries before a message becomes a dead letter: 1 to 1,000."),
    "immediate": ("N", "How many of them are made at once, before the message is held: 1 to attempts."),
    "base": ("S", "Upper bound of the first wait between attempts, in seconds: above 0."),
    "cap": ("S", "Upper bound of all waits, in seconds: at least base."),
    "timeout": ("S", "Seconds after which an attempt is given up: above 0."),
    "rate": ("R", "Messages per second: above 0."),
    "concurrency": ("N", "Messages worked on at the same time: 1 to 256."),
    "on_dead_letter": ("go-on|wait", "Does a key go on after a dead letter, or wait until it was replayed?"),
    "dead_letters_per_minute": ("N", "Dead letters within a minute that pause a handler: 0 (never) to 1,000,000."),
    "breaker_threshold": ("X", "Share of failures that opens the breaker: above 0, up to 1."),
    "breaker_open_seconds": ("S", "For how long it stays open, in seconds: above 0."),
}


@dataclass
class _Value(click.ParamType[Any]):
    """The value of a setting."""

    setting: str
    name = "value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from ..inbox.desk import parse_setting
        from ..messaging.errors import UsageError

        try:
            return parse_setting(self.setting, str(value))
        except UsageError as error:
            return self.fail(str(error), param, ctx)


def _settings(function: F) -> F:
    for name, (metavar, meaning) in reversed(_OPTIONS.items()):
        option = f"--{name.replace('_', '-')}"
        function = click.option(option, name, type=_Value(name), metavar=metavar, help=meaning)(function)
    return function


@click.group("policy", cls=Group)
def policy() -> None:
    """How handlers are retried and how much they do at once, changed while they run.

    What operators set here wins over what the handler says, and that over the settings of the inbox.
    """


@policy.command("show")
@click.argument("group", type=GROUP)
@_HANDLER
@click.pass_obj
def show(app: App, group: str, handler: str | None) -> None:
    """Show what operators changed for a group and its handlers.

    \b
    Examples:
      postroom inbox policy show billing
      postroom inbox policy show billing --json | jq '.policies[].policy'
    """
    from . import output
    from .holding import named

    with app.desk() as desk:
        found = [each for each in desk.controls(group) if each.policy and _is_of(each.subject, handler)]
    if app.as_json:
        policies = [
            {"handler": _handler(each.subject), "policy": each.policy, "at": each.changed_at, "by": each.changed_by}
            for each in found
        ]
        output.emit({"group": group, "policies": policies})
        return
    if not found:
        click.echo(f"Nothing is changed for {_whose(group, handler)}: handlers and settings say how it goes.")
        return
    table = output.table("of", "setting", "value", "changed", "by", right=("value",))
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    for each in found:
        of = named(each.subject) or "the whole group"
        for name, value in each.policy.items():
            table.add_row(*map(output.clean, (of, name, str(value), output.ago(each.changed_at), each.changed_by)))
    output.console().print(table)


@policy.command("set")
@click.argument("group", type=GROUP)
@_HANDLER
@_settings
@click.pass_obj
def set_(app: App, /, group: str, handler: str | None, **given: Any) -> None:
    """Change settings of a group's handlers, or of one, until `reset`. What is not named stays as it is.

    \b
    Examples:
      postroom inbox policy set billing --rate 50 --concurrency 4
      postroom inbox policy set billing --handler shop.billing.charge --attempts 20 --cap 300
      postroom inbox policy set billing --on-dead-letter wait
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    if not wanted:
        raise click.UsageError(f"Say what to set: {', '.join('--' + name.replace('_', '-') for name in _OPTIONS)}.")
    _change(app, group, handler, lambda desk: desk.set_policy(group, handler, wanted, actor(), _defaults(app)))


@policy.command("reset")
@click.argument("group", type=GROUP)
@click.argument("names", metavar="[SETTING]...", nargs=-1, type=click.Choice(tuple(_OPTIONS)))
@_HANDLER
@click.pass_obj
def reset(app: App, group: str, names: tuple[str, ...], handler: str | None) -> None:
    """Take changes back, all of them or those of the settings named: handlers and settings say again how it goes.

    Without --handler it is the group's policy; those of its handlers stay.

    \b
    Examples:
      postroom inbox policy reset billing
      postroom inbox policy reset billing rate concurrency --handler shop.billing.charge
    """
    _change(app, group, handler, lambda desk: desk.reset_policy(group, handler, names, actor(), _defaults(app)))


def _change(app: App, group: str, handler: str | None, change: "Callable[[Desk], tuple[Any, Any]]") -> None:
    from ..inbox.desk import told
    from . import output

    with app.desk() as desk:
        _, known = group_of(desk, group)
        before, after = change(desk)
    changed = before != after
    if app.as_json:
        output.emit({"group": group, "handler": handler, "policy": after, "before": before, "changed": changed})
        return
    click.echo(output.clean(f"{_whose(group, handler).capitalize()}: {told(after)}."))
    click.echo(f"Before: {told(before)}.\n{_SOON}" if changed else "Nothing was changed.")
    if not known:
        click.echo(unknown(group))


def _defaults(app: App) -> dict[str, float]:
    """What the settings say, where they have to fit what is set here; what handlers say is not known."""
    settings = app.settings.inbox
    return {"base": settings.backoff_base_seconds, "cap": settings.backoff_cap_seconds}


def _is_of(subject: str, handler: str | None) -> bool:
    return handler is None or subject == f"handler:{handler}"


def _handler(subject: str) -> str | None:
    return subject.removeprefix("handler:") or None


def _whose(group: str, handler: str | None) -> str:
    return f"group {group}" if handler is None else f"handler {handler} of group {group}"
