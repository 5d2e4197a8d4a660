"""A consumer group's member whose offsets are committed by hand."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from ..errors import Fenced, NotAuthorized
from ..ports import PartitionsHook
from ..records import Partition, ReceivedRecord
from .build import build
from .errors import translate, translated

#: The broker answers nothing else on a connection while a fetch waits there for records; as far as we wait for that.
_FETCH_WAIT_MOST = 10.0


class GroupConsumer:
    """See ``ports.Consumer``."""

    def __init__(
        self,
        options: Mapping[str, Any],
        topics: Sequence[str],
        on_assigned: PartitionsHook,
        on_revoked: PartitionsHook,
        *,
        cooperative: bool,
    ) -> None:
        self._cooperative = cooperative
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._assigned: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._ends: dict[Partition, int] = {}
        """Where the client came to the end, past what is never polled, which its position does not count."""
        self._fetch_wait = min(_FETCH_WAIT_MOST, float(options.get("fetch.wait.max.ms", 500)) / 1000)
        self._consumer: Any = build(Consumer, {**options, "enable.partition.eof": True})
        with translated():
            self._consumer.subscribe(
                list(topics), on_assign=self._take, on_revoke=self._give_back, on_lost=self._give_back
            )

    def poll(self, timeout: float, max_records: int) -> Sequence[ReceivedRecord]:
        until = time.monotonic() + timeout
        while True:
            with translated():
                first = self._consumer.poll(max(0.0, until - time.monotonic()))
                if first is None:
                    return []
                # What is there already; consume() alone would wait for so many.
                messages = [first, *self._consumer.consume(max_records - 1, 0)] if max_records > 1 else [first]
            if records := self._taken(messages):
                return records

    def _taken(self, messages: Sequence[Any]) -> list[ReceivedRecord]:
        records = []
        for message in messages:
            if error := message.error():
                if error.code() == KafkaError._PARTITION_EOF:
                    self._ends[Partition(message.topic(), message.partition())] = message.offset()
                else:
                    _check(error)
            elif (record := received(message)).partition in self._assigned:
                records.append(record)
        return records

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        if not offsets:
            return
        if lost := offsets.keys() - self._assigned:
            raise Fenced(f"The group gave the partition to another member ({', '.join(map(str, sorted(lost)))}).")
        wanted = [TopicPartition(part.topic, part.number, offset) for part, offset in offsets.items()]
        with translated():
            for answer in self._consumer.commit(offsets=wanted, asynchronous=False):
                if answer.error is not None:
                    raise KafkaException(answer.error)

    def seek(self, partition: Partition, offset: int) -> None:
        if partition in self._assigned:
            self._ends.pop(partition, None)
            with translated():
                self._consumer.seek(TopicPartition(partition.topic, partition.number, offset))

    def pause_only(self, partitions: Sequence[Partition]) -> None:
        wanted = self._assigned.intersection(partitions)
        with translated():
            if resume := self._paused - wanted:
                self._consumer.resume([TopicPartition(*part) for part in resume])
            if pause := wanted - self._paused:
                self._consumer.pause([TopicPartition(*part) for part in pause])
        self._paused = wanted

    def lag(self, partitions: Sequence[Partition], timeout: float) -> Mapping[Partition, int]:
        wanted = [TopicPartition(*part, OFFSET_END) for part in partitions if part in self._assigned]
        if not wanted:
            return {}
        with translated():
            places = self._consumer.position(wanted)
            ends = self._consumer.offsets_for_times(wanted, timeout + self._fetch_wait)
            for each in ends:
                if each.error is not None:
                    raise KafkaException(each.error)
        at = {Partition(each.topic, each.partition): each.offset for each in places}
        found = {}
        for each in ends:
            part = Partition(each.topic, each.partition)
            found[part] = max(0, each.offset - max(0, at[part], self._ends.get(part, 0)))
        return found

    def close(self) -> None:
        with suppress(KafkaException, RuntimeError):
            self._consumer.close()

    def _take(self, consumer: Any, partitions: Sequence[TopicPartition]) -> None:
        # Before the hook, which may seek.
        if self._cooperative:
            consumer.incremental_assign(partitions)
        else:
            consumer.assign(partitions)
        consumer.resume(partitions)  # librdkafka remembers that they were paused, from before they went
        taken = [Partition(part.topic, part.partition) for part in partitions]
        self._assigned.update(taken)
        self._paused.difference_update(taken)
        for part in taken:
            self._ends.pop(part, None)
        self._on_assigned(taken)

    def _give_back(self, _consumer: Any, partitions: Sequence[TopicPartition]) -> None:
        given = [Partition(part.topic, part.partition) for part in partitions]
        self._on_revoked(given)
        self._assigned.difference_update(given)
        self._paused.difference_update(given)


def _check(error: KafkaError) -> None:
    """Of what comes instead of a record, raise what the member cannot go on with; librdkafka retries the rest."""
    if error.code() == KafkaError._FATAL:  # its ``fatal()`` is false
        # The broker took the member for another one of its name: it would do nothing any more, and not say why again.
        raise Fenced(f"The group has put this member out ({error.str()}).")
    ours = translate(error)
    if isinstance(ours, Fenced | NotAuthorized):
        raise ours


def received(message: Any) -> ReceivedRecord:
    """confluent-kafka's Message in our terms."""
    return ReceivedRecord(
        Partition(message.topic(), message.partition()),
        message.offset(),
        message.key(),
        message.value(),
        [(name, value or b"") for name, value in message.headers() or ()],
        datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC),
    )
