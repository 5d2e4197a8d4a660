"""The desk of dead letters: bringing the ledger up to date, looking at it, replaying.

``ledger``  ``ask.n`` dead letters in Kafka: a bare kafka-python consumer reads them, then the ledger takes them in;
            then lists and statistics of that ledger.
``replay``  a relay drains ``ask.n`` messages; then as many dead letters are replayed while it runs.

The second half of the file is what the measured processes run: ``python -m benchmarks.dead_letters WHAT TOPIC FILE``.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

import psycopg
from confluent_kafka import Producer
from kafka import KafkaConsumer, TopicPartition

from postroom.dlq import Filter, Ledger, Pace, State, catch_up, find, make_plan, run_plan, statistics
from postroom.dlq.ingest import insert
from postroom.dlq.letter import DeadLetter
from postroom.messaging.dead_letter import Failure, dead_letter_headers
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.outbox import schema

from .drain import Ask, Bench, bench
from .process import MeasuredProcess, MeasurementError, tail
from .topic import fresh_topic
from .workload import Row, Workload

_ROOT = Path(__file__).parents[1]
_GROUP = "billing"
_FAILURES = 20
_TURNS = 5
_PART = 2_000
_WHEN = datetime(2026, 1, 1, tzinfo=UTC)
#: What operators ask most; and a text that no letter has, for which all are looked at.
FILTERS = {
    "all": Filter(),
    "group": Filter(group=_GROUP),
    "key": Filter(key=b"key-0007"),
    "state": Filter(states=frozenset({State.QUARANTINED})),
    "error": Filter(error="gateway 7 "),
    "since": Filter(since=_WHEN + timedelta(hours=1)),
    "nothing": Filter(error="no such text"),
}


def ledger(ask: Ask) -> dict[str, Any]:
    """Reading and looking."""
    schema.upgrade(ask.url)
    with fresh_topic(ask.bootstrap_servers, "letters") as topic:
        _produce(ask.bootstrap_servers, topic.name, ask.n)
        bare, _ = _measured(ask, "consume", topic.name)
        own, process = _measured(ask, "catch-up", topic.name)
    looked, _ = _measured(ask, "look", "-")
    return {
        "n": ask.n,
        "bare_rate": bare["rate"],
        "rate": own["rate"],
        "lost": ask.n - own["read"],
        "peak_mb": round(process.peak_mb, 1),
        "cpu_seconds": round(process.cpu_seconds, 2),
        **looked,
    }


def replay(ask: Ask) -> dict[str, Any]:
    """A replay beside the rate of the relay that publishes it."""
    with bench(ask) as drained:
        drained.system.fill(drained.connection, ask.n)
        relay_rate = _rate(drained, drained.start)
    with bench(ask) as made:
        _fill_ledger(ask, made.topic.name)
        relay = made.start()
        process: list[MeasuredProcess] = []
        rate = _rate(made, lambda: process.append(_start(ask, "replay", made.topic.name)) or relay)
        process[0].end()
        contents = made.topic.read()
    return {
        "n": ask.n,
        "relay_rate": relay_rate,
        "rate": rate,
        "lost": ask.n - len(contents.first_seen),
        "twice": len(contents.duplicate_times),
        "out_of_order": contents.out_of_order,
        "peak_mb": round(process[0].peak_mb, 1),
        "cpu_seconds": round(process[0].cpu_seconds, 2),
    }


def _rate(made: Bench, start: Callable[[], MeasuredProcess]) -> float:
    """Messages a second, from the start until the last is in Kafka."""
    began = time.time()
    relay = start()
    ended = made.await_all(made.ask.n, time.time() + made.ask.seconds, [relay])
    return round(made.ask.n / (ended - began), 1)


def _start(ask: Ask, what: str, topic: str) -> MeasuredProcess:
    command = [sys.executable, "-m", "benchmarks.dead_letters", what, topic, str(ask.work / f"{what}.json")]
    return MeasuredProcess(command, {}, _ROOT, ask.work / f"{what}.log")


def _measured(ask: Ask, what: str, topic: str) -> tuple[dict[str, Any], MeasuredProcess]:
    process, told = _start(ask, what, topic), ask.work / f"{what}.json"
    deadline = time.time() + ask.seconds
    try:
        while not told.exists():
            time.sleep(0.1)  # between two looks; a file tells nobody
            if not told.exists():
                process.require_running()
            if time.time() > deadline:
                raise MeasurementError(f"{what} took too long: {tail(ask.work / f'{what}.log')}")
    finally:
        process.end()
    found: dict[str, Any] = json.loads(told.read_text())
    return found, process


def _letters(topic: str, rows: Iterator[Row]) -> Iterator[ReceivedRecord]:
    """Dead letters of messages with the headers that our relay writes."""
    failures = [_failure(number) for number in range(_FAILURES)]
    for number, row in enumerate(rows):
        message_id = str(UUID(int=row.id + 1)).encode()
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", message_id),
            ("ce_type", b"bench.event"),
            ("ce_time", b"2026-01-01T00:00:00Z"),
            ("ce_subject", row.key.encode()),
            ("correlation_id", message_id),
            ("ce_source", b"/bench"),
            ("content-type", b"application/json"),
        ]
        place = Partition(topic, hash(row.key) % 6)
        record = ReceivedRecord(place, number, row.key.encode(), row.body.encode(), headers, _WHEN)
        told = dead_letter_headers(record, _GROUP, failures[number % _FAILURES])
        yield record._replace(partition=Partition(f"{topic}.{_GROUP}.dlq", place.number), headers=told)


def _failure(number: int) -> Failure:
    try:
        _charge(number, depth=5)
    except TimeoutError as error:
        return Failure(error, f"shop.billing.charge_{number}", 5, _WHEN, _WHEN + timedelta(minutes=number * 10))
    raise AssertionError


def _charge(number: int, depth: int) -> None:
    """Fails, with some frames in its stack."""
    if depth:
        _charge(number, depth - 1)
    raise TimeoutError(f"gateway {number} did not answer in 30 s")


def _produce(bootstrap_servers: str, topic: str, count: int) -> None:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 500_000,
            "linger.ms": 50,
        }
    )
    for record in _letters("orders", Workload().take(count)):
        while True:
            try:
                producer.produce(topic, record.value, record.key, headers=list(record.headers))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    if producer.flush(120):
        raise MeasurementError("Kafka did not take the dead letters")


def _fill_ledger(ask: Ask, topic: str) -> None:
    """As catching up would have it."""
    desk = Ledger(ask.url)
    part: list[DeadLetter] = []
    for record in _letters(topic, Workload().take(ask.n)):
        part.append(DeadLetter.of(record))
        if len(part) == _PART:
            with desk.changing() as work:
                insert(work, part)
            part = []
    if part:
        with desk.changing() as work:
            insert(work, part)
    desk.close()
    with psycopg.connect(ask.url, autocommit=True) as connection:
        connection.execute("ANALYZE")


def _consume(topic: str) -> dict[str, Any]:
    consumer = KafkaConsumer(bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"])
    parts = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
    consumer.assign(parts)
    count = sum(consumer.end_offsets(parts).values())
    consumer.seek_to_beginning()
    read, began = 0, time.monotonic()
    while read < count:
        read += sum(map(len, consumer.poll(timeout_ms=500).values()))
    return {"rate": round(read / (time.monotonic() - began), 1)}


def _catch_up(topic: str) -> dict[str, Any]:
    from postroom.cli.serve import calm_garbage_collector  # as `postroom dlq` does

    reader = connect(KafkaOptions(os.environ["KAFKA_BOOTSTRAP_SERVERS"])).reader()
    desk = Ledger(os.environ["DATABASE_URL"])
    desk.check()
    calm_garbage_collector()
    began = time.monotonic()
    caught = catch_up(reader, desk, [topic])
    return {"read": caught.read, "rate": round(caught.read / (time.monotonic() - began), 1)}


def _look(_: str) -> dict[str, Any]:
    desk = Ledger(os.environ["DATABASE_URL"])
    find(desk, Filter())
    listed = {name: _milliseconds(lambda each=wanted: find(desk, each)) for name, wanted in FILTERS.items()}
    nothing = listed.pop("nothing")
    return {
        "list_ms": max(listed.values()),
        "list_nothing_ms": nothing,
        "stats_ms": _milliseconds(lambda: statistics(desk, Filter())),
        "stats_by_key_ms": _milliseconds(lambda: statistics(desk, Filter(), by="key")),
    }


def _milliseconds(look: Callable[[], object]) -> float:
    times = []
    for _ in range(_TURNS):
        began = time.perf_counter()
        look()
        times.append((time.perf_counter() - began) * 1000)
    return round(median(times), 1)


def _replay(topic: str) -> dict[str, Any]:
    from postroom.cli.serve import calm_garbage_collector  # as `postroom dlq` does

    calm_garbage_collector()
    desk = Ledger(os.environ["DATABASE_URL"])
    plan, _ = make_plan(desk, Filter(), existing={topic}, actor="bench", told="all", pace=Pace())
    assert plan is not None
    return {"replayed": run_plan(desk, plan.id, actor="bench").replayed}


def main(arguments: Sequence[str]) -> None:
    """Run one of the measured processes; its result goes into the file when it is whole."""
    what, topic, told = arguments
    run = {"consume": _consume, "catch-up": _catch_up, "look": _look, "replay": _replay}[what]
    result, file = run(topic), Path(told)
    written = file.with_suffix(".part")
    written.write_text(json.dumps(result))
    written.rename(file)


if __name__ == "__main__":
    main(sys.argv[1:])
