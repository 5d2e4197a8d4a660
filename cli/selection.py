"""Which dead letters a command means: by filters, by place, by message id; and what was done to them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .app import App

if TYPE_CHECKING:
    from ..dlq import DeadLetter, Filter
    from ..messaging.ports import TopicReader
    from ..messaging.records import ReceivedRecord
    from .letters import States


def selected(app: App, reader: "TopicReader", places: Sequence[str], filters: dict[str, Any]) -> "Iterator[DeadLetter]":
    """Those at ``places``, else those that the filters ask for, with a progress bar."""
    from ..dlq import read
    from ..dlq.browse import total
    from . import output

    if places:
        seen = set()
        for text in places:
            for letter in at(app, reader, text, filters["named"]):
                if letter.place not in seen:
                    seen.add(letter.place)
                    yield letter
        return
    topics = topics_of(app, filters)
    everything = sum(total(reader, topics).values())
    with output.progress("reading", everything, hidden=app.as_json) as advance:
        yield from read(_Counting(reader, advance), topics, wanted_by(filters, topics))


class _Counting:
    """A reader that moves a progress bar."""

    def __init__(self, reader: "TopicReader", advance: Callable[[int], None]) -> None:
        self._reader = reader
        self._advance = advance

    def offsets(self, topic: str) -> Mapping[int, tuple[int, int]]:
        return self._reader.offsets(topic)

    def read(self, topic: str, start: Mapping[int, int] | None = None) -> "Iterator[ReceivedRecord]":
        for record in self._reader.read(topic, start):
            self._advance(1)
            yield record

    def close(self) -> None:
        self._reader.close()


def at(app: App, reader: "TopicReader", text: str, named: Sequence[str]) -> "list[DeadLetter]":
    """The dead letter at a place, or those of a message, the newest first. Raises UsageError for none."""
    from ..dlq import Filter, Place, fetch, find_topics, newest
    from ..dlq.browse import SUFFIX
    from ..messaging.errors import UsageError

    existing = existing_topics(app)
    place = Place.parse(text)
    if place is not None and (place.topic.endswith(SUFFIX) or place.topic in named):
        return [fetch(reader, place)]
    found = newest(reader, find_topics(existing, named=named), Filter(message_id=text), limit=1_000)
    if not found and place is not None and place.topic in existing:
        return [fetch(reader, place)]
    if not found:
        raise UsageError(f"There is no dead letter at {text!r}, nor one of such a message.")
    return found


def existing_topics(app: App) -> "dict[str, int]":
    """The cluster's topics and their numbers of partitions."""
    with app.topics() as topics:
        return dict(topics.partitions())


def topics_of(app: App, filters: dict[str, Any]) -> list[str]:
    """The dead-letter topics to read. Raises UnknownTopic."""
    from ..dlq import find_topics

    return find_topics(existing_topics(app), topic=filters["topic"], named=filters["named"])


def wanted_by(filters: dict[str, Any], topics: Sequence[str]) -> "Filter":
    """What the filter options say."""
    from ..dlq import Filter

    return Filter(
        # A dead-letter topic's name says where to look, not what to look for.
        topic=None if filters["topic"] in topics else filters["topic"],
        group=filters["group"],
        type=filters["type_"],
        key=None if filters["key"] is None else filters["key"].encode(),
        error=filters["error"],
        message_id=filters["message_id"],
        since=filters["since"],
        until=filters["until"],
    )


def states_of(app: App, letters: "Sequence[DeadLetter]") -> "States":
    """What was done to them; None without a database."""
    if not app.has_database:
        return None
    with app.ledger() as ledger:
        return ledger.last_actions([letter.place for letter in letters])
