"""``postroom dlq export|import|purge|forget``: dead letters in files, and out of the ledger."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from ...dlq.choices import FORMATS
from ...dlq.states import State
from ..actor import actor
from ..app import App
from ..command import Command, changes_data
from ..finding import finding
from ..params import GROUP, KEY, MOMENT, TEXT, TOPIC
from .desk import looks, opened, wanted
from .find import STATES

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...dlq import DeadLetter, Filter, Format, Ledger
    from ...messaging.observer import Observer
    from ..finding import Finding

_TELL_EACH = 500
_PURGEABLE = tuple(state.value for state in State if state not in (State.PLANNED, State.REPLAYED))


@click.command("export", cls=Command)
@finding(states=STATES)
@click.option("--out", metavar="FILE", required=True, help="Write to this file; - is stdout.")
@click.option(
    "--format", "format_", type=click.Choice(FORMATS), help="Of the file [by its name: .parquet, or JSON Lines]."
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
@looks
@click.pass_obj
def export(
    app: App,
    /,
    *,
    found: "Finding",
    out: str,
    format_: "Format | None",
    force: bool,
    fresh: bool,
    named: tuple[str, ...],
) -> None:
    """Write dead letters to a file, complete and byte for byte: JSON Lines, one a line, or Parquet.

    What is to be redacted is masked in the file; a letter with a masked field cannot be replayed from there.

    \b
    Examples:
      postroom dlq export --out letters.jsonl
      postroom dlq export --group billing --since 7d --out letters.parquet
      postroom dlq export --state dead --out - | jq -r .error | sort | uniq -c
    """
    from ...dlq import count, export_letters
    from .. import output

    kind = format_ or _format_of(out)
    if out == "-" and kind == "parquet":
        raise click.UsageError("Parquet goes to a file; give a name with --out.")
    masked = [0]
    with opened(app, fresh=fresh, named=named) as ledger, _written(out, force=force) as stream:
        asked = wanted(found)
        total = None if asked.looks_inside else sum(count(ledger, asked).values())
        with output.progress("exporting", total, hidden=app.as_json) as advance:
            written = export_letters(_told(_shown(app, ledger, asked, masked), advance), stream, kind)
    if out == "-":
        return
    if app.as_json:
        output.emit({"exported": written, "masked": masked[0], "file": out, "format": kind})
        return
    click.echo(f"{output.counted(written, 'dead letter')} written to {output.clean(out)}.")
    if masked[0]:
        click.echo(f"{masked[0]} of them with masked fields; they cannot be replayed from there.")


@click.command("import", cls=Command)
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--format", "format_", type=click.Choice(FORMATS), help="Of the file [by its name: .parquet, or JSON Lines]."
)
@click.option("--reason", type=TEXT, help="Written down with each part.")
@changes_data
@click.pass_obj
def import_(app: App, /, *, file: str, format_: "Format | None", reason: str | None, yes: bool, dry_run: bool) -> None:
    """Put dead letters of a file into the ledger. What is there already is skipped, so it can be run again.

    Those that were planned or replayed are dead here; the others stand as they stood. `-` is stdin.

    \b
    Examples:
      postroom dlq import letters.jsonl --dry-run
      postroom dlq import letters.parquet --reason "from the old cluster" --yes
    """
    from ...dlq import import_letters
    from .. import output

    kind = format_ or _format_of(file)
    if file == "-" and kind == "parquet":
        raise click.UsageError("Parquet is read from a file; give its name.")
    with app.ledger() as ledger, _read(file) as stream:
        if not dry_run:
            output.confirm(f"Import the dead letters of {output.clean(file)}?", yes=yes)
        with output.progress("importing", None, hidden=app.as_json) as advance:
            done = import_letters(
                ledger,
                stream,
                kind,
                actor=actor(),
                reason=reason,
                dry_run=dry_run,
                observer=_observer(advance),
            )
    if app.as_json:
        output.emit({"imported": done.imported, "skipped": done.skipped, "dry_run": dry_run})
        return
    click.echo(f"{output.counted(done.imported, 'dead letter')} {'would be ' if dry_run else ''}imported.")
    if done.skipped:
        click.echo(f"{done.skipped} skipped, as they are in the ledger.")


@click.command("purge", cls=Command)
@click.option(
    "--older-than", "before", type=MOMENT, required=True, help="In their state for so long: 30d, or since a date."
)
@click.option(
    "--state",
    "states",
    type=click.Choice(_PURGEABLE),
    multiple=True,
    help="Of these states  [confirmed, failed-again, discarded].",
)
@click.option("--reason", type=TEXT, help="Written down with it.")
@changes_data
@click.pass_obj
def purge(
    app: App, /, *, before: datetime, states: Sequence[State], reason: str | None, yes: bool, dry_run: bool
) -> None:
    """Delete closed dead letters from the ledger. They are not read again; the record of what was done to them stays.

    Planned and replayed ones are never deleted, nor is what an open letter was edited from.

    \b
    Examples:
      postroom dlq purge --older-than 90d --dry-run
      postroom dlq purge --older-than 2026-01-01 --state discarded --yes
    """
    from ...dlq import CLOSED
    from ...dlq import purge as delete
    from .. import output

    chosen = [State(state) for state in states] or CLOSED
    with app.ledger() as ledger:
        counts = delete(ledger, before, actor=actor(), states=chosen, dry_run=True)
        total = counts.total()
        if total and not dry_run:
            told = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
            output.confirm(f"Delete {output.counted(total, 'dead letter')} from the ledger ({told})?", yes=yes)
            with output.progress("deleting", total, hidden=app.as_json) as advance:
                counts = delete(
                    ledger,
                    before,
                    actor=actor(),
                    reason=reason,
                    states=chosen,
                    observer=_observer(advance),
                )
    if app.as_json:
        output.emit({"deleted": counts, "total": counts.total(), "older_than": before, "dry_run": dry_run})
        return
    told = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
    verb = "would be deleted" if dry_run else "deleted"
    click.echo(f"{output.counted(counts.total(), 'dead letter')} {verb}{f' ({told})' if told else ''}.")


@click.command("forget", cls=Command)
@click.option("--key", type=KEY, help="Of this key; base64:… or 0x… for bytes that are no text.")
@click.option("--subject", help="Of this subject: the header ce_subject, or the key of a message without it.")
@click.option("--topic", type=TOPIC, help="Only of this topic, or in this dead-letter topic.")
@click.option("--group", type=GROUP, help="Only of this consumer group.")
@click.option("--reason", type=TEXT, help="Written down with each of them. Do not name the person.")
@looks
@changes_data
@click.pass_obj
def forget(
    app: App,
    /,
    *,
    key: bytes | None,
    subject: str | None,
    topic: str | None,
    group: str | None,
    reason: str | None,
    fresh: bool,
    named: tuple[str, ...],
    yes: bool,
    dry_run: bool,
) -> None:
    """Erase what is kept of somebody: payloads, headers, keys and stacks of dead letters, held and parked messages.

    Message ids and the record of actions stay. It tells what it cannot erase: the outbox's log, results of handlers,
    and Kafka itself.

    \b
    Examples:
      postroom dlq forget --key customer-7 --dry-run
      postroom dlq forget --subject jane@example.org --reason "request 4711" --yes --json
    """
    from ...dlq import Whose
    from ...dlq import forget as erase
    from .. import output
    from .forgetting import print_report, report

    if (key is None) == (subject is None):
        raise click.UsageError("Say whose messages are meant: give --key or --subject.")
    whose = Whose(key=key, subject=subject, topic=topic, group=group)
    with opened(app, fresh=fresh, named=named) as ledger:
        told = erase(ledger, whose, actor=actor(), dry_run=True)
        if told.erased and not dry_run:
            if not app.as_json:
                print_report(app, told, dry_run=True)
            output.confirm(f"Erase {output.counted(told.erased, 'message')}? It cannot be undone.", yes=yes)
            told = erase(ledger, whose, actor=actor(), reason=reason)
    if app.as_json:
        output.emit({**report(app, told), "dry_run": dry_run})
        return
    print_report(app, told, dry_run=dry_run)


def _observer(advance: "Callable[[int], None]") -> "Observer":
    def observe(_: str, /, **facts: Any) -> None:
        advance(facts["count"] + facts.get("skipped", 0))

    return observe


def _format_of(name: str) -> "Format":
    return "parquet" if name.lower().endswith(".parquet") else "jsonl"


def _shown(app: App, ledger: "Ledger", asked: "Filter", masked: list[int]) -> "Iterator[DeadLetter]":
    """The letters as they may be exported; counts those with masked fields."""
    from ...dlq import each
    from ...dlq import masked as hide

    for letter in each(ledger, asked, records=True):
        shown = hide(letter, app.redaction)
        if letter.masked or shown != letter:
            shown = shown._replace(masked=True)
            masked[0] += 1
        yield shown


def _told(letters: "Iterator[DeadLetter]", advance: "Callable[[int], None]") -> "Iterator[DeadLetter]":
    number = 0
    for number, letter in enumerate(letters, 1):
        yield letter
        if number % _TELL_EACH == 0:
            advance(_TELL_EACH)
    advance(number % _TELL_EACH)


@contextmanager
def _written(out: str, *, force: bool) -> "Iterator[BinaryIO]":
    """The file, which has its name only once it is complete, and is its owner's alone."""
    if out == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(out)
    if path.exists() and not path.is_file():
        raise click.UsageError(f"{out!r} is no regular file; --out - writes to stdout.")
    if path.exists() and not force:
        raise click.UsageError(f"The file {out!r} exists; give another name, or --force.")
    try:
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                yield file  # type: ignore[misc]  # a wrapper that has all of BinaryIO
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                with suppress(OSError):
                    Path(file.name).unlink()
                raise
    except OSError as error:
        raise click.ClickException(f"The file {out!r} cannot be written: {error.strerror}.") from None


@contextmanager
def _read(name: str) -> "Iterator[BinaryIO]":
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115  below
    except OSError as error:
        raise click.UsageError(f"The file {name!r} cannot be read: {error.strerror}.") from None
    with file:
        yield file
