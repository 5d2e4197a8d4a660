"""The client libraries alone: the records that our relay would send, from memory, at our settings.

Those are what ``messaging/kafkapython/client.py`` and ``messaging/confluent/client.py`` give their producers.

A system (see ``systems``), and the process that produces.
"""

import gc
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from os import environ
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Delivered
from kafka import KafkaProducer
from kafka.partitioner.default import murmur2

from .systems import Command
from .workload import PARTITIONS, Workload

_ANSWER_SECONDS = 60
_SERVE_EVERY = 1_000


class RawSystem:
    """See ``systems.System``. ``variant``: the client, and how it is used."""

    tables: Sequence[str] = ()
    insert_sql = ""

    def __init__(self, topic: str, variant: str) -> None:
        self._arguments = [topic, variant]
        self._count = 0

    def setup(self, connection: psycopg.Connection[Any]) -> None:
        pass

    def fill(self, connection: psycopg.Connection[Any], count: int) -> None:
        self._count = count

    def before_relay(self, connection: psycopg.Connection[Any]) -> None:
        pass

    def insert_args(self, key: str, body: str) -> Sequence[Any]:
        raise NotImplementedError  # there is no table, so nobody inserts

    def pending(self, connection: psycopg.Connection[Any]) -> int:
        return 0  # what Kafka has is all there is to it

    def relay(self, instance: int) -> Command:
        return [sys.executable, "-m", "benchmarks.raw", *self._arguments, str(self._count)], {}

    def teardown(self, connection: psycopg.Connection[Any]) -> None:
        pass


class _Record(NamedTuple):
    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


def _records(count: int) -> list[_Record]:
    """With the headers that the relay writes; the report compares the bytes of both."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z").encode()
    made = []
    for row in Workload().take(count):
        key, identity = row.key.encode(), str(uuid4()).encode()
        headers: list[tuple[str, str | bytes | None]] = [
            ("ce_specversion", b"1.0"),
            ("ce_id", identity),
            ("ce_type", b"bench.event"),
            ("ce_time", now),
            ("ce_subject", key),
            ("ce_source", b"/bench"),
            ("correlation_id", identity),
        ]
        made.append(_Record(key, row.body.encode(), headers))
    return made


def _kafka_python(topic: str, records: list[_Record], *, partition_given: bool) -> Callable[[], None]:
    producer = KafkaProducer(
        bootstrap_servers=environ["KAFKA_BOOTSTRAP_SERVERS"],
        acks="all",
        enable_idempotence=True,
        batch_size=262_144,
        metrics_enabled=False,
    )
    producer.partitions_for(topic)
    partitions: dict[bytes, int | None] = {
        record.key: (murmur2(record.key) & 0x7FFFFFFF) % PARTITIONS if partition_given else None for record in records
    }

    def produce() -> None:
        send = producer.send
        futures = [send(topic, value, key, headers, partitions[key]) for key, value, headers in records]
        producer.flush()
        for future in futures:
            future.get(_ANSWER_SECONDS)

    return produce


def _confluent(topic: str, records: list[_Record], *, errors_only: bool) -> Callable[[], None]:
    errors: list[KafkaError] = []
    delivered = 0

    def answered(error: KafkaError | None, _message: Delivered) -> None:
        nonlocal delivered
        delivered += 1
        if error is not None:
            errors.append(error)

    producer = Producer(
        {
            "bootstrap.servers": environ["KAFKA_BOOTSTRAP_SERVERS"],
            "acks": "all",
            "enable.idempotence": True,
            "enable.gapless.guarantee": True,
            "message.timeout.ms": 0,
            "partitioner": "murmur2_random",
            "linger.ms": 0,
            "queue.buffering.max.messages": 200_000,
            "queue.buffering.max.kbytes": 131_072,
            "delivery.report.only.error": errors_only,
            "on_delivery": answered,
        }
    )
    producer.list_topics(topic, timeout=_ANSWER_SECONDS)

    def produce() -> None:
        for number, (key, value, headers) in enumerate(records):
            while True:
                try:
                    producer.produce(topic, value, key, headers=headers)
                    break
                except BufferError:
                    producer.poll(0.005)
            if not number % _SERVE_EVERY:
                producer.poll(0)
        if producer.flush(_ANSWER_SECONDS) or errors:
            raise KafkaException(errors[0] if errors else KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001  no public word for it
        if not errors_only and delivered != len(records):
            raise RuntimeError(f"{delivered} answers to {len(records)} records")

    return produce


def main(topic: str, variant: str, count: int) -> None:
    """Produce, then wait to be ended, as a relay does."""
    client, _, how = variant.partition(",")
    records = _records(count)
    if client == "confluent":
        produce = _confluent(topic, records, errors_only=how != "callback")
    else:
        produce = _kafka_python(topic, records, partition_given=how == "partition")
    gc.collect()
    gc.freeze()  # so that the collector does not walk through the records again and again
    produce()
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
