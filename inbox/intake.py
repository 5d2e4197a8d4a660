"""From a poll into the lanes: what waits in the table, what a crash left, what is about to begin.

polled ──▶ one transaction: held keys and windows of a crash, of partitions that came; note what begins ──▶ lanes
"""

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial

import sqlalchemy as sa

from ..messaging.clock import Clock
from ..messaging.records import Partition
from .assignment import InHand
from .begun import BegunTable, Window
from .delivery import Delivery
from .fate import Fates
from .handlers import NOBODY
from .lane import Item, LaneId, weight
from .lanes import Lanes
from .member import Polled
from .outage import Outages

#: What a crash left may have been done, and nothing of its partition come for long. Seconds until that is supposed.
_SOON = 10.0
Heads = Mapping[LaneId, datetime | None]


class Intake:
    """One inbox's. For the thread that polls."""

    def __init__(self, fates: Fates, lanes: Lanes, begun: BegunTable, clock: Clock) -> None:
        self._fates = fates
        self._inbox = fates.inbox
        self._lanes = lanes
        self._begun = begun
        self._clock = clock
        self._suspects: dict[Partition, Window] = {}
        self._came_at = 0.0

    def take(self, backlog: deque[Polled], outages: Outages) -> None:
        """Put what was polled into its lanes, when the database knows of it. Raises Left when it is to stop.

        ``outages`` may add to the ``backlog`` while it waits.
        """
        self.clear_suspects()
        while backlog:
            polled = backlog.popleft()
            if not polled.records and not polled.came:
                continue
            for partition in polled.came:
                self._suspects.pop(partition, None)
            held = outages.through(partial(self._fates.transaction, partial(self._prepare, polled)))
            if held is not None:
                self.hold(held)
            self._lanes.add(filter(None, map(self._item, polled.records)))

    def _prepare(self, polled: Polled, connection: sa.Connection) -> Heads | None:
        """What waits and what a crash left of partitions that came; and note what is about to begin.

        May be called again. After a commit in doubt the table may have as ours what a crash left.
        """
        held = self._fates.held.heads(connection) if polled.came else None
        left = self._begun.left(connection) if polled.came else {}
        for partition in left.keys() & set(polled.came):
            self._suspects[partition] = left[partition]
            self._came_at = self._clock.monotonic()
        touched = {item.record.partition for item in polled.records}
        begun = {partition: offsets for partition, offsets in self._lanes.begun().items() if partition in touched}
        if begun:
            self._begun.begin(connection, begun)
        for partition in polled.came:
            if (window := self._suspects.get(partition)) is not None and window.is_wide:
                self._begun.narrow(connection, partition, window)
        return held

    @property
    def few_at_a_time(self) -> bool:
        """Whether what a crash left is being looked at, or may come soon: another crash shall leave less."""
        soon = self._clock.monotonic() - self._came_at < _SOON
        if not self._suspects or soon:
            return bool(self._suspects)
        begun = self._lanes.begun()
        return any(partition in begun or self._lanes.low_water(partition) for partition in self._suspects)

    def hold(self, held: Heads) -> None:
        """The table holds these keys of ours."""
        now, clock = self._clock.now(), self._clock.monotonic()
        self._lanes.hold(
            {lane: None if due is None else clock + max(0.0, (due - now).total_seconds()) for lane, due in held.items()}
        )

    def _item(self, in_hand: InHand) -> Item | None:
        """The message and its handler; None for what is none of our business."""
        record = in_hand.record
        delivery = Delivery.of(record)
        tell = self._fates.tell
        tell("received", delivery)
        handler = self._inbox.find(delivery.topic, delivery.envelope.type)
        if not delivery.is_for(self._inbox.group):
            tell("not_for_group", delivery)
            self._lanes.finish(in_hand)
            return None
        if handler is None:
            if self._inbox.on_unhandled == "skip":
                tell("skipped", delivery)
                self._lanes.finish(in_hand)
                return None
            handler = NOBODY
        item = Item(in_hand, handler.known_as(delivery), handler, weight(record))
        window = self._suspects.get(record.partition)
        if window is not None and not window.is_wide and window.first <= record.offset <= window.last:
            item.suspect = True
            item.attempts = item.crashes = window.attempts if record.offset == window.suspect else 0
        return item

    def clear_suspects(self) -> None:
        """What a crash left of a partition is done."""
        for partition, window in [*self._suspects.items()]:
            if self._lanes.low_water(partition) > window.last:
                del self._suspects[partition]

    def end(self, partitions: Sequence[Partition]) -> None:
        """Partitions go: what we began of them is no crash. Else the next member takes more care than it needs to."""
        with suppress(Exception):
            self._fates.transaction(lambda c: self._begun.end(c, partitions, self._suspects))
