"""What ``postroom dlq edit`` is given and shows: a patch, a file or an editor; models; the difference."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...messaging.errors import PostroomError, UsageError
from ..app import App

if TYPE_CHECKING:
    from ...dlq import DeadLetter
    from ..models import Model

_LARGEST_FILE = 100_000_000


def given(text: str) -> bytes:
    """The bytes of an option: those of a file after ``@``, or the text itself. Raises click.UsageError."""
    if not text.startswith("@"):
        return text.encode(errors="surrogateescape")
    path = Path(text[1:])
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise click.UsageError(f"The file {str(path)!r} has more than {_LARGEST_FILE:,} bytes.")
        return path.read_bytes()
    except OSError as error:
        raise click.UsageError(f"The file {str(path)!r} cannot be read: {error.strerror}.") from None


def in_editor(app: App, letter: "DeadLetter") -> bytes | None:
    """The payload as it comes back from $EDITOR; None where it was left as it was. Raises click.UsageError."""
    payload = _editable(app, letter)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("There is no terminal for an editor; give --patch, --payload @FILE, --header or --key.")
    is_json, text = payload
    shown = text
    while True:
        edited = click.edit(text, extension=".json" if is_json else ".txt")
        if edited is None or edited == shown:
            return None
        try:
            return _taken(app, letter, edited, shown, is_json=is_json)
        except UsageError as error:
            click.echo(f"{error}", err=True)
            if not click.confirm("Edit it again?", default=True, err=True):
                return None
            text = edited


def _editable(app: App, letter: "DeadLetter") -> tuple[bool, str]:
    """Whether the payload is JSON, and its text for people, masked."""
    from ...dlq import pretty
    from ...messaging import document
    from ...messaging.redact import NO_JSON

    if letter.payload is None:
        raise click.UsageError("It has no payload, it is a tombstone; give one with --payload @FILE.")
    masked = app.redaction.payload(letter.payload) or b""
    if masked != letter.payload and masked.decode() == NO_JSON:
        raise click.UsageError("It is no JSON, and fields are to be redacted; replace it with --payload @FILE.")
    try:
        text = pretty(masked)
    except UnicodeDecodeError:
        raise click.UsageError("The payload is no text; replace it with --payload @FILE.") from None
    try:
        document.read(masked)
    except ValueError:
        return False, text
    return True, text


def _taken(app: App, letter: "DeadLetter", edited: str, shown: str, *, is_json: bool) -> bytes | None:
    """As it is to be stored; None where only white space changed. Raises UsageError."""
    from ...dlq import compact
    from ...messaging import document

    if not is_json:
        # Most editors end the last line.
        return (edited if shown.endswith("\n") else edited.removesuffix("\n")).encode()
    try:
        if document.read(edited.encode()) == document.read(shown.encode()):
            return None
        return app.redaction.restore(compact(edited.encode()), letter.payload or b"")
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"That is no JSON: {error}.") from None


class Validation:
    """Whether the payload of a letter fits the model of its type."""

    def __init__(self, targets: Sequence[str], *, force: bool) -> None:
        """Raises click.UsageError for what holds no models."""
        self._targets = targets
        self._force = force
        self._models: dict[str, Model] = {}
        if targets:
            from ..models import find_models

            self._models = {model.contract.type: model for model in find_models(targets)}
        self.told = ""
        self.model: str | None = None

    def __call__(self, letter: "DeadLetter") -> None:
        """Raises click.ClickException for a payload that its model refuses, unless forced."""
        from ...messaging.dataschema import HEADER, version_of
        from ...messaging.headers import first

        model = self._models.get(letter.type or "")
        if model is None:
            where = f"no model of {letter.type or 'no type'} in {', '.join(self._targets)}"
            self.told = f"not validated: {where if self._targets else 'no --models'}"
            return
        self.model = model.name
        try:
            model.event.from_payload(letter.payload, version=version_of(first(letter.headers or (), HEADER)))
        except PostroomError as error:
            self.told = f"refused: {error}"
            if not self._force:
                raise click.ClickException(f"{error} Nothing was changed; --force stores it all the same.") from None
        else:
            self.told = f"validated by {model.name}"


def differences(app: App, before: "DeadLetter", after: "DeadLetter") -> list[str]:
    """Lines that begin with + and - where something changes, masked."""
    from ...dlq import changes, masked
    from .. import output

    old, new = masked(before, app.redaction), masked(after, app.redaction)
    lines = changes(old.payload, new.payload).splitlines()
    if before.payload != after.payload and old.payload == new.payload:
        lines.append("  a masked field of the payload changes")
    if before.key != after.key:
        lines += [f"- key: {output.shown(old.key)}", f"+ key: {output.shown(new.key)}"]
    own = ("ce_id", "causation_id")
    was = [(name, value) for name, value in old.headers or () if name not in own]
    is_ = [(name, value) for name, value in new.headers or () if name not in own]
    lines += [f"- header {name}: {output.shown(value)}" for name, value in was if (name, value) not in is_]
    lines += [f"+ header {name}: {output.shown(value)}" for name, value in is_ if (name, value) not in was]
    return [output.clean(line, lines=True) for line in lines]


def print_differences(lines: Sequence[str]) -> None:
    """Coloured, where the terminal takes colours."""
    from .. import output

    coloured = output.colours(sys.stdout)
    for line in lines:
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1]) if coloured else None
        click.echo(click.style(line, fg=colour) if colour else line)
