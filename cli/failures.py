"""Which failures there are among the messages that are stuck: by fingerprint, with their numbers and their trend."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.console import Console

from . import output
from .app import App
from .finding import failure_of

if TYPE_CHECKING:
    from ..inbox.desk import Held
    from ..outbox.parking import Parked

_WIDE = 120
_BARS = " ▁▂▃▄▅▆▇█"
TREND_HOURS, _BUCKETS = 24, 12
_SHORT = 8
ONLY_WAITS = "(only waits)"


class Trouble(NamedTuple):
    """A message that is stuck: ``id`` is its place in its table, ``error`` None where it only waits."""

    id: int
    topic: str
    group: str | None
    key: bytes | None
    state: str
    error: str | None
    handler: str
    at: datetime

    @property
    def fingerprint(self) -> str | None:
        """Of its failure."""
        return failure_of(self.error, self.handler)


@dataclass(slots=True)
class Failure:
    """One kind of failure. ``sample`` is the id of the latest one, ``error`` its text."""

    fingerprint: str | None
    sample: int
    error: str | None
    handler: str
    first_at: datetime
    last_at: datetime
    count: int = 0
    topics: Counter[str] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)
    trend: list[int] = field(default_factory=lambda: [0] * _BUCKETS)

    def add(self, each: Trouble, now: datetime) -> None:
        """One more of it."""
        self.count += 1
        self.topics[each.topic] += 1
        if each.group is not None:
            self.groups[each.group] += 1
        self.first_at = min(self.first_at, each.at)
        if each.at >= self.last_at:
            self.last_at, self.sample, self.error = each.at, each.id, each.error
        ago = max(now - each.at, timedelta(0)) / timedelta(hours=TREND_HOURS)
        if ago < 1:
            self.trend[-1 - int(ago * _BUCKETS)] += 1

    def document(self) -> dict[str, Any]:
        """In JSON; ``trend`` has the numbers of the last 24 hours, the latest last."""
        return {
            "fingerprint": self.fingerprint,
            "count": self.count,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "trend": self.trend,
            "error": self.error,
            "handler": self.handler or None,
            "topics": sorted(self.topics),
            "groups": sorted(self.groups),
        }


def failures(rows: Iterable[Trouble], now: datetime | None = None) -> list[Failure]:
    """By fingerprint, the most frequent first."""
    now = now or datetime.now(UTC)
    found: dict[str | None, Failure] = {}
    for each in rows:
        fingerprint = each.fingerprint
        if fingerprint not in found:
            found[fingerprint] = Failure(fingerprint, each.id, each.error, each.handler, each.at, each.at)
        found[fingerprint].add(each, now)
    return sorted(found.values(), key=lambda each: (-each.count, each.first_at))


def masked(found: Sequence[Failure], errors_at: Callable[[list[int]], Mapping[int, str | None]]) -> None:
    """Replace the samples' errors by what ``errors_at`` says is to be shown of them; what is gone says nothing."""
    told = errors_at([each.sample for each in found if each.error is not None])
    for each in found:
        each.error = each.error and told.get(each.sample, ONLY_WAITS)


def print_failures(console: Console, found: Sequence[Failure]) -> None:
    """A table."""
    wide = console.width >= _WIDE
    numbers = ("count", "first", "last")
    table = output.table("fingerprint" if wide else "failure", *numbers, "24 hours", "where", "error", right=numbers)
    table.columns[0].max_width, table.columns[5].max_width = 16, 32 if wide else 14
    error = table.columns[-1]
    error.ratio, error.no_wrap, error.overflow = 1, False, "fold"
    table.expand = True
    for each in found:
        fingerprint = each.fingerprint or "-"
        cells = (
            fingerprint if wide else fingerprint[:_SHORT],
            f"{each.count:,}",
            output.ago(each.first_at),
            output.ago(each.last_at),
            sparkline(each.trend),
            each.handler or ", ".join(sorted(each.topics)),
            _clipped(each.error or ONLY_WAITS, 400 if wide else 120),
        )
        table.add_row(*map(output.clean, cells))
    console.print(table)


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def sparkline(numbers: Sequence[int]) -> str:
    """Bars beside each other; a number above 0 is always seen."""
    most = max(numbers, default=0)
    steps = len(_BARS) - 1
    return "".join(_BARS[-(-number * steps // most)] if most else _BARS[0] for number in numbers)


def troubles_of_parked(rows: "Iterable[Parked]") -> Iterator[Trouble]:
    """Of what is parked."""
    for each in rows:
        row = each.row
        yield Trouble(row.position, row.topic, None, row.key, each.state, each.error, "", each.parked_at)


def troubles_of_held(rows: "Iterable[Held]") -> Iterator[Trouble]:
    """Of what is held."""
    for row in rows:
        yield Trouble(row.id, row.topic, row.group, row.key, row.state, row.error, row.handler, row.held_at)


def tell(app: App, found: Sequence[Failure], done: str, closer: str) -> None:
    """Print them; ``closer`` and a fingerprint is the command for those of one."""
    if app.as_json:
        output.emit({"failures": [each.document() for each in found], "total": sum(each.count for each in found)})
    elif not found:
        click.echo(f"Nothing of that is {done}.")
    else:
        print_failures(output.console(), found)
        if fingerprint := next((each.fingerprint for each in found if each.fingerprint), None):
            click.echo(f"\nFor those of one: {closer} {fingerprint[:_SHORT]}")
