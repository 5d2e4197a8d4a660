"""``postroom inbox``: consuming."""

from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import click

from ..messaging.errors import ConfigurationError
from .app import App
from .command import Group
from .held import held
from .inbox_control import actions, pause, resume
from .inbox_prune import prune
from .inbox_status import status
from .policy import policy
from .targets import attribute_of, is_dotted

if TYPE_CHECKING:
    from ..inbox import Inbox


@click.group("inbox", cls=Group)
def inbox() -> None:
    """The consuming side: handlers, each message once."""


@inbox.command("run")
@click.argument("target", metavar="MODULE:INBOX")
@click.option("--relay", "with_relay", is_flag=True, help="Run a relay in this process, too.")
@click.pass_obj
def run(app: App, target: str, with_relay: bool) -> None:
    """Consume with the handlers of an Inbox until SIGTERM or Ctrl-C; then finish what is in hand and exit with 0.

    MODULE is imported from the working directory, or from what is installed.

    \b
    Examples:
      postroom inbox run shop.billing:inbox
      postroom inbox run shop.billing:inbox --relay
      postroom inbox run shop.billing:inbox --set inbox.attempts=10
    """
    from ..inbox import InboxRunner
    from ..messaging.backoff import Backoff
    from ..messaging.lifecycle import Service
    from ..outbox import schema
    from ..outbox.database import open_store
    from ..relay import Relay
    from .health import probed
    from .logs import observer
    from .measured import Measured
    from .serve import Signals, await_tables, run_services

    settings = app.settings
    found = load_inbox(target)
    named = {"schema", "tables"} & settings.model_fields_set
    if named and found.names != app.names:
        raise ConfigurationError(
            f"The settings name other tables than the inbox of group {found.group!r}; give it the same, with "
            "Inbox(…, names=Names(…)), or remove schema and tables from the settings."
        )
    log_format = "json" if app.as_json else settings.log_format
    observe = observer(log_format, settings.log_level, app.redaction, app.secrets(), service="inbox", group=found.group)
    with Signals(observe) as signals, closing(Measured("inbox", app, found.names)) as measured:
        kafka = app.kafka()
        observe = measured.inbox(observe, found)
        runner = InboxRunner(
            found, database_url=app.database_url, kafka=kafka, settings=settings.inbox, observer=observe
        )
        measured.watch(runner)
        services: list[Service] = [runner]
        healths = {"inbox": runner.health}
        if with_relay:  # it ends last, so that it publishes what the last handlers wrote
            observe_relay = observer(log_format, settings.log_level, app.redaction, app.secrets(), service="relay")
            store = open_store(app.database_url, found.names)
            relay = Relay(store, kafka, settings=settings.relay, observer=measured.relay(observe_relay))
            measured.watch(relay)
            services.append(relay)
            healths["relay"] = relay.health
        probes = {name: (health.live, health.ready) for name, health in healths.items()}
        with probed(settings.health_address, probes, observe, measured.page()):
            observe("starting", topics=found.topics, bootstrap_servers=settings.kafka_bootstrap_servers)
            backoff = Backoff(settings.inbox.outage_base_seconds, settings.inbox.outage_cap_seconds)
            check = partial(schema.check, app.database_url, found.names)
            if await_tables(check, backoff, signals, observe, *healths.values()):
                observe("started")
                run_services(services, signals)
            else:
                observe("stopped")


@inbox.command("stats")
@click.pass_obj
def stats(app: App) -> None:
    """Count the messages that each group closed, as long as their rows are kept.

    Outcomes: handled, dead-lettered, expired (too late to be of use), discarded (by an operator).

    \b
    Examples:
      postroom inbox stats
      postroom inbox stats --json | jq '.[] | select(.outcome == "dead-lettered")'
    """
    from . import output
    from .statistics import Statistics

    app.require_tables()
    rows = Statistics(app.database_url, app.names).inbox()
    if app.as_json:
        output.emit([asdict(row) for row in rows])
        return
    if not rows:
        click.echo("No group has closed a message yet.")
        return
    table = output.table("group", "topic", "outcome", "messages", "last", right=("messages", "last"))
    for row in rows:
        last = f"{output.duration(row.last_seconds_ago)} ago"
        table.add_row(output.clean(row.group), output.clean(row.topic), row.outcome, str(row.count), last)
    output.console().print(table)


for _command in (held, status, pause, resume, policy, actions, prune):
    inbox.add_command(_command)


def load_inbox(target: str) -> "Inbox":
    """The Inbox that ``module:attribute`` names. Raises click.UsageError, in one sentence."""
    from ..inbox import Inbox

    module, _, attribute = target.partition(":")
    if not is_dotted(module) or not is_dotted(attribute):
        raise click.UsageError(f"{target!r} must be MODULE:INBOX, such as shop.billing:inbox.")
    found = attribute_of(module, attribute)
    if not isinstance(found, Inbox):
        raise click.UsageError(f"{target!r} is no Inbox; its type is {type(found).__name__}.")
    return found
