"""A consumer under measurement, in a process of its own: ``python -m benchmarks.consuming SYSTEM TOPIC``."""

import os
import sys
import time
from typing import Any

import sqlalchemy as sa
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from sqlalchemy.orm import Session

from postroom.inbox import Context, Inbox, InboxRunner, InboxSettings, Received
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.outbox import schema

from .inbox import POISONED, event

_INSERT = sa.text("INSERT INTO effect (id, key, seq) VALUES (:id, :key, :seq)")
_SEEN = sa.text("INSERT INTO seen (message_id) VALUES (:id) ON CONFLICT DO NOTHING")
_SLOW_SECONDS = 0.02
_SLOW = "key-0008"


def by_hand(topic: str, size: int) -> None:
    """One loop: poll, for each message its id and the INSERT, commit, commit the offsets. As one writes it."""
    engine = sa.create_engine(sa.make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg"))
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id=f"by-hand-{topic}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    while True:
        polled = consumer.poll(timeout_ms=500, max_records=500)
        records = [record for found in polled.values() for record in found]
        for start in range(0, len(records), size):
            with Session(engine) as session, session.begin():
                for record in records[start : start + size]:
                    message_id = dict(record.headers)["ce_id"].decode()
                    counting = {"preserve_rowcount": True}
                    answer: Any = session.connection().execute(_SEEN, {"id": message_id}, execution_options=counting)
                    if answer.rowcount:
                        session.execute(_INSERT, event(record.value))
        if polled:
            consumer.commit(
                {
                    TopicPartition(part.topic, part.partition): OffsetAndMetadata(found[-1].offset + 1, "", -1)
                    for part, found in polled.items()
                }
            )


def ours(topic: str, size: int, special: list[str]) -> None:
    """An inbox with one handler."""
    url = os.environ["DATABASE_URL"]
    schema.upgrade(url)
    inbox = Inbox(f"bench-{topic}")

    @inbox.handler(topic, base=0.5, cap=5)
    def handle(message: Received, ctx: Context) -> None:
        body = event(message.payload)
        if body["key"] == POISONED and "poisoned" in special:
            raise RuntimeError("always")
        if body["key"] == _SLOW and "slow" in special:
            time.sleep(_SLOW_SECONDS)  # it is what is measured: a handler that waits
        ctx.session.execute(_INSERT, body)

    settings = InboxSettings(batch_size=size, concurrency=8 if "slow" in special else 1)
    kafka = connect(KafkaOptions(os.environ["KAFKA_BOOTSTRAP_SERVERS"]))
    runner = InboxRunner(inbox, database_url=url, kafka=kafka, settings=settings)
    runner.start()
    runner.join()


def main() -> None:
    """Consume until we are killed."""
    system, topic = sys.argv[1:]
    name, size, *special = system.split(",")
    if name == "raw/inbox":
        by_hand(topic, int(size))
    else:
        ours(topic, int(size), special)


if __name__ == "__main__":
    main()
