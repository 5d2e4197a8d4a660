"""Getting a batch to Kafka: acknowledged, or parked with a reason. The order of each key holds throughout."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from ..messaging.errors import InvalidRecord, PostroomError, Refused, Verdict
from ..messaging.observer import Observer
from ..messaging.ports import Publication, Publisher
from ..messaging.records import OutgoingRecord
from ..outbox.entry import LogRow
from ..outbox.log import Refusal

Held = AbstractSet[tuple[str, bytes]]


class Delivery:
    """Rows on their way, through as many tries as it takes.

    ``held`` are topic and key of what must wait behind a parked message; with ``hold``, refusals add to it.
    ``acknowledged`` are the positions that Kafka has: they are not sent again, also when a batch is read anew
    since its settling failed. ``wait`` blocks until a publication is resolved, and raises to give up.
    """

    def __init__(self, *, hold: bool, observe: Observer, wait: Callable[[Publication], None]) -> None:
        self.held: Held = frozenset()
        self.acknowledged: set[int] = set()
        self._hold = hold
        self._observe = observe
        self._wait = wait

    def deliver(
        self, rows: Sequence[LogRow], publisher: Callable[[], Publisher], released: Held = frozenset()
    ) -> list[Refusal]:
        """Returns what is to be parked; all the rest is acknowledged.

        ``publisher`` gives one that works. A publication that stopped in the middle is taken up where it
        stopped: per key, nothing later was appended. Raises Interrupted or KafkaUnavailable when a try brought
        nothing at all, what ``wait`` raises, and ConfigurationError; then nothing is to be parked yet.

        ``released`` keys are not waited behind here, and stay in ``held``: until their parked rows are settled,
        what comes later of them has to wait.
        """
        refusals: dict[int, Refusal] = {}
        held = set(self.held - released)
        waiting = [row for row in rows if row.position not in self.acknowledged]
        while waiting:
            sent, records = self._encode(waiting, held, refusals)
            if not sent:
                break
            publication = publisher().send(records)
            self._wait(publication)
            errors = publication.errors()
            self.acknowledged.update(row.position for index, row in enumerate(sent) if index not in errors)
            self._observe("published", count=len(sent) - len(errors), positions=(sent[0].position, sent[-1].position))
            waiting = []
            for index, error in sorted(errors.items()):
                if isinstance(error, Refused):
                    self._refuse(sent[index], error, held, refusals)
                elif error.verdict is Verdict.CRASH:
                    raise error
                else:
                    waiting.append(sent[index])
            if waiting:
                error = next(error for error in errors.values() if not isinstance(error, Refused))
                self._observe("interrupted", count=len(waiting), error=error)
                if len(waiting) == len(sent):
                    raise error
        self.held |= held
        return [refusals[position] for position in sorted(refusals)]

    def _encode(
        self, rows: Sequence[LogRow], held: set[tuple[str, bytes]], refusals: dict[int, Refusal]
    ) -> tuple[list[LogRow], list[OutgoingRecord]]:
        sent: list[LogRow] = []
        records: list[OutgoingRecord] = []
        for row in rows:
            if row.key is not None and (row.topic, row.key) in held:
                refusals[row.position] = Refusal(row, None)
                continue
            try:
                record = row.record()
            except InvalidRecord as error:
                self._refuse(row, error, held, refusals)
                continue
            sent.append(row)
            records.append(record)
        return sent, records

    def _refuse(
        self, row: LogRow, error: PostroomError, held: set[tuple[str, bytes]], refusals: dict[int, Refusal]
    ) -> None:
        if row.key is not None and self._hold:
            held.add((row.topic, row.key))
        refusals[row.position] = Refusal(row, str(error))
        self._observe("parked", topic=row.topic, id=row.id, position=row.position, error=error)
