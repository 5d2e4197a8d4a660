"""``postroom dlq``: dead letters. Parses and prints; the work is done in the room of that name."""

import click

from ..command import Group
from .find import list_, show, stats, sync, watch
from .move import export, forget, import_, purge
from .repair import discard, edit, release, reopen
from .replay import cancel, plans, replay


@click.group("dlq", cls=Group)
def dlq() -> None:
    """Dead letters: find them, look at them, repair them, replay them."""


_FINDING = (list_, show, stats, watch, sync)
_REPLAYING = (replay, plans, cancel)
_REPAIRING = (edit, discard, release, reopen)
_MOVING = (export, import_, purge, forget)
for _command in (*_FINDING, *_REPLAYING, *_REPAIRING, *_MOVING):
    dlq.add_command(_command)
