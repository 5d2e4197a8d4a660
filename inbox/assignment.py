"""What a member of the group has: its partitions, the records in hand, and what is done."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..messaging.records import Partition, ReceivedRecord

#: So many records may be done beyond one that is not; more would all come again after a crash.
_MOST_BEYOND = 50_000


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
        self.owned: dict[Partition, Progress] = {}

    @property
    def partitions(self) -> Sequence[Partition]:
        """Those that are assigned."""
        return sorted(self.owned)

    def assign(self, partitions: Iterable[Partition]) -> None:
        """They are ours from here on."""
        for partition in partitions:
            self._epochs[partition] = self._epochs.get(partition, 0) + 1
            self.owned[partition] = Progress()

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """They are not ours any more: what is done of them later counts no more."""
        for partition in partitions:
            self.owned.pop(partition, None)

    def receive(self, records: Iterable[ReceivedRecord]) -> list[InHand]:
        """Records were polled. Those of a partition that is not ours are dropped."""
        received = []
        for record in records:
            progress = self.owned.get(record.partition)
            if progress is not None:
                if progress.committed is None:
                    progress.committed = record.offset
                progress.unfinished[record.offset] = None
                progress.after_last = record.offset + 1
                received.append(InHand(record, self._epochs[record.partition]))
        return received

    def owns(self, item: InHand) -> bool:
        """Whether its partition stayed ours since it was polled."""
        partition = item.record.partition
        return partition in self.owned and self._epochs[partition] == item.epoch

    def finish(self, item: InHand) -> None:
        """It is processed for good."""
        if self.owns(item):
            self.owned[item.record.partition].unfinished.pop(item.record.offset, None)  # it may have come twice

    def unfinished(self) -> Mapping[Partition, tuple[int, int]]:
        """First and last offset of what is not done, by partition."""
        return {
            partition: (progress.low_water, progress.after_last - 1)
            for partition, progress in self.owned.items()
            if progress.unfinished
        }

    def low_water(self, partition: Partition) -> int:
        """No record before it is unfinished; 0 of a partition that is not ours, or of which nothing came."""
        progress = self.owned.get(partition)
        return progress.low_water if progress is not None else 0

    def lags(self, partition: Partition) -> bool:
        """Whether too much is done beyond a record that is not."""
        progress = self.owned[partition]
        return bool(progress.unfinished) and progress.after_last - progress.low_water > _MOST_BEYOND

    def uncommitted(self) -> Mapping[Partition, int]:
        """The next offset to read by partition, where it moved since the last commit."""
        return {
            partition: progress.low_water
            for partition, progress in self.owned.items()
            if progress.committed not in (None, progress.low_water)
        }

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """They are stored."""
        for partition, offset in offsets.items():
            if partition in self.owned:
                self.owned[partition].committed = offset


@dataclass(slots=True)
class Progress:
    """In one partition, since it was assigned. ``unfinished``: offsets received, in order.

    ``committed`` is where reading began, until something is.
    """

    unfinished: dict[int, None] = field(default_factory=dict)
    after_last: int = 0
    committed: int | None = None

    @property
    def low_water(self) -> int:
        return next(iter(self.unfinished), self.after_last)
