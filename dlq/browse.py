"""Finding dead letters: which topics hold them, and which of them are asked for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from heapq import heappush, heappushpop, nsmallest
from itertools import count

from ..messaging.errors import UnknownTopic, UsageError
from ..messaging.ports import TopicReader
from ..messaging.records import ReceivedRecord
from .letter import DeadLetter, Place

SUFFIX = ".dlq"
_FIRST_WINDOW = 200
_WINDOW_GROWTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which dead letters; None asks for any.

    ``topic``: the original one; a letter that does not tell its own may be of it. ``type`` and ``group``: with the
    wildcards ``*`` and ``?``. ``key``: the exact bytes. ``error``: a part of the error's class or message, in any
    case. ``since`` and ``until``: when it was written to the dead-letter topic, the first included, the second not.
    """

    topic: str | None = None
    group: str | None = None
    type: str | None = None
    key: bytes | None = None
    error: str | None = None
    message_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Whether ``letter`` is asked for."""
        return (
            (self.topic is None or letter.original_topic in (self.topic, None))
            and self.message_id in (None, letter.message_id)
            and self.key in (None, letter.key)
            and (self.group is None or fnmatchcase(letter.group or "", self.group))
            and (self.type is None or fnmatchcase(letter.type or "", self.type))
            and (self.since is None or letter.timestamp >= self.since)
            and (self.until is None or letter.timestamp < self.until)
            and (self.error is None or self.error.casefold() in f"{letter.error}: {letter.message}".casefold())
        )


def find_topics(existing: Iterable[str], *, topic: str | None = None, named: Sequence[str] = ()) -> list[str]:
    """The dead-letter topics among ``existing``.

    ``named`` are taken as they are, whatever their names. ``topic`` is a dead-letter topic, or an original one,
    whose dead letters are in ``{topic}.{group}.dlq``. Without either, all that end with ``.dlq``.

    Raises UnknownTopic for a name that is none of these.
    """
    names = set(existing)
    for name in named:
        if name not in names:
            raise UnknownTopic(f"Kafka knows no topic {name!r}; check the name.")
    if named:
        return sorted(set(named))
    if topic is None:
        return sorted(name for name in names if name.endswith(SUFFIX))
    if topic in names and topic.endswith(SUFFIX):
        return [topic]
    found = sorted(name for name in names if name.startswith(f"{topic}.") and name.endswith(SUFFIX))
    if not found and topic not in names:
        raise UnknownTopic(f"Kafka knows neither a topic {topic!r} nor dead letters of it; check the name.")
    return found


def read(reader: TopicReader, topics: Sequence[str], wanted: Filter) -> Iterator[DeadLetter]:
    """Topic by topic, in order per partition, up to the end as it is when a topic's turn comes.

    Raises UnknownTopic, KafkaUnavailable.
    """
    for topic in topics:
        for record in reader.read(topic):
            letter = DeadLetter.of(record)
            if wanted.matches(letter):
                yield letter


def oldest(reader: TopicReader, topics: Sequence[str], wanted: Filter, limit: int) -> list[DeadLetter]:
    """Up to ``limit`` of them, those first that were written first. Reads all."""
    return nsmallest(limit, read(reader, topics, wanted), key=_age)


def newest(reader: TopicReader, topics: Sequence[str], wanted: Filter, limit: int) -> list[DeadLetter]:
    """Up to ``limit`` of them, the newest first. Reads from the ends of the topics, no more than it has to.

    It takes timestamps to grow along a partition; some disorder, as of several relays' clocks, does no harm.
    """
    found = [letter for topic in topics for letter in _newest_of(reader, topic, wanted, limit)]
    return sorted(found, key=_age, reverse=True)[:limit]


def fetch(reader: TopicReader, place: Place) -> DeadLetter:
    """The dead letter at ``place``. Raises UsageError where there is none, UnknownTopic, KafkaUnavailable."""
    bounds = reader.offsets(place.topic)
    first, end = bounds.get(place.partition, (0, 0))
    if first <= place.offset < end:
        start = {number: after_last for number, (_, after_last) in bounds.items()} | {place.partition: place.offset}
        for record in reader.read(place.topic, start):
            if (record.partition.number, record.offset) == place[1:]:
                return DeadLetter.of(record)
            if record.partition.number == place.partition and record.offset > place.offset:
                break
    raise UsageError(f"There is no dead letter at {place}: it never was, or the topic's retention took it.")


def _newest_of(reader: TopicReader, topic: str, wanted: Filter, limit: int) -> Sequence[DeadLetter]:
    """The last ones of one topic. A window from the ends grows until nothing older can be among them."""
    bounds = reader.offsets(topic)
    window = max(limit, _FIRST_WINDOW)
    while True:
        start = {number: max(first, end - window) for number, (first, end) in bounds.items()}
        best: list[tuple[datetime, int, DeadLetter]] = []
        ties = count()
        reached: dict[int, datetime] = {}
        for record in reader.read(topic, start):
            _note_oldest(reached, record)
            letter = DeadLetter.of(record)
            if wanted.matches(letter):
                entry = (letter.timestamp, next(ties), letter)
                if len(best) < limit:
                    heappush(best, entry)
                else:
                    heappushpop(best, entry)
        floor = best[0][0] if len(best) == limit else wanted.since
        unread = [number for number, (first, _) in bounds.items() if start[number] > first]
        if all(floor is not None and number in reached and reached[number] < floor for number in unread):
            return [letter for _, _, letter in best]
        window *= _WINDOW_GROWTH


def _note_oldest(reached: dict[int, datetime], record: ReceivedRecord) -> None:
    number = record.partition.number
    reached[number] = min(reached.get(number, record.timestamp), record.timestamp)


def _age(letter: DeadLetter) -> tuple[datetime, Place]:
    return letter.timestamp, letter.place


def total(reader: TopicReader, topics: Sequence[str]) -> Mapping[str, int]:
    """Records by topic, at most: compaction leaves gaps. For progress bars."""
    return {topic: sum(end - first for first, end in reader.offsets(topic).values()) for topic in topics}
