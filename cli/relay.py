"""``postroom relay``: the daemon that publishes, and what can be asked of it."""

from contextlib import closing
from functools import partial

import click

from .app import App
from .command import Group, changes_data
from .control import limit, pause, resume
from .status import status


@click.group("relay", cls=Group)
def relay() -> None:
    """The daemon that publishes what the outbox holds."""


@relay.command("run")
@click.pass_obj
def run(app: App) -> None:
    """Publish until SIGTERM or Ctrl-C; then finish what is in flight, release the shards and exit with 0.

    Several relays share the work. While Kafka or the database is away it waits; the log on stderr says so. With the
    setting health_address it answers probes, /livez and /readyz, and shows /metrics.

    \b
    Examples:
      postroom relay run
      postroom relay run --set relay.batch_size=5000 --set log_level=debug
      postroom relay run --set health_address=0.0.0.0:8080
    """
    from ..messaging.backoff import Backoff
    from ..outbox import schema
    from ..outbox.database import open_store
    from ..relay import Relay
    from .health import probed
    from .logs import observer
    from .measured import Measured
    from .serve import Signals, await_tables, run_services

    settings = app.settings
    log_format = "json" if app.as_json else settings.log_format
    observe = observer(log_format, settings.log_level, app.redaction, app.secrets(), service="relay")
    with Signals(observe) as signals, closing(Measured("relay", app, app.names)) as measured:
        kafka = app.kafka()
        observe = measured.relay(observe)
        service = Relay(open_store(app.database_url, app.names), kafka, settings=settings.relay, observer=observe)
        measured.watch(service)
        probes = {"relay": (service.health.live, service.health.ready)}
        with probed(settings.health_address, probes, observe, measured.page()):
            observe("starting", owner=service.owner, bootstrap_servers=settings.kafka_bootstrap_servers)
            backoff = Backoff(settings.relay.backoff_base_seconds, settings.relay.backoff_cap_seconds)
            check = partial(schema.check, app.database_url, app.names)
            if await_tables(check, backoff, signals, observe, service.health):
                observe("started")
                run_services([service], signals)
            else:
                observe("stopped")


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


for _command in (status, pause, resume, limit):
    relay.add_command(_command)
