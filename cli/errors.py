"""What a failure looks like outside: one sentence on stderr, and an exit code that scripts can use.

0    done
1    failed, or not everything that was asked for could be done
2    wrong usage: an argument, an option, a module path; or a change that was not confirmed
3    wrong settings, or tables that are missing, outdated or too new
4    the database or Kafka does not answer
130  interrupted by Ctrl-C; what was committed stays
141  the reader of the output went away
"""

import json
import sys
from collections.abc import Iterable, Sequence

import click

from ..messaging.errors import ConfigurationError, PostroomError, Unavailable, UsageError

OK = 0
FAILED = 1
USAGE = 2
CONFIGURATION = 3
UNAVAILABLE = 4
INTERRUPTED = 130
BROKEN_PIPE = 141

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (click.Abort, INTERRUPTED),
    (KeyboardInterrupt, INTERRUPTED),
    (BrokenPipeError, BROKEN_PIPE),
    (click.UsageError, USAGE),
    (click.ClickException, FAILED),
    (UsageError, USAGE),
    (ConfigurationError, CONFIGURATION),
    (Unavailable, UNAVAILABLE),
)
_QUIET = (KeyboardInterrupt, click.Abort, BrokenPipeError)
_MASK = "***"
_SHORTEST_SECRET = 3  # shorter ones would black out half of the text


class Incomplete(click.ClickException):
    """What was asked for was done in part; the output tells what was not. Exit code 1."""


def exit_code(error: BaseException) -> int:
    """The code for ``error``; 1 for what is in no table."""
    if _interrupted(error):
        return INTERRUPTED
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def report(error: BaseException, *, as_json: bool, debug: bool, secrets: Iterable[str] = ()) -> int:
    """Tell ``error`` on stderr, without ``secrets``, and return the exit code."""
    code = exit_code(error)
    if isinstance(error, _QUIET) or code == INTERRUPTED:
        return code
    if debug:
        import traceback

        click.echo(masked("".join(traceback.format_exception(error)), secrets), err=True, nl=False)
    text = masked(sentence(error), secrets)
    if as_json:
        click.echo(json.dumps({"error": text, "type": type(error).__name__, "exit_code": code}), err=True)
    else:
        click.echo(f"Error: {text}", err=True)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"Try '{error.ctx.command_path} --help' for help.", err=True)
    return code


def sentence(error: BaseException) -> str:
    """``error`` for people, on one line."""
    if isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, PostroomError):
        text = str(error)
    else:
        text = f"Unexpected {type(error).__name__}: {error}".rstrip(": ")
        text += "; run it again with --debug for the traceback."
    return " ".join(text.split())


def masked(text: str, secrets: Iterable[str]) -> str:
    """``text`` without ``secrets``."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, _MASK)
    return text


def _interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C is behind ``error``: Python and libraries wrap it when it comes in their midst."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KeyboardInterrupt):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def discard_output() -> None:
    """After a broken pipe: let the interpreter flush its buffers into nothing."""
    import os

    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nothing, stream.fileno())


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether errors are to be JSON, known before the arguments could be parsed."""
    return "--json" in arguments
