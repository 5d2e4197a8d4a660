"""``postroom db grants``: what each role of the database may do."""

import click

from .actor import actor
from .app import App
from .command import Command, changes_data
from .params import TEXT


@click.command("grants", cls=Command)
@click.option(
    "--role",
    "roles",
    metavar="KIND=ROLE",
    multiple=True,
    required=True,
    help="app, relay, consumer, operator or reader, and the role of the database that is to be one.",
)
@click.option("--apply", "to_apply", is_flag=True, help="Run it rather than print it.")
@click.option("--reason", type=TEXT, help="Written down with it.")
@changes_data
@click.pass_obj
def grants(app: App, *, roles: tuple[str, ...], to_apply: bool, reason: str | None, yes: bool, dry_run: bool) -> None:
    """Print the SQL that gives roles of PostgreSQL the rights they need and no others, or run it with --apply.

    An app publishes; a relay runs `relay run`; a consumer runs `inbox run`; an operator uses the other commands, but
    for those that change tables; a reader looks. A role may be of several kinds. Run it as the owner of the tables,
    and again after each `postroom db upgrade`; see docs/how-to/least-privilege.md.

    \b
    Examples:
      postroom db grants --role app=shop --role relay=shop_relay > grants.sql
      postroom db grants --role relay=worker --role consumer=worker --apply
      postroom db grants --role operator=ann --apply --yes --reason "on call"
    """
    from ..outbox import grants as granting
    from . import output

    wanted = [granting.Grant.of(*_parted(role)) for role in roles]
    script = "BEGIN;\n" + "\n".join(granting.statements(app.names, wanted)) + "\nCOMMIT;\n"
    applied = to_apply and not dry_run
    if applied:
        told = ", ".join(f"{kind} to {role}" for kind, role in wanted)
        output.confirm(f"Grant {told}, and take back what else these roles may do with the tables?", yes=yes)
        granting.apply(app.database_url, app.names, wanted, actor=actor(), reason=reason)
    if app.as_json:
        output.emit({"grants": [grant._asdict() for grant in wanted], "sql": script, "applied": applied})
    elif applied:
        click.echo(f"Granted {', '.join(f'{kind} to {role}' for kind, role in wanted)}.")
    else:
        click.echo(script, nl=False)


def _parted(role: str) -> tuple[str, str]:
    kind, separator, name = role.partition("=")
    if not separator:
        raise click.UsageError(f"--role takes KIND=ROLE, such as app=shop, not {role!r}.")
    return kind.strip(), name.strip()
