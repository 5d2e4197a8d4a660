"""Reads what happened out of the journals, the database, the topics and the logs."""

import json
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg

from postroom.messaging.dead_letter import dead_letter_topic, replay_count
from postroom.messaging.headers import first
from postroom.messaging.ports import Kafka

from .cluster import WINDOW, Cluster
from .history import Effect, History, Order, Record
from .schedule import RELAYS, Fault
from .services import ORDERS, PAYMENTS, billing

DEAD = dead_letter_topic(ORDERS, billing.group)


def read_history(cluster: Cluster, done: list[Fault]) -> History:
    """All of it, when nothing moves any more. ``done``: the faults that there were."""
    history = History()
    for journal in cluster.folder.glob("*.journal"):
        for told in _lines(journal):
            history.acknowledged.update(told.get("done", ()))
            history.undone.update(told.get("undone", ()))
    with psycopg.connect(cluster.url) as connection:
        _read_tables(connection, history)
    for topic in (ORDERS, PAYMENTS):
        history.records[topic] = list(_records(cluster.kafka, topic))
    kills = sum(fault.kind == "kill" and fault.target in RELAYS for fault in done)
    doubts = (told["count"] for path in cluster.folder.glob("relay-*.log") for told in _events(path, "in_doubt"))
    history.possible_duplicates = kills * WINDOW + sum(map(int, doubts))
    return history


def _read_tables(connection: psycopg.Connection[Any], history: History) -> None:
    history.orders = [Order(*row) for row in connection.execute("SELECT id::text, key, number, kind FROM sent")]
    for topic, message_id, order in connection.execute(
        "SELECT topic, id::text, convert_from(payload, 'UTF8')::jsonb ->> 'order'"
        " FROM postroom.outbox WHERE topic = ANY(%s)",
        [[ORDERS, PAYMENTS]],
    ):
        history.logged[topic].append(message_id)
        if order is not None:
            history.payments[order] += 1
    history.effects = [
        Effect(*row) for row in connection.execute("SELECT service, id, key, number FROM effect ORDER BY place")
    ]
    for (headers,) in connection.execute("SELECT headers FROM postroom.outbox WHERE topic = %s", [DEAD]):
        history.dead[str(dict(headers)["ce_id"])] += 1
    history.letters.update(row[0] for row in connection.execute("SELECT message_id FROM postroom.dead_letter"))
    history.parked = {row[0] for row in connection.execute("SELECT id::text FROM postroom.outbox_parked")}


def _records(kafka: Kafka, topic: str) -> Iterator[Record]:
    with closing(kafka.reader()) as reader:
        for record in reader.read(topic):
            payload = json.loads(record.value or b"{}")
            message_id = first(record.headers, "ce_id") or ""
            replayed = replay_count(record.headers) > 0
            yield Record(record.partition.number, message_id, payload["account"], payload["number"], replayed)


def _events(log: Path, event: str) -> Iterator[dict[str, Any]]:
    return (told for told in _lines(log) if told.get("event") == event)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(errors="replace").splitlines():
        with suppress(ValueError):  # the process was killed while it wrote, or something else wrote into it
            told = json.loads(line)
            if isinstance(told, dict):
                yield told
