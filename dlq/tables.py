"""The ledger's tables as SQLAlchemy sees them: filters and sorts are put together, so their SQL is, too.

The tables themselves are made by the migrations; a test holds the two against each other.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from ..outbox.names import Names


class Moment(sa.types.TypeDecorator[datetime]):
    """A point in time: ``timestamptz``, on SQLite a text in UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        return sa.Text() if dialect.name == "sqlite" else sa.DateTime(timezone=True)

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        del dialect
        return datetime.fromisoformat(value) if isinstance(value, str) else value


def now(dialect: str) -> sa.ColumnElement[Any]:
    """The database's clock, as the columns hold it."""
    text = "clock_timestamp()" if dialect == "postgresql" else "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
    return sa.literal_column(text, Moment())


@dataclass(frozen=True)
class Tables:
    """All that the ledger reads and writes through SQLAlchemy.

    ``fact`` and ``state`` hold a letter's columns; ``letter`` is both together, to read from.
    """

    fact: sa.Table
    state: sa.Table
    record: sa.Table
    source: sa.Table
    plan: sa.Table
    action: sa.Table
    inbox: sa.Table
    sqlite: bool

    @classmethod
    def of(cls, names: Names, *, sqlite: bool) -> "Tables":
        """The tables under the names that they have in this database."""
        metadata = sa.MetaData()

        def table(name: str, *columns: sa.Column[Any]) -> sa.Table:
            if sqlite:
                return sa.Table(names.table(name, "sqlite").strip('"'), metadata, *columns)
            return sa.Table(names.tables.get(name, name), metadata, *columns, schema=names.schema)

        return cls(
            fact=table(
                "dead_letter",
                sa.Column("id", sa.BigInteger, primary_key=True),
                sa.Column("dead_letter_topic", sa.Text),
                sa.Column("partition", sa.Integer),
                sa.Column("offset", sa.BigInteger),
                sa.Column("incarnation", sa.Integer),
                sa.Column("written_at", Moment),
                sa.Column("family", sa.Text),
                sa.Column("message_id", sa.Text),
                sa.Column("inbox_id", sa.Text),
                sa.Column("key", sa.LargeBinary),
                sa.Column("type", sa.Text),
                sa.Column("topic", sa.Text),
                sa.Column("topic_partition", sa.Integer),
                sa.Column("topic_offset", sa.BigInteger),
                sa.Column("consumer_group", sa.Text),
                sa.Column("error", sa.Text),
                sa.Column("message", sa.Text),
                sa.Column("handler", sa.Text),
                sa.Column("deliveries", sa.Integer),
                sa.Column("first_failed_at", Moment),
                sa.Column("failed_at", Moment),
                sa.Column("fingerprint", sa.Text),
                sa.Column("replays", sa.Integer),
                sa.Column("expires_at", Moment),
                sa.Column("size", sa.Integer),
                sa.Column("order_partition", sa.Integer),
                sa.Column("order_offset", sa.BigInteger),
                sa.Column("follows", sa.BigInteger),
                sa.Column("rounds", sa.Integer),
                sa.Column("same_failures", sa.Integer),
                sa.Column("masked", sa.Boolean),
                sa.Column("forgotten_at", Moment),
                sa.Column("read_at", Moment),
            ),
            state=table(
                "dead_letter_state",
                sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
                sa.Column("state", sa.Text),
                sa.Column("state_at", Moment),
                sa.Column("plan_id", sa.BigInteger),
                sa.Column("ordinal", sa.Integer),
            ),
            record=table(
                "dead_letter_record",
                sa.Column("id", sa.BigInteger, primary_key=True),
                sa.Column("payload", sa.LargeBinary),
                sa.Column("headers", sa.Text),
            ),
            source=table(
                "dead_letter_source",
                sa.Column("dead_letter_topic", sa.Text, primary_key=True),
                sa.Column("partition", sa.Integer, primary_key=True),
                sa.Column("incarnation", sa.Integer),
                sa.Column("next_offset", sa.BigInteger),
                sa.Column("mark", sa.Text),
                sa.Column("missed", sa.BigInteger),
                sa.Column("gone_since", Moment),
                sa.Column("read_at", Moment),
            ),
            plan=table(
                "dead_letter_plan",
                sa.Column("id", sa.BigInteger, primary_key=True),
                sa.Column("created_at", Moment),
                sa.Column("actor", sa.Text),
                sa.Column("reason", sa.Text),
                sa.Column("wanted", sa.Text),
                sa.Column("targets", sa.Text),
                sa.Column("total", sa.Integer),
                sa.Column("steps", sa.Text),
                sa.Column("rate", sa.Float),
                sa.Column("max_failures", sa.Float),
                sa.Column("state", sa.Text),
                sa.Column("told", sa.Text),
                sa.Column("paced_until", sa.Float),
                sa.Column("changed_at", Moment),
            ),
            action=table(
                "dead_letter_action",
                sa.Column("id", sa.BigInteger, primary_key=True),
                sa.Column("at", Moment),
                sa.Column("actor", sa.Text),
                sa.Column("action", sa.Text),
                sa.Column("dead_letter_topic", sa.Text),
                sa.Column("partition", sa.Integer),
                sa.Column("offset", sa.BigInteger),
                sa.Column("message_id", sa.Text),
                sa.Column("reason", sa.Text),
                sa.Column("dead_letter_id", sa.BigInteger),
                sa.Column("plan_id", sa.BigInteger),
                sa.Column("from_state", sa.Text),
                sa.Column("to_state", sa.Text),
            ),
            inbox=table(
                "inbox",
                sa.Column("consumer_group", sa.Text, primary_key=True),
                sa.Column("message_id", sa.Text, primary_key=True),
                sa.Column("outcome", sa.Text),
                sa.Column("replays", sa.Integer),
                sa.Column("processed_at", Moment),
            ),
            sqlite=sqlite,
        )

    @cached_property
    def letter(self) -> sa.Subquery:
        """Letters with their states, in the order of ``DeadLetter``'s fields; without a row of its own it is dead."""
        fact, state = self.fact.c, self.state.c
        columns = [column for column in fact if column.name != "read_at"]
        where = [column.name for column in columns].index("follows")
        standing = (
            sa.func.coalesce(state.state, "dead").label("state"),
            sa.func.coalesce(state.state_at, fact.read_at, type_=Moment()).label("state_at"),
            state.plan_id,
            state.ordinal,
        )
        joined = self.fact.join(self.state, state.id == fact.id, isouter=True)
        return sa.select(*columns[:where], *standing, *columns[where:]).select_from(joined).subquery("letter")

    def in_states(self, states: Collection[str]) -> sa.ColumnElement[bool]:
        """That a letter is in one of ``states``: by their index, where the dead ones are not among them."""
        if "dead" in states:
            return self.letter.c.state.in_(sorted(states))
        return self.letter.c.id.in_(sa.select(self.state.c.id).where(self.state.c.state.in_(sorted(states))))
