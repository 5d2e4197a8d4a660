"""Real servers for tests: PostgreSQL and Kafka by whatever the machine has, and faults on demand.

``postroom.testing.plugin`` offers them as pytest fixtures. Names are loaded on first use, so that the
plugin costs nothing where it is not used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clock import FakeClock
    from .kafka import Broker, kafka_broker
    from .postgres import Database, Postgres, postgres_server
    from .proxy import TcpProxy
    from .server import ControlUnsupportedError, ServerUnavailableError

__all__ = [
    "Broker",
    "ControlUnsupportedError",
    "Database",
    "FakeClock",
    "Postgres",
    "ServerUnavailableError",
    "TcpProxy",
    "kafka_broker",
    "postgres_server",
]

_HOMES = {
    "Broker": "kafka",
    "ControlUnsupportedError": "server",
    "Database": "postgres",
    "FakeClock": "clock",
    "Postgres": "postgres",
    "ServerUnavailableError": "server",
    "TcpProxy": "proxy",
    "kafka_broker": "kafka",
    "postgres_server": "postgres",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
