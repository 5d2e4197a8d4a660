"""``postroom dlq``: dead letters. Parses and prints; the work is done in the room of that name."""

import click

from ..command import Group
from .find import list_, show, stats, sync, watch
from .replay import cancel, plans, replay


@click.group("dlq", cls=Group)
def dlq() -> None:
    """Dead letters: find them, look at them, repair them, replay them."""


for _command in (list_, show, stats, watch, replay, plans, cancel, sync):
    dlq.add_command(_command)
