"""The whole of a comparison: the log, then each topic, then what of both belongs together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from ...messaging.errors import InvalidRecord, KafkaUnavailable, UnknownTopic, UsageError
from ...messaging.headers import first
from ...messaging.ports import Kafka, TopicReader
from ..names import Names
from .compare import Clue, Facts, Seen, compare
from .log_side import Begun, LogSide
from .prints import micros
from .result import Example, TopicResult, Verification
from .scratch import Scratch
from .topic_side import Progress, TopicSide

_DELETE_RETENTION = timedelta(days=1)
_Settings = Mapping[str, Mapping[str, str]]


@contextmanager
def _quiet(_what: str, _total: int, /) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def verify(
    url: str,
    kafka: Kafka,
    *,
    names: Names | None = None,
    topics: Sequence[str] = (),
    key: bytes | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    examples: int = 10,
    goes_on: Callable[[str], bool] = lambda _: False,
    progress: Progress = _quiet,
) -> Verification:
    """Compare what the log at ``url`` holds with what Kafka has of it. Reads only, and stops nobody.

    ``topics``: of these (default: all that the log has), ``key``: of this one. ``since``, ``until``: written then
    (default: all that is retained). ``examples``: so many of each topic and kind. ``goes_on``: topics in which by the
    relay's policy (``park-message``) a key goes on past a refused message, so that one that was retried comes late.

    Takes as long as it takes to read the log's window and, of each topic, all records since it began. Memory is
    bounded: what is compared lies in a temporary SQLite database, on disk about 0.4 GB for a million messages.

    Raises UsageError (a window that ends before it begins, a topic that nobody knows), KafkaUnavailable,
    DatabaseUnavailable, NotAuthorized, ConfigurationError, SchemaMissing.
    """
    if since is not None and until is not None and since >= until:
        raise UsageError("The window must begin before it ends.")
    with closing(LogSide(url, names)) as log, closing(kafka.reader()) as reader, closing(Scratch()) as scratch:
        begun = log.begin(since, until)
        with progress("reading the log", begun.upto - begun.after) as advance:
            reached = begun.after
            for rows, upto in log.rows(begun, topics, key):
                scratch.add_rows(rows)
                advance(upto - reached)
                reached = upto
        scratch.index_rows()
        work = _Work(log, reader, scratch, begun, _settings(kafka, scratch.topics), key, examples, progress)
        found: list[TopicResult] = []
        told: list[Example] = []
        for topic in sorted({*topics, *scratch.topics}):
            result, clues = work.compared(topic, goes_on=goes_on(topic))
            found.append(result)
            told += [_example(log, topic, clue) for clue in clues]
    return Verification(begun.since, begun.until, found, told)


@dataclass(frozen=True, slots=True)
class _Work:
    """The comparison of one topic after the other. ``settings``: of the topics, None where Kafka does not tell."""

    log: LogSide
    reader: TopicReader
    scratch: Scratch
    begun: Begun
    settings: _Settings | None
    key: bytes | None
    examples: int
    progress: Progress

    def compared(self, topic: str, *, goes_on: bool) -> tuple[TopicResult, list[Clue]]:
        """What was found of a topic."""
        if topic not in self.scratch.topics or self.begun.since is None:
            return self._not_logged(topic), []
        self.scratch.forget_topic()
        side = TopicSide(self.reader, self.scratch, topic, key=self.key, progress=self.progress)
        try:
            side.read(self.begun.since)
        except UnknownTopic:
            return self._not_there(topic)
        self.scratch.add_rows((topic, row) for row in self.log.late(self.begun, topic, self.key))
        facts = self._facts(topic, side, goes_on=goes_on)
        result, seen = self._judged(topic, facts)
        if result.broken and seen.unsure and not side.whole:
            side.read_older()  # the clocks may differ by more than the margin: nothing is said before all was seen
            facts = self._facts(topic, side, goes_on=goes_on)
            result, seen = self._judged(topic, facts)
        _note(result, facts, seen, known=self.settings is not None and topic in self.settings)
        return result, seen.clues

    def _not_logged(self, topic: str) -> TopicResult:
        try:
            self.reader.offsets(topic)
        except UnknownTopic:
            raise UsageError(
                f"Neither the log (in this window) nor Kafka knows the topic {topic!r}; check the name."
            ) from None
        return TopicResult(topic, notes=["The log holds no message of it in this window."])

    def _not_there(self, topic: str) -> tuple[TopicResult, list[Clue]]:
        result, seen = self._judged(topic, self._facts(topic, None, goes_on=False))
        if result.lost:
            result.notes.append(
                "The topic does not exist, though messages of it were published: it was deleted. If that was a "
                f"mistake, make it again (`postroom topics create {topic}`), then "
                f"`postroom outbox replay --topic {topic}`."
            )
        else:
            result.notes.append("The topic does not exist; nothing of it was published.")
        return result, seen.clues

    def _facts(self, topic: str, side: TopicSide | None, *, goes_on: bool) -> Facts:
        begun, settings = self.begun, (self.settings or {}).get(topic, {})
        kept = settings.get("delete.retention.ms")
        since, oldest = begun.since or begun.until, self.log.oldest() or begun.until
        return Facts(
            {} if side is None else side.spans(),
            since=micros(max(since, oldest)),
            until=micros(begun.until),
            now=micros(begun.now),
            compacted="compact" in settings.get("cleanup.policy", ""),
            delete_retention=int(kept) * 1000 if kept else _DELETE_RETENTION // timedelta(microseconds=1),
            goes_on=goes_on,
        )

    def _judged(self, topic: str, facts: Facts) -> tuple[TopicResult, Seen]:
        self.scratch.forget_results()
        result = TopicResult(topic)
        return result, compare(self.scratch, result, facts, self.examples)


def _settings(kafka: Kafka, topics: Sequence[str]) -> _Settings | None:
    try:
        with closing(kafka.topics()) as admin:
            return admin.configuration(topics)
    except KafkaUnavailable:
        return None


def _note(result: TopicResult, facts: Facts, seen: Seen, *, known: bool) -> None:
    """What explains findings."""
    spans = facts.spans.values()
    if seen.lost_first and not facts.compacted and all(span.first == span.start == 0 for span in spans):
        state = "All that is lost is older than all that is there" if result.arrived else "The topic is empty"
        result.notes.append(
            f"{state}, as if the topic had been deleted and made anew. To make it whole: "
            f"`postroom outbox replay --topic {result.topic}`."
        )
    if result.broken and not known:
        result.notes.append(
            "Kafka does not tell the topic's settings (DescribeConfigs is not allowed, or not known); it was taken for "
            "one that is not compacted."
        )


def _example(log: LogSide, topic: str, clue: Clue) -> Example:
    """With what the log still tells of it."""
    found = log.at(clue.position)
    place = clue.partition, clue.offset, clue.after
    if found is None:
        return Example(clue.kind, topic, clue.position, str(UUID(bytes=clue.id)), None, None, *place)
    row = found.row
    try:
        given = first(row.record().headers, "ce_id")
    except InvalidRecord:
        given = None
    return Example(clue.kind, topic, clue.position, given or row.id, row.key, row.created_at, *place)
