"""``postroom init`` and ``postroom db``: the tables."""

from typing import Any

import click

from . import errors
from .app import App
from .command import Command, Group
from .grants import grants
from .notify import notify

_SHARDS = click.option(
    "--shards", type=click.IntRange(1, 256), default=16, show_default=True, help="How many, when the tables are made."
)
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")


@click.command("init", cls=Command)
@_SHARDS
@_DRY_RUN
@click.pass_obj
def init(app: App, shards: int, dry_run: bool) -> None:
    """Make or upgrade the tables, and look whether Kafka answers. Writes nothing else; run it as often as you like.

    \b
    Examples:
      postroom init --database-url postgresql://shop@localhost/shop
      postroom init --dry-run
    """
    from ..messaging.errors import PostroomError

    done = _upgrade(app, shards, dry_run=dry_run)
    kafka: dict[str, Any] = {"bootstrap_servers": app.settings.kafka_bootstrap_servers}
    failure: PostroomError | None = None
    try:
        with app.topics() as topics:
            kafka |= {"reachable": True, "topics": len(topics.partitions())}
    except PostroomError as error:
        failure = error
        kafka |= {"reachable": False, "error": errors.sentence(error)}
    if app.as_json:
        from . import output

        output.emit({"tables": done, "kafka": kafka})
    else:
        _tell_upgrade(done)
        if failure is None:
            click.echo(f"Kafka at {kafka['bootstrap_servers']} answers; it has {kafka['topics']} topics.")
            click.echo("\nNext:")
            click.echo("  postroom relay run                 publishes what your application writes")
            click.echo("  postroom inbox run module:inbox    consumes it")
    if failure is not None:
        raise failure


@click.group("db", cls=Group)
def db() -> None:
    """The tables of Postroom: upgrade, check, print their SQL, grant rights, let commits tell."""


@db.command("upgrade")
@_SHARDS
@_DRY_RUN
@click.pass_obj
def upgrade(app: App, shards: int, dry_run: bool) -> None:
    """Bring the tables to this program's version, in one transaction. Nothing is dropped.

    \b
    Examples:
      postroom db upgrade
      postroom db upgrade --dry-run --json
    """
    done = _upgrade(app, shards, dry_run=dry_run)
    if app.as_json:
        from . import output

        output.emit(done)
    else:
        _tell_upgrade(done)


@db.command("check")
@click.pass_obj
def check(app: App) -> None:
    """Say whether the tables fit this program: exit code 0, or 3 where they are missing, outdated or too new.

    \b
    Examples:
      postroom db check && postroom relay run
    """
    from ..outbox import schema

    version = schema.check(app.database_url, app.names)
    if app.as_json:
        from . import output

        output.emit({"version": version, "latest": schema.LATEST})
    else:
        click.echo(f"The tables are of version {version}, which is the latest.")


@db.command("sql")
@click.option("--dialect", type=click.Choice(["postgresql", "sqlite"]), default="postgresql", show_default=True)
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only the steps after this version.")
@_SHARDS
@click.pass_obj
def sql(app: App, dialect: str, after: int, shards: int) -> None:
    """Print the SQL that makes the tables, for those who apply it by other means. Connects to nothing.

    \b
    Examples:
      postroom db sql > postroom.sql
      postroom db sql --dialect sqlite | sqlite3 shop.db
    """
    from ..outbox import schema

    script = schema.script("postgres" if dialect == "postgresql" else dialect, app.names, shards, after)
    if app.as_json:
        from . import output

        output.emit({"dialect": dialect, "version": schema.LATEST, "sql": script})
    else:
        click.echo(script, nl=False)


db.add_command(grants)
db.add_command(notify)


def _upgrade(app: App, shards: int, *, dry_run: bool) -> dict[str, Any]:
    from ..messaging.errors import SchemaMissing, SchemaOutdated
    from ..outbox import schema

    if not dry_run:
        applied = [f"{step.version:04} {step.name}" for step in schema.upgrade(app.database_url, app.names, shards)]
        return {"version": schema.LATEST, "applied": applied, "dry_run": False}
    pending: list[str] = []
    try:
        schema.check(app.database_url, app.names)
    except (SchemaMissing, SchemaOutdated) as error:
        pending.append(errors.sentence(error))
    return {"version": schema.LATEST, "pending": pending, "dry_run": True}


def _tell_upgrade(done: dict[str, Any]) -> None:
    if done["dry_run"]:
        pending = done["pending"]
        click.echo(f"Would upgrade to version {done['version']}: {pending[0]}" if pending else "Nothing to do.")
    elif done["applied"]:
        click.echo(f"The tables are now of version {done['version']} (applied {', '.join(done['applied'])}).")
    else:
        click.echo(f"The tables are of version {done['version']} already.")
