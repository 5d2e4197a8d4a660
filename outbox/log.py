"""The ports of the log: what the relay and the operators' tools need of a store."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from .audit import Action
from .entry import Entry, LogRow

MAX_SHARDS = 256
BATCH_BYTES = 8 * 1024 * 1024
"""A batch ends with the row that brings its payloads over so many bytes."""


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
    """A row to park. ``error`` is Kafka's reason; None where it only waits: behind a parked one of its key, or
    with ``by_topic`` until its topic goes on."""

    row: LogRow
    error: str | None
    by_topic: bool = False


class ParkedRow(NamedTuple):
    """A row that waits outside the log."""

    row: LogRow
    error: str | None
    parked_at: datetime
    retry: bool
    by_topic: bool = False


@dataclass(frozen=True, slots=True)
class Holds:
    """What must not be published: later messages of parked keys, and whole topics that stand still."""

    keys: frozenset[tuple[str, bytes]] = frozenset()
    topics: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.keys or self.topics)


@dataclass(frozen=True, slots=True)
class Control:
    """What operators ask of every relay, kept in the database.

    ``paused``: why nothing is published, None while it is; ``topics``: likewise by topic. ``rate``: messages per
    second of all relays together. ``batch_size`` stands in for the setting. ``revision`` grows when parked
    messages may have become free.
    """

    paused: str | None = None
    topics: Mapping[str, str] = field(default_factory=dict)
    rate: float | None = None
    batch_size: int | None = None
    revision: int = 0

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str | None, float | None, int | None, int]]) -> "Control":
        """From the table: topic ('' for all), paused, rate, batch size, revision."""
        whole: tuple[str, str | None, float | None, int | None, int] = ("", None, None, None, 0)
        topics = {}
        for row in rows:
            if not row[0]:
                whole = row
            elif row[1] is not None:
                topics[row[0]] = row[1]
        return cls(whole[1], topics, *whole[2:])


@dataclass(frozen=True, slots=True)
class Report:
    """What a relay tells of itself with each heartbeat. ``able``: it can publish, so it takes its share of shards.

    ``published``: since it started; ``rate``: messages per second of late.
    """

    able: bool = True
    state: str = "running"
    detail: str = ""
    published: int = 0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a heartbeat: the shards owned, how many of them to give up, who else can take them.

    ``share``: of all shards, those owned, from 0 to 1.
    """

    shards: frozenset[int] = frozenset()
    surplus: int = 0
    others: int = 0
    share: float = 1.0
    control: Control = field(default_factory=Control)


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """A transaction that has written into the log and does not end; its messages wait for it.

    ``age``: seconds since it began. ``state``: PostgreSQL's, such as ``idle in transaction``.
    """

    pid: int
    application: str
    user: str
    age: float
    state: str


class Backlog(NamedTuple):
    """Messages not settled, the age of the oldest in seconds, and whether the number is exact or extrapolated."""

    messages: int
    oldest_seconds: float
    exact: bool = True


class Part(NamedTuple):
    """A part of the log, and why it stays.

    ``why``: None for what can go; ``head`` (it is written to), ``unsettled``, ``young``, or ``in use`` (a
    transaction holds it). ``newest``: when its newest message was written, where it was looked at.
    """

    name: str
    why: str | None
    newest: datetime | None = None
    bytes: int | None = None


class Forgotten(NamedTuple):
    """A part of the inbox that went, or could: a day, or the old rows of the part for all other ids.

    ``messages``: about how many of a day, exactly of rows. ``more``: as many rows as go at once; there may be others.
    """

    part: str
    messages: int
    more: bool = False


_payload: Callable[[Any], bytes | None] = attrgetter("payload")


def payload_bytes(rows: Iterable[LogRow]) -> int:
    """What the payloads of ``rows`` weigh together."""
    return sum(map(len, filter(None, map(_payload, rows))))


def within(rows: Iterable[LogRow], limit: int = BATCH_BYTES) -> list[LogRow]:
    """``rows`` up to the one that brings the payloads over ``limit`` bytes."""
    taken: list[LogRow] = []
    total = 0
    for row in rows:
        taken.append(row)
        total += len(row.payload or b"")
        if total > limit:
            break
    return taken


class LogReader(Protocol):
    """The relay's hold on the log: shards by lease, batches, cursors. For one thread.

    Reading runs ahead of settling: ``read`` gives what follows the last batch read, ``settle`` moves the
    cursors in the database, and ``rewind`` goes back to these. Each method is one transaction, and raises
    DatabaseUnavailable, after which the next call connects anew and reads from the cursors. Nothing that was
    not settled is forgotten.
    """

    def claim(self, report: Report | None = None) -> Claim:
        """A heartbeat: renew the leases held, and take free or expired ones up to a fair share."""

    def holds(self) -> Holds:
        """What must wait in the owned shards."""

    def read(self, limit: int) -> Batch:
        """The next rows committed in the owned shards, up to ``limit``; empty when caught up."""

    def settle(self, batches: Sequence[Batch], refusals: Sequence[Refusal] = ()) -> None:
        """Move the cursors past ``batches``, which were read in this order, and park ``refusals``.

        Raises Fenced if any shard of them was lost; nothing is changed then.
        """

    def rewind(self) -> None:
        """Forget what was read and not settled: it is read again."""

    def checkpoint(self, refusals: Sequence[Refusal] = ()) -> None:
        """Bring the cursors up to date although no batch is settled, and park ``refusals``. Raises Fenced.

        Only with nothing in flight.
        """

    def release(self, shards: Sequence[int] | None = None) -> None:
        """Give leases back at once, all of them by default. Does not raise for an absent database: they expire."""

    def close(self) -> None:
        """Close the connection. Does not raise."""


class Waker(Protocol):
    """Waits for the database to say that something was committed. For one thread."""

    def wait(self, seconds: float) -> bool:
        """Block up to ``seconds``; say whether there was word. Never raises: without word the poll finds it."""

    def close(self) -> None:
        """Does not raise."""


class ParkingLot(Protocol):
    """Rows that Kafka refused, those of their keys behind them, and those of topics that stand still."""

    def parked(
        self,
        limit: int = 1000,
        *,
        after: int = 0,
        topic: str | None = None,
        key: bytes | None = None,
        refused: bool | None = None,
    ) -> Sequence[ParkedRow]:
        """The oldest ones after a position, by position; ``refused``: only those that Kafka refused, or only others."""

    def releasable(self, shards: frozenset[int], limit: int = 1000) -> Sequence[ParkedRow]:
        """Those to publish now, by position: a retry is asked for, and nothing refused stands before them, nor
        does their topic stand still."""

    def request_retry(self, positions: Sequence[int], actor: str = "", reason: str | None = None) -> int:
        """Ask the relay to publish them again, and what waits behind them; how many there were."""

    def discard(self, positions: Sequence[int], actor: str = "", reason: str | None = None) -> int:
        """Forget them for good; what waited behind them goes on. How many there were."""

    def unpark(self, positions: Sequence[int]) -> None:
        """They are published."""


class Caretaker(Protocol):
    """What has to be done now and then so that the log goes on, and what has to be watched."""

    def move_due(self, limit: int = 1000, *, now: datetime | None = None) -> int:
        """Move delayed messages that are due into the log; how many. ``now``: by default by the store's own clock."""

    def backlog(self) -> Backlog:
        """What is not settled. Quick, however much that is."""

    def open_transactions(self, older_than: float) -> Sequence[OpenTransaction]:
        """Transactions open for longer than ``older_than`` seconds that wrote into the log, the oldest first."""


class Retention(Protocol):
    """The log grows at its head and is dropped at its end. So does the inbox, day by day."""

    def add_partitions(self) -> None:
        """Make room ahead of the head."""

    def prune(self, keep: timedelta, *, dry_run: bool = False, actor: str | None = None) -> Sequence[str]:
        """Drop what is settled and older than ``keep``: the parts of the log that were, or would be, dropped.

        Parts that are in use at the moment stay until the next time. Recorded where ``actor`` is given.
        """

    def parts(self, keep: timedelta) -> Sequence[Part]:
        """The parts that ``prune`` would drop, the oldest first, and after them the first one that stays."""

    def add_inbox_partitions(self) -> None:
        """Make room for the messages of the next days."""

    def prune_inbox(self, keep: timedelta, *, dry_run: bool = False, actor: str | None = None) -> Sequence[Forgotten]:
        """Forget messages that were processed longer than ``keep`` ago: what was, or would be, forgotten.

        Rows without a day of their own go up to 10,000 at once. A day that is in use at the moment stays until the
        next time. Recorded where ``actor`` is given.
        """


class ControlDesk(Protocol):
    """What operators tell the relays; each looks once a second. Recorded where it changes something."""

    def control(self) -> Control:
        """As it is now."""

    def pause(self, topic: str | None, reason: str, actor: str) -> bool:
        """Publish nothing, or nothing of ``topic``: its messages wait beside the log, so that others go on.

        False where it was paused for this reason already.
        """

    def resume(self, topic: str | None, actor: str) -> bool:
        """Go on, in order; False where it was not paused."""

    def limit(self, rate: float | None, batch_size: int | None, actor: str) -> bool:
        """Set messages per second of all relays together, and the batch size; None takes a limit away.

        False where that was so already.
        """


class LogStore(ParkingLot, Caretaker, Retention, ControlDesk, Protocol):
    """A database with the tables of Postroom."""

    def reader(self, owner: str, lease: float) -> LogReader:
        """A reader for the relay named ``owner`` whose leases last ``lease`` seconds."""

    def waker(self) -> Waker | None:
        """Listens for commits; None where the database cannot tell."""

    def append(self, entries: Sequence[Entry], action: Action | None = None) -> int:
        """Write entries in a transaction of their own, for tools: dead letters replayed, messages copied.

        With ``action``, which is recorded with them; its id is returned. One that has an id already goes on: its
        position and messages are brought up to date.
        """

    def close(self) -> None:
        """Close what is open."""
