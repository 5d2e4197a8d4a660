"""What the tables of the inbox's operators hold: what was asked of a group, and what was done."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...messaging.errors import UsageError
from .overrides import Policy


@dataclass(frozen=True, slots=True)
class Control:
    """What is asked of a group, or of a topic or handler of it; ``paused``: why.

    ``subject``: '' for the whole group, ``topic:…`` or ``handler:…``. ``changed_by``: who changed it last.
    """

    group: str
    subject: str
    paused: str | None
    policy: Policy
    revision: int
    changed_at: datetime
    changed_by: str

    @classmethod
    def of(cls, row: Any) -> "Control":
        """From the table."""
        group, subject, paused, policy, revision, changed_at, changed_by = row
        return cls(group, subject, paused, json.loads(policy), revision, moment(changed_at), changed_by)


@dataclass(frozen=True, slots=True)
class Action:
    """Something an operator did. ``group`` '': to all of them."""

    id: int
    at: datetime
    actor: str
    action: str
    group: str
    subject: str
    message_id: str | None
    reason: str | None

    @classmethod
    def of(cls, row: Any) -> "Action":
        """From the table."""
        return cls(row[0], moment(row[1]), *row[2:])


def subject_of(topic: str | None, handler: str | None) -> str:
    """The subject of a topic or a handler, '' without either. Raises UsageError for both."""
    if topic is not None and handler is not None:
        raise UsageError("Give a topic or a handler, not both.")
    return f"topic:{topic}" if topic is not None else f"handler:{handler}" if handler is not None else ""


def moment(value: datetime | str) -> datetime:
    """A point in time as the database gives it."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def maybe(value: datetime | str | None) -> datetime | None:
    """Likewise, where there may be none."""
    return None if value is None else moment(value)
