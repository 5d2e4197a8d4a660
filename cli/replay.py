"""``postroom outbox replay``: publish again what the log still holds."""

import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from .actor import actor
from .app import App
from .command import Command, changes_data
from .filters import filters, listed, wanted_by
from .params import TEXT, Limit

if TYPE_CHECKING:
    from ..outbox.archive import Archive
    from ..outbox.log import LogStore
    from .copying import Copying

_HIGHEST_RATE = 1_000_000
_EXAMPLES = 3


@click.command("replay", cls=Command)
@filters
@click.option("--all", "everything", is_flag=True, help="All that the log holds.")
@click.option("--copies", is_flag=True, help="Copies that earlier replays made, too.")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only after this position: to go on.")
@click.option("--upto", type=click.IntRange(min=0), help="Only up to this position  [the log's end as it is now].")
@click.option("--rate", type=Limit(0.1, _HIGHEST_RATE), metavar="N|none", help="No more messages per second than this.")
@click.option("--reason", type=TEXT, help="Written down with it.")
@changes_data
@click.pass_obj
def replay(
    app: App,
    /,
    *,
    everything: bool,
    copies: bool,
    after: int,
    upto: int | None,
    rate: float | None,
    reason: str | None,
    yes: bool,
    dry_run: bool,
    **given: Any,
) -> None:
    """Publish messages again that were published before: copies of them go into the log, in their order.

    Key, payload, headers and message id stay byte for byte, so that an inbox that handled a message already finds a
    duplicate and does nothing: a replay is for consumers that are new, or lost what they had. The header
    postroom_replay is added. What waits, is parked or was discarded is not copied. Ctrl-C ends it and says how to go
    on.

    \b
    Examples:
      postroom outbox replay --topic orders --since 2h --dry-run
      postroom outbox replay --topic orders --key o-17 --reason "lost by billing"
      postroom outbox replay --all --since 1d --rate 500 --yes
    """
    from ..messaging.envelope import REPLAY
    from ..outbox.audit import Action
    from . import output
    from .copying import Copying

    if not everything and all(value is None for value in given.values()):
        raise click.UsageError("Say what to replay: --topic, --key, --type, --since, --until, or --all.")
    wanted = wanted_by(given, state="settled", copies=copies)
    with app.archive() as archive, app.store() as store:
        head = archive.head()  # copies come after it, and so are not copied again
        plan = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}/{uuid4().hex[:8]}"
        told = f"{listed(given) or 'all'}; plan {plan}" + (f"; {reason}" if reason else "")
        action = Action(actor(), "replay", given["topic"], reason=told)
        work = Copying(wanted, plan, action, after, head if upto is None else min(upto, head))
        counts = _counted(app, archive, work)
        if not app.as_json:
            _tell_plan(counts, work, dry_run=dry_run)
        done = True
        if counts and not dry_run:
            question = f"Publish {output.counted(counts.total(), 'message')} of {_topics(counts)} again?"
            output.confirm(question, yes=yes)
            done = _run(app, archive, store, work, total=counts.total(), rate=rate or None, given=given)
    if app.as_json:
        _emit(work, counts, dry_run=dry_run, interrupted=not done)
    elif counts and not dry_run and done:
        click.echo(f"copied   {work.copied} (the relay publishes them; {REPLAY}: {plan})")
    if work.skipped and not app.as_json:
        click.echo(f"skipped  {len(work.skipped)} whose headers are broken: {_some(work.skipped)}")
    if not done:
        raise click.Abort


def _run(
    app: App,
    archive: "Archive",
    store: "LogStore",
    work: "Copying",
    *,
    total: int,
    rate: float | None,
    given: dict[str, Any],
) -> bool:
    """Do it; False where a signal ended it, between two transactions."""
    from ..messaging.observer import unobserved
    from . import output
    from .serve import Signals

    def tell_rest(at_least: str) -> None:
        if not app.as_json:
            click.echo(
                f"{work.copied} of {total} copied{at_least}, up to position {work.reached}. To go on:\n"
                f"  {_command(given, rate, copies=work.wanted.copies)} --after {work.reached} --upto {work.upto}",
                err=True,
            )

    try:
        with Signals(unobserved) as signals, output.progress("replaying", total, hidden=app.as_json) as advance:
            done = work.run(archive, store, rate=rate, wait=signals.wait, advance=advance)
    except Exception:
        tell_rest(" at least (`postroom outbox actions` knows for certain)")
        raise
    if not done:
        tell_rest("")
    return done


def _counted(app: App, archive: "Archive", work: "Copying") -> Counter[str]:
    from . import output

    counts: Counter[str] = Counter()
    with output.progress("counting", max(work.upto - work.reached, 0), hidden=app.as_json) as advance:
        before = work.reached
        for found, reached in archive.count(work.wanted, after=work.reached, upto=work.upto):
            counts += found
            advance(reached - before)
            before = reached
    return counts


def _tell_plan(counts: Counter[str], work: "Copying", *, dry_run: bool) -> None:
    from . import output

    if not counts:
        click.echo(f"Nothing to replay: no published message up to position {work.upto} matches.")
        return
    if dry_run:
        click.echo(f"Would publish {output.counted(counts.total(), 'message')} of {_topics(counts)} again.")
    click.echo("An inbox that handled a message already suppresses its copy as a duplicate.")


def _command(given: dict[str, Any], rate: float | None, *, copies: bool) -> str:
    names = {"type_": "type"}
    options = [f"--{names.get(name, name)} {_quoted(value)}" for name, value in given.items() if value is not None]
    options = options or ["--all"]
    options += ["--copies"] if copies else []
    options += [f"--rate {rate:g}"] if rate is not None else []
    return " ".join(["postroom outbox replay", *options])


def _quoted(value: Any) -> str:
    return shlex.quote(value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value))


def _topics(counts: Counter[str]) -> str:
    return _some([f"{topic} ({count})" if len(counts) > 1 else topic for topic, count in sorted(counts.items())])


def _some(values: Sequence[object]) -> str:
    more = f" and {len(values) - _EXAMPLES} more" if len(values) > _EXAMPLES else ""
    return ", ".join(map(str, values[:_EXAMPLES])) + more


def _emit(work: "Copying", counts: Counter[str], *, dry_run: bool, interrupted: bool) -> None:
    from . import output

    output.emit(
        {
            "plan": work.plan,
            "total": counts.total(),
            "topics": counts,
            "copied": work.copied,
            "skipped": work.skipped,
            "reached": work.reached,
            "upto": work.upto,
            "interrupted": interrupted,
            "dry_run": dry_run,
        }
    )
