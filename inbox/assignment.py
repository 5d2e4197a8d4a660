"""What a member of the group has: its partitions, the records in hand, and what is done."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..messaging.records import Partition, ReceivedRecord


class InHand(NamedTuple):
    """A record that was polled. ``epoch`` counts the assignments of its partition to this member."""

    record: ReceivedRecord
    epoch: int


class Assignment:
    """Partitions come and go by epochs; what belongs to an earlier one is not ours any more.

    The offset to commit is the low-water mark: no record before it is unfinished, in whichever order they
    are finished. For one thread at a time.
    """

    def __init__(self) -> None:
        self._epochs: dict[Partition, int] = {}
        self._owned: dict[Partition, _Progress] = {}
        self._in_hand: deque[InHand] = deque()

    @property
    def partitions(self) -> Sequence[Partition]:
        """Those that are assigned."""
        return sorted(self._owned)

    def assign(self, partitions: Iterable[Partition]) -> None:
        """They are ours from here on."""
        for partition in partitions:
            self._epochs[partition] = self._epochs.get(partition, 0) + 1
            self._owned[partition] = _Progress()

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """They are not ours any more: their records are dropped, in hand or done."""
        for partition in partitions:
            self._owned.pop(partition, None)
        self._in_hand = deque(item for item in self._in_hand if self.owns(item))

    def receive(self, records: Iterable[ReceivedRecord]) -> None:
        """Records were polled. Those of a partition that is not ours are dropped."""
        for record in records:
            progress = self._owned.get(record.partition)
            if progress is not None:
                if progress.committed is None:
                    progress.committed = record.offset
                progress.unfinished[record.offset] = None
                progress.after_last = record.offset + 1
                self._in_hand.append(InHand(record, self._epochs[record.partition]))

    def take(self) -> InHand | None:
        """The next record, if one is in hand."""
        return self._in_hand.popleft() if self._in_hand else None

    def owns(self, item: InHand) -> bool:
        """Whether its partition stayed ours since it was polled."""
        partition = item.record.partition
        return partition in self._owned and self._epochs[partition] == item.epoch

    def finish(self, item: InHand) -> None:
        """It is processed for good."""
        if self.owns(item):
            del self._owned[item.record.partition].unfinished[item.record.offset]

    def uncommitted(self) -> Mapping[Partition, int]:
        """The next offset to read by partition, where it moved since the last commit."""
        return {
            partition: progress.low_water
            for partition, progress in self._owned.items()
            if progress.committed not in (None, progress.low_water)
        }

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """They are stored."""
        for partition, offset in offsets.items():
            if partition in self._owned:
                self._owned[partition].committed = offset


@dataclass(slots=True)
class _Progress:
    """In one partition, since it was assigned. ``unfinished``: offsets received, in order.

    ``committed`` is where reading began, until something is.
    """

    unfinished: dict[int, None] = field(default_factory=dict)
    after_last: int = 0
    committed: int | None = None

    @property
    def low_water(self) -> int:
        return next(iter(self.unfinished), self.after_last)
