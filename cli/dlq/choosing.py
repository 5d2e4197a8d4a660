"""Which dead letters a command means: ids, places and message ids on the command line, or filters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from .desk import in_words, wanted

if TYPE_CHECKING:
    from ...dlq import Filter, Ledger
    from ..finding import Finding


def meant(ledger: "Ledger", letters: Sequence[str], found: "Finding") -> "tuple[Filter, str]":
    """The filter, and what it says in words; all without letters and options. Raises UsageError."""
    from ...dlq import Filter, get

    if not letters:
        return wanted(found), in_words(found)
    ids = sorted({get(ledger, name)[0].id for name in letters})
    return Filter(ids=ids), ", ".join(map(str, ids))


def check_meant(letters: Sequence[str], found: "Finding", *, everything: bool) -> None:
    """Raises click.UsageError unless it is said which, and in one way."""
    if letters and found:
        raise click.UsageError("Give ids or filters, not both.")
    if everything and (letters or found):
        raise click.UsageError("With --all give neither ids nor filters.")
    if not letters and not found and not everything:
        raise click.UsageError("Say which: ids, filters, or --all.")
