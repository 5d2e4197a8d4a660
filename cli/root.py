"""The root command, and the one place where errors become exit codes."""

import os
import sys
from collections.abc import Sequence

import click

from .. import __version__
from . import errors
from .app import App
from .command import Command, Group
from .demo.command import demo
from .dlq.command import dlq
from .doctor import doctor
from .inbox import inbox
from .outbox import outbox
from .relay import relay
from .show_settings import settings
from .stuck import stuck
from .tables import db, init
from .topics import topics
from .verify import verify

_COMPLETE = "_POSTROOM_COMPLETE"


@click.group(
    "postroom",
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "Settings: a flag wins over the environment (POSTROOM_…), that over postroom.toml; see "
        "`postroom settings`.\n\n\b\n"
        "Exit codes:\n"
        "  0    done\n"
        "  1    failed, or not everything that was asked for could be done\n"
        "  2    wrong usage, or a change that was not confirmed\n"
        "  3    wrong settings; tables missing, outdated or too new\n"
        "  4    the database or Kafka does not answer\n"
        "  130  interrupted by Ctrl-C; what was committed stays\n"
        "  141  the reader of the output went away"
    ),
)
@click.version_option(__version__, prog_name="postroom")
def postroom() -> None:
    """Change your database and tell the other services: outbox, relay, inbox and dead letters on Kafka.

    \b
    Start here:
      postroom init                          make the tables, look for Kafka
      postroom relay run                     publish what the outbox holds
      postroom inbox run shop.billing:inbox  consume
      postroom stuck                         what could not be published or processed
    """


@postroom.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    Examples:
      echo 'eval "$(postroom completion bash)"' >> ~/.bashrc
      echo 'eval "$(postroom completion zsh)"' >> ~/.zshrc
      postroom completion fish > ~/.config/fish/completions/postroom.fish
    """
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None  # noqa: S101  the three are click's own
    click.echo(script(postroom, {}, "postroom", _COMPLETE).source())


for _command in (init, db, relay, outbox, inbox, dlq, stuck, topics, settings, doctor, verify, demo):
    postroom.add_command(_command)


def run(arguments: Sequence[str]) -> int:
    """Run ``postroom`` with ``arguments``; the exit code. Never raises."""
    app = App()
    try:
        if instruction := os.environ.get(_COMPLETE):
            from click.shell_completion import shell_complete

            return shell_complete(postroom, {}, "postroom", _COMPLETE, instruction)
        code = _invoke(arguments, app)
        sys.stdout.flush()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else errors.FAILED
    except BaseException as error:  # noqa: BLE001  whatever it is, it becomes a sentence
        code = _failed(error, app, arguments)
    errors.discard_output()
    return code


def _invoke(arguments: Sequence[str], app: App) -> int:
    try:
        with postroom.make_context("postroom", list(arguments), obj=app) as context:
            postroom.invoke(context)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    return errors.OK


def _failed(error: BaseException, app: App, arguments: Sequence[str]) -> int:
    as_json = app.as_json or errors.wants_json(arguments)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return errors.USAGE
    try:
        return errors.report(error, as_json=as_json, debug=app.debug, secrets=app.secrets())
    except OSError:  # nobody hears it
        return errors.exit_code(error)
