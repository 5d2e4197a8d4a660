"""What is measured, each by its name: ``postroom/kafka-python``, ``raw/confluent``, ``debezium/tuned`` …

A system has the form that ``System`` in the peers' ``common.py`` has, so their drivers are used as they are,
and one harness measures all.
"""

import importlib
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import psycopg

OURS = ("postroom/kafka-python", "postroom/confluent")
RAW = ("raw/kafka-python", "raw/kafka-python,partition", "raw/confluent,callback", "raw/confluent")
#: Consumers: the messages to a transaction, then what is special. See ``inbox``.
INBOX = ("raw/inbox,1", "postroom/inbox,1", "raw/inbox,100", "postroom/inbox,100")
INBOX_DISTURBED = (
    "postroom/inbox,100,duplicates",
    "postroom/inbox,100,poisoned",
    "postroom/inbox,1,slow",
)

Command = tuple[list[str], dict[str, str]]


class System(Protocol):
    """A relay with its tables."""

    tables: Sequence[str]
    """To be analysed after the fill."""
    insert_sql: str
    """One message, committed by itself; placeholders as PostgreSQL has them: $1, $2 …"""

    def setup(self, connection: psycopg.Connection[Any]) -> None:
        """Make the tables, empty."""

    def fill(self, connection: psycopg.Connection[Any], count: int) -> None:
        """Write a backlog of ``workload`` rows, 1,000 in a transaction."""

    def before_relay(self, connection: psycopg.Connection[Any]) -> None:
        """The last word before the relay is started."""

    def insert_args(self, key: str, body: str) -> Sequence[Any]:
        """The values for ``insert_sql``."""

    def pending(self, connection: psycopg.Connection[Any]) -> int:
        """How many messages are not settled."""

    def relay(self, instance: int) -> Command:
        """How to start the relay, and with which environment."""

    def teardown(self, connection: psycopg.Connection[Any]) -> None:
        """Clean up what does not go with the database."""


def family(name: str) -> str:
    """``debezium`` of ``debezium/tuned``."""
    return name.partition("/")[0]


def is_peer(name: str) -> bool:
    """Whether it runs in the peers' environment rather than in ours."""
    return family(name) not in ("postroom", "raw")


def driver(peers: Path, name: str) -> Path:
    """The peer's driver."""
    return peers / f"sys_{family(name)}.py"


def load(name: str, topic: str) -> tuple[System, Path]:
    """The system, and the folder where its relay starts. ``PEERS`` in the environment is where the peers are."""
    variant = name.partition("/")[2]
    if family(name) == "postroom":
        from .postroom_system import PostroomSystem

        return PostroomSystem(topic, variant), Path(os.environ["WORK"])
    if family(name) == "raw":
        from .raw import RawSystem

        return RawSystem(topic, variant), Path(__file__).parents[1]
    peers = Path(os.environ["PEERS"])
    sys.path.append(str(peers))
    made: System = importlib.import_module(f"sys_{family(name)}").SYSTEM(topic, Namespace(variant=variant))
    return made, peers
