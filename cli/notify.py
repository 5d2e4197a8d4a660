"""``postroom db notify``: whether commits wake relays up."""

import click

from .actor import actor
from .app import App
from .command import Command

_LISTEN = "Relays listen with the setting relay.listen = true."


@click.command("notify", cls=Command)
@click.argument("wanted", type=click.Choice(["on", "off", "status"]), metavar="on|off|status")
@click.pass_obj
def notify(app: App, wanted: str) -> None:
    """Let commits wake relays up by NOTIFY, through a trigger on the outbox table. PostgreSQL only.

    A relay polls every 100 ms at the latest when idle, so this is for those that poll less often. It costs writers a
    little; see docs/how-to/wake-relays.md. Making and dropping the trigger takes a lock for a moment and waits no
    longer than 2 seconds for it.

    \b
    Examples:
      postroom db notify on
      postroom relay run --set relay.listen=true --set relay.poll_max_seconds=5
      postroom db notify status --json
    """
    from ..messaging.errors import UsageError
    from ..outbox.postgres import PostgresLog
    from . import output

    with app.store() as store:
        if not isinstance(store, PostgresLog):
            raise UsageError("SQLite cannot tell of a commit; the relay polls.")
        changed = wanted != "status" and store.notify(actor(), on=wanted == "on")
        on = store.notifies()
    if app.as_json:
        output.emit({"notify": on, "changed": changed, "listen": app.settings.relay.listen})
        return
    told = "tell relays" if on else "do not tell relays"
    click.echo(f"Commits {'' if changed or wanted == 'status' else 'already '}{told}.")
    if on and not app.settings.relay.listen:
        click.echo(_LISTEN)
    if not on and app.settings.relay.listen:
        click.echo("relay.listen is set, so relays listen in vain: postroom db notify on")
