"""What operators ask of a group, read from the database: pauses, and policies changed at run time."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from ..outbox.names import Names
from ..outbox.write import fetch_query

TOPIC = "topic:"
HANDLER = "handler:"


@dataclass(frozen=True, slots=True)
class Control:
    """``paused`` and ``policies`` by subject: '' for the group, ``topic:…``, ``handler:…``.

    ``revision`` grows when held messages were changed by hand.
    """

    paused: Mapping[str, str] = field(default_factory=dict)
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    revision: int = 0

    @classmethod
    def read(cls, connection: sa.Connection, group: str, names: Names) -> "Control":
        """As it is now."""
        rows = fetch_query(connection, "inbox_control", {"group": group}, names)
        return cls(
            {subject: paused for subject, paused, _, _ in rows if paused is not None},
            {
                subject: policy
                for subject, _, text, _ in rows
                if isinstance(policy := json.loads(text), dict) and policy
            },
            next((revision for subject, _, _, revision in rows if subject == ""), 0),
        )

    def why_paused(self, topic: str, handler: str) -> str | None:
        """Why a handler stands still, if it does."""
        for subject in ("", TOPIC + topic, HANDLER + handler):
            if subject in self.paused:
                return self.paused[subject]
        return None
