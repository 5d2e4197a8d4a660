"""The PostgreSQL and the Kafka that everything is measured against."""

import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg

from postroom.testing import Broker, ControlUnsupportedError, Postgres, kafka_broker, postgres_server

from .workload import PARTITIONS

_SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "fsync": "on", "synchronous_commit": "on"}
_TOLD = (*_SETTINGS, "wal_level")


@dataclass(frozen=True)
class Servers:
    """Both, running."""

    postgres: Postgres
    kafka: Broker

    def facts(self) -> dict[str, str]:
        """What they are and how they are set."""
        with psycopg.connect(self.postgres.url) as connection:
            version = connection.execute("SHOW server_version").fetchone()
            rows = connection.execute(
                "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY (%s) ORDER BY name", [[*_TOLD]]
            ).fetchall()
        java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
        return {
            "PostgreSQL": f"{version[0] if version else '?'} ({self.postgres.origin})",
            "PostgreSQL settings": ", ".join(f"{name}={value}" for name, value in rows),
            "Kafka": f"{self.kafka.origin}, {PARTITIONS} partitions",
            "Java": (java.stderr.splitlines() or ["none"])[0],
            "Python": platform.python_version(),
        }


@contextmanager
def servers() -> Iterator[Servers]:
    """Start both; stopped and removed at the end. Raises ServerUnavailableError.

    A PostgreSQL of ours gets the memory that a server of this load would have. One that is somebody else's
    (``POSTROOM_DATABASE_URL``) is taken as it is.
    """
    with postgres_server() as postgres, kafka_broker(partitions=PARTITIONS) as kafka:
        with suppress(ControlUnsupportedError):
            _tune(postgres)
        yield Servers(postgres, kafka)


def _tune(postgres: Postgres) -> None:
    postgres.start()  # refuses, before anything is changed, where the server is not ours
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        for name, value in _SETTINGS.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
    postgres.restart()
