"""Kafka's side of the comparison: the records of one topic after the other, and what is known of its partitions."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import islice
from typing import Protocol

from ...messaging.ports import TopicReader
from ...messaging.records import ReceivedRecord
from .compare import MARGIN, Span
from .prints import Stored, micros, stored_of
from .scratch import Scratch

_AT_ONCE = 5_000
_TELL_EVERY = 1_000


class Progress(Protocol):
    """Shows how far it is: what is read, and how much of it there is; what it gives is told how much more was."""

    def __call__(self, what: str, total: int, /) -> AbstractContextManager[Callable[[int], None]]: ...


class TopicSide:
    """The records of one topic. For one thread; raises UnknownTopic and KafkaUnavailable."""

    def __init__(
        self, reader: TopicReader, scratch: Scratch, topic: str, *, key: bytes | None, progress: Progress
    ) -> None:
        self._reader = reader
        self._scratch = scratch
        self._topic = topic
        self._key = key
        self._progress = progress
        self._start: Mapping[int, int] = {}
        self._end: Mapping[int, int] = {}
        self._begins: dict[int, tuple[int, int]] = {}
        self._counted: Counter[int] = Counter()
        self.whole = True

    def read(self, since: datetime) -> None:
        """From what was written ``since`` then, less a margin for the clocks, to the end as it is now.

        ``whole`` says afterwards whether that was all there is.
        """
        offsets = self._reader.offsets(self._topic)
        at = self._reader.offsets_at(self._topic, since - MARGIN)
        self._end = {number: end for number, (_, end) in offsets.items()}
        self._start = {number: min(max(at.get(number, first), first), end) for number, (first, end) in offsets.items()}
        self.whole = all(self._start[number] == first for number, (first, _) in offsets.items())
        self._take(self._start, self._end)

    def read_older(self) -> None:
        """What came before that, too."""
        first = {number: first for number, (first, _) in self._reader.offsets(self._topic).items()}
        before, self._start = self._start, {number: min(first.get(number, 0), at) for number, at in self._start.items()}
        self.whole = True
        self._take(self._start, before)

    def spans(self) -> dict[int, Span]:
        """The partitions; asked again where they begin, as Kafka may have deleted meanwhile."""
        found = {}
        for number, (first, _) in self._reader.offsets(self._topic).items():
            if number not in self._start:
                continue
            offset, earliest = self._begins.get(number, (first, None))
            if offset < first:
                earliest = self._scratch.earliest(number, first)
            start, end = self._start[number], self._end[number]
            found[number] = Span(first, max(start, first), end, earliest, self._counted[number] < end - start)
        return found

    def _take(self, start: Mapping[int, int], end: Mapping[int, int]) -> None:
        """Into the scratch database, of the key alone that is wanted."""
        total = sum(max(0, after - start[number]) for number, after in end.items())
        with self._progress(f"reading {self._topic}", total) as advance:
            kept = self._kept(self._reader.read(self._topic, start, end), advance)
            while at_hand := list(islice(kept, _AT_ONCE)):
                self._scratch.add_records(at_hand)

    def _kept(self, records: Iterator[ReceivedRecord], advance: Callable[[int], None]) -> Iterator[Stored]:
        """One by one, as values may be large."""
        for count, record in enumerate(records, 1):
            number = record.partition.number
            self._counted[number] += 1
            if number not in self._begins or record.offset < self._begins[number][0]:
                self._begins[number] = record.offset, micros(record.timestamp)
            if count % _TELL_EVERY == 0:
                advance(_TELL_EVERY)
            if self._key is None or record.key == self._key:
                yield stored_of(record)
