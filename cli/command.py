"""Commands that share options: settings, ``--json``, ``--debug``, and what changes data."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from .app import App

F = TypeVar("F", bound=Callable[..., Any])


#: Longer than any first sentence.
_WHOLE = 1000


def _common() -> list[click.Option]:
    return [
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, errors too."),
        click.Option(["--config"], metavar="FILE", envvar="POSTROOM_CONFIG", help="Settings file [postroom.toml]."),
        click.Option(
            ["--database-url"], metavar="URL", help="The database, without a password [POSTROOM_DATABASE_URL]."
        ),
        click.Option(
            ["--bootstrap-servers", "kafka_bootstrap_servers"],
            metavar="HOST:PORT",
            help="Kafka [POSTROOM_KAFKA_BOOTSTRAP_SERVERS].",
        ),
        click.Option(
            ["--set", "assignments"],
            metavar="NAME=VALUE",
            multiple=True,
            help="Any other setting, such as relay.lease_seconds=30.",
        ),
        click.Option(["--debug"], is_flag=True, help="Tracebacks, and what the libraries log."),
    ]


COMMON = tuple(str(option.name) for option in _common())


class _Common(click.Command):
    """Has the common options, and shows them apart."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_common())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                (common if param.name in COMMON else own).append(record)
        for title, records in (("Options", own), ("Common options", common)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def take_common(self, ctx: click.Context) -> None:
        app = ctx.ensure_object(App)
        app.take({name: ctx.params.pop(name) for name in COMMON})


class Command(_Common):
    """A command. Its function gets the ``App`` by ``click.pass_obj`` and its own options only."""

    def invoke(self, ctx: click.Context) -> Any:
        self.take_common(ctx)
        return super().invoke(ctx)


class Group(_Common, click.Group):
    """A group of commands; common options may stand before the command, too."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        self.take_common(ctx)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands with their first sentences, whole: click's own would cut them off."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self.commands[name].get_short_help_str(_WHOLE)) for name in self.list_commands(ctx)]
            )


Group.group_class = Group


def changes_data(function: F) -> F:
    """Add ``--yes`` and ``--dry-run``."""
    yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
    dry_run = click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
    return yes(dry_run(function))
