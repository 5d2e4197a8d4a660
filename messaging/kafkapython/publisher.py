"""An idempotent producer that stops at the first failure."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from threading import Lock
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka import errors as kafka
from kafka.future import Future

from ..errors import Interrupted, KafkaUnavailable, PostroomError, UnknownTopic
from ..records import OutgoingRecord
from .build import build
from .errors import translate, translated

#: For how long a topic that did not exist is refused without asking again, in seconds.
_UNKNOWN_FOR = 10.0
#: For how long a halted producer may take to end; its futures are resolved by then.
_LAST_ANSWERS = 2.0


class SentRecords:
    """See ``ports.Publication``: the futures of what was handed over, and why the rest was not."""

    def __init__(self, futures: Sequence[Future], total: int, not_sent: PostroomError | None) -> None:
        self._futures = futures
        self._total = total
        self._not_sent = not_sent
        self._resolved = 0

    def wait(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        futures = self._futures
        while self._resolved < len(futures):
            future = futures[self._resolved]
            if not future.is_done:
                try:
                    future.get(max(0.0, deadline - time.monotonic()))
                except kafka.KafkaError:
                    if not future.is_done:
                        return False
            self._resolved += 1
        return True

    def errors(self) -> Mapping[int, PostroomError]:
        errors: dict[int, PostroomError] = {
            index: translate(future.exception) for index, future in enumerate(self._futures) if not future.succeeded()
        }
        rest = range(len(self._futures), self._total)
        if self._not_sent is not None:
            errors.update(dict.fromkeys(rest, Interrupted("Not sent: an earlier record failed.")))
            errors[rest.start] = self._not_sent
        return errors


class IdempotentPublisher:
    """See ``ports.Publisher``.

    kafka-python holds a partition back while a batch of it is in flight, and completes a failed batch's
    futures before it lets the next one go. So an errback that halts the sender there and then leaves
    nothing behind a failed record. What had not gone yet comes back as Interrupted, what had gone is waited
    for, and the next ``send`` starts a new producer.
    """

    def __init__(self, options: dict[str, Any], admin_options: dict[str, Any]) -> None:
        self._options = options
        self._admin_options = admin_options
        self._lock = Lock()
        self._closed = False
        self._topics: set[str] = set()
        self._unknown: dict[str, float] = {}
        self._producer = build(KafkaProducer, self._options)

    def send(self, records: Sequence[OutgoingRecord]) -> SentRecords:
        producer = self._ready_producer()
        halt = partial(_halt, producer)
        futures: list[Future] = []
        for record in records:
            topic, key, value, headers = record
            try:
                if topic not in self._topics:
                    self._require_topic(producer, topic)
                future = producer.send(topic, value, key, headers)
            except (kafka.KafkaError, OSError, PostroomError) as error:
                if isinstance(error, KafkaUnavailable) and not futures:
                    raise
                not_sent = error if isinstance(error, PostroomError) else translate(error)
                return SentRecords(futures, len(records), not_sent)
            futures.append(future)
            future.add_errback(halt)
        return SentRecords(futures, len(records), None)

    def close(self, timeout: float) -> None:
        with self._lock:
            self._closed = True
            _close(self._producer, timeout)

    def _ready_producer(self) -> KafkaProducer:
        with self._lock:
            if self._closed:
                raise Interrupted("The publisher is closed.")
            if not self._producer._sender._running:  # noqa: SLF001  a failure stopped it; no public word for it
                _close(self._producer, _LAST_ANSWERS)
                self._producer = build(KafkaProducer, self._options)
                self._topics.clear()
            return self._producer

    def _require_topic(self, producer: KafkaProducer, topic: str) -> None:
        """Wait until the topic's partitions are known; the broker may create it at that. May raise UnknownTopic."""
        if self._unknown.get(topic, 0) > time.monotonic():
            raise UnknownTopic(f"Kafka knows no topic {topic!r}; create it, or let the broker create topics.")
        try:
            producer.partitions_for(topic)
        except kafka.KafkaTimeoutError as error:
            if self._exists(topic):
                raise KafkaUnavailable(f"Kafka has no leader for topic {topic!r} yet.") from error
            self._unknown[topic] = time.monotonic() + _UNKNOWN_FOR
            self._require_topic(producer, topic)
        self._topics.add(topic)

    def _exists(self, topic: str) -> bool:
        admin = build(KafkaAdminClient, self._admin_options)
        try:
            with translated():
                described = admin.describe_topics([topic])
        finally:
            admin.close()
        return any(entry["error_code"] != kafka.UnknownTopicOrPartitionError.errno for entry in described)


def _halt(producer: KafkaProducer, _error: Exception) -> None:
    """Let nothing more go to the broker, but hear the answers to what went.

    Runs on the sender's thread, before it lets a later batch of the failed partition go. The public close()
    would wait for itself here, so this takes its parts: no more appends, drop what was not sent.
    """
    sender, accumulator = producer._sender, producer._accumulator  # noqa: SLF001
    if not sender._running:  # noqa: SLF001
        return
    sender.initiate_close()
    halted = kafka.IllegalStateError("halted by an earlier record's failure")
    while accumulator._appends_in_progress.get():  # noqa: SLF001
        accumulator.abort_undrained_batches(halted)
    accumulator.abort_undrained_batches(halted)


def _close(producer: KafkaProducer, timeout: float) -> None:
    sender = producer._sender  # noqa: SLF001  close() raises when its flush times out, and leaves the sender running
    if timeout > 0:
        sender.initiate_close()
        sender.join(timeout)
    if sender.is_alive():
        sender.force_close()
        sender.join(5.0)
    producer.close(timeout=0)
