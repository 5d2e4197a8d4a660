"""`postroom demo`."""

import json
import os
import re
import secrets
import sys
from pathlib import Path

import click

from ..app import App
from ..command import Command

_SERVERS = {"embedded": ("wheel", "mock"), "auto": (None, None)}


@click.command(cls=Command)
@click.option(
    "--orders", type=click.IntRange(100, 100_000), default=2_000, show_default=True, help="How many to place."
)
@click.option(
    "--servers",
    type=click.Choice(["embedded", "auto"]),
    default="embedded",
    show_default=True,
    help="embedded: PostgreSQL and a Kafka mock cluster out of Python wheels. auto: the servers named by "
    "POSTROOM_DATABASE_URL and POSTROOM_KAFKA_BOOTSTRAP_SERVERS, else Docker, else what is installed, else embedded.",
)
@click.option("--keep-logs", type=click.Path(file_okay=False, path_type=Path), help="A folder for the processes' logs.")
@click.pass_obj
def demo(app: App, orders: int, servers: str, keep_logs: Path | None) -> None:
    """Run an order flow of four services with faults, and count what arrived.

    Places some thousand orders that go through inventory, payment and shipment, each a process of its own, over
    the Kafka protocol and a real PostgreSQL. The relay is killed in mid-flow, records are sent twice, Kafka goes
    away for some seconds, and one order in a hundred is poison. Then the dead letters are listed, their cause is
    repaired, and they are replayed. Exit code 0 only if nothing is lost, nothing was applied twice, and every
    count adds up; 1 otherwise.

    \b
    Examples:
      postroom demo
      postroom demo --orders 10000 --servers auto
      postroom demo --json > ledger.json
    """
    # A broker that outlives the demo may have the topics of an earlier one. The services take their topics from
    # this variable when they are imported, here and in their processes.
    prefix = os.environ.setdefault("POSTROOM_DEMO_PREFIX", f"demo-{secrets.token_hex(3)}")
    from rich.console import Console

    from ...testing import kafka_broker, postgres_server
    from ...testing.process import supervised
    from .scenario import Scenario
    from .screen import Screen

    screen = Screen(Console(stderr=app.as_json))
    prefer_postgres, prefer_kafka = _SERVERS[servers]
    screen.say("starting PostgreSQL and Kafka")
    with (
        supervised() as supervisor,
        postgres_server(prefer=prefer_postgres) as server,
        kafka_broker(prefer=prefer_kafka) as broker,
        server.database() as database,
    ):
        screen.say(f"{server.origin}; {broker.origin}")
        logs = (keep_logs or supervisor.folder / "logs").resolve()
        logs.mkdir(parents=True, exist_ok=True)
        lines = Scenario(database, broker, supervisor, screen, orders=orders, folder=logs, prefix=prefix).run()
        screen.ledger(lines)
    right = all(line.right for line in lines)
    if app.as_json:
        counts = {re.sub(r"\W", "_", line.name): line.count for line in lines}
        click.echo(json.dumps({"ok": right, **counts}))
    screen.say("nothing lost, nothing applied twice, every count adds up" if right else "the counts do not add up")
    if not right:
        sys.exit(1)
