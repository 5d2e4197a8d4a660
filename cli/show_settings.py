"""``postroom settings``: what is in effect, and where it comes from."""

from typing import Any

import click

from .app import App
from .command import Command


@click.command("settings", cls=Command)
@click.pass_obj
def settings(app: App) -> None:
    """Print the settings in effect and their origins.

    Secrets are masked.

    \b
    Examples:
      postroom settings
      POSTROOM_RELAY__LEASE_SECONDS=30 postroom settings --json
    """
    from rich.text import Text

    from . import output

    rows = _rows(app)
    if app.as_json:
        output.emit({".".join(where): {"value": value, "from": origin} for where, value, origin in rows})
        return
    table = output.table("setting", "value", "from")
    for column in table.columns[1:]:
        column.no_wrap, column.overflow = False, "fold"
    for where, value, origin in rows:
        told = Text(output.clean(origin), style="dim" if origin == "default" else "")
        shown = ", ".join(value) if isinstance(value, tuple) else str(value)
        table.add_row(".".join(where), "-" if value in (None, ()) else output.clean(shown), told)
    output.console().print(table)


def _rows(app: App) -> list[tuple[tuple[str, ...], Any, str]]:
    from pydantic import BaseModel

    from .settings import Settings

    rows: list[tuple[tuple[str, ...], Any, str]] = []
    for name in Settings.model_fields:
        value = getattr(app.settings, name)
        if isinstance(value, BaseModel):
            rows += [((name, inner), getattr(value, inner), "") for inner in type(value).model_fields]
        else:
            rows.append(((name,), value, ""))
    return [(where, _masked(where[0], value), app.loaded.origin(*where)) for where, value, _ in rows]


def _masked(name: str, value: Any) -> Any:
    from .settings import is_secret

    if name == "database_url" and value is not None:
        return _masked_url(value.get_secret_value())
    if name == "kafka_options":
        return {option: "***" if is_secret(option) else given for option, given in value.items()}
    return value


def _masked_url(url: str) -> str:
    import sqlalchemy as sa

    from .app import url_secrets
    from .errors import masked

    try:
        return masked(sa.make_url(url).render_as_string(hide_password=True), url_secrets(url))
    except (sa.exc.ArgumentError, ValueError):
        return "*** (cannot be read)"
