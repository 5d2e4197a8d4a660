"""A KafkaProducer that stops at the first failure, and takes records by the shortest way.

The only module that reaches into kafka-python's producer. What it relies on: the accumulator holds a partition
back while a batch of it is in flight; a batch's produce future is completed, and its callbacks have run, before
the sender lets the next batch of the partition go; a failed or dropped batch completes it with a function that
gives each record its error; a batch that is split leaves it open for ever, and rebinds its records.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from random import choice
from typing import Any, NamedTuple

from kafka import KafkaProducer, TopicPartition
from kafka import errors as kafka
from kafka.future import Future
from kafka.producer.transaction_manager import TransactionManager
from kafka.record.default_records import DefaultRecordBatchBuilder

from ..errors import Interrupted, InvalidRecord, NotAuthorized, PostroomError, RecordTooLarge, UnknownTopic
from ..partitioner import positive_hash
from ..records import OutgoingRecord
from .build import build
from .errors import translate


class Route(NamedTuple):
    """A topic's partitions by number, and the one that takes a publication's records without a key."""

    partitions: Sequence[TopicPartition]
    keyless: TopicPartition


class _Unmeasured(list[tuple[str, bytes]]):
    """Headers that kafka-python takes for none when it adds up their sizes for the answer, which nobody reads."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


class HaltingProducer:
    """One KafkaProducer. ``append`` from one thread; it halts on its own. Raises what ``build`` raises."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._producer = build(KafkaProducer, options)
        self._sender = self._producer._sender
        self._accumulator = self._producer._accumulator
        self._cluster = self._producer._metadata
        self._max_request_size: int = self._producer.config["max_request_size"]
        #: The topics that turned out to take no records, and why.
        self.unwritable: dict[str, PostroomError] = {}
        self._split = self._accumulator.split_and_reenqueue
        self._accumulator.split_and_reenqueue = self._split_and_watch
        # Else kafka-python gives the failed batch's error to every other that is on its way, and hears no answers.
        self._producer._transaction_manager.classify_batch_error = _fails_alone

    @property
    def halted(self) -> bool:
        """Whether a record failed, so that this one sends nothing any more."""
        return not self._sender._running

    def route(self, topic: str, timeout: float) -> Route:
        """Blocks while the topic's partitions are not known. Raises kafka-python's errors."""
        try:
            numbers = self._producer._wait_on_metadata(topic, timeout * 1000)
        except ValueError as error:
            raise kafka.InvalidTopicError(str(error)) from error
        led = self._cluster.available_partitions_for_topic(topic) or numbers
        return Route([TopicPartition(topic, n) for n in sorted(numbers)], TopicPartition(topic, choice(list(led))))

    def forget(self, topic: str) -> None:
        """Ask no more for it, which would be done ten times a second."""
        # Another set, since the sender's thread may walk this one.
        self._cluster._topics = self._cluster._topics - {topic}

    def append(
        self, records: Sequence[OutgoingRecord], routes: Mapping[str, Route | PostroomError]
    ) -> tuple[list[Future], PostroomError | None]:
        """Hand over ``records`` up to the first that is refused: their futures, and why the next is not there."""
        append, wakeup, half = self._accumulator.append, self._sender.wakeup, self._max_request_size // 2
        futures: list[Future] = []
        for topic, key, value, headers in records:
            route = routes[topic]
            if isinstance(route, PostroomError):
                return futures, route
            partitions, partition = route
            if key is not None:
                partition = partitions[positive_hash(key) % len(partitions)]
            size = sum(map(len, chain.from_iterable(headers))) + len(value or b"") + len(key or b"")
            if size > half and (error := self._too_large(key, value, headers)):
                return futures, error
            try:
                future, _, is_new, _ = append(partition, None, key, value, _Unmeasured(headers))
            except kafka.IllegalStateError:  # halted in the meantime
                return futures, Interrupted("Not sent: an earlier record failed.")
            except (TypeError, ValueError) as error:
                return futures, InvalidRecord(f"The record cannot be encoded ({error}).")
            futures.append(future)
            if is_new:
                # Before anything else of this partition is appended, so that nothing can go behind its failure.
                self._watch(future._produce_future)
                wakeup()
        return futures, None

    def close(self, timeout: float) -> None:
        """End it; what has no answer after ``timeout`` seconds gets an error. Does not raise."""
        sender = self._sender
        if timeout > 0:
            sender.initiate_close()
            sender.join(timeout)
        if sender.is_alive():
            sender.force_close()
            sender.join(5.0)
        self._producer.close(timeout=0)  # not alone: it raises when its flush times out, and leaves the sender running

    def _too_large(self, key: bytes | None, value: bytes | None, headers: Sequence[Any]) -> RecordTooLarge | None:
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, headers)
        if size <= self._max_request_size:
            return None
        reason = f"{size} bytes are more than max_request_size, {self._max_request_size}"
        error = translate(kafka.MessageSizeTooLargeError(reason))
        assert isinstance(error, RecordTooLarge)  # noqa: S101  the table says so
        return error

    def _watch(self, answer: Future) -> None:
        answer.add_callback(partial(self._answered, answer.topic_partition.topic))

    def _answered(self, topic: str, answer: tuple[int, int | None, Any]) -> None:
        """Runs on the sender's thread; what it lets go next must not overtake a batch that failed."""
        if answer[2] is not None:
            self._halt()
            error = translate(answer[2](0))
            if isinstance(error, NotAuthorized | UnknownTopic):
                self.unwritable[topic] = error

    def _split_and_watch(self, batch: Any, now: float | None = None) -> int:
        """A batch that the broker found too large goes again in two halves, and either may fail."""
        count: int = self._split(batch, now)
        for answer in {future._produce_future for future in batch._record_futures}:
            self._watch(answer)
        return count

    def _halt(self) -> None:
        """Let nothing more go to the broker, but hear the answers to what went.

        The public close() would wait for itself here, so this takes its parts: no more appends, drop what was
        not sent.
        """
        sender, accumulator = self._sender, self._accumulator
        if self.halted:
            return
        sender.initiate_close()
        halted = kafka.IllegalStateError("halted by an earlier record's failure")
        while accumulator._appends_in_progress.get():
            accumulator.abort_undrained_batches(halted)
        accumulator.abort_undrained_batches(halted)


def _fails_alone(*_args: Any, **_options: Any) -> str:
    """A failed batch changes nothing in the producer's state, which ends anyway."""
    word: str = TransactionManager.ERROR_CLASS_RETRIABLE
    return word
