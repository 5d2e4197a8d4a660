"""How fast messages are consumed, each with an INSERT of its own: ours, and loops written by hand.

The system's name: ``postroom/inbox`` or ``raw/inbox``, then the messages to a transaction, then what is special:
``poisoned`` (one key of a thousand always fails), ``slow`` (one key's messages take 20 ms, with 8 workers),
``duplicates`` (every tenth comes twice).
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from confluent_kafka import Producer

from .drain import Ask
from .process import MeasuredProcess, MeasurementError
from .topic import fresh_topic, steady_rate
from .workload import Row, Workload

_ROOT = Path(__file__).parents[1]
_LOOK_SECONDS = 0.1
_QUIET_SECONDS = 0.3
TABLES = """
CREATE TABLE effect (id bigint NOT NULL, key text NOT NULL, seq integer NOT NULL,
                     at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE seen (message_id uuid PRIMARY KEY);
"""
POISONED = "key-0007"


def inbox(ask: Ask) -> dict[str, Any]:
    """``ask.n`` messages that are in Kafka already."""
    special = ask.system.partition(",")[2].split(",")[1:]
    with psycopg.connect(ask.url, autocommit=True) as connection, fresh_topic(ask.bootstrap_servers, "inbox") as topic:
        connection.execute(TABLES)
        rows = list(Workload().take(ask.n))
        _produce(ask.bootstrap_servers, topic.name, rows, twice=10 if "duplicates" in special else 0)
        expected = sum(row.key != POISONED for row in rows) if "poisoned" in special else ask.n
        command = [sys.executable, "-m", "benchmarks.consuming", ask.system, topic.name]
        process = MeasuredProcess(command, {}, _ROOT, ask.work / "consumer.log")
        try:
            _await(connection, process, expected, time.time() + ask.seconds)
        finally:
            process.end()
        found = connection.execute(
            "SELECT id, key, seq, extract(epoch FROM at)::float8 FROM effect ORDER BY at"
        ).fetchall()
    others = [at for _, key, _, at in found if key != POISONED]
    return {
        "n": ask.n,
        "rate": steady_rate([round(at * 1000) for at in others]),
        "lost": expected - len({row[0] for row in found}),
        "twice": len(found) - len({row[0] for row in found}),
        "out_of_order": _inversions([(key, sequence) for _, key, sequence, _ in found]),
        "cpu_seconds": round(process.cpu_seconds, 2),
        "peak_mb": round(process.peak_mb, 1),
    }


def _produce(bootstrap_servers: str, topic: str, rows: list[Row], *, twice: int) -> None:
    """With the headers that our relay writes."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,  # else a retry may change the order
            "queue.buffering.max.messages": 2_000_000,
        }
    )
    for row in rows:
        for _ in range(2 if twice and row.id % twice == 0 else 1):
            producer.produce(topic, row.body.encode(), row.key.encode(), headers=list(_headers(row)))
        producer.poll(0)
    if producer.flush(60):
        raise MeasurementError("Kafka did not take the messages")


def _headers(row: Row) -> Iterator[tuple[str, bytes]]:
    message_id = str(UUID(int=row.id + 1)).encode()
    yield "ce_specversion", b"1.0"
    yield "ce_id", message_id
    yield "ce_type", b"bench.event"
    yield "ce_time", b"2026-01-01T00:00:00Z"
    yield "ce_source", b"/bench"
    yield "correlation_id", message_id


def _await(connection: psycopg.Connection[Any], process: MeasuredProcess, expected: int, deadline: float) -> None:
    done = 0
    while done < expected:
        time.sleep(_LOOK_SECONDS)  # between two looks, which take a share of what is measured
        process.require_running()
        [(done,)] = connection.execute("SELECT count(*) FROM effect").fetchall()
        if time.time() > deadline:
            raise MeasurementError(f"{done} of {expected} messages were handled when the time was over")
    time.sleep(_QUIET_SECONDS)  # what would come twice comes now; that nothing comes cannot be waited for


def _inversions(effects: list[tuple[str, int]]) -> int:
    last: dict[str, int] = {}
    found = 0
    for key, sequence in effects:
        found += sequence < last.get(key, 0)
        last[key] = max(sequence, last.get(key, 0))
    return found


def event(value: bytes | None) -> dict[str, Any]:
    """A message's body."""
    found: dict[str, Any] = json.loads(value or b"{}")
    return found
