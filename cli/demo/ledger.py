"""What the demo counts at its end, from the database and from the topics, and whether it adds up."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from ...messaging.dead_letter import dead_letter_topic, replay_count
from ...messaging.envelope import Envelope
from ...messaging.errors import UnknownTopic
from ...messaging.ports import Kafka
from ...messaging.records import ReceivedRecord
from ...outbox import Names
from .services import INBOXES, READS, Completion, Order, Payment, Shipment


@dataclass(frozen=True, slots=True)
class Line:
    """One count. ``right``: it is what the other counts demand. ``note``: what was counted."""

    name: str
    count: int
    right: bool
    note: str


@dataclass(frozen=True, slots=True)
class Injected:
    """What the demo did on purpose, by its own books."""

    orders: int
    rolled_back: int
    poisoned: int
    copies: int


def take_ledger(engine: sa.Engine, kafka: Kafka, names: Names, injected: Injected) -> list[Line]:
    """Count everything. Reads each topic to its end."""
    reader = kafka.reader()
    try:
        topics = {topic: _Topic.of(reader.read(topic)) for topic in READS.values()}
        dead = _Topic.of(_read_if_there(reader.read(dead_letter_topic(READS["payment"], INBOXES["payment"].group))))
    finally:
        reader.close()
    with engine.connect() as connection:
        table = Tables(connection, names)
        orders = table.count(Order)
        replayed = table.scalar("SELECT count(*) FROM {dead_letter_action} WHERE action = 'replay'")
        logged = table.scalar("SELECT count(DISTINCT id) FROM {outbox} WHERE topic = ANY(:topics)")
        handled = table.scalar("SELECT count(*) FROM {inbox} WHERE outcome = 'handled'")
        effects = [table.per_order(Payment), table.per_order(Shipment), table.per_order(Completion)]
        reserved = table.scalar("SELECT sum(reserved) FROM demo_stock")
    published = sum(topic.distinct for topic in topics.values())
    again = sum(topic.records - topic.distinct - topic.replays for topic in topics.values())
    lost = sum(orders - len(effect) for effect in effects) + max(0, orders - reserved)
    twice = sum(count - 1 for effect in effects for count in effect.values()) + max(0, reserved - orders)
    return [
        Line("orders", orders, orders == injected.orders, f"committed; {injected.rolled_back} more were rolled back"),
        Line(
            "published", published, published == logged == 4 * orders, "distinct messages in the topics of 4 services"
        ),
        Line("consumed", handled, handled == published, "closed as handled in the inboxes"),
        Line(
            "duplicates suppressed",
            again,
            again >= injected.copies,
            f"records seen again: {injected.copies} injected, {again - injected.copies} after the relay's SIGKILL",
        ),
        Line("dead-lettered", dead.records, dead.records == injected.poisoned, "one for each poisoned order"),
        Line("replayed", replayed, replayed == dead.records, "each once, after the repair"),
        Line("lost", lost, lost == 0, "orders that miss a reservation, payment, shipment or completion"),
        Line("applied twice", twice, twice == 0, "second effects of a service on an order"),
    ]


class Tables:
    """Counting in the demo's database."""

    def __init__(self, connection: sa.Connection, names: Names) -> None:
        self._connection = connection
        self._names = names

    def scalar(self, sql: str) -> int:
        """One number; ``{outbox}`` and so on stand for the tables of Postroom."""
        rendered = sa.text(self._names.render(sql, "postgres"))
        return int(self._connection.execute(rendered, {"topics": list(READS.values())}).scalar() or 0)

    def count(self, model: type) -> int:
        """The rows of one of the demo's tables."""
        return self._connection.execute(sa.select(sa.func.count()).select_from(model)).scalar_one()

    def per_order(self, model: type[Payment | Shipment | Completion]) -> Counter[object]:
        """How often each order has such an effect."""
        return Counter(self._connection.scalars(sa.select(model.order_id)))


@dataclass(frozen=True, slots=True)
class _Topic:
    records: int
    distinct: int
    replays: int

    @classmethod
    def of(cls, records: Iterator[ReceivedRecord]) -> "_Topic":
        ids: set[str] = set()
        count = replays = 0
        for record in records:
            count += 1
            ids.add(Envelope.of(record).id)
            replays += replay_count(record.headers) > 0
        return cls(count, len(ids), replays)


def _read_if_there(records: Iterator[ReceivedRecord]) -> Iterator[ReceivedRecord]:
    try:
        yield from records
    except UnknownTopic:
        return
