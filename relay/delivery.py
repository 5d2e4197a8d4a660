"""Batches on their way to Kafka: several at once, acknowledged or parked, each key in order throughout.

    take_off ──▶ in the air ──▶ land ──▶ landed ──▶ settled
                     │
                     └─ a failure: sort_out, one publication at a time

The publisher sends nothing past a failure, so all that is left after one can be sent again in order: what
was refused is parked, and what must wait behind it too.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any

from ..messaging.clock import Clock
from ..messaging.errors import Interrupted, InvalidRecord, PostroomError, Refused, Verdict
from ..messaging.observer import Observer
from ..messaging.ports import Publication, Publisher
from ..messaging.records import OutgoingRecord
from ..messaging.tracing import Ended, sending
from ..outbox.entry import LogRow
from ..outbox.log import Batch, Holds, Refusal, payload_bytes
from .settings import OnRefused

#: For how long a topic that does not take messages is not tried again, in seconds.
_CLOSED_FOR = 10.0
#: Of so many messages of a batch, spread evenly, it is told how long they took.
_MEASURED = 32
_topic: Callable[[Any], str] = attrgetter("topic")

Wait = Callable[[Publication], None]


@dataclass(slots=True)
class Flight:
    """A batch on its way. ``rows`` were handed over in this order; ``refusals`` are to be parked.

    ``bytes``: of its payloads. ``free``: the database has let it go, so only what is refused from now on holds it.
    ``sent``: ends its span.
    """

    batch: Batch
    began: float
    bytes: int
    rows: Sequence[LogRow] = ()
    publication: Publication | None = None
    refusals: list[Refusal] = field(default_factory=list)
    free: bool = False
    sent: Ended | None = None


class Delivery:
    """What is in the air, what landed and is not settled, and what must wait.

    ``holds`` is what the database says must wait; refusals add to it. ``acknowledged`` is what Kafka has and is not
    settled, by position and id (after a fail-over that went back in time a position may be another message's), with
    its shard: it is not sent again when its batch is read anew. ``stopped`` are topics that are to stand still from
    now on, with the reason.
    """

    def __init__(self, policy: Callable[[str], OnRefused], observe: Observer, clock: Clock) -> None:
        self.holds = Holds()
        self.flights: deque[Flight] = deque()
        self.landed: list[Flight] = []
        self.acknowledged: dict[tuple[int, str], int] = {}
        self.stopped: dict[str, str] = {}
        self.last_answer = clock.monotonic()
        self._policy = policy
        self._observe = observe
        self._clock = clock
        self._keys: set[tuple[str, bytes]] = set()
        self._closed: dict[str, tuple[Refused, float]] = {}

    @property
    def unsettled(self) -> int:
        """Messages read and not settled."""
        return sum(len(flight.batch.rows) for flight in (*self.flights, *self.landed))

    @property
    def unsettled_bytes(self) -> int:
        """Their payloads together."""
        return sum(flight.bytes for flight in (*self.flights, *self.landed))

    @property
    def idle(self) -> bool:
        """Nothing is in the air and nothing is to settle."""
        return not self.flights and not self.landed

    def hold(self, holds: Holds) -> None:
        """What must wait, as the database knows it now. What was refused and is not settled yet waits on."""
        keys = frozenset(key for key in holds.keys if self._policy(key[0]) != "park-message")
        self.holds = Holds(keys, holds.topics)
        if self.idle:
            self._keys.clear()

    def keep(self, shards: Collection[int]) -> None:
        """Only these are ours: what Kafka has of others is for their owners to settle."""
        if self.acknowledged:
            before = len(self.acknowledged)
            self.acknowledged = {row: shard for row, shard in self.acknowledged.items() if shard in shards}
            self._doubt(before - len(self.acknowledged))

    def take_off(self, batch: Batch, publisher: Callable[[], Publisher], *, free: bool = False) -> None:
        """Hand a batch over."""
        flight = Flight(batch, self._clock.monotonic(), payload_bytes(batch.rows), free=free)
        rows, records = self._encode(flight, batch.rows)
        if records:
            flight.publication, flight.sent = _send(publisher(), records)
            flight.rows = rows
        self.flights.append(flight)

    def land(self) -> bool:
        """Note what Kafka acknowledged, in order; False when something failed, for ``sort_out``."""
        while self.flights:
            flight = self.flights[0]
            if flight.publication is not None:
                if not flight.publication.wait(0):
                    return True
                self.last_answer = self._clock.monotonic()
                if flight.publication.errors():
                    return False
                _end(flight)
                self._published(flight.rows)
            self.landed.append(self.flights.popleft())
        return True

    def sort_out(self, publisher: Callable[[], Publisher], wait: Wait) -> None:
        """After a failure: land all that is in the air, the rest of it one publication at a time.

        Raises Interrupted or KafkaUnavailable when a try brought nothing at all, what ``wait`` raises, and
        ConfigurationError; what Kafka has is in ``acknowledged`` then.
        """
        waiting, errors = self._failed(wait)
        while waiting := self._sift(waiting, errors):
            publisher().recover()
            records = [row.record() for _, row in waiting]
            publication, sent = _send(publisher(), records)
            wait(publication)
            failed = publication.errors()
            sent(next(iter(failed.values()), None))
            self._acknowledge([row for index, (_, row) in enumerate(waiting) if index not in failed])
            errors = {waiting[index][1].position: error for index, error in failed.items()}
            if len(failed) == len(waiting) and not any(isinstance(error, Refused) for error in failed.values()):
                raise failed[0]
            waiting = [waiting[index] for index in sorted(failed)]
        publisher().recover()
        self.landed += self.flights
        self.flights.clear()

    def abandon(self, resolve: Callable[[Publication], bool]) -> None:
        """Forget all that is not settled, but what Kafka has of it. ``resolve`` waits for an answer, or gives up."""
        unanswered = 0
        for flight in self.flights:
            if flight.publication is None:
                continue
            if not resolve(flight.publication):
                _end(flight, Interrupted("No answer came."))
                unanswered += len(flight.rows)
                continue
            failed = flight.publication.errors()
            _end(flight, next(iter(failed.values()), None))
            self._acknowledge([row for index, row in enumerate(flight.rows) if index not in failed])
        self._doubt(unanswered)
        refused = {refusal.row.position for flight in self.landed for refusal in flight.refusals}
        for flight in self.landed:
            self._remember(row for row in flight.batch.rows if row.position not in refused)
        self.flights.clear()
        self.landed.clear()
        self.stopped.clear()

    def settled(self) -> None:
        """The database has it all."""
        if self.acknowledged:
            for flight in self.landed:
                for row in flight.batch.rows:
                    self.acknowledged.pop((row.position, row.id), None)
        self.landed.clear()
        if self.stopped:
            self.holds = Holds(self.holds.keys, self.holds.topics | self.stopped.keys())
            self.stopped.clear()

    def _failed(self, wait: Wait) -> tuple[list[tuple[Flight, LogRow]], dict[int, PostroomError]]:
        """What in the air was not acknowledged, in order, and why by position."""
        waiting: list[tuple[Flight, LogRow]] = []
        errors: dict[int, PostroomError] = {}
        for flight in self.flights:
            if flight.publication is None:
                continue
            wait(flight.publication)
            failed = flight.publication.errors()
            _end(flight, next(iter(failed.values()), None))
            rows, flight.publication, flight.rows = flight.rows, None, ()
            self._acknowledge([row for index, row in enumerate(rows) if index not in failed])
            errors |= {rows[index].position: error for index, error in failed.items()}
            waiting += [(flight, rows[index]) for index in sorted(failed)]
        if errors:
            self._observe("interrupted", count=len(waiting), error=next(iter(errors.values())))
        return waiting, errors

    def _sift(
        self, waiting: list[tuple[Flight, LogRow]], errors: Mapping[int, PostroomError]
    ) -> list[tuple[Flight, LogRow]]:
        """Those to send again; the others are refused, or wait behind these."""
        kept = []
        for flight, row in waiting:
            error = errors.get(row.position)
            if error is not None and error.verdict is Verdict.CRASH:
                raise error
            if (behind := self._behind(flight, row)) is not None:
                flight.refusals.append(behind)
            elif isinstance(error, Refused):
                self._refuse(flight, row, error)
            elif (closed := self._closed_topic(row.topic)) is not None:
                self._refuse(flight, row, closed)
            else:
                kept.append((flight, row))
        return kept

    def _encode(self, flight: Flight, rows: Sequence[LogRow]) -> tuple[Sequence[LogRow], list[OutgoingRecord]]:
        """The rows to send and their records; the others are refused or wait, or Kafka has them."""
        if not (self._keys or self._closed or self.acknowledged or self.stopped or (self.holds and not flight.free)):
            try:
                return rows, [row.record() for row in rows]
            except InvalidRecord:
                pass  # one by one, to find it
        sent: list[LogRow] = []
        records: list[OutgoingRecord] = []
        for row in rows:
            if (row.position, row.id) in self.acknowledged:
                continue
            if (behind := self._behind(flight, row)) is not None:
                flight.refusals.append(behind)
                continue
            if (closed := self._closed_topic(row.topic)) is not None:
                self._refuse(flight, row, closed)
                continue
            try:
                records.append(row.record())
            except InvalidRecord as error:
                self._refuse(flight, row, error)
            else:
                sent.append(row)
        return sent, records

    def _behind(self, flight: Flight, row: LogRow) -> Refusal | None:
        """The refusal of a row that only waits."""
        if row.topic in self.stopped or (not flight.free and row.topic in self.holds.topics):
            return Refusal(row, None, by_topic=True)
        key = None if row.key is None else (row.topic, row.key)
        if key is not None and (key in self._keys or (not flight.free and key in self.holds.keys)):
            return Refusal(row, None)
        return None

    def _refuse(self, flight: Flight, row: LogRow, error: Refused) -> None:
        flight.refusals.append(Refusal(row, str(error)))
        if error.of_topic and row.topic not in self._closed:
            self._closed[row.topic] = error, self._clock.monotonic() + _CLOSED_FOR
        policy = self._policy(row.topic)
        if policy != "park-message" and row.key is not None:
            self._keys.add((row.topic, row.key))
        if policy == "stop":
            self.stopped.setdefault(row.topic, f"Kafka refused the message at position {row.position}: {error}")
        told = {"topic": row.topic, "id": row.id, "correlation_id": row.correlation_id, "position": row.position}
        self._observe("parked", **told, error=error)

    def _closed_topic(self, topic: str) -> Refused | None:
        """Why the topic took no message a moment ago."""
        if topic not in self._closed:
            return None
        error, until = self._closed[topic]
        if self._clock.monotonic() < until:
            return error
        del self._closed[topic]
        return None

    def _acknowledge(self, rows: Sequence[LogRow]) -> None:
        if rows:
            self._remember(rows)
            self._published(rows)

    def _remember(self, rows: Iterable[LogRow]) -> None:
        self.acknowledged.update(((row.position, row.id), row.shard) for row in rows)

    def _published(self, rows: Sequence[LogRow]) -> None:
        if rows:
            self.last_answer = self._clock.monotonic()
            self._observe(
                "published",
                count=len(rows),
                positions=(rows[0].position, rows[-1].position),
                topics=Counter(map(_topic, rows)),
                latencies=_latencies(rows, self._clock.now()),
            )

    def _doubt(self, count: int) -> None:
        if count:
            self._observe("in_doubt", count=count)


def _send(publisher: Publisher, records: Sequence[OutgoingRecord]) -> tuple[Publication, Ended]:
    """Hand over, within a span that is to be ended."""
    ended = sending(records)
    try:
        return publisher.send(records), ended
    except BaseException as error:
        ended(error)
        raise


def _end(flight: Flight, error: BaseException | None = None) -> None:
    if flight.sent is not None:
        flight.sent(error)
        flight.sent = None


def _latencies(rows: Sequence[LogRow], now: datetime) -> list[float]:
    """Seconds since some of ``rows``, spread evenly, were written, in their order."""
    count = min(len(rows), _MEASURED)
    chosen = (rows[index * len(rows) // count] for index in range(count))
    return [max(0.0, now.timestamp() - row.created_at.timestamp()) for row in chosen]
