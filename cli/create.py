"""``postroom topics create``."""

from dataclasses import dataclass
from typing import Any

import click

from ..messaging.errors import PostroomError, Unavailable
from . import errors
from .app import App
from .command import Command, changes_data
from .params import TOPIC

_MOST_PARTITIONS = 100_000
_MOST_REPLICAS = 32_767


@dataclass(slots=True)
class _Wanted:
    """One topic, and what became of it."""

    topic: str
    config: dict[str, str]
    state: str = "missing"
    partitions: int | None = None
    error: PostroomError | None = None


@click.command("create", cls=Command)
@click.argument("names", metavar="TOPIC...", nargs=-1, required=True, type=TOPIC)
@click.option("--partitions", type=click.IntRange(1, _MOST_PARTITIONS), help="How many  [as the brokers are set].")
@click.option("--replication-factor", type=click.IntRange(1, _MOST_REPLICAS), help="Copies  [as the brokers are set].")
@click.option(
    "--topic-config",
    "configs",
    metavar="NAME=VALUE",
    multiple=True,
    help="A setting of the topics, such as retention.ms=604800000; not of the dead letters'.",
)
@click.option(
    "--dead-letters",
    "groups",
    metavar="GROUP",
    multiple=True,
    help="Also the dead-letter topic of this group.",
)
@changes_data
@click.pass_obj
def create(
    app: App,
    names: tuple[str, ...],
    *,
    partitions: int | None,
    replication_factor: int | None,
    configs: tuple[str, ...],
    groups: tuple[str, ...],
    yes: bool,
    dry_run: bool,
) -> None:
    """Create topics that do not exist. Those that do stay as they are, and it is told how they differ.

    \b
    Examples:
      postroom topics create orders payments --partitions 12 --replication-factor 3
      postroom topics create orders --dead-letters billing --yes
      postroom topics create customers --topic-config cleanup.policy=compact --dry-run
    """
    from ..messaging.ports import DEFAULT
    from . import output

    wanted = _wanted(names, groups, dict(map(_assigned, configs)))
    with app.topics() as topics:
        known = topics.partitions()
        for each in wanted:
            if each.topic in known:
                each.state, each.partitions = "exists", known[each.topic]
        missing = [each for each in wanted if each.state == "missing"]
        if missing and not dry_run:
            output.confirm(f"Create {', '.join(each.topic for each in missing)}?", yes=yes)
        for each in missing:
            if dry_run:
                each.state, each.partitions = "would be created", partitions
                continue
            try:
                made = topics.create(each.topic, partitions or DEFAULT, replication_factor or DEFAULT, each.config)
                each.state = "created" if made else "exists"
            except PostroomError as error:
                each.state, each.error = "failed", error
                if isinstance(error, Unavailable):
                    break
        if any(each.state in ("created", "exists") for each in missing):
            known = topics.partitions()
            for each in missing:
                each.partitions = known.get(each.topic)
    _tell(app, wanted, partitions, dry_run=dry_run)
    _raise_failures(wanted)


def _wanted(names: tuple[str, ...], groups: tuple[str, ...], config: dict[str, str]) -> list[_Wanted]:
    from ..messaging.dead_letter import dead_letter_topic
    from ..messaging.message import check_topic

    topics = [_Wanted(name, config) for name in dict.fromkeys(names)]
    dead = [check_topic(dead_letter_topic(each.topic, group)) for each in topics for group in dict.fromkeys(groups)]
    return topics + [_Wanted(name, {}) for name in dead if name not in names]


def _assigned(assignment: str) -> tuple[str, str]:
    name, separator, value = assignment.partition("=")
    if not separator or not name.strip():
        raise click.UsageError(f"--topic-config takes NAME=VALUE, such as retention.ms=604800000, not {assignment!r}.")
    return name.strip(), value.strip()


def _tell(app: App, wanted: list[_Wanted], partitions: int | None, *, dry_run: bool) -> None:
    from . import output

    if app.as_json:
        output.emit({"topics": [_document(each, partitions) for each in wanted], "dry_run": dry_run})
        return
    table = output.table("topic", "partitions", "", right=("partitions",))
    for each in wanted:
        shown = "-" if each.partitions is None else str(each.partitions)
        other = f", not with {partitions} partitions" if _differs(each, partitions) else ""
        table.add_row(each.topic, shown, each.state + other)
    output.console().print(table)
    if any(_differs(each, partitions) for each in wanted):
        click.echo("What exists was not changed: with more partitions its keys would move to others.")


def _document(each: _Wanted, partitions: int | None) -> dict[str, Any]:
    error = None if each.error is None else errors.sentence(each.error)
    told = {"topic": each.topic, "state": each.state, "partitions": each.partitions, "error": error}
    return {**told, "differs": _differs(each, partitions)}


def _differs(each: _Wanted, partitions: int | None) -> bool:
    return each.state == "exists" and partitions is not None and each.partitions != partitions


def _raise_failures(wanted: list[_Wanted]) -> None:
    """One failure as it is; several, or one among successes, in one sentence."""
    failed = [(each.topic, each.error) for each in wanted if each.error is not None]
    if not failed:
        return
    told = "; ".join(f"{topic}: {errors.sentence(error).rstrip('.')}" for topic, error in failed)
    if all(type(error) is type(failed[0][1]) for _, error in failed):
        raise type(failed[0][1])(f"{told}.") from failed[0][1]
    raise errors.Incomplete(f"{told}.")
