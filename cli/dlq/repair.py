"""``postroom dlq edit|discard|release|reopen``: repairing dead letters, and putting them aside."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..actor import actor
from ..app import App
from ..command import Command, changes_data
from ..finding import finding
from ..params import HEADER, KEY, TEXT
from .choosing import check_meant, meant
from .desk import looks, opened
from .find import STATES

if TYPE_CHECKING:
    from ...dlq import DeadLetter, Repair
    from ..finding import Finding

_ALL = "All of them that can be."


@click.command("edit", cls=Command)
@click.argument("letter", metavar="ID")
@click.option("--patch", metavar="JSON|@FILE", help="A JSON Patch (RFC 6902) of the payload.")
@click.option("--payload", metavar="TEXT|@FILE", help="The new payload, instead of the old one.")
@click.option("--header", "headers", type=HEADER, multiple=True, metavar="NAME=VALUE", help="Set this header.")
@click.option("--remove-header", "removed", multiple=True, metavar="NAME", help="Take this header off.")
@click.option("--key", type=KEY, help="The new key; base64:… or 0x… for bytes that are no text.")
@click.option("--models", multiple=True, metavar="MODULE[:OBJECT]", help="Whose models to validate by  [dlq.models].")
@click.option("--force", is_flag=True, help="Store what its model refuses, too.")
@click.option("--reason", type=TEXT, help="Written down with it.")
@looks
@changes_data
@click.pass_obj
def edit(
    app: App,
    /,
    *,
    letter: str,
    patch: str | None,
    payload: str | None,
    headers: tuple[tuple[str, bytes | None], ...],
    removed: tuple[str, ...],
    key: bytes | None,
    models: tuple[str, ...],
    force: bool,
    reason: str | None,
    fresh: bool,
    named: tuple[str, ...],
    yes: bool,
    dry_run: bool,
) -> None:
    """Repair a dead letter: a new one with an id of its own takes its place, and the old one is discarded.

    Without --patch, --payload, --header, --remove-header or --key, the payload is opened in $EDITOR. What is to be
    redacted is masked there; the original values are put back. The new letter is replayed like any other.

    \b
    Examples:
      postroom dlq edit 17
      postroom dlq edit 17 --patch '[{"op": "replace", "path": "/total", "value": 12.50}]' --reason "wrong total"
      postroom dlq edit 17 --payload @fixed.json --models shop.events --yes
      postroom dlq edit 17 --remove-header expires_at --dry-run
    """
    from ...dlq import edit as store
    from ...dlq import edited, get
    from .. import output
    from .editing import Validation, differences, print_differences

    if patch is not None and payload is not None:
        raise click.UsageError("Give --patch or --payload, not both.")
    validation = Validation(models or app.settings.dlq.models, force=force)
    with opened(app, fresh=fresh, named=named) as ledger:
        before = get(ledger, letter)[0]
        repair = _repair(app, before, patch, payload, headers, removed, key)
        after = before if repair is None else edited(before, repair)
        if repair is None or after is before:
            _tell_unchanged(app, before, dry_run=dry_run)
            return
        lines = differences(app, before, after)
        if not app.as_json:
            print_differences(lines)
        validation(after)
        if not app.as_json:
            click.echo(f"\n{output.clean(validation.told)}")
        if not dry_run:
            output.confirm(f"Put this in the place of dead letter {before.id}?", yes=yes)
            after = store(ledger, before.id, repair, actor=actor(), reason=reason, check=validation)
    if app.as_json:
        made = {} if dry_run else {"letter": after.id, "message_id": after.message_id}
        told = {"replaces": before.id, "changes": lines, "validation": validation.told, "model": validation.model}
        output.emit({**made, **told, "changed": 0 if dry_run else 1, "dry_run": dry_run})
        return
    if dry_run:
        click.echo(f"Would be put in the place of dead letter {before.id}.")
        return
    click.echo(f"Dead letter {after.id} takes the place of {before.id}, which is discarded.")
    click.echo(f"To replay it: postroom dlq replay {after.id}")


@click.command("discard", cls=Command)
@click.argument("letters", nargs=-1, metavar="[ID]...")
@finding(states=STATES)
@click.option("--all", "everything", is_flag=True, help=_ALL)
@click.option("--reason", type=TEXT, required=True, help="Written down with each of them.")
@looks
@changes_data
@click.pass_obj
def discard(app: App, /, *, reason: str, **options: Any) -> None:
    """Put dead letters aside for good: no replay takes them. They stay in the ledger, and `reopen` brings them back.

    \b
    Examples:
      postroom dlq discard 17 18 --reason "test orders"
      postroom dlq discard --error "NoSuchCustomer" --until 7d --reason "customers are gone" --dry-run
    """
    from ...dlq import discard as change

    _run(app, "discard", "discarded", change, reason=reason, **options)


@click.command("release", cls=Command)
@click.argument("letters", nargs=-1, metavar="[ID]...")
@finding()
@click.option("--all", "everything", is_flag=True, help=_ALL)
@click.option("--reason", type=TEXT, help="Written down with each of them.")
@looks
@changes_data
@click.pass_obj
def release(app: App, /, *, reason: str | None, **options: Any) -> None:
    """Let quarantined dead letters go on: they are dead again, and their replays are counted anew.

    \b
    Examples:
      postroom dlq release 17 --reason "fixed in 2.4"
      postroom dlq release --fingerprint 3f9a --yes
    """
    from ...dlq import release as change

    _run(app, "release", "released", change, reason=reason, **options)


@click.command("reopen", cls=Command)
@click.argument("letters", nargs=-1, metavar="[ID]...")
@finding(states=STATES)
@click.option("--all", "everything", is_flag=True, help=_ALL)
@click.option("--reason", type=TEXT, help="Written down with each of them.")
@looks
@changes_data
@click.pass_obj
def reopen(app: App, /, *, reason: str | None, **options: Any) -> None:
    """Make discarded, replayed and confirmed dead letters dead again, so that a replay takes them.

    What its inbox handled runs once more only if it is told to; see `replay --again`.

    \b
    Examples:
      postroom dlq reopen 17 --reason "discarded by mistake"
      postroom dlq reopen --state discarded --since 1d
    """
    from ...dlq import reopen as change

    _run(app, "reopen", "reopened", change, reason=reason, **options)


def _repair(
    app: App,
    letter: "DeadLetter",
    patch: str | None,
    payload: str | None,
    headers: tuple[tuple[str, bytes | None], ...],
    removed: tuple[str, ...],
    key: bytes | None,
) -> "Repair | None":
    """What the options say, or the editor; None where it says nothing. Raises click.UsageError, UsageError."""
    from ...dlq import KEPT, Repair, patched
    from .editing import given, in_editor

    new: Any = KEPT
    if patch is not None:
        new = patched(letter.payload, given(patch))
    elif payload is not None:
        new = app.redaction.restore(given(payload), letter.payload or b"")
    elif not headers and not removed and key is None:
        new = in_editor(app, letter)
        if new is None:
            return None
    return Repair(payload=new, key=KEPT if key is None else key, set=_texts(headers), remove=removed)


def _texts(headers: tuple[tuple[str, bytes | None], ...]) -> dict[str, str]:
    texts = {}
    for name, value in headers:
        if value is None:
            raise click.UsageError(f"--header {name} must be NAME=VALUE; --remove-header takes a header off.")
        try:
            texts[name] = value.decode()
        except UnicodeDecodeError:
            raise click.UsageError(f"The value of --header {name} is no text.") from None
    return texts


def _tell_unchanged(app: App, letter: "DeadLetter", *, dry_run: bool) -> None:
    from .. import output

    if app.as_json:
        output.emit({"replaces": letter.id, "changes": [], "changed": 0, "dry_run": dry_run})
    else:
        click.echo("Nothing was changed.")


def _run(
    app: App,
    verb: str,
    done: str,
    change: Callable[..., int],
    /,
    *,
    letters: tuple[str, ...],
    found: "Finding",
    everything: bool,
    reason: str | None,
    fresh: bool,
    named: tuple[str, ...],
    yes: bool,
    dry_run: bool,
) -> None:
    """Ask, change what may be changed, and tell how many there were, and how many were left out."""
    from ...dlq import changeable, count
    from .. import output

    check_meant(letters, found, everything=everything)
    with opened(app, fresh=fresh, named=named) as ledger:
        wanted, words = meant(ledger, letters, found)
        ids = changeable(ledger, wanted, verb)
        others = sum(count(ledger, wanted).values()) - len(ids)
        changed = 0
        if ids and not dry_run:
            output.confirm(f"{verb.capitalize()} {output.counted(len(ids), 'dead letter')} ({words})?", yes=yes)
            with output.progress(verb, len(ids), hidden=app.as_json) as advance:
                changed = change(
                    ledger, ids, actor=actor(), reason=reason, observer=lambda _, **facts: advance(facts["count"])
                )
    if app.as_json:
        output.emit({"changed": changed, "would_change": len(ids), "others": others, "dry_run": dry_run})
        return
    if others:
        why = (
            "is left out; its state does not allow it" if others == 1 else "are left out; their states do not allow it"
        )
        click.echo(f"{output.counted(others, 'dead letter')} {why}.")
    number = len(ids) if dry_run else changed
    click.echo(f"{output.counted(number, 'dead letter')} {'would be ' if dry_run else ''}{done}.")
