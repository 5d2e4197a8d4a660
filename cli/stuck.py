"""``postroom stuck``: dead letters, held and parked messages together, and where to look closer."""

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import click

from . import scan
from .app import App
from .command import Command
from .finding import Finding, finding

if TYPE_CHECKING:
    from rich.console import Console

    from .failures import Trouble

Kind = Literal["dead-letter", "held", "parked"]
_WIDE = 120
_LISTS: dict[str, str] = {
    "dead-letter": "postroom dlq list",
    "held": "postroom inbox held list",
    "parked": "postroom outbox parked list",
}


@dataclass(frozen=True, slots=True)
class StuckRow:
    """Messages of one kind, topic, group and state. ``error``: the most frequent one; None where they only wait.

    ``command`` lists them.
    """

    kind: Kind
    topic: str
    group: str | None
    state: str
    count: int
    oldest_at: datetime
    error: str | None
    command: str


@click.command("stuck", cls=Command)
@finding(without=("message_id", "fingerprint", "headers", "match"))
@click.option("--fail", is_flag=True, help="End with exit code 1 when anything is stuck.")
@click.option("--sync/--no-sync", "fresh", default=True, help="Read the dead-letter topics first [yes].")
@click.pass_obj
def stuck(app: App, /, found: Finding, fail: bool, fresh: bool) -> None:
    """List what is stuck anywhere: dead letters, held messages, parked messages.

    Without --fail the exit code is 0, whatever there is.

    \b
    Examples:
      postroom stuck
      postroom stuck --group billing --since 2h
      postroom stuck --fail --json > stuck.json
    """
    from . import output

    rows = [*_dead_counts(app, found, fresh=fresh), *_held_counts(app, found), *_parked_counts(app, found)]
    rows.sort(key=lambda row: (list(_LISTS).index(row.kind), row.oldest_at))
    if app.as_json:
        output.emit({"stuck": [asdict(row) for row in rows], "total": sum(row.count for row in rows)})
    elif rows:
        print_stuck(output.console(), rows)
    else:
        click.echo("Nothing of that is stuck." if found else "Nothing is stuck.")
    if fail and rows:
        raise click.exceptions.Exit(1)


def _dead_counts(app: App, found: Finding, *, fresh: bool) -> list[StuckRow]:
    from ..dlq import Filter, State, masked, open_counts
    from .dlq.desk import opened, wanted
    from .dlq.letters import error_of

    asked: Filter = replace(wanted(found), states=frozenset({State.DEAD, State.PLANNED, State.QUARANTINED}))
    with opened(app, fresh=fresh) as ledger:
        counts = open_counts(ledger, asked)
        examples = {letter.id: letter for letter in ledger.letters([each.example for each in counts])}
    return [
        StuckRow(
            "dead-letter",
            each.topic,
            each.group,
            each.state,
            each.count,
            each.oldest_at,
            error_of(masked(examples[each.example], app.redaction)) if each.example in examples else None,
            command_of("dead-letter", each.topic, each.group, each.state, found),
        )
        for each in counts
    ]


def print_stuck(console: "Console", rows: Sequence[StuckRow]) -> None:
    """A table; below it the commands, where it has no room for them."""
    from . import output

    wide = console.width >= _WIDE
    more = ("look closer",) if wide else ()
    table = output.table(
        "kind", "topic", "group", "state", "count", "oldest", "error", *more, right=("count", "oldest")
    )
    table.columns[1].max_width, table.columns[2].max_width = (24, 24) if wide else (12, 10)
    for column in table.columns[6:]:
        column.ratio, column.no_wrap, column.overflow = 1, False, "fold"
    table.expand = True
    for row in rows:
        cells = (
            row.kind.removesuffix("-letter"),
            row.topic,
            row.group or "-",
            row.state,
            f"{row.count:,}",
            output.ago(row.oldest_at),
            row.error or "-",
            *((row.command,) if wide else ()),
        )
        table.add_row(*map(output.clean, cells))
    console.print(table)
    if not wide:
        console.print("\nTo look closer:")
        for row in rows:
            console.print(output.clean(row.command), overflow="fold")


def command_of(kind: Kind, topic: str, group: str | None, state: str | None, filters: Finding) -> str:
    """The command that lists them, for a shell."""
    from . import output

    def moment(given: datetime | None) -> str | None:
        return None if given is None else given.isoformat(timespec="seconds")

    options = {
        "--topic": topic,
        "--group": group,
        "--state": state,
        "--type": filters.type,
        "--key": None if filters.key is None else output.shown(filters.key),
        "--error": filters.error,
        "--since": moment(filters.since),
        "--until": moment(filters.until),
    }
    given = (f"{name} {shlex.quote(value)}" for name, value in options.items() if value is not None)
    return " ".join((_LISTS[kind], *given))


@dataclass(slots=True)
class _Tally:
    """Of one topic, group and state; ``samples``: an id and the text by fingerprint."""

    oldest_at: datetime
    count: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    samples: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, each: "Trouble") -> None:
        self.count += 1
        self.oldest_at = min(self.oldest_at, each.at)
        if each.error is not None and (fingerprint := each.fingerprint) is not None:
            self.errors[fingerprint] += 1
            self.samples[fingerprint] = each.id, each.error

    def sample(self) -> tuple[int, str] | None:
        """Of the most frequent error."""
        return self.samples[self.errors.most_common(1)[0][0]] if self.errors else None


def _held_counts(app: App, found: Finding) -> list[StuckRow]:
    from .failures import troubles_of_held
    from .masking import held

    with app.desk() as desk:
        troubles = troubles_of_held(scan.held(desk, found))
        return list(
            _rows(app, "held", found, troubles, lambda ids: {r.id: held(r, app.redaction).error for r in desk.at(ids)})
        )


def _parked_counts(app: App, found: Finding) -> list[StuckRow]:
    from .failures import troubles_of_parked
    from .masking import parked

    if found.group is not None:  # what is parked belongs to no group
        return []
    with app.parking() as parking:

        def errors_at(positions: list[int]) -> Mapping[int, str | None]:
            return {each.row.position: parked(each, app.redaction).error for each in parking.at(positions)}

        return list(_rows(app, "parked", found, troubles_of_parked(scan.parked(parking, found)), errors_at))


def _rows(
    app: App,
    kind: Kind,
    found: Finding,
    troubles: "Iterable[Trouble]",
    errors_at: Callable[[list[int]], Mapping[int, str | None]],
) -> Iterator[StuckRow]:
    """By topic, group and state; ``errors_at`` gives the errors of messages as they may be shown."""
    tallies: dict[tuple[str, str | None, str], _Tally] = {}
    for each in troubles:
        where = each.topic, each.group, each.state
        if where not in tallies:
            tallies[where] = _Tally(each.at)
        tallies[where].add(each)
    samples = {where: tally.sample() for where, tally in tallies.items()}
    masked = errors_at([sample[0] for sample in samples.values() if sample]) if app.redaction else None
    for where, tally in tallies.items():
        sample, (topic, group, state) = samples[where], where
        error: Any = sample and (sample[1] if masked is None else masked.get(sample[0]))
        command = command_of(kind, topic, group, state, found)
        yield StuckRow(kind, topic, group, state, tally.count, tally.oldest_at, error, command)
