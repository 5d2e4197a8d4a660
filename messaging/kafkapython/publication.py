"""What became of records that were handed to a HaltingProducer."""

import time
from collections.abc import Mapping, Sequence

from kafka.future import Future

from ..errors import Interrupted, PostroomError
from .errors import translate


class SentRecords:
    """See ``ports.Publication``: the futures of what was handed over, and why the next was not.

    Records share the produce future of their batch, so that a few answers are waited for, not thousands.
    """

    def __init__(self, futures: Sequence[Future], total: int, not_sent: PostroomError | None) -> None:
        self._futures = futures
        self._total = total
        self._not_sent = not_sent
        self._answers = self._waiting = _answers_to(futures)

    def wait(self, timeout: float) -> bool:
        waiting = self._waiting
        if not waiting:
            return True
        deadline = time.monotonic() + timeout
        while waiting:
            # Not is_done: that comes before the callbacks that halt the producer.
            if not waiting[-1].wait(max(0.0, deadline - time.monotonic())):
                break
            if waiting[-1].is_done:
                waiting = waiting[:-1]
            else:  # its batch was split
                waiting = self._answers = _answers_to(self._futures)
        self._waiting = waiting
        return not waiting

    def errors(self) -> Mapping[int, PostroomError]:
        errors: dict[int, PostroomError] = {}
        if not all(answer.is_done and answer.value[2] is None for answer in self._answers):
            for index, future in enumerate(self._futures):
                if not future.succeeded():
                    errors[index] = translate(future.exception)
        if self._not_sent is not None:
            rest = range(len(self._futures), self._total)
            errors.update(dict.fromkeys(rest, Interrupted("Not sent: an earlier record failed.")))
            errors[rest.start] = self._not_sent
        return errors


def _answers_to(futures: Sequence[Future]) -> list[Future]:
    return list({future._produce_future for future in futures})
