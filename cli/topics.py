"""``postroom topics``: what they promise to their readers, and creating them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .app import App
from .command import Group
from .create import create

if TYPE_CHECKING:
    from ..outbox.compatibility.record import Assessment
    from .models import Model

_FILE = "postroom-schemas.json"
_DIRECTIONS = {
    "mended": "backward mended: upcasters turn old messages into new ones.",
    "backward": "backward: new consumers cannot read old messages.",
    "forward": "forward: old consumers cannot read new messages; deploy consumers before producers.",
}


@click.group("topics", cls=Group)
def topics() -> None:
    """Topics: create them, and check that a change of a model breaks nobody."""


topics.add_command(create)


@topics.command("check")
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option(
    "--file",
    "path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(_FILE),
    show_default=True,
    help="What was recorded last; keep it in your repository.",
)
@click.option("--record", "recording", is_flag=True, help="Write it, unless a change breaks under the same version.")
@click.option("--force", is_flag=True, help="With --record: write it all the same.")
@click.pass_obj
def check(app: App, targets: tuple[str, ...], path: Path, recording: bool, force: bool) -> None:
    """Compare the models' JSON Schemas with those that were recorded last, and say what breaks in which direction.

    TARGET is a module, whose events with a topic and inboxes' handlers are taken, or MODULE:OBJECT, an event or an
    Inbox. It is imported from the working directory, or from what is installed. Exit code 0 where nothing breaks, or
    what was asked for is recorded; 1 where something breaks. Validators are no part of a schema: what they refuse is
    not seen.

    \b
    Examples:
      postroom topics check shop.events --record
      postroom topics check shop.events shop.billing:inbox
      postroom topics check shop.events --json | jq '.models[].changes[]'
    """
    from ..outbox.compatibility.record import Record
    from .models import find_models

    if force and not recording:
        raise click.UsageError("--force goes with --record.")
    models = find_models(targets)
    if not models:
        raise click.ClickException(
            f"No models found in {', '.join(targets)}: define subclasses of Event with a topic there, import them, or "
            "name an Inbox."
        )
    record = Record.load(path)
    if record is None and not recording:
        raise click.ClickException(f"There is no {path} to compare with; write it with --record, and keep it.")
    record = record or Record()
    found = [(model, record.assess(model.contract, model.event.event_upcasters)) for model in models]
    refused = [(model, assessment) for model, assessment in found if assessment.refused and not force]
    written = False
    if recording and not refused:
        written = record.with_(model.contract for model in models).save(path)
    elsewhere = sorted(record.types.keys() - {model.contract.type for model in models})
    if app.as_json:
        _emit(path, found, written=written, elsewhere=elsewhere)
    else:
        _print(path, found, recording=recording and not refused, written=written, elsewhere=elsewhere)
    breaking = [model for model, assessment in found if assessment.state == "breaking"]
    if recording and refused:
        raise click.ClickException(f"Nothing was recorded. {_advice(refused)}, or add --force.")
    if breaking and not recording:
        told = _advice(refused) if refused else "Record it with --record once it is meant"
        types = ", ".join(model.contract.type for model in breaking)
        raise click.ClickException(f"{types}: the change breaks its readers. {told}.")


def _advice(refused: "list[tuple[Model, Assessment]]") -> str:
    """What to do about changes that break under the same version."""
    told = []
    for model, assessment in refused:
        name, last = model.event.__name__, assessment.recorded.version if assessment.recorded else 0
        upcaster = any(change.backward for change in assessment.changes)
        told.append(f"{name} version={last + 1}" + (f" and @{name}.upcast({last}, {last + 1})" if upcaster else ""))
    return f"Give {'; '.join(told)}; or take the change back"


def _emit(path: Path, found: "list[tuple[Model, Assessment]]", *, written: bool, elsewhere: list[str]) -> None:
    from . import output

    output.emit(
        {
            "file": str(path),
            "models": [_document(model, assessment) for model, assessment in found],
            "not_found": elsewhere,
            "compatible": all(assessment.state != "breaking" for _, assessment in found),
            "written": written,
        }
    )


def _document(model: "Model", assessment: "Assessment") -> dict[str, Any]:
    return {
        "type": model.contract.type,
        "model": model.name,
        "topic": model.contract.topic,
        "key": model.contract.key,
        "version": model.contract.version,
        "recorded_version": assessment.recorded and assessment.recorded.version,
        "state": assessment.state,
        "changes": [
            {
                "path": change.path,
                "kind": change.kind,
                "change": change.what,
                "breaks": change.breaks,
                "backward": change.backward,
                "forward": change.forward,
                "certain": change.certain,
                "mended": change.mended,
            }
            for change in assessment.changes
        ],
    }


def _print(
    path: Path,
    found: "list[tuple[Model, Assessment]]",
    *,
    recording: bool,
    written: bool,
    elsewhere: list[str],
) -> None:
    from . import output

    console = output.console()
    table = output.table("type", "version", "model", "state", right=("version",))
    for model, assessment in found:
        contract = model.contract
        table.add_row(output.clean(contract.type), str(contract.version), output.clean(model.name), assessment.state)
    console.print(table)
    changed = [(model, change) for model, assessment in found for change in assessment.changes]
    if changed:
        table = output.table("type", "path", "change", "breaks")
        for column in table.columns[1:]:
            column.no_wrap, column.overflow = False, "fold"
        for model, change in changed:
            table.add_row(*map(output.clean, (model.contract.type, change.path, change.what, _breaks(change))))
        console.print()
        console.print(table)
        console.print()
        for direction, meaning in _DIRECTIONS.items():
            if any(getattr(change, direction) for _, change in changed):
                click.echo(meaning)
    new = sum(assessment.state == "new" for _, assessment in found)
    if recording:
        click.echo(f"Recorded in {path}." if written else f"{path} says so already.")
    elif new:
        click.echo(f"{output.counted(new, 'type')} not recorded yet; add --record.")
    if elsewhere:
        click.echo(f"Recorded, and not looked at: {', '.join(map(output.clean, elsewhere))}.")


def _breaks(change: Any) -> str:
    told = change.breaks or "nothing"
    if not change.certain:
        told = f"cannot tell ({told})"
    return f"{told}; backward mended" if change.mended else told
