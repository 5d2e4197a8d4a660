"""A consumer group's member whose offsets are committed by hand."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from ..errors import Fenced, NotAuthorized
from ..ports import PartitionsHook
from ..records import Partition, ReceivedRecord
from .build import build
from .errors import translate, translated


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
        self._consumer: Any = build(Consumer, options)
        with translated():
            self._consumer.subscribe(
                list(topics), on_assign=self._take, on_revoke=self._give_back, on_lost=self._give_back
            )

    def poll(self, timeout: float, max_records: int) -> Sequence[ReceivedRecord]:
        with translated():
            first = self._consumer.poll(timeout)
            if first is None:
                return []
            # What is there already; consume() alone would wait for so many.
            messages = [first, *self._consumer.consume(max_records - 1, 0)] if max_records > 1 else [first]
        records = []
        for message in messages:
            if error := message.error():
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
        self._on_assigned(taken)

    def _give_back(self, _consumer: Any, partitions: Sequence[TopicPartition]) -> None:
        given = [Partition(part.topic, part.partition) for part in partitions]
        self._on_revoked(given)
        self._assigned.difference_update(given)
        self._paused.difference_update(given)


def _check(error: KafkaError) -> None:
    """Of what comes instead of a record, raise what the member cannot go on with; librdkafka retries the rest."""
    ours = translate(error)
    if error.fatal() or isinstance(ours, Fenced | NotAuthorized):
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
