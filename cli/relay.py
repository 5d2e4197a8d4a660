"""``postroom relay``: the daemon that publishes, and what can be asked of it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .app import App
from .command import Group, changes_data

if TYPE_CHECKING:
    from .statistics import Shard


@click.group("relay", cls=Group)
def relay() -> None:
    """The daemon that publishes what the outbox holds."""


@relay.command("run")
@click.pass_obj
def run(app: App) -> None:
    """Publish until SIGTERM or Ctrl-C; then finish what is in flight, release the shards and exit with 0.

    Several relays share the work. While Kafka or the database is away it waits; the log on stderr says so.

    \b
    Examples:
      postroom relay run
      postroom relay run --set relay.batch_size=5000 --set log_level=debug
    """
    from ..messaging.backoff import Backoff
    from ..outbox import schema
    from ..outbox.database import open_store
    from ..relay import Relay
    from .logs import observer
    from .serve import Signals, await_tables, run_services

    settings = app.settings
    observe = observer("json" if app.as_json else settings.log_format, settings.log_level, service="relay")
    with Signals(observe) as signals:
        kafka = app.kafka()
        service = Relay(open_store(app.database_url, app.names), kafka, settings=settings.relay, observer=observe)
        observe("starting", owner=service.owner, bootstrap_servers=settings.kafka_bootstrap_servers)
        backoff = Backoff(settings.relay.backoff_base_seconds, settings.relay.backoff_cap_seconds)
        if await_tables(lambda: schema.check(app.database_url, app.names), backoff, signals, observe):
            observe("started")
            run_services([service], signals)
        else:
            observe("stopped")


@relay.command("status")
@click.pass_obj
def status(app: App) -> None:
    """Show which relay owns which shards, and how much waits to be published.

    \b
    Examples:
      postroom relay status
      postroom relay status --json | jq .backlog.oldest_seconds
    """
    from . import output
    from .statistics import Statistics

    with app.store() as store:
        count, oldest = store.backlog()
    shards = Statistics(app.database_url, app.names).shards()
    if app.as_json:
        output.emit({"backlog": {"messages": count, "oldest_seconds": oldest}, "shards": [asdict(s) for s in shards]})
        return
    table = output.table("relay", "shards", "lease", "last settled", right=("lease", "last settled"))
    table.columns[1].no_wrap, table.columns[1].overflow = False, "fold"
    for owner, lease, held in _by_owner(shards):
        settled = [shard.settled_seconds_ago for shard in held if shard.settled_seconds_ago is not None]
        table.add_row(
            output.clean(owner),
            _ranges([shard.shard for shard in held]),
            lease,
            f"{output.duration(min(settled))} ago" if settled else "never",
        )
    output.console().print(table)
    age = f", the oldest for {output.duration(oldest)}" if count else ""
    click.echo(f"\n{output.counted(count, 'message')} waiting to be published{age}.")
    if all(shard.lease_seconds is None or shard.lease_seconds < 0 for shard in shards):
        click.echo("No relay is running.")


@relay.command("reset-cursor")
@changes_data
@click.pass_obj
def reset_cursor(app: App, yes: bool, dry_run: bool) -> None:
    """After a restore into another PostgreSQL cluster: publish what was not settled, and go on from there.

    The relay refuses to run until this was done, since transaction ids start again on another cluster. Stop all
    relays first.

    \b
    Examples:
      postroom relay reset-cursor --dry-run
      postroom relay reset-cursor --yes
    """
    from ..messaging.errors import UsageError
    from ..outbox.postgres import PostgresLog
    from . import output
    from .statistics import Statistics

    with app.store() as store:
        if not isinstance(store, PostgresLog):
            raise UsageError("The log on SQLite has no transaction ids in its cursor; there is nothing to reset.")
        unsettled, retained = Statistics(app.database_url, app.names).unsettled()
        if not dry_run:
            question = (
                f"Re-anchor {output.counted(retained, 'row')}, of which {unsettled} were not settled and are the "
                "next to be published?"
            )
            output.confirm(question, yes=yes)
            retained = store.reset_cursor()
    if app.as_json:
        output.emit({"retained": retained, "to_publish": unsettled, "dry_run": dry_run})
    else:
        would = "Would re-anchor" if dry_run else "Re-anchored"
        click.echo(f"{would} {output.counted(retained, 'row')}; {unsettled} of them are the next to be published.")


def _by_owner(shards: "Sequence[Shard]") -> list[tuple[str, str, "list[Shard]"]]:
    """Owner, lease and shards; those that nobody holds last."""
    from . import output

    held: dict[str, Any] = {}
    free = []
    for shard in shards:
        if shard.owner is None or shard.lease_seconds is None or shard.lease_seconds < 0:
            free.append(shard)
        else:
            held.setdefault(shard.owner, []).append(shard)
    rows = [(owner, output.duration(min(each.lease_seconds for each in owned)), owned) for owner, owned in held.items()]
    return [*rows, ("(nobody)", "-", free)] if free else rows


def _ranges(numbers: Sequence[int]) -> str:
    """``0-3, 7``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
