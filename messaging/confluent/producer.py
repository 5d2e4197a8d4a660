"""A librdkafka producer that stops at the first failure, and tells what became of each record at little cost.

``enable.gapless.guarantee`` makes a failed batch fatal to the producer before another may go. What is on its way
to the broker then is still answered; what librdkafka would send again after that is purged here, since it never
gets sent. Reports come for failures only. Each record's report holds a reference to the publication's ``Answers``,
and librdkafka's binding drops the report with the record: when the ``Answers`` are gone, the publication has
resolved, without a word of Python for each record that arrived.
"""

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from threading import RLock
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from ..errors import (
    Interrupted,
    InvalidRecord,
    KafkaUnavailable,
    NotAuthorized,
    PostroomError,
    RecordTooLarge,
    UnknownTopic,
)
from ..records import OutgoingRecord, Partition
from .build import build
from .errors import translate
from .opening import Openings

#: For how long ``produce`` waits for room in a queue that is full, in seconds.
_ROOM_WITHIN = 5.0
#: The next producer can go on: this one has failed, or the topic was made anew and has fewer partitions.
_HALTS = KafkaError._FATAL, KafkaError._UNKNOWN_PARTITION
#: So many records may wait for the first ones of their partitions.
_MOST_WAITING = 100_000
#: librdkafka counts in whole milliseconds; less would not wait at all, over and over.
_SHORTEST_POLL = 0.001
#: How often what a halted producer would send again is purged, in seconds.
_PURGE_EVERY = 0.02
#: For how long the reports of what was given up may take, in seconds.
_LAST_REPORTS = 2.0


class Failure(NamedTuple):
    """Why a record was not acknowledged, and where it should have gone."""

    error: KafkaError
    partition: Partition


class Answers:
    """Lives as long as a record of one publication has no answer. ``failed`` outlives it."""

    def __init__(self, producer: "GaplessProducer", failed: dict[int, Failure | PostroomError]) -> None:
        self._producer = producer
        self._failed = failed

    def tell(self, index: int, error: KafkaError, message: Any) -> None:
        """Called by librdkafka for a record that failed, while it is polled."""
        self._failed[index] = failure = Failure(error, Partition(message.topic(), message.partition()))
        self._producer.halt(failure)

    def not_sent(self, index: int, why: PostroomError) -> None:
        """A record did not get as far as that. The first reason stays."""
        self._failed.setdefault(index, why)


class GaplessProducer:
    """One Producer, connected; it halts on its own. ``produce`` from one thread. Raises what ``build`` does."""

    def __init__(self, options: Mapping[str, Any], *, one_by_one: bool = False) -> None:
        single = {"batch.num.messages": 1} if one_by_one else {}
        self._producer: Any = build(Producer, {**options, **single})
        self._sending = RLock()  # what is purged and what follows it must not mix
        self._openings = Openings()
        self._too_large: Counter[Partition] = Counter()
        self.one_by_one = one_by_one
        self.halted = False
        #: How many records failed.
        self.failures = 0
        #: The topics that turned out to take no records, and why.
        self.unwritable: dict[str, PostroomError] = {}

    @property
    def closed(self) -> bool:
        """Whether it was closed; what had no answer then gets none."""
        return self._producer is None

    @property
    def outstanding(self) -> int:
        """Records without an answer."""
        return 0 if self._producer is None else len(self._producer) + self._openings.waiting

    def topic_metadata(self, topic: str, timeout: float) -> Any:
        """librdkafka's; the broker may create the topic. To be asked before its first record. Raises KafkaException."""
        if self._producer is None:
            raise KafkaUnavailable("The publisher is closed.")
        metadata = self._producer.list_topics(topic, timeout).topics[topic]
        if metadata.error is None:
            led = [number for number, partition in metadata.partitions.items() if partition.leader >= 0]
            with self._sending:  # another thread may be sending what waits
                self._openings.close(topic, len(metadata.partitions), led)
        return metadata

    def produce(
        self, records: Sequence[OutgoingRecord], answers: Answers, refused: Mapping[str, PostroomError]
    ) -> tuple[int, PostroomError | None]:
        """Hand over ``records`` up to the first that is refused: how many, and why the next is not there."""
        with self._sending:
            if self._producer is None:
                return 0, _interrupted()
            produce, tell, openings = self._producer.produce, answers.tell, self._openings
            anywhere = random.random()  # those without a key together, which makes large batches
            for index, record in enumerate(records):
                topic, key, value, headers = record
                if topic in refused or self.halted or openings.waiting >= _MOST_WAITING:
                    return index, refused.get(topic) or (_interrupted() if self.halted else _full())
                partition = openings.partition(topic, key, anywhere)
                if topic in openings.topics and openings.keep(record, partition, index, answers):
                    continue
                report = partial(tell, index)
                try:
                    produce(topic, value, key, partition, on_delivery=report, headers=headers)
                except BufferError:
                    again = partial(produce, topic, value, key, partition, on_delivery=report, headers=headers)
                    if error := self._when_there_is_room(again):
                        return index, error
                except (KafkaException, TypeError, ValueError) as error:
                    return index, self._refusal(error)
                if topic in openings.topics:
                    openings.sent(topic, partition, report)
            return len(records), None

    def halt(self, failure: Failure) -> None:
        """A record failed: send nothing more."""
        self.halted = True
        self.failures += 1
        error = translate(failure.error)
        if isinstance(error, RecordTooLarge):
            self._too_large[failure.partition] += 1
        elif isinstance(error, NotAuthorized | UnknownTopic):
            self.unwritable[failure.partition.topic] = error

    def is_too_large(self, partition: Partition) -> bool:
        """Whether a record of ``partition`` that was refused as too large is: it was alone in its batch."""
        return self.one_by_one or self._too_large[partition] == 1

    @property
    def blames_a_batch(self) -> bool:
        """Whether records were refused as too large together."""
        return not all(map(self.is_too_large, self._too_large))

    def poll(self, timeout: float) -> None:
        """Hear answers, for up to ``timeout`` seconds or until there is one."""
        producer = self._producer
        if producer is None:
            return
        if timeout > 0:
            timeout = max(timeout, _SHORTEST_POLL)
        try:
            producer.poll(min(timeout, _PURGE_EVERY) if self.halted else timeout)
        except KafkaException:  # fatal, and told once
            self.halted = True
        if self.halted or self._openings.waiting:
            with self._sending:
                self._send_waiting(producer)
                if self.halted:
                    producer.purge(in_flight=False)

    def close(self, timeout: float) -> None:
        """End it; what has no answer after ``timeout`` seconds gets an error. Does not raise."""
        self._poll_until(time.monotonic() + timeout)
        self.halted = True
        if self._producer is not None:
            with self._sending:
                self._producer.purge()
        self._poll_until(time.monotonic() + _LAST_REPORTS)
        self._producer = None  # ends its threads

    def _send_waiting(self, producer: Any) -> None:
        """Send what the answer to a partition's first record lets go, or give it up."""
        for (topic, key, value, headers), partition, index, answers in self._openings.next():
            if self.halted:
                break
            try:
                report = partial(answers.tell, index)
                producer.produce(topic, value, key, partition, on_delivery=report, headers=headers)
            except BufferError:
                return
            except (KafkaException, TypeError, ValueError) as error:
                answers.not_sent(index, self._refusal(error))
                self.halted = True
        if self.halted:
            for _, _, index, answers in self._openings.give_up():
                answers.not_sent(index, _interrupted())
                self.failures += 1

    def _poll_until(self, deadline: float) -> None:
        # Not flush(): after a fatal error it goes on to the reports with an exception set, and one may get lost.
        while self.outstanding and (left := deadline - time.monotonic()) > 0:
            self.poll(left)

    def _when_there_is_room(self, give: Any) -> PostroomError | None:
        deadline = time.monotonic() + _ROOM_WITHIN
        while time.monotonic() < deadline and not self.halted:
            self.poll(0.01)
            try:
                give()
            except BufferError:
                continue
            except KafkaException as error:
                return self._refusal(error)
            return None
        return _full()

    def _refusal(self, error: Exception) -> PostroomError:
        """Why a record was not taken."""
        if not isinstance(error, KafkaException):
            return InvalidRecord(f"The record cannot be encoded ({error}).")
        reason: KafkaError = error.args[0]
        if reason.code() in _HALTS:
            self.halted = True
            return _interrupted()
        return translate(reason)


def _full() -> Interrupted:
    return Interrupted("Not sent: the client's queue is full.")


def _interrupted() -> Interrupted:
    return Interrupted("Not sent: an earlier record failed.")
