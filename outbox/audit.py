"""What operators did to the log and the relays (the table ``outbox_action``), and to inboxes (``inbox_action``)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Action:
    """Something an operator did; it is written down in the transaction that does it.

    ``action``: retry, discard, pause, resume, limit, replay, prune, notify, grant. ``topic`` None: all topics.
    ``messages``: how many it concerned; 0 where that is not known. ``position``: of the message; of a replay, how
    far it came. ``id`` and ``at`` are the database's.
    """

    actor: str
    action: str
    topic: str | None = None
    position: int | None = None
    message_id: str | None = None
    messages: int = 0
    reason: str | None = None
    id: int = 0
    at: datetime | None = None

    def params(self) -> dict[str, Any]:
        """For the query ``note``, and with an id for ``note_progress``."""
        return {
            "actor": self.actor,
            "action": self.action,
            "topic": self.topic,
            "position": self.position,
            "message_id": self.message_id,
            "messages": self.messages,
            "reason": self.reason,
            "id": self.id,
        }


def limits(rate: float | None, batch_size: int | None) -> str:
    """A limit in words, as it stands in the record."""
    return f"rate {'none' if rate is None else f'{rate:g}'}, batch size {batch_size or 'none'}"


def inbox_action(  # noqa: PLR0917  a row has so many columns
    actor: str,
    action: str,
    group: str = "",
    subject: str = "",
    message_id: str | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """For the query ``note_inbox``: something an operator did to an inbox; without a group to all of them."""
    told = {"actor": actor, "action": action, "group": group, "subject": subject}
    return {**told, "message_id": message_id, "reason": reason}
