"""The ports of the log: what the relay needs of a store."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from .entry import Entry, LogRow


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows in the order of their positions, and what settling them does to the cursors (the store's secret)."""

    rows: Sequence[LogRow]
    moves: Any = field(repr=False, default=None)

    @property
    def caught_up(self) -> bool:
        """Nothing is waiting, and nothing is to settle."""
        return not self.rows and self.moves is None


class Refusal(NamedTuple):
    """A row to park. ``error`` is Kafka's reason; None where it only waits behind a parked one of its key."""

    row: LogRow
    error: str | None


class ParkedRow(NamedTuple):
    """A row that waits outside the log."""

    row: LogRow
    error: str | None
    parked_at: datetime
    retry: bool


class LogReader(Protocol):
    """The relay's hold on the log: shards by lease, batches, cursors. For one thread.

    Each method is one transaction, and raises DatabaseUnavailable, after which the next call connects
    anew and reads the cursors again. Nothing that was not settled is forgotten.
    """

    def claim(self) -> frozenset[int]:
        """Renew the leases held, take those that are free or expired; the shards now owned. A heartbeat."""

    def read(self, limit: int) -> Batch:
        """Up to ``limit`` rows committed and not settled in the owned shards; empty when caught up."""

    def settle(self, batch: Batch, refusals: Sequence[Refusal] = ()) -> None:
        """Move the cursors past ``batch`` and park ``refusals``. Raises Fenced if any shard of it was lost."""

    def release(self) -> None:
        """Give the leases back at once. Does not raise for an absent database: they expire."""

    def close(self) -> None:
        """Close the connection. Does not raise."""


class ParkingLot(Protocol):
    """Rows that Kafka refused, and those of their keys behind them."""

    def parked(self, limit: int = 1000) -> Sequence[ParkedRow]:
        """The oldest ones, by position."""

    def releasable(self, limit: int = 1000) -> Sequence[ParkedRow]:
        """Those to publish now, by position: a retry is asked for, and nothing refused stands before them."""

    def held_keys(self) -> frozenset[tuple[str, bytes]]:
        """Topic and key of every parked row that has a key: later messages of these wait."""

    def request_retry(self, positions: Sequence[int]) -> int:
        """Ask the relay to publish them again, and what waits behind them; how many there were."""

    def discard(self, positions: Sequence[int]) -> int:
        """Forget them for good, or because they are published; what waited behind them goes on."""


class Caretaker(Protocol):
    """What has to be done now and then so that the log goes on."""

    def move_due(self, limit: int = 1000) -> int:
        """Move delayed messages that are due into the log; how many."""

    def add_partitions(self) -> None:
        """Make room ahead of the head."""

    def backlog(self) -> tuple[int, float]:
        """Messages not settled, and the age of the oldest in seconds."""


class LogStore(ParkingLot, Caretaker, Protocol):
    """A database with the tables of Postroom."""

    def reader(self, owner: str, lease: float) -> LogReader:
        """A reader for the relay named ``owner`` whose leases last ``lease`` seconds."""

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries in a transaction of their own, for tools: dead letters replayed, messages copied."""

    def close(self) -> None:
        """Close what is open."""
