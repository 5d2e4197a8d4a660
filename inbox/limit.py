"""How many dead letters a handler may write within a minute; over that it is paused, as an operator would.

A fault of the handler, or of who sends to it, makes a dead letter of each message. So the handler stops, and somebody
looks. Counted are its rows in the inbox, so that all members count together and a restart forgets nothing.
"""

import shlex
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from ..outbox.audit import inbox_action
from ..outbox.names import Names
from ..outbox.write import fetch_query, run_query
from .control import HANDLER, Control

ACTOR = "postroom"
_REACHED = "It reached its limit of"


def is_limit(reason: str) -> bool:
    """Whether a handler was paused by its limit, and not by an operator."""
    return reason.startswith(_REACHED)


class LimitReached(Exception):
    """One dead letter more would be over the limit; the transaction that would write it is to be rolled back."""


class Pause(NamedTuple):
    """Why a handler is paused; ``written``: it was not before."""

    reason: str
    written: bool


class DeadLetterLimit:
    """One group's. ``most``: dead letters within a minute and since an operator let the handler go on; 0: any number.

    Handlers are known by their names. Each method works in the caller's transaction.
    """

    def __init__(self, group: str, names: Names) -> None:
        self._group = group
        self._names = names

    def reason(self, handler: str, most: int) -> str:
        """Why it is paused, and how it goes on."""
        resume = f"postroom inbox resume --group {shlex.quote(self._group)} --handler {shlex.quote(handler)}"
        return (
            f"{_REACHED} {most:,} dead letters per minute: look at `postroom dlq stats`, mend the cause, "
            f"then go on with `{resume}`."
        )

    def check(self, connection: sa.Connection, handler: str, most: int) -> None:
        """Called where a message is closed as dead-lettered, before the commit. Raises LimitReached.

        Blocks while another transaction is between this and its commit, so that no two count the same.
        """
        if not most:
            return
        if connection.dialect.name == "postgresql":
            fetch_query(connection, "inbox_limit_lock", {"group": self._group, "handler": handler}, self._names)
        if self._count(connection, handler, most + 1) > most:
            raise LimitReached

    def pause(self, connection: sa.Connection, handler: str, most: int) -> Pause | None:
        """Pause it for all members and write that down; None where it is under its limit by now."""
        if self._count(connection, handler, most) < most:
            return None
        subject, reason = HANDLER + handler, self.reason(handler, most)
        params = {"group": self._group, "subject": subject, "reason": reason, "actor": ACTOR}
        if run_query(connection, "inbox_limit_pause", params, self._names) == 1:
            note = inbox_action(ACTOR, "pause", self._group, subject, reason=reason)
            run_query(connection, "note_inbox", note, self._names)
            return Pause(reason, written=True)
        paused = Control.read(connection, self._group, self._names).paused.get(subject)
        return None if paused is None else Pause(paused, written=False)

    def _count(self, connection: sa.Connection, handler: str, most: int) -> int:
        """How many there are, up to ``most``."""
        subject = {"group": self._group, "subject": HANDLER + handler}
        resumed_at: datetime | str | None = fetch_query(connection, "inbox_limit_resumed", subject, self._names)[0][0]
        params = {"group": self._group, "handler": handler, "resumed_at": resumed_at, "most": most}
        return int(fetch_query(connection, "inbox_limit_count", params, self._names)[0][0])
