"""The messages in hand, the lanes that keep them in order, and the jobs for workers."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ..messaging.records import Partition, ReceivedRecord
from .assignment import InHand
from .delivery import Delivery
from .gate import Gate
from .handlers import Handler

if TYPE_CHECKING:
    from .fate import Failed
    from .shelf import Known

#: A record's own bytes beside key and value, roughly.
_OVERHEAD = 500


class LaneId(NamedTuple):
    """``offset`` tells apart messages without a key; it is -1 for those with one."""

    partition: Partition
    key: bytes | None
    offset: int

    @classmethod
    def of(cls, record: ReceivedRecord) -> "LaneId":
        """The lane of a record."""
        return cls(record.partition, record.key, record.offset if record.key is None else -1)


@dataclass(eq=False, slots=True)
class Item:
    """A message in hand.

    ``alone``: in a transaction of its own; ``suspect``: with nothing beside it, and counted; so many ``crashes`` were,
    before it came to this process. ``condemned``: it has failed for good, and its dead letter is to be written.
    """

    in_hand: InHand
    delivery: Delivery
    handler: Handler
    bytes: int
    attempts: int = 0
    first_failed_at: datetime | None = None
    alone: bool = False
    suspect: bool = False
    crashes: int = 0
    condemned: "Failed | None" = None


@dataclass(eq=False, slots=True)
class Lane:
    """The messages of a key, in order. ``not_before``: when the first of them may begin.

    ``held``: its key waits in the table; ``due``: when its first there is to be tried. ``look``: the table was changed
    while a worker had the lane. ``known``: what is known better here than there.
    """

    id: LaneId
    items: deque[Item] = field(default_factory=deque)
    not_before: float = 0.0
    due: float = 0.0
    held: bool = False
    busy: bool = False
    queued: bool = False
    dropped: bool = False
    look: bool = False
    known: "Known | None" = None

    @property
    def is_next(self) -> bool:
        """Its first message is in hand, and nothing of its key comes before it."""
        return bool(self.items) and not self.dropped and not self.held


class Kind(Enum):
    """What a worker is to do."""

    RUN = "run"
    SHELVE = "shelve"
    DRAIN = "drain"


@dataclass(eq=False, slots=True)
class Job:
    """Work for one worker: ``items`` by lane, all of one handler; for SHELVE and DRAIN there is one lane."""

    kind: Kind
    lanes: Sequence[Lane]
    items: Sequence[tuple[Lane, Item]] = ()
    handler: Handler | None = None
    gate: Gate | None = None


def weight(record: ReceivedRecord) -> int:
    """What a record takes in memory, roughly."""
    return _OVERHEAD + len(record.key or b"") + len(record.value or b"")
