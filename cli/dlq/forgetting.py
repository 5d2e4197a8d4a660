"""What ``postroom dlq forget`` tells: what was erased, and what nobody can erase from here."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from ..app import App

if TYPE_CHECKING:
    from ...dlq import Forgotten

KAFKA = (
    "Kafka keeps its records until the topic's retention.ms takes them. In a compacted topic publish a tombstone of "
    "the key; kafka-delete-records deletes all records before an offset."
)


def report(app: App, told: "Forgotten") -> dict[str, Any]:
    """The report in JSON."""
    log = {"messages": sum(told.logged.values()), "topics": told.logged, "until": _until(app, told)}
    stays = {
        "log": log,
        "scheduled": told.scheduled,
        "parked": told.parked_left,
        "results": told.results,
        "kafka": told.records,
        "advice": KAFKA,
    }
    return {"erased": {"dead_letters": told.letters, "held": told.held, "parked": told.parked}, "stays": stays}


def print_report(app: App, told: "Forgotten", *, dry_run: bool) -> None:
    """The report for people."""
    from .. import output

    would = "Would be erased" if dry_run else "Erased"
    if told.erased:
        letters = output.counted(told.letters, "dead letter")
        click.echo(f"{would}: {letters}, {told.held} held and {told.parked} parked messages.")
    else:
        click.echo("Nothing of that is here." if dry_run else "Nothing was erased: there is nothing of that here.")
    until = _until(app, told)
    if until is not None:
        topics = ", ".join(f"{topic} ({number})" for topic, number in sorted(told.logged.items()))
        click.echo(
            f"In the outbox's log until about {output.local(until)}, when its retention ends: {output.clean(topics)}."
        )
    if told.scheduled:
        click.echo(f"{output.counted(told.scheduled, 'delayed message')} will be published when due.")
    if told.parked_left:
        click.echo(f"{output.counted(told.parked_left, 'parked message')} belong to no group, and stay.")
    if told.results:
        click.echo(f"{output.counted(told.results, 'result')} of handlers stay in the inbox until its retention ends.")
    if told.records or told.logged:
        for topic, number in sorted(told.records.items()):
            click.echo(
                f"In Kafka, as far as it was seen here: {output.clean(topic)}, {output.counted(number, 'record')}."
            )
        click.echo(KAFKA)


def _until(app: App, told: "Forgotten") -> Any:
    if told.logged_at is None:
        return None
    return told.logged_at + timedelta(hours=app.settings.relay.retention_hours)
