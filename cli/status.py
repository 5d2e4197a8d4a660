"""``postroom relay status``: who publishes, what waits, and what holds it up."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .app import App
from .command import Command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..outbox.log import LogStore
    from .statistics import Instance, Statistics

#: A transaction that is open for longer is told.
_LONG = 5.0
_EVERY = 1.0


@click.command("status", cls=Command)
@click.option("--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
@click.pass_obj
def status(app: App, watch: bool) -> None:
    """Show the relays and their shards, what waits to be published, and what holds it up.

    The rate is of the last seconds. A backlog of more than 10,000 messages in a shard is not counted to the end but
    extrapolated ("about"). Transactions that wrote messages and are open for more than 5 seconds are named; those of
    other users only with the right pg_read_all_stats.

    \b
    Examples:
      postroom relay status
      postroom relay status --watch
      postroom relay status --json | jq .backlog.oldest_seconds
    """
    from . import output
    from .statistics import Statistics

    if watch and not app.as_json and not sys.stdout.isatty():
        raise click.UsageError("--watch needs a terminal, or --json.")
    with app.store() as store:
        statistics = Statistics(app.database_url, app.names)
        if watch:
            _watch(app, store, statistics)
        elif app.as_json:
            output.emit(_gathered(store, statistics))
        else:
            output.console().print(_rendered(_gathered(store, statistics)))


def _watch(app: App, store: "LogStore", statistics: "Statistics") -> None:
    from rich.live import Live

    from . import output

    try:
        if app.as_json:
            while True:
                output.emit(_gathered(store, statistics))
                sys.stdout.flush()
                time.sleep(_EVERY)
        with Live(console=output.console(), auto_refresh=False) as live:
            while True:
                live.update(_rendered(_gathered(store, statistics)), refresh=True)
                time.sleep(_EVERY)
    except KeyboardInterrupt:  # the way to end it
        return


def _gathered(store: "LogStore", statistics: "Statistics") -> dict[str, Any]:
    """All of it, as JSON has it."""
    backlog = store.backlog()
    shards = statistics.shards()
    held = [shard for shard in shards if shard.owner is not None and (shard.lease_seconds or -1) > 0]
    everything, *topics = statistics.controls()
    return {
        "relays": [_relay(each, [s for s in held if s.owner == each.owner]) for each in statistics.instances()],
        "shards": [asdict(shard) for shard in shards],
        "shards_without_relay": sorted({s.shard for s in shards} - {s.shard for s in held}),
        "backlog": backlog._asdict(),
        "paused": _pause(everything) if everything.paused is not None else None,
        "paused_topics": [{"topic": each.topic, **_pause(each)} for each in topics],
        "limits": {
            "rate": everything.rate,
            "batch_size": everything.batch_size,
            "by": everything.limited_by,
            "at": everything.limited_at,
        },
        "open_transactions": [asdict(each) for each in store.open_transactions(_LONG)],
    }


def _relay(instance: "Instance", held: Sequence[Any]) -> dict[str, Any]:
    settled = [shard.settled_seconds_ago for shard in held if shard.settled_seconds_ago is not None]
    return {
        **asdict(instance),
        "alive": instance.alive_seconds > 0,
        "shards": [shard.shard for shard in held],
        "lease_seconds": min((shard.lease_seconds for shard in held), default=None),
        "settled_seconds_ago": min(settled, default=None),
    }


def _pause(controls: Any) -> dict[str, Any]:
    return {"reason": controls.paused, "by": controls.paused_by, "at": controls.paused_at}


def _rendered(found: dict[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from . import output

    parts: list[RenderableType] = []
    if found["relays"]:
        parts.append(_table(found["relays"]))
    parts += [Text(output.clean(line), overflow="fold") for line in _details(found["relays"])]
    if not any(each["alive"] for each in found["relays"]):
        parts.append(Text("No relay is running.", style="bold red"))
    elif free := found["shards_without_relay"]:
        parts.append(Text(f"No relay holds the shards {_ranges(free)}.", style="yellow"))
    count, oldest, exact = found["backlog"].values()
    age = f", the oldest for {output.duration(oldest)}" if count else ""
    messages = "message" if count == 1 else "messages"
    parts.append(Text(f"{output.amount(count, exact=exact)} {messages} waiting to be published{age}."))
    pauses = [{"topic": None, **found["paused"]}] if found["paused"] else []
    for each in [*pauses, *found["paused_topics"]]:
        what = "Publishing is" if each["topic"] is None else f"Topic {each['topic']} is"
        line = f"{what} paused since {output.local(each['at'])} by {each['by']}: {each['reason']}"
        parts.append(Text(output.clean(line), style="yellow", overflow="fold"))
    limits = found["limits"]
    told = [f"{limits['rate']:g} messages/s"] if limits["rate"] is not None else []
    told += [f"batches of {limits['batch_size']}"] if limits["batch_size"] is not None else []
    if told:
        line = f"Limited to {' and '.join(told)} since {output.local(limits['at'])} by {limits['by']}."
        parts.append(Text(output.clean(line), overflow="fold"))
    if found["open_transactions"]:
        parts += [Text("\nOpen transactions that keep their messages waiting:"), _transactions(found)]
    return Group(*parts)


def _table(relays: Sequence[dict[str, Any]]) -> "RenderableType":
    from . import output

    right = ("lease", "rate", "published", "up")
    table = output.table("relay", "state", "shards", "lease", "rate", "published", "up", right=right)
    for column in (table.columns[0], table.columns[2]):
        column.no_wrap, column.overflow = False, "fold"
    for each in relays:
        alive = each["alive"]
        table.add_row(
            output.clean(each["owner"]),
            output.clean(each["state"]) if alive else f"silent for {output.duration(each['seen_seconds_ago'])}",
            _ranges(each["shards"]) or "-",
            "-" if each["lease_seconds"] is None else output.duration(each["lease_seconds"]),
            f"{each['rate']:,.0f}/s" if alive else "-",
            f"{each['published']:,}",
            output.duration(each["up_seconds"]) if alive else "-",
            style="" if alive else "dim",
        )
    return table


def _details(relays: Sequence[dict[str, Any]]) -> list[str]:
    """Why relays do not publish, one line each."""
    return [
        f"{each['owner']}: {each['state']}: {each['detail']}"
        for each in relays
        if each["alive"] and each["detail"] and each["state"] != "running"
    ]


def _transactions(found: dict[str, Any]) -> "RenderableType":
    from . import output

    table = output.table("pid", "application", "user", "open for", "state", right=("pid", "open for"))
    for each in found["open_transactions"]:
        table.add_row(
            str(each["pid"]),
            output.clean(each["application"]) or "-",
            output.clean(each["user"]) or "-",
            output.duration(each["age"]),
            output.clean(each["state"]),
        )
    return table


def _ranges(numbers: Sequence[int]) -> str:
    """``0-3, 7``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
