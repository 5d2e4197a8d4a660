"""Getting a batch to Kafka: acknowledged, or parked with a reason. The order of each key holds throughout."""

from collections.abc import Callable, Sequence

from ..messaging.errors import InvalidRecord, PostroomError, Refused
from ..messaging.observer import Observer
from ..messaging.ports import Publication, Publisher
from ..messaging.records import OutgoingRecord
from ..outbox.entry import LogRow
from ..outbox.log import Refusal

Held = set[tuple[str, bytes]]


class Delivery:
    """Rows on their way, through as many tries as it takes.

    ``held`` are topic and key of what must wait behind a parked message; a refusal adds to it, unless
    ``hold`` is false. ``acknowledged`` are the positions that Kafka has: they are not sent again, also when
    a batch is read anew since its settling failed. ``wait`` blocks until a publication is resolved, and
    raises to give up.
    """

    def __init__(self, held: Held, *, hold: bool, observe: Observer, wait: Callable[[Publication], None]) -> None:
        self.held = held
        self.acknowledged: set[int] = set()
        self._hold = hold
        self._observe = observe
        self._wait = wait

    def deliver(self, rows: Sequence[LogRow], publisher: Callable[[], Publisher]) -> list[Refusal]:
        """Returns what is to be parked; all the rest is acknowledged. Raises what ``wait`` and ``send`` raise.

        ``publisher`` gives one that works; a publication that stopped in the middle is taken up with it where
        it stopped: per key, nothing later was appended.
        """
        refusals: list[Refusal] = []
        waiting = [row for row in rows if row.position not in self.acknowledged]
        while waiting:
            sent: list[LogRow] = []
            records: list[OutgoingRecord] = []
            for row in waiting:
                if row.key is not None and (row.topic, row.key) in self.held:
                    refusals.append(Refusal(row, None))
                    continue
                try:
                    records.append(row.record())
                except InvalidRecord as error:
                    refusals.append(self._refuse(row, error))
                    continue
                sent.append(row)
            if not sent:
                break
            publication = publisher().send(records)
            self._wait(publication)
            errors = publication.errors()
            self.acknowledged.update(row.position for index, row in enumerate(sent) if index not in errors)
            self._observe("published", count=len(sent) - len(errors), positions=(sent[0].position, sent[-1].position))
            refused = {index: error for index, error in errors.items() if isinstance(error, Refused)}
            refusals.extend(self._refuse(sent[index], error) for index, error in refused.items())
            waiting = [sent[index] for index in sorted(errors) if index not in refused]
            if waiting:
                self._observe("interrupted", count=len(waiting), error=errors[next(iter(errors))])
        return refusals

    def _refuse(self, row: LogRow, error: PostroomError) -> Refusal:
        if row.key is not None and self._hold:
            self.held.add((row.topic, row.key))
        self._observe("parked", topic=row.topic, id=row.id, position=row.position, error=error)
        return Refusal(row, str(error))
