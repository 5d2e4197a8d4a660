"""Two ratios within one run: what `publish` adds to a transaction, and the relay against a raw producer.

    make bench                     # or: .venv/bin/python benchmarks/quick.py --messages 100000 --rounds 5

Machines are noisy, so the two sides alternate, and what counts is the median of the ratios.
"""

import argparse
import statistics
import time
from threading import Event
from typing import Any

import psycopg
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.ports import Kafka
from postroom.messaging.records import OutgoingRecord
from postroom.outbox import Message, Names, Outbox, schema
from postroom.outbox.database import open_store
from postroom.outbox.write import write_psycopg
from postroom.relay import Relay, RelaySettings
from postroom.testing import kafka_broker, postgres_server
from postroom.testing.postgres import Database

OUTBOX = Outbox(source="/bench")
PAYLOAD = b"x" * 300
KEYS = 1000


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "bench_row"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


def seconds_of_transactions(engine: sa.Engine, count: int, *, publish: bool) -> float:
    """The smallest business transaction, one row, so many times."""
    began = time.perf_counter()
    with Session(engine) as session:
        for _ in range(count):
            session.add(Row(text="x"))
            if publish:
                OUTBOX.publish(session, Message(topic="bench", key="k", payload=PAYLOAD, type="bench"))
            session.commit()
    return time.perf_counter() - began


def seconds_of_relay(database: Database, kafka: Kafka, topic: str, count: int) -> float:
    """From the first settled batch to the last, of a backlog of ``count``; per message of those."""
    with psycopg.connect(database.url) as connection:
        for start in range(0, count, 10_000):
            rows = range(start, min(start + 10_000, count))
            messages = (Message(topic=topic, key=f"key-{n % KEYS}", payload=PAYLOAD, type="bench") for n in rows)
            write_psycopg(connection, [OUTBOX.entry(message) for message in messages], Names())
            connection.commit()
    done, settled = Event(), [0, 0.0]

    def observe(step: str, /, **facts: Any) -> None:
        if step == "settled":
            settled[0] += facts["count"]
            settled[1] = settled[1] or time.perf_counter()
            if settled[0] >= count:
                done.set()

    settings = RelaySettings()
    relay = Relay(open_store(database.url), kafka, settings=settings, observer=observe)
    relay.start()
    done.wait(600)
    elapsed = time.perf_counter() - settled[1]
    relay.stop()
    relay.join()
    return elapsed * count / (count - settings.batch_size)


def seconds_of_producer(kafka: Kafka, topic: str, count: int) -> float:
    """The same records from memory, through the same client with the same options, two batches in flight."""
    headers = [("ce_specversion", b"1.0"), ("ce_id", b"0" * 36), ("ce_type", b"bench"), ("ce_time", b"0" * 27)]
    headers += [("ce_subject", b"key-100"), ("ce_source", b"/bench"), ("correlation_id", b"0" * 36)]
    records = [OutgoingRecord(topic, b"key-%d" % (n % KEYS), PAYLOAD, headers) for n in range(count)]
    publisher = kafka.publisher()
    publisher.send(records[:10]).wait(30)
    began = time.perf_counter()
    before = None
    for start in range(0, count, 5_000):
        publication = publisher.send(records[start : start + 5_000])
        if before is not None:
            before.wait(60)
        before = publication
    if before is not None:
        before.wait(60)
    elapsed = time.perf_counter() - began
    publisher.close(5)
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=50_000, help="for the relay; default %(default)s")
    parser.add_argument("--transactions", type=int, default=2_000, help="for publish; default %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    told = parser.parse_args()
    console = Console()
    with postgres_server() as server, kafka_broker() as broker, server.database() as database:
        console.print(f"{server.origin}; {broker.origin}")
        schema.upgrade(database.url)
        engine = sa.create_engine(database.sqlalchemy_url)
        Base.metadata.create_all(engine)
        seconds_of_transactions(engine, 200, publish=True)
        overhead = [
            (
                seconds_of_transactions(engine, told.transactions, publish=True) / told.transactions,
                seconds_of_transactions(engine, told.transactions, publish=False) / told.transactions,
            )
            for _ in range(told.rounds)
        ]
        engine.dispose()
        with psycopg.connect(database.url) as connection:
            connection.execute("DROP SCHEMA postroom CASCADE")
        schema.upgrade(database.url)
        kafka = connect(KafkaOptions(broker.bootstrap_servers, options=dict(broker.client_config)))
        rates = [
            (
                told.messages / seconds_of_relay(database, kafka, f"relay-{n}", told.messages),
                told.messages / seconds_of_producer(kafka, f"raw-{n}", told.messages),
            )
            for n in range(told.rounds)
        ]
    table = Table("", "min", "median", "max")
    for name, values, form in (
        ("publish + commit, ms", [1000 * a for a, _ in overhead], ".3f"),
        ("commit alone, ms", [1000 * b for _, b in overhead], ".3f"),
        ("ratio", [a / b for a, b in overhead], ".2f"),
        ("relay, messages/s", [a for a, _ in rates], ",.0f"),
        ("raw producer, messages/s", [b for _, b in rates], ",.0f"),
        ("ratio", [a / b for a, b in rates], ".2f"),
    ):
        table.add_row(name, *(format(f(values), form) for f in (min, statistics.median, max)))
    console.print(table)


if __name__ == "__main__":
    main()
