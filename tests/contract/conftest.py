"""What the suites of the ports share: each runs over every implementation."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from postroom.outbox import schema
from postroom.outbox.archive import Archive
from postroom.outbox.audit import Action
from postroom.outbox.database import open_store
from postroom.outbox.log import LogReader, LogStore
from postroom.outbox.memory import MemoryLog

CLIENTS = ("kafka-python", "confluent-kafka")


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """The name of a Kafka client library, as in ``KafkaOptions``."""
    name: str = request.param
    return name


@pytest.fixture(params=["postgres", "sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogStore]:
    """An empty log."""
    if request.param == "memory":
        yield MemoryLog()
        return
    if request.param == "postgres":
        url = request.getfixturevalue("postroom_postgres").url
    else:
        url = f"sqlite:///{tmp_path / 'log.db'}"
    request.node.url = url
    schema.upgrade(url)
    store = open_store(url)
    yield store
    store.close()


@pytest.fixture
def readers() -> Iterator[Callable[..., LogReader]]:
    """Makes readers, which are closed after the test."""
    with ExitStack() as stack:

        def make(store: LogStore, owner: str = "a", lease: float = 60.0) -> LogReader:
            reader = store.reader(owner, lease)
            stack.callback(reader.close)
            reader.claim()
            return reader

        yield make


@pytest.fixture
def recorded(request: pytest.FixtureRequest, store: LogStore) -> Callable[[], list[Action]]:
    """What was recorded of operators' actions, the oldest first."""

    def actions() -> list[Action]:
        if isinstance(store, MemoryLog):
            return list(store.actions)
        archive = Archive(request.node.url)
        try:
            return archive.actions()[::-1]
        finally:
            archive.close()

    return actions
