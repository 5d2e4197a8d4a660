"""Postroom as a measured system: its tables, and ``postroom relay run`` as a process."""

import os
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import psycopg

from postroom.outbox import Message, Names, Outbox, schema
from postroom.outbox.database import open_store
from postroom.outbox.entry import Entry
from postroom.outbox.names import queries

from .systems import Command
from .workload import Row, Workload

SOURCE = "/bench"
TYPE = "bench.event"

_OUTBOX = Outbox(source=SOURCE)
_COLUMNS = ("id", "topic", "key", "type", "payload", "headers")
_PER_TRANSACTION = 1_000


class PostroomSystem:
    """See ``systems.System``. ``variant``: the client, then options: ``confluent,lease=10``."""

    tables: Sequence[str] = ("postroom.outbox",)
    # What `Outbox.publish` itself writes for one message, on any connection.
    insert_sql = re.sub(
        r"%\((\w+)\)s", lambda found: f"${_COLUMNS.index(found[1]) + 1}", queries(Names(), "postgres")["append_values"]
    )

    def __init__(self, topic: str, variant: str) -> None:
        self._topic = topic
        self._client, *options = variant.split(",")
        self._options = dict(option.split("=") for option in options)
        self._url = os.environ["DATABASE_URL"]
        self._store = open_store(self._url)
        self.workload = Workload()

    def setup(self, connection: psycopg.Connection[Any]) -> None:
        schema.upgrade(self._url)

    def fill(self, connection: psycopg.Connection[Any], count: int) -> None:
        rows = self.workload.take(count)
        while part := list(islice(rows, _PER_TRANSACTION)):
            self._copy(connection, part)

    def fill_at_once(self, connection: psycopg.Connection[Any], count: int) -> None:
        """The same in one transaction: for a relay that runs already, all of it is there at one moment."""
        self._copy(connection, self.workload.take(count))

    def before_relay(self, connection: psycopg.Connection[Any]) -> None:
        pass

    def insert_args(self, key: str, body: str) -> Sequence[Any]:
        entry = self._entry(key, body)
        return [getattr(entry, name) for name in _COLUMNS]

    def pending(self, connection: psycopg.Connection[Any]) -> int:
        return self._store.backlog()[0]

    def relay(self, instance: int) -> Command:
        environment = {
            "POSTROOM_DATABASE_URL": self._url,
            "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "POSTROOM_KAFKA_CLIENT": self._client,
        }
        if "lease" in self._options:
            environment["POSTROOM_RELAY__LEASE_SECONDS"] = self._options["lease"]
        return [sys.executable, "-m", "postroom.cli.main", "relay", "run"], environment

    def teardown(self, connection: psycopg.Connection[Any]) -> None:
        self._store.close()

    def _entry(self, key: str, body: str) -> Entry:
        return _OUTBOX.entry(Message(topic=self._topic, key=key, payload=body.encode(), type=TYPE))

    def _copy(self, connection: psycopg.Connection[Any], rows: Iterable[Row]) -> None:
        """COPY, which fills faster than INSERT; the rows are those that ``publish`` writes."""
        sql = f"COPY postroom.outbox ({', '.join(_COLUMNS)}) FROM STDIN"
        with connection.transaction(), connection.cursor() as cursor, cursor.copy(sql) as copy:
            for row in rows:
                entry = self._entry(row.key, row.body)
                copy.write_row([getattr(entry, name) for name in _COLUMNS])


def shards_by_owner(connection: psycopg.Connection[Any]) -> list[int]:
    """How many shards each running relay has."""
    counted = "SELECT count(*) FROM postroom.relay_cursor WHERE owner IS NOT NULL GROUP BY owner ORDER BY 1 DESC"
    return [count for (count,) in connection.execute(counted).fetchall()]
