"""What operators did to dead letters: the table ``dead_letter_action``, and the transactions that write it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from ..outbox import schema
from ..outbox.database import parse_url, translated
from ..outbox.entry import Entry
from ..outbox.names import Names, queries
from ..outbox.write import write_sqlalchemy
from .letter import DeadLetter, Place

#: After one of these there is nothing left to do about a dead letter.
CLOSING = frozenset({"replay", "discard"})
_MAX_ID = 255
_LIBPQ = {
    "connect_timeout": 5,
    "application_name": "postroom dlq",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}


@dataclass(frozen=True, slots=True)
class Action:
    """Something done to a dead letter. ``id`` grows with time."""

    id: int
    place: Place
    action: str
    at: datetime
    actor: str
    reason: str | None


class Ledger:
    """The audit of dead letters in one database. For one thread.

    Every method raises SchemaMissing, DatabaseUnavailable, NotAuthorized, ConfigurationError.
    """

    def __init__(self, url: str, names: Names | None = None) -> None:
        parsed = parse_url(url)
        self._url = url
        self._names = names or Names()
        self._sqlite = parsed.drivername == "sqlite"
        self._engine = sa.create_engine(parsed, pool_size=1, connect_args={} if self._sqlite else _LIBPQ)
        self._sql = queries(self._names, "sqlite" if self._sqlite else "postgres")

    def check(self) -> None:
        """Raises SchemaMissing, SchemaOutdated, SchemaTooNew besides."""
        schema.check(self._url, self._names)

    def last_actions(self, places: Sequence[Place]) -> dict[Place, Action]:
        """The last thing done to each of ``places`` to which something was done."""
        with translated(), self._engine.begin() as connection:
            return self._last_actions(connection, places)

    def mark(self) -> int:
        """The id of the last action so far; 0 before the first."""
        with translated(), self._engine.begin() as connection:
            return int(connection.exec_driver_sql(self._sql["last_action"]).scalar_one())

    @contextmanager
    def locked(self, topic: str) -> Iterator["Work"]:
        """A transaction in which nobody else changes what was done to ``topic``'s dead letters.

        A second one for the topic waits for the first to end. Commits at the end of the block, unless it raises.
        """
        with translated(), self._engine.begin() as connection:
            params = {} if self._sqlite else {"dead_letter_topic": topic}
            connection.exec_driver_sql(self._sql["lock_dead_letters"], params)
            yield Work(self, connection, topic)

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def _last_actions(self, connection: sa.Connection, places: Sequence[Place]) -> dict[Place, Action]:
        found: dict[Place, Action] = {}
        for topic, group in groupby(sorted(places), key=lambda place: place.topic):
            params = {"dead_letter_topic": topic, **self._letters([(place, "") for place in group])}
            for id_, partition, offset, action, at, actor, reason in connection.exec_driver_sql(
                self._sql["actions"], params
            ):
                place = Place(topic, partition, offset)
                moment = datetime.fromisoformat(at) if isinstance(at, str) else at
                found[place] = Action(id_, place, action, moment, actor, reason)
        return found

    def _record(
        self, connection: sa.Connection, topic: str, letters: Sequence[DeadLetter], facts: Mapping[str, Any]
    ) -> None:
        rows = [(letter.place, letter.message_id.replace("\x00", "�")[:_MAX_ID]) for letter in letters]
        connection.exec_driver_sql(
            self._sql["record_action"], {**facts, "dead_letter_topic": topic, **self._letters(rows)}
        )

    def _letters(self, rows: Sequence[tuple[Place, str]]) -> dict[str, Any]:
        if self._sqlite:
            return {"letters": json.dumps([(place.partition, place.offset, id_) for place, id_ in rows])}
        return {
            "partitions": [place.partition for place, _ in rows],
            "offsets": [place.offset for place, _ in rows],
            "message_ids": [id_ for _, id_ in rows],
        }


class Work:
    """What can be done within ``Ledger.locked``. Nothing holds until the block ends."""

    def __init__(self, ledger: Ledger, connection: sa.Connection, topic: str) -> None:
        self._ledger = ledger
        self._connection = connection
        self._topic = topic

    def last_actions(self, places: Sequence[Place]) -> dict[Place, Action]:
        """As ``Ledger.last_actions``; nobody adds to it before the block ends."""
        return self._ledger._last_actions(self._connection, places)  # noqa: SLF001  one thing in two classes

    def replay(self, letters: Sequence[DeadLetter], entries: Sequence[Entry], actor: str, reason: str | None) -> None:
        """Put ``entries`` into the outbox, in this order, and write down that ``letters`` were replayed."""
        write_sqlalchemy(self._connection, entries, self._ledger._names)  # noqa: SLF001
        facts = {"actor": actor, "action": "replay", "reason": reason}
        self._ledger._record(self._connection, self._topic, letters, facts)  # noqa: SLF001
