"""Fixtures for pytest: a PostgreSQL database of its own for each test, a Kafka broker, and what needs no server.

Servers start when the first test asks for one, and end with the session (see ``postgres_server`` and
``kafka_broker`` for where they come from). A test is skipped when its server cannot be had; the variable
``POSTROOM_REQUIRE=kafka,postgres`` makes it fail instead.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from .. import testing

if TYPE_CHECKING:
    from .clock import FakeClock
    from .kafka import Broker
    from .memory_kafka import MemoryKafka
    from .postgres import Database, Postgres
    from .quiet import App
    from .report import Report

REQUIRE_VARIABLE = "POSTROOM_REQUIRE"
REAL_KAFKA_REASON = (
    "needs a real Kafka broker; only the in-memory mock cluster is here (install Docker, or Java and Maven)"
)

_KNOWN = frozenset({"kafka", "postgres"})
_used = pytest.StashKey[dict[str, str]]()


@pytest.fixture(scope="session")
def postroom_postgres_server(request: pytest.FixtureRequest) -> Iterator["Postgres"]:
    """The session's PostgreSQL server. A test that stops, kills or pauses it may leave it so."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(testing.postgres_server())
        except testing.ServerUnavailableError as error:
            _missing("postgres", str(error))
        request.config.stash[_used]["PostgreSQL"] = server.origin
        yield server


@pytest.fixture
def postroom_postgres(postroom_postgres_server: "Postgres") -> Iterator["Database"]:
    """A fresh database, dropped after the test: ``.url`` for psycopg, ``.sqlalchemy_url`` for SQLAlchemy."""
    with postroom_postgres_server.database() as database:
        yield database


@pytest.fixture(scope="session")
def postroom_kafka(request: pytest.FixtureRequest) -> Iterator["Broker"]:
    """The session's Kafka broker, which may be the mock cluster: see ``.is_mock`` and ``.client_config``."""
    with ExitStack() as stack:
        try:
            broker = stack.enter_context(testing.kafka_broker())
        except testing.ServerUnavailableError as error:
            _missing("kafka", str(error))
        request.config.stash[_used]["Kafka"] = broker.origin
        yield broker


@pytest.fixture(scope="session")
def postroom_real_kafka(postroom_kafka: "Broker") -> "Broker":
    """The session's Kafka broker; the test is skipped when that is the mock cluster.

    Also as a mark: ``@pytest.mark.usefixtures("postroom_real_kafka")``.
    """
    if postroom_kafka.is_mock:
        _missing("kafka", REAL_KAFKA_REASON)
    return postroom_kafka


@pytest.fixture
def postroom_topic() -> Callable[[str], str]:
    """Makes topic names that nobody else uses: ``postroom_topic("orders")``. The topic is not created."""

    def topic(name: str) -> str:
        return f"{name}-{secrets.token_hex(6)}"

    return topic


@pytest.fixture
def postroom_sqlite(tmp_path: Path) -> str:
    """The URL of a fresh SQLite file with Postroom's tables."""
    from ..outbox import schema  # noqa: PLC0415  who does not ask for it shall not wait for it

    url = f"sqlite:///{tmp_path / 'postroom.db'}"
    schema.upgrade(url)
    return url


@pytest.fixture
def postroom_memory_kafka() -> "MemoryKafka":
    """A Kafka in memory, empty."""
    return testing.MemoryKafka()


@pytest.fixture
def postroom_clock() -> "FakeClock":
    """A clock that stands still at the time of now."""
    return testing.FakeClock()


@pytest.fixture
def postroom_run(postroom_memory_kafka: "MemoryKafka", postroom_clock: "FakeClock") -> Callable[..., "Report"]:
    """``run_until_quiet`` on ``postroom_memory_kafka`` and ``postroom_clock``: ``postroom_run(App(url, [inbox]))``."""

    def run(*apps: "App", **options: Any) -> "Report":
        return testing.run_until_quiet(*apps, **{"kafka": postroom_memory_kafka, "clock": postroom_clock, **options})

    return run


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_used] = {}
    unknown = _required() - _KNOWN
    if unknown:
        raise pytest.UsageError(f"{REQUIRE_VARIABLE} knows {', '.join(sorted(_KNOWN))}; not {', '.join(unknown)}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist tells the process that prints."""
    told = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["postroom_used"] = session.config.stash.get(_used, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:  # noqa: ARG001  the hook's arguments
    """Hear it."""
    node.config.stash[_used].update(getattr(node, "workeroutput", {}).get("postroom_used", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which servers the tests ran against, where they used any."""
    used = config.stash.get(_used, {})
    if used:
        terminalreporter.write_line("postroom: " + "; ".join(f"{name}: {origin}" for name, origin in used.items()))


def _required() -> set[str]:
    return set(re.findall(r"[^\s,]+", os.environ.get(REQUIRE_VARIABLE, "")))


def _missing(what: str, reason: str) -> NoReturn:
    if what in _required():
        pytest.fail(f"{REQUIRE_VARIABLE} asks for {what}: {reason}", pytrace=False)
    pytest.skip(reason)
