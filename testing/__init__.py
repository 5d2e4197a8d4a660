"""For the tests of an application: what it publishes, its services to their rest, time, crashes, and real servers.

``published`` tells what a transaction will publish; ``run_until_quiet`` runs relays and inboxes in this process until
nothing is left to do; ``MemoryKafka`` is a Kafka without a broker, ``FakeClock`` a time that stands still; ``crash_at``
lets a daemon die at a step; ``assert_idempotent`` runs a handler twice. PostgreSQL and Kafka come by whatever the
machine has, with faults on demand.

``postroom.testing.plugin`` offers them as pytest fixtures. Names are loaded on first use, so that the
plugin costs nothing where it is not used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..messaging.observer import Crash
    from .clock import FakeClock
    from .crash import crash_at
    from .idempotency import assert_idempotent
    from .kafka import Broker, kafka_broker
    from .memory_kafka import MemoryKafka
    from .messages import Messages, PublishedMessage, assert_not_published, assert_published
    from .postgres import Database, Postgres, postgres_server
    from .proxy import TcpProxy
    from .quiet import App, NotQuietError, run_until_quiet
    from .report import Fate, HeldMessage, Parked, Report
    from .server import ControlUnsupportedError, ServerUnavailableError
    from .transaction import published

__all__ = [
    "App",
    "Broker",
    "ControlUnsupportedError",
    "Crash",
    "Database",
    "FakeClock",
    "Fate",
    "HeldMessage",
    "MemoryKafka",
    "Messages",
    "NotQuietError",
    "Parked",
    "Postgres",
    "PublishedMessage",
    "Report",
    "ServerUnavailableError",
    "TcpProxy",
    "assert_idempotent",
    "assert_not_published",
    "assert_published",
    "crash_at",
    "kafka_broker",
    "postgres_server",
    "published",
    "run_until_quiet",
]

_HOMES = {
    "App": "quiet",
    "Broker": "kafka",
    "ControlUnsupportedError": "server",
    "Crash": "crash",
    "Database": "postgres",
    "FakeClock": "clock",
    "Fate": "report",
    "HeldMessage": "report",
    "MemoryKafka": "memory_kafka",
    "Messages": "messages",
    "NotQuietError": "quiet",
    "Parked": "report",
    "Postgres": "postgres",
    "PublishedMessage": "messages",
    "Report": "report",
    "ServerUnavailableError": "server",
    "TcpProxy": "proxy",
    "assert_idempotent": "idempotency",
    "assert_not_published": "messages",
    "assert_published": "messages",
    "crash_at": "crash",
    "kafka_broker": "kafka",
    "postgres_server": "postgres",
    "published": "transaction",
    "run_until_quiet": "quiet",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
