"""What became of records that were handed to a GaplessProducer."""

import time
import weakref
from collections.abc import Mapping

from ..errors import Interrupted, PostroomError, RecordTooLarge
from .errors import translate
from .producer import Answers, Failure, GaplessProducer


class SentRecords:
    """See ``ports.Publication``. Told by the publisher what was handed over; asks the producer for answers."""

    def __init__(self, producer: GaplessProducer, total: int) -> None:
        self._producer = producer
        self._total = total
        self._failed: dict[int, Failure | PostroomError] = {}
        self._outstanding: weakref.ref[Answers] | None = None
        self._sent = 0
        self._not_sent: PostroomError | None = None
        self._resolved = False

    @classmethod
    def unsent(cls, producer: GaplessProducer, total: int, why: PostroomError) -> "SentRecords":
        """Nothing of ``total`` records was handed over."""
        publication = cls(producer, total)
        publication.stopped(0, why if total else None)
        return publication

    def answers(self) -> Answers:
        """For those that are handed over now. To be kept by their reports only."""
        answers = Answers(self._producer, self._failed)
        self._outstanding = weakref.ref(answers)
        return answers

    def stopped(self, sent: int, not_sent: PostroomError | None) -> None:
        """So many were handed over; ``not_sent`` is why the next was not."""
        self._sent, self._not_sent = sent, not_sent

    def wait(self, timeout: float) -> bool:
        if self._resolved or self._is_resolved():
            return True
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            self._producer.poll(max(0.0, left))
            if self._is_resolved():
                return True
            if left <= 0:
                return False

    def errors(self) -> Mapping[int, PostroomError]:
        errors: dict[int, PostroomError] = {}
        if self._producer.closed and self._outstanding is not None and self._outstanding() is not None:
            errors = dict.fromkeys(range(self._sent), Interrupted("The publisher was closed before the answer came."))
        for index, failure in self._failed.items():
            errors[index] = self._error(failure)
        if self._not_sent is not None:
            rest = range(self._sent, self._total)
            errors.update(dict.fromkeys(rest, Interrupted("Not sent: an earlier record failed.")))
            errors[rest.start] = self._not_sent
        return errors

    def _is_resolved(self) -> bool:
        outstanding = self._outstanding
        # The second is for the day when the binding keeps a report longer: all of the producer's have come then.
        self._resolved = outstanding is None or outstanding() is None or not self._producer.outstanding
        return self._resolved

    def _error(self, failure: Failure | PostroomError) -> PostroomError:
        if isinstance(failure, PostroomError):
            return failure
        error = translate(failure.error)
        if isinstance(error, RecordTooLarge) and not self._producer.is_too_large(failure.partition):
            return Interrupted("Kafka refuses a batch of this size; its records go again one by one.")
        return error
