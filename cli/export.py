"""Writing messages to a file: JSON Lines, one document a line."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from . import output
from .app import App

F = TypeVar("F", bound=Callable[..., Any])


def to_file(function: F) -> F:
    """Add ``--out``."""
    help_ = "Write to this file, which must not exist yet; - is stdout."
    return click.option("--out", type=click.Path(dir_okay=False), required=True, metavar="FILE", help=help_)(function)


def export(app: App, out: str, documents: Iterable[Mapping[str, Any]], noun: str = "message") -> None:
    """Write them, and tell how many. A file is for its owner only, and is removed where it could not be finished.

    Raises click.UsageError for a file that exists, click.ClickException for one that cannot be written.
    """
    if out == "-":
        for document in documents:
            output.emit(document)
        return
    count = 0
    try:
        with open(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123  of a descriptor
            try:
                for count, document in enumerate(documents, 1):  # noqa: B007  it is told below
                    file.write(json.dumps(document, ensure_ascii=True, default=output.plain) + "\n")
            except BaseException:
                Path(out).unlink(missing_ok=True)
                raise
    except FileExistsError:
        raise click.UsageError(f"The file {out!r} exists; give another name.") from None
    except OSError as error:
        raise click.ClickException(f"The file {out!r} cannot be written: {error.strerror}.") from None
    if app.as_json:
        output.emit({"exported": count, "file": out})
    else:
        click.echo(f"{output.counted(count, noun)} written to {output.clean(out)}.")
