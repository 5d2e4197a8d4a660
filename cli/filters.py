"""The options that say which messages of the log a command means."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .params import MOMENT, TOPIC

if TYPE_CHECKING:
    from ..outbox.archive import Wanted

F = TypeVar("F", bound=Callable[..., Any])


def filters(function: F) -> F:
    """Add ``--topic``, ``--key``, ``--type``, ``--since`` and ``--until``."""
    options = (
        click.option("--topic", type=TOPIC, help="Of this topic."),
        click.option("--key", help="Of this key."),
        click.option("--type", "type_", help="Of this type."),
        click.option("--since", type=MOMENT, help="Not older: 30m, 2h, 7d, or a date or time."),
        click.option("--until", type=MOMENT, help="Older."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def wanted_by(given: dict[str, Any], **more: Any) -> "Wanted":
    """What the options say, and ``more`` of it. Raises click.UsageError for a span that is none."""
    from ..outbox.archive import Wanted

    since, until = given["since"], given["until"]
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since must be before --until.")
    key = None if given["key"] is None else given["key"].encode()
    return Wanted(given["topic"], key, given["type_"], since=since, until=until, **more)


def listed(given: dict[str, Any]) -> str:
    """The filters in words, for questions and records; empty for none."""
    names = {"type_": "type"}
    parts = [f"{names.get(name, name)} {_shown(value)}" for name, value in given.items() if value is not None]
    return ", ".join(parts)


def _shown(value: Any) -> str:
    from . import output

    return output.local(value) if hasattr(value, "astimezone") else output.clean(str(value))
