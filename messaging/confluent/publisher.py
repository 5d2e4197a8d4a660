"""A publisher on librdkafka that stops at the first failure, until it is told to go on."""

import time
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from ..errors import Interrupted, KafkaUnavailable, PostroomError, Refused, UnknownTopic
from ..records import OutgoingRecord
from .errors import translate
from .producer import GaplessProducer
from .publication import SentRecords

#: For how long a topic that cannot be written is refused without asking again, in seconds.
_REFUSED_FOR = 10.0
#: For how long it is asked for at first, in milliseconds, and later, in seconds.
_FIRST_ASK_MS = 5_000
_ASK_AGAIN_FOR = 1.0
_ASK_EVERY = 0.1
#: After so many seconds a topic is asked for again: it may have more partitions, and see ``opening``.
_KNOWN_FOR = 300.0
#: A batch that was refused though none of its records is too large makes later ones smaller, in bytes, down to this.
_SMALLEST_BATCH = 16_384


class GaplessPublisher:
    """See ``ports.Publisher``. What is refused before it is sent halts it here; else the producer itself halts.

    A broker refuses a batch as too large without saying which record is. So what came back goes one by one
    after that, by a producer of its own, until the one is found or all have gone.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        self._first_ask = int(options.get("topic.metadata.propagation.max.ms", _FIRST_ASK_MS)) / 1000
        self._lock = Lock()
        self._halted = False
        self._closed = False
        self._came_back = 0
        self._suspects = 0
        self._refused: dict[str, tuple[PostroomError, float]] = {}
        self._known: set[str] = set()
        self._known_until = time.monotonic() + _KNOWN_FOR
        self._producer = GaplessProducer(self._options)

    def send(self, records: Sequence[OutgoingRecord]) -> SentRecords:
        self._producer.poll(0)
        if not self._is_ready():
            why = "the publisher is closed" if self._closed else "an earlier record failed"
            self._came_back += len(records)
            return SentRecords.unsent(self._producer, len(records), Interrupted(f"Not sent: {why}."))
        producer = self._producer
        if time.monotonic() > self._known_until:
            self._forget_topics()
        refused = {}
        for topic in {record.topic for record in records} - self._known:
            if error := self._refusal(producer, topic):
                refused[topic] = error
        publication = SentRecords(producer, len(records))
        sent, not_sent = producer.produce(records, publication.answers(), refused)
        self._suspects = max(0, self._suspects - sent)
        publication.stopped(sent, not_sent)
        self._halted = not_sent is not None
        self._came_back += len(records) - sent
        return publication

    def recover(self) -> None:
        with self._lock:
            if self._closed:
                return
            if self._producer.halted:
                blamed = self._producer.blames_a_batch
                self._replace(self._came_back + self._producer.failures if blamed else 0)
            elif self._producer.one_by_one and not self._suspects:
                self._end_search()
            self._halted = False
            self._came_back = 0

    def close(self, timeout: float) -> None:
        with self._lock:
            self._closed = True
            self._producer.close(timeout)

    def _is_ready(self) -> bool:
        if self._closed or self._halted or self._producer.halted:
            return False
        if self._producer.one_by_one and not self._suspects:
            if self._producer.outstanding:
                self._halted = True
                return False
            with self._lock:
                self._end_search()
        return not self._closed

    def _end_search(self) -> None:
        """All have gone one by one: together they were more than their topic takes."""
        size = min(int(self._options.get("batch.size", 1_000_000)), 1_000_000)
        self._options["batch.size"] = max(size // 4, _SMALLEST_BATCH)
        self._replace(0)

    def _replace(self, suspects: int) -> None:
        """With ``suspects`` the next producer sends so many records one by one."""
        self._producer.close(0)
        for topic, error in self._producer.unwritable.items():
            self._remember(topic, error)
        self._forget_topics()
        if not self._closed:
            self._producer = GaplessProducer(self._options, one_by_one=suspects > 0)
        self._suspects = suspects

    def _forget_topics(self) -> None:
        self._known.clear()
        self._known_until = time.monotonic() + _KNOWN_FOR

    def _refusal(self, producer: GaplessProducer, topic: str) -> PostroomError | None:
        """Why ``topic`` takes nothing, if so; the broker may create it. Raises KafkaUnavailable."""
        error, until = self._refused.get(topic, (None, 0.0))
        if error is not None and until > time.monotonic():
            return error
        error = self._ask(producer, topic, _ASK_AGAIN_FOR if error else self._first_ask)
        if error is None:
            self._known.add(topic)
            self._refused.pop(topic, None)
        elif isinstance(error, KafkaUnavailable):
            raise error
        elif isinstance(error, Refused):
            self._remember(topic, error)
        return error

    def _ask(self, producer: GaplessProducer, topic: str, seconds: float) -> PostroomError | None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                answer = producer.topic_metadata(topic, _FIRST_ASK_MS / 1000).error
            except KafkaException as error:
                answer = error.args[0]
            if answer is None:
                return None
            ours = translate(answer)
            if answer.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                ours = UnknownTopic(f"Kafka knows no topic {topic!r}; create it, or let the broker create topics.")
            elif not isinstance(ours, KafkaUnavailable):
                return ours
            if time.monotonic() >= deadline:
                return ours
            producer.poll(_ASK_EVERY)  # it takes the cluster a while to know a new topic everywhere

    def _remember(self, topic: str, error: PostroomError) -> None:
        self._refused[topic] = error, time.monotonic() + _REFUSED_FOR
