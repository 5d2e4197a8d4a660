"""The ledger: the table of dead letters, and the transactions that change what is known of them.

Whoever changes something holds the ledger's lock until the transaction ends, so nothing is decided on what somebody
else changes meanwhile; reading takes no lock.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ..messaging.headers import load
from ..outbox import schema
from ..outbox.database import parse_url, translated
from ..outbox.entry import Entry
from ..outbox.names import Names, queries
from ..outbox.write import write_sqlalchemy
from .letter import DeadLetter, Place, known_id
from .states import TRANSITIONS, State
from .tables import Tables, now

#: Who did what nobody asked for.
ITSELF = "postroom"
_AT_ONCE = 1_000
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_LIBPQ = {
    "connect_timeout": 5,
    "application_name": "postroom dlq",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "prepare_threshold": None,  # the plan depends on which filters there are
}


@dataclass(frozen=True, slots=True)
class Action:
    """Something done to a dead letter, or to many (``letter`` None). ``id`` grows with time."""

    id: int
    at: datetime
    actor: str
    action: str
    letter: int | None
    plan: int | None
    before: str | None
    after: str | None
    reason: str | None


class Ledger:
    """The dead letters of one database. For one thread.

    Every method raises SchemaMissing, DatabaseUnavailable, NotAuthorized, ConfigurationError.
    """

    def __init__(self, url: str, names: Names | None = None) -> None:
        parsed = parse_url(url)
        self.url = url
        self.names = names or Names()
        self.sqlite = parsed.drivername == "sqlite"
        self.tables = Tables.of(self.names, sqlite=self.sqlite)
        self.sql = queries(self.names, "sqlite" if self.sqlite else "postgres")
        self._engine = sa.create_engine(parsed, pool_size=1, connect_args={} if self.sqlite else _LIBPQ)
        self.now = now(self._engine.dialect.name)

    def check(self) -> None:
        """Raises SchemaMissing, SchemaOutdated, SchemaTooNew besides."""
        schema.check(self.url, self.names)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that changes nothing."""
        with translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def changing(self) -> Iterator["Work"]:
        """A transaction in which nobody else changes the ledger. Commits at the end, unless the block raises."""
        with translated(), self._engine.begin() as connection:
            connection.exec_driver_sql(self.sql["lock_dead_letters"])
            yield Work(self, connection)

    def letters(self, ids: Sequence[int]) -> list[DeadLetter]:
        """Those of the ids that are there, whole, by id."""
        found: list[DeadLetter] = []
        with self.reading() as connection:
            for start in range(0, len(ids), _AT_ONCE):
                chosen = self.tables.letter.c.id.in_(ids[start : start + _AT_ONCE])
                found += whole(connection, self.tables, chosen)
        return sorted(found, key=lambda letter: letter.id)

    def at(self, place: Place) -> list[DeadLetter]:
        """Those of a place, whole: more than one where the topic was made anew, or they were imported."""
        letter = self.tables.letter.c
        chosen = (letter.dead_letter_topic == place.topic) & (letter.partition == place.partition)
        return self._newest(chosen & (letter.offset == place.offset))

    def of_message(self, message_id: str) -> list[DeadLetter]:
        """Each death of a message, whole, the latest first."""
        return self._newest(self.tables.letter.c.message_id == known_id(message_id))

    def actions(self, *, letter: int | None = None, limit: int = _AT_ONCE) -> list[Action]:
        """What was done, the latest first; to one dead letter, or to any."""
        action = self.tables.action.c
        columns = (action.id, action.at, action.actor, action.action, action.dead_letter_id, action.plan_id)
        query = sa.select(*columns, action.from_state, action.to_state, action.reason).order_by(action.id.desc())
        if letter is not None:
            query = query.where(action.dead_letter_id == letter)
        with self.reading() as connection:
            return [Action(*row) for row in connection.execute(query.limit(limit))]

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def _newest(self, chosen: sa.ColumnElement[bool]) -> list[DeadLetter]:
        with self.reading() as connection:
            found = whole(connection, self.tables, chosen, limit=_AT_ONCE)
        return sorted(found, key=lambda letter: letter.id, reverse=True)


class Work:
    """What can be done while the ledger is locked. Nothing holds until the block ends."""

    def __init__(self, ledger: Ledger, connection: sa.Connection) -> None:
        self.ledger = ledger
        self.connection = connection

    def change(
        self,
        verb: str,
        chosen: sa.ColumnElement[bool],
        actor: str,
        reason: str | sa.ColumnElement[str] | None = None,
        values: Mapping[str, Any] = _NOTHING,
    ) -> int:
        """Take the ``chosen`` letters along a transition, those that may take it, and write it down; how many.

        ``values``: other columns to set; ``plan_id`` and ``ordinal`` to None only.
        """
        tables, transition = self.ledger.tables, TRANSITIONS[verb]
        chosen &= tables.letter.c.state.in_(sorted(transition.sources))
        count = self.note_each(verb, chosen, actor, reason, transition.target)
        if not count:
            return 0
        letter, state, fact = tables.letter.c, tables.state, tables.fact
        if facts := {name: value for name, value in values.items() if name in fact.c}:
            ids = sa.select(letter.id).where(chosen).scalar_subquery()
            self.connection.execute(sa.update(fact).where(fact.c.id.in_(ids)).values(facts))
        standing = [sa.literal(None, c.type) if c.name in values else c for c in (letter.plan_id, letter.ordinal)]
        rows = sa.select(letter.id, sa.literal(transition.target.value), self.ledger.now, *standing).where(chosen)
        insert = sqlite.insert if self.ledger.sqlite else postgresql.insert
        put = insert(state).from_select([column.name for column in state.c], rows)
        new = {column.name: column for column in put.excluded if column.name != "id"}
        self.connection.execute(put.on_conflict_do_update(index_elements=[state.c.id], set_=new))
        return count

    def note(self, verb: str, actor: str, reason: str | None) -> int:
        """Write down what concerns many, or none that is there any more; the id of the record."""
        many = {"dead_letter_topic": "*", "partition": -1, "offset": -1, "message_id": ""}
        told = {"actor": actor, "action": verb, "reason": reason}
        written = self.connection.execute(sa.insert(self.ledger.tables.action).values(**many, **told))
        return int(written.inserted_primary_key[0])  # type: ignore[index]  # it is generated

    def publish(self, entries: Sequence[Entry]) -> None:
        """Put messages into the outbox, in this order."""
        write_sqlalchemy(self.connection, entries, self.ledger.names)

    def note_each(
        self,
        verb: str,
        chosen: sa.ColumnElement[bool],
        actor: str,
        reason: str | sa.ColumnElement[str] | None,
        target: State,
        before: State | None = None,
    ) -> int:
        """Write down that each of the ``chosen`` goes to a state, from ``before``, else from where it is; how many."""
        tables = self.ledger.tables
        letter = tables.letter.c
        place = (letter.dead_letter_topic, letter.partition, letter.offset, letter.message_id)
        why = reason if isinstance(reason, sa.ColumnElement) else sa.literal(reason, sa.Text)
        told = (sa.literal(actor), sa.literal(verb), why)
        source = letter.state if before is None else sa.literal(before.value)
        ways = (letter.id, letter.plan_id, source, sa.literal(target.value))
        facts = sa.select(*told, *place, *ways).where(chosen)
        columns = ("actor", "action", "reason", "dead_letter_topic", "partition", "offset", "message_id")
        into = [*columns, "dead_letter_id", "plan_id", "from_state", "to_state"]
        query = sa.insert(tables.action).from_select(into, facts.order_by(letter.id))
        return self.connection.execute(query, execution_options={"preserve_rowcount": True}).rowcount


def by_index(ledger: Ledger, connection: sa.Connection) -> None:
    """Have this transaction find few rows by their indexes, whatever the planner thinks of a table's size."""
    if not ledger.sqlite:
        connection.exec_driver_sql(ledger.sql["plan"])


def whole(
    connection: sa.Connection, tables: Tables, chosen: sa.ColumnElement[bool], limit: int | None = None
) -> list[DeadLetter]:
    """The letters of a condition with their records; in no order."""
    letter, record = tables.letter, tables.record
    joined = letter.join(record, letter.c.id == record.c.id, isouter=True)
    query = sa.select(letter, record.c.payload, record.c.headers).select_from(joined).where(chosen).limit(limit)
    return [made(row) for row in connection.execute(query)]


def made(row: Any) -> DeadLetter:
    """From the columns of ``dead_letter``, and perhaps those of its record."""
    letter = DeadLetter._make(row) if len(row) == len(DeadLetter._fields) else DeadLetter(*row)
    headers: Any = letter.headers
    return letter._replace(state=State(letter.state), headers=None if headers is None else load(headers)[0])
