"""What happens in the demo, step by step."""

import json
import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from threading import Event
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ...messaging.kafka import KafkaOptions, connect
from ...messaging.ports import Kafka
from ...messaging.records import OutgoingRecord
from ...outbox import Names, Outbox, schema
from ...testing.kafka import Broker
from ...testing.postgres import Database
from ...testing.process import Supervisor
from .ledger import Injected, Line, Tables, take_ledger
from .processes import DemoError, Processes
from .screen import Screen
from .services import (
    INBOXES,
    ORDERS,
    PAYMENTS,
    READS,
    Base,
    Completion,
    Order,
    OrderPlaced,
    Payment,
    Rate,
    Shipment,
    Stock,
)

ITEMS = ("tea", "cup", "pot", "tray", "spoon")
#: The share of orders in a currency that the payment service does not know: the poison.
POISONED_EVERY = 100
_POISON = "ISK"
_COPY_EVERY = 20
_ROLL_BACK_EVERY = 50
_WRITERS = 2
_PATIENCE = 60.0
_OUTAGE_SECONDS = 3.0


class Scenario:
    """One run on servers that are there. ``orders`` are placed, of which one in a hundred is poisoned."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        supervisor: Supervisor,
        screen: Screen,
        *,
        orders: int,
        folder: Path,
        prefix: str,
    ) -> None:
        self._broker = broker
        self._orders = orders
        self._poisoned = len([n for n in range(orders) if n % POISONED_EVERY == POISONED_EVERY - 1])
        self._screen = screen
        self._names = Names()
        self._url = database.url
        self._engine = sa.create_engine(database.sqlalchemy_url)
        self._kafka: Kafka = connect(KafkaOptions(broker.bootstrap_servers, options=dict(broker.client_config)))
        self._outbox = Outbox(source="/order")
        self._rolled_back = 0
        self._copies = 0
        self._stop = Event()
        self._processes = Processes(supervisor, folder, environment(database, broker, prefix))

    def run(self) -> list[Line]:
        """The whole of it; returns the ledger. Raises DemoError, and whatever ends it early."""
        with ExitStack() as stack:
            stack.callback(self._engine.dispose)
            self._set_up()
            pool = stack.enter_context(ThreadPoolExecutor(_WRITERS))
            stack.callback(self._stop.set)
            stack.enter_context(self._screen.progress(self._orders))
            writers = [pool.submit(self._place, worker) for worker in range(_WRITERS)]
            self._disturb(writers)
            healthy = self._orders - self._poisoned
            self._until(lambda: self._count(Completion) >= healthy, "all healthy orders are completed", writers)
            self._until(lambda: self._dead() >= self._poisoned, "each poisoned order is a dead letter")
            self._repair_and_replay()
            self._until(lambda: self._count(Completion) >= self._orders, "the repaired orders are completed")
            self._until(self._consumed, "every record is consumed")
            self._screen.update(self._counts())
            self._processes.stop_all()
            injected = Injected(self._orders, self._rolled_back, self._poisoned, self._copies)
            return take_ledger(self._engine, self._kafka, self._names, injected)

    def _set_up(self) -> None:
        schema.upgrade(self._url, self._names)
        Base.metadata.create_all(self._engine)
        with Session(self._engine) as session, session.begin():
            session.add_all(Stock(item=item, reserved=0) for item in ITEMS)
            session.add_all([Rate(currency="EUR", euros=Decimal(1)), Rate(currency="USD", euros=Decimal("0.86"))])
        self._processes.start("relay", "relay", "run")
        for name in INBOXES:
            self._processes.start(name, "inbox", "run", f"postroom.cli.demo.services:{name}")

    def _place(self, worker: int) -> None:
        """Place this worker's share; now and then a customer changes his mind before the commit."""
        rng = random.Random(worker)
        with Session(self._engine) as session:
            for number in range(worker, self._orders, _WRITERS):
                if self._stop.is_set():
                    return
                if rng.randrange(_ROLL_BACK_EVERY) == 0:
                    self._add_order(session, "EUR")
                    session.rollback()
                    self._rolled_back += 1
                poisoned = number % POISONED_EVERY == POISONED_EVERY - 1
                self._add_order(session, _POISON if poisoned else rng.choice(("EUR", "USD")))
                session.commit()

    def _add_order(self, session: Session, currency: str) -> UUID:
        order = Order(id=uuid4(), item=random.choice(ITEMS), currency=currency, total=Decimal("19.90"))
        session.add(order)
        placed = OrderPlaced(order_id=order.id, item=order.item, currency=currency, total=order.total)
        return self._outbox.publish(session, placed)

    def _disturb(self, writers: list[Future[None]]) -> None:
        """Kill the relay in mid-flow, inject duplicates, take Kafka away."""
        self._until(lambda: self._count(Completion) >= self._orders // 5, "a fifth is completed", writers)
        self._screen.say("the relay is killed (SIGKILL) and started again")
        self._processes.kill("relay")
        self._processes.start("relay", "relay", "run")
        self._until(lambda: self._count(Completion) >= self._orders * 2 // 5, "two fifths are completed", writers)
        self._copy(ORDERS)
        self._until(lambda: self._count(Completion) >= self._orders * 3 // 5, "three fifths are completed", writers)
        how = "the mock cluster is stopped with SIGSTOP" if self._broker.is_mock else "the broker is shut down"
        self._screen.say(f"Kafka is gone for {_OUTAGE_SECONDS:.0f} seconds ({how})")
        (self._broker.pause if self._broker.is_mock else self._broker.stop)()
        try:
            self._stop.wait(_OUTAGE_SECONDS)
        finally:
            (self._broker.resume if self._broker.is_mock else self._broker.start)()
        self._screen.say("Kafka is back")
        self._copy(PAYMENTS)

    def _copy(self, topic: str) -> None:
        """Send some records a second time, as a careless producer or a crash would."""
        reader, publisher = self._kafka.reader(), self._kafka.publisher()
        try:
            records = list(reader.read(topic))[::_COPY_EVERY]
            copies = [OutgoingRecord(topic, each.key, each.value, list(each.headers)) for each in records]
            publication = publisher.send(copies)
            if not publication.wait(_PATIENCE) or publication.errors():
                raise DemoError("Kafka did not take the injected duplicates.")
        finally:
            publisher.close(5)
            reader.close()
        self._copies += len(copies)
        self._screen.say(f"{len(copies)} records of {topic} are sent a second time")

    def _repair_and_replay(self) -> None:
        topic = READS["payment"]
        find = ("dlq", "stats", "--topic", topic)
        self._screen.command(f"postroom {' '.join(find)}", self._processes.run(*find))
        look = ("dlq", "list", "--topic", topic, "--limit", "5")
        self._screen.command(f"postroom {' '.join(look)}", self._processes.run(*look))
        self._screen.say(f"repair: the payment service learns what one {_POISON} is worth")
        with Session(self._engine) as session, session.begin():
            session.add(Rate(currency=_POISON, euros=Decimal("0.0069")))
        reason = f"rate for {_POISON} added"
        replay = ("dlq", "replay", "--topic", topic, "--canary", "1", "--wait", "--yes", "--reason")
        self._screen.command(f"postroom {' '.join(replay)} '{reason}'", self._processes.run(*replay, reason))

    def _until(self, condition: Callable[[], bool], what: str, writers: list[Future[None]] | None = None) -> None:
        """Poll, showing progress. Raises DemoError when nothing moves any more."""
        last, moved = -1, time.monotonic()
        while not condition():
            for writer in writers or ():
                if writer.done():
                    writer.result()
            self._processes.check()
            counts = self._counts()
            self._screen.update(counts)
            if sum(counts.values()) != last:
                last, moved = sum(counts.values()), time.monotonic()
            if time.monotonic() - moved > _PATIENCE:
                raise DemoError(f"Nothing moved for {_PATIENCE:.0f} s while waiting until {what}.")
            self._stop.wait(0.1)

    def _counts(self) -> dict[str, int]:
        return {model.__tablename__: self._count(model) for model in (Order, Payment, Shipment, Completion)}

    def _count(self, model: type) -> int:
        with self._engine.connect() as connection:
            return Tables(connection, self._names).count(model)

    def _dead(self) -> int:
        with self._engine.connect() as connection:
            table = Tables(connection, self._names)
            return table.scalar("SELECT count(*) FROM {inbox} WHERE outcome = 'dead-lettered'")

    def _consumed(self) -> bool:
        """Every group has committed the end of its topic, so each injected copy has been seen."""
        topics, reader = self._kafka.topics(), self._kafka.reader()
        try:
            for name, topic in READS.items():
                committed = topics.committed(INBOXES[name].group, [topic])
                at = {part.number: offset for part, offset in committed.items()}
                if any(at.get(number, 0) < end for number, (_, end) in reader.offsets(topic).items() if end):
                    return False
            return True
        finally:
            topics.close()
            reader.close()


def environment(database: Database, broker: Broker, prefix: str) -> dict[str, str]:
    """The settings of the demo's processes."""
    return {
        "POSTROOM_DATABASE_URL": database.url,
        "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "POSTROOM_KAFKA_OPTIONS": json.dumps(dict(broker.client_config)),
        "POSTROOM_DEMO_PREFIX": prefix,
        "POSTROOM_DLQ__TOPICS": json.dumps([f"{prefix}.*.dlq"]),
        "POSTROOM_RELAY__LEASE_SECONDS": "5",  # after the SIGKILL, the next relay waits for so long
        "NO_COLOR": "1",
        "COLUMNS": "100",
    }
