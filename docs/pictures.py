"""Draws the terminal pictures in docs/pictures with the functions that print, from made-up data. A test compares.

.venv/bin/python docs/pictures.py
"""

import io
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from postroom.cli import output
from postroom.cli.app import App
from postroom.cli.dlq.letters import print_letter, print_list, print_statistics
from postroom.cli.dlq.reports import report
from postroom.cli.errors import Incomplete
from postroom.dlq import Action, DeadLetter, Draft, Group, Pace, Plan, Ran, State, Statistics
from postroom.messaging.dead_letter import Failure, dead_letter_headers
from postroom.messaging.records import Partition, ReceivedRecord

PICTURES = Path(__file__).parent / "pictures"
WIDTHS = (80, 200)
NOW = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
_HANDLER = "shop.billing.charge"
#: rich's own, without the fonts that it would load from elsewhere.
_SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: "Fira Code", ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: arial; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class ConnectionRefused(Exception):
    """What the gateway's client raises."""

    __module__ = "shop.gateway"


class UnknownCurrency(Exception):
    """What the handler raises."""

    __module__ = "shop.rates"


def letters() -> list[DeadLetter]:
    """The dead letters of all pictures, the latest first."""
    gateway, currency = ConnectionRefused("gateway.example:443 refused"), UnknownCurrency("no rate for 'ISK'")
    late = TimeoutError("no answer from the ledger within 30 s")
    made = [
        _letter(48, 4, "o-1093", gateway, 12, "shop.order.placed"),
        _letter(47, 2, "o-1088", gateway, 13, "shop.order.placed"),
        _letter(44, 9, "o-1071", late, 55, "shop.order.placed", State.PLANNED),
        _letter(31, 5, "o-0944", currency, 190, "shop.order.changed", State.CONFIRMED, 1),
        _letter(30, 5, "o-0944", currency, 230, "shop.order.changed", State.FAILED_AGAIN),
        _letter(12, 0, "o-0210", currency, 3_100, "shop.order.placed", State.QUARANTINED, 3),
    ]
    return [*made[:3], made[3]._replace(follows=30), *made[4:]]


def statistics() -> Statistics:
    """Of the same failures, as there are more of them."""
    latest = {letter.id: letter for letter in letters()}
    groups = [
        _group(latest[48], 1_204, 20, {State.DEAD: 1_204}, [0] * 19 + [3, 180, 420, 391, 210]),
        _group(latest[31], 87, 3_100, {State.DEAD: 3, State.CONFIRMED: 83, State.QUARANTINED: 1}, [4, 3] * 12),
        _group(latest[44], 2, 75, {State.DEAD: 1, State.PLANNED: 1}, [0] * 22 + [1, 1]),
    ]
    return Statistics(groups, 3, 1_293, NOW - timedelta(days=1), NOW)


def draw(name: str, width: int) -> Console:
    """One picture, on a console that recorded it."""
    console = Console(record=True, width=width, file=io.StringIO(), highlight=False, emoji=False, markup=False)
    with _fixed():
        command, body = _PICTURES[name]
        console.print(Text(f"$ {command}", style="bold green"))
        body(console)
    return console


def svg(name: str, width: int) -> str:
    """One picture as SVG."""
    title = _PICTURES[name][0].partition(" --")[0]
    return draw(name, width).export_svg(
        title=title, theme=DIMMED_MONOKAI, code_format=_SVG, unique_id=f"{name}-{width}"
    )


def generated() -> dict[Path, str]:
    """Every picture and what belongs in it."""
    return {PICTURES / f"dlq-{name}-{width}.svg": svg(name, width) for name in _PICTURES for width in WIDTHS}


def _list(console: Console) -> None:
    print_list(console, letters())


def _stats(console: Console) -> None:
    found = statistics()
    print_statistics(console, found, "fingerprint", {group.example: group.message for group in found.groups})


def _show(console: Console) -> None:
    confirmed, failed = letters()[3:5]
    moments = [NOW - timedelta(minutes=minutes) for minutes in (231, 200, 199, 189)]
    done = [
        Action(1, moments[0], "postroom", "fail", 31, None, "replayed", "failed-again", "It died again."),
        Action(2, moments[1], "ada@desk", "plan", 31, 7, "dead", "planned", "rate for ISK added"),
        Action(3, moments[2], "ada@desk", "replay", 31, 7, "planned", "replayed", "rate for ISK added"),
        Action(4, moments[3], "postroom", "confirm", 31, 7, "replayed", "confirmed", "Its inbox handled it."),
    ]
    later = _letter(52, 5, "o-0944", UnknownCurrency("no rate for 'ISK'"), 5, "shop.order.changed")
    print_letter(console, confirmed, done[:0:-1], [failed, confirmed, later], [failed])


def _replay(console: Console) -> None:
    targets = Counter({("orders", "billing"): 1_204})
    draft = Draft(list(range(48, 48 + 1_204)), targets, [], Counter(), [])
    counts = Counter({State.CONFIRMED: 1_201, State.FAILED_AGAIN: 3})
    plan = Plan(
        id=7,
        created_at=NOW,
        actor="ada@desk",
        reason="the gateway is back",
        wanted="error ConnectionRefused",
        targets=list(targets),
        total=1_204,
        pace=Pace((1, 10, 100), None, 0.1),
        state="done",
        told=None,
        paced_until=0.0,
        changed_at=NOW,
        counts=counts,
    )
    told = io.StringIO()
    with redirect_stdout(told):
        try:
            report(App(), Ran(1_204, plan), draft, waited=True)
        except Incomplete as error:
            told.write(f"Error: {error.message}")
    console.print(Text(told.getvalue().rstrip()))


def _letter(  # noqa: PLR0917  rows of a table
    id_: int,
    partition: int,
    key: str,
    error: Exception,
    minutes: int,
    type_: str,
    state: State = State.DEAD,
    replays: int = 0,
) -> DeadLetter:
    failed = NOW - timedelta(minutes=minutes)
    own = [
        ("ce_specversion", b"1.0"),
        ("ce_id", f"0199c5f2-7d2e-7c6e-9a6e-0c4b9d7e{id_:04d}".encode()),
        ("ce_source", b"/shop"),
        ("ce_type", type_.encode()),
        ("ce_subject", key.encode()),
        ("content-type", b"application/json"),
    ]
    if replays:
        own.append(("postroom_replay_count", str(replays).encode()))
    payload = f'{{"order_id": "{key}", "currency": "ISK", "total": "19.90"}}'.encode()
    record = ReceivedRecord(Partition("orders", partition), 70_000 + id_, key.encode(), payload, own, failed)
    failure = Failure(error, _HANDLER, 5, failed - timedelta(seconds=95), failed)
    headers = dead_letter_headers(record, "billing", failure)
    dead = ReceivedRecord(Partition("orders.billing.dlq", partition), 1_000 + id_, record.key, payload, headers, failed)
    told = DeadLetter.of(dead)
    stack = _stack(error).encode()
    pairs = [(name, stack if name == "postroom_dlq_stack" else value) for name, value in headers]
    return told._replace(
        id=id_, headers=pairs, state=state, state_at=failed + timedelta(minutes=1), plan_id=None, rounds=replays
    )


def _group(letter: DeadLetter, count: int, minutes: int, states: dict[State, int], trend: list[int]) -> Group:
    first = NOW - timedelta(minutes=minutes)
    facts = (letter.error, letter.message, letter.handler, letter.topic, letter.group, letter.id, trend)
    counts: Counter[str] = Counter({str(state): number for state, number in states.items()})
    return Group(letter.fingerprint, count, first, letter.failed_at, counts, *facts)


def _stack(error: Exception) -> str:
    kind = type(error).__name__
    return (
        "Traceback (most recent call last):\n"
        '  File "/srv/shop/billing.py", line 31, in charge\n'
        "    amount = event.total * rates.of(event.currency)\n"
        '  File "/srv/shop/rates.py", line 12, in of\n'
        '    raise UnknownCurrency(f"no rate for {currency!r}")\n'
        f"shop.rates.{kind}: {error}\n"
    )


@contextmanager
def _fixed() -> Iterator[None]:
    """The same moment and time zone wherever the pictures are drawn."""
    zone, ago = os.environ.get("TZ"), output.ago
    try:
        _zone("UTC")
        output.ago = lambda moment: output.duration((NOW - moment).total_seconds())
        yield
    finally:
        output.ago = ago
        _zone(zone)


def _zone(name: str | None) -> None:
    if name is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = name
    time.tzset()


_PICTURES: dict[str, tuple[str, Callable[[Console], None]]] = {
    "stats": ("postroom dlq stats", _stats),
    "list": ("postroom dlq list --topic orders", _list),
    "show": ("postroom dlq show 31", _show),
    "replay": ("postroom dlq replay --error ConnectionRefused --canary 1,10,100 --wait", _replay),
}

if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for path, text in generated().items():
        path.write_text(text)
