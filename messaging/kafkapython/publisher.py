"""An idempotent publisher that stops at the first failure, until it is told to go on."""

import time
from collections.abc import Sequence
from threading import Lock
from typing import Any

from kafka import KafkaAdminClient
from kafka import errors as kafka

from ..errors import Interrupted, KafkaUnavailable, PostroomError, Refused, UnknownTopic
from ..records import OutgoingRecord
from .build import build
from .errors import translate, translated
from .producer import HaltingProducer, Route
from .publication import SentRecords

#: For how long a topic that cannot be written is refused without asking again, in seconds.
_REFUSED_FOR = 10.0
#: For how long it is asked for then, in seconds: the broker made it at the first time, or it makes none.
_ASK_AGAIN_FOR = 1.0
#: For how long a halted producer may take to end; its futures are resolved by then.
_LAST_ANSWERS = 2.0


class IdempotentPublisher:
    """See ``ports.Publisher``. What is refused before it is sent halts it here; else the producer itself halts."""

    def __init__(self, options: dict[str, Any], admin_options: dict[str, Any]) -> None:
        self._options = options
        self._admin_options = admin_options
        self._first_ask: float = options.get("max_block_ms", 5_000) / 1000
        self._lock = Lock()
        self._halted = False
        self._closed = False
        self._refused: dict[str, tuple[PostroomError, float]] = {}
        self._producer = HaltingProducer(options)

    def send(self, records: Sequence[OutgoingRecord]) -> SentRecords:
        producer = self._producer
        if self._closed or self._halted or producer.halted:
            why = "the publisher is closed" if self._closed else "an earlier record failed"
            return SentRecords([], len(records), Interrupted(f"Not sent: {why}.") if records else None)
        routes = {topic: self._route(producer, topic) for topic in {record.topic for record in records}}
        futures, not_sent = producer.append(records, routes)
        self._halted = not_sent is not None
        return SentRecords(futures, len(records), not_sent)

    def recover(self) -> None:
        with self._lock:
            if self._producer.halted and not self._closed:
                self._producer.close(_LAST_ANSWERS)
                for topic, error in self._producer.unwritable.items():
                    self._remember(topic, error)
                self._producer = HaltingProducer(self._options)
            self._halted = False

    def close(self, timeout: float) -> None:
        with self._lock:
            self._closed = True
            self._producer.close(timeout)

    def _route(self, producer: HaltingProducer, topic: str) -> Route | PostroomError:
        """The topic's partitions, or why it takes nothing; the broker may create it. Raises KafkaUnavailable."""
        error, until = self._refused.get(topic, (None, 0.0))
        if error is not None and until > time.monotonic():
            return error
        try:
            route = producer.route(topic, _ASK_AGAIN_FOR if error else self._first_ask)
        except kafka.KafkaTimeoutError as timeout:
            if self._exists(topic):
                raise KafkaUnavailable(f"Kafka has no leader for topic {topic!r} yet.") from timeout
            error = UnknownTopic(f"Kafka knows no topic {topic!r}; create it, or let the broker create topics.")
        except kafka.KafkaError as refused:
            error = translate(refused)
            if isinstance(error, KafkaUnavailable):
                raise error from refused
        else:
            self._refused.pop(topic, None)
            return route
        producer.forget(topic)
        if isinstance(error, Refused):
            self._remember(topic, error)
        return error

    def _remember(self, topic: str, error: PostroomError) -> None:
        self._refused[topic] = error, time.monotonic() + _REFUSED_FOR

    def _exists(self, topic: str) -> bool:
        admin = build(KafkaAdminClient, self._admin_options)
        try:
            with translated():
                described = admin.describe_topics([topic])
        finally:
            admin.close()
        return any(entry["error_code"] != kafka.UnknownTopicOrPartitionError.errno for entry in described)
