"""What the tests of the doctor share."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from postroom.cli.app import App
from postroom.cli.checkup.examine import CHECKS, examine
from postroom.cli.checkup.patient import Finding, Patient
from postroom.inbox import Inbox
from postroom.messaging.errors import ConfigurationError
from postroom.outbox import Message, Outbox, schema
from postroom.outbox.database import open_store
from postroom.outbox.log import LogStore
from postroom.testing.kafka import Broker
from postroom.testing.postgres import Database

Found = dict[tuple[str, str], Finding]


class Doctor:
    """Looks at a database and a cluster, and remembers what it saw last."""

    def __init__(self, url: str, broker: Broker | None = None) -> None:
        self.url = url
        self._broker = broker

    def at(self, broker: Broker) -> "Doctor":
        """The same database, and this cluster."""
        return Doctor(self.url, broker)

    def patient(self, inbox: Inbox | None = None, **settings: Any) -> Patient:
        app = App()
        given = {"database_url": self.url, **settings}
        if self._broker is not None:
            given["kafka_bootstrap_servers"] = self._broker.bootstrap_servers
            given.setdefault("kafka_options", json.dumps(dict(self._broker.client_config)))
        elif "kafka_client" not in given:
            given.setdefault("kafka_options", json.dumps({"bootstrap_timeout_ms": 100}))  # nobody is there
        with pytest.MonkeyPatch.context() as environment, suppress(ConfigurationError):
            for name, value in given.items():  # where a password may stand
                environment.setenv(f"POSTROOM_{name.upper()}", str(value))
            assert app.loaded
        return Patient(app, inbox)

    def look(self, *names: str, inbox: Inbox | None = None, **settings: Any) -> Found:
        """What the checks of these names find."""
        with closing(self.patient(inbox, **settings)) as patient:
            found = examine(patient, [check for check in CHECKS if check.name in names])
        assert not [each for each in found if "Unexpected" in each.told], found
        assert all(each.todo for each in found if each.state != "ok"), found
        return {(each.check, each.subject): each for each in found}


@pytest.fixture
def doctor(postroom_postgres: Database) -> Doctor:
    schema.upgrade(postroom_postgres.url)
    return Doctor(postroom_postgres.url)


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Doctor:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    schema.upgrade(url)
    return Doctor(url)


@pytest.fixture
def store(doctor: Doctor) -> Iterator[LogStore]:
    with closing(open_store(doctor.url)) as store:
        yield store


@pytest.fixture
def append(store: LogStore) -> Callable[..., None]:
    """``append(topic, *keys)``: a message for each key."""
    outbox = Outbox(source="/test")

    def append(topic: str, *keys: bytes | None) -> None:
        messages = [Message(topic=topic, key=key, payload=b"x" * 2_000, type="n") for key in keys]
        store.append([outbox.entry(message) for message in messages])

    return append
