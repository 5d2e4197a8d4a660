"""The checks of ``postroom doctor``: each looks at one thing and says what to do about it.

To add one, write a function that takes a ``Patient`` and yields ``Finding``s, and put it into ``CHECKS``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ..messaging.dead_letter import dead_letter_topic
from ..messaging.errors import PostroomError
from . import output
from .app import App
from .errors import sentence

if TYPE_CHECKING:
    from ..inbox import Inbox
    from ..messaging.ports import Topics

State = Literal["ok", "warning", "problem"]
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. ``todo``: what to do; empty where nothing is."""

    check: str
    subject: str
    state: State
    told: str
    todo: str = ""


@dataclass
class Patient:
    """What the checks look at; each part is looked for once, and its failure told by the check that is for it."""

    app: App
    inbox: "Inbox | None" = None
    _stack: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def has_settings(self) -> bool:
        """Whether the settings can be read; without them nothing else can be looked at."""
        try:
            _ = self.app.settings
        except PostroomError:
            return False
        return True

    @cached_property
    def topics(self) -> "Topics":
        """The administrator's client. Raises KafkaUnavailable, ConfigurationError."""
        return self._stack.enter_context(self.app.topics())

    @cached_property
    def partitions(self) -> Mapping[str, int]:
        """The cluster's topics. Raises KafkaUnavailable, ConfigurationError."""
        return self.topics.partitions()

    @cached_property
    def kafka_error(self) -> PostroomError | None:
        """Why Kafka cannot be asked. It is asked once: that may take a while."""
        try:
            _ = self.partitions
        except PostroomError as error:
            return error
        return None

    @property
    def has_kafka(self) -> bool:
        """Whether Kafka answers."""
        return self.has_settings and self.kafka_error is None

    @property
    def read_topics(self) -> Sequence[str]:
        """The topics of the inbox, and those of its dead letters."""
        if self.inbox is None:
            return []
        dead = [dead_letter_topic(topic, self.inbox.group) for topic in self.inbox.topics]
        return [*self.inbox.topics, *dead]

    def close(self) -> None:
        """Does not raise."""
        self._stack.close()


Check = Callable[[Patient], Iterator[Finding]]


def settings(patient: Patient) -> Iterator[Finding]:
    """The settings can be read."""
    try:
        loaded = patient.app.loaded
    except PostroomError as error:
        yield Finding("settings", "", "problem", sentence(error), "Correct it; nothing else was looked at.")
        return
    files = [source.path for source in loaded.sources if source.path]
    yield Finding("settings", "", "ok", f"read, with {files[0]}" if files else "read")


def database(patient: Patient) -> Iterator[Finding]:
    """The database answers, and its tables are of this version."""
    if not patient.has_settings:
        return
    from ..messaging.errors import SchemaMissing, SchemaOutdated, SchemaTooNew
    from ..outbox import schema

    try:
        version = schema.check(patient.app.database_url, patient.app.names)
    except SchemaMissing as error:
        yield Finding("database", "tables", "problem", sentence(error), "postroom init")
    except SchemaOutdated as error:
        yield Finding("database", "tables", "problem", sentence(error), "postroom db upgrade")
    except SchemaTooNew as error:
        yield Finding("database", "tables", "problem", sentence(error), "Upgrade Postroom here.")
    except PostroomError as error:
        yield Finding("database", "", "problem", sentence(error), "Start it, or correct database_url.")
    else:
        yield Finding("database", "tables", "ok", f"of version {version}")


def kafka(patient: Patient) -> Iterator[Finding]:
    """Kafka answers."""
    if not patient.has_settings:
        return
    address = patient.app.settings.kafka_bootstrap_servers
    if error := patient.kafka_error:
        yield Finding("kafka", address, "problem", sentence(error), "Start it, or correct kafka_bootstrap_servers.")
    else:
        yield Finding("kafka", address, "ok", f"answers; {output.counted(len(patient.partitions), 'topic')}")


def topics(patient: Patient) -> Iterator[Finding]:
    """Each topic of the inbox is there."""
    if patient.inbox is None or not patient.has_kafka:
        return
    for topic in patient.inbox.topics:
        count = patient.partitions.get(topic)
        if count is None:
            yield Finding("topic", topic, "problem", "is not there", "Create it, with the partitions it needs.")
        else:
            yield Finding("topic", topic, "ok", output.counted(count, "partition"))


def retention(patient: Patient) -> Iterator[Finding]:
    """The inbox remembers a message for as long as anything can bring it again."""
    if not patient.has_settings:
        return
    relay = patient.app.settings.relay
    keep = relay.inbox_retention_hours
    if keep < relay.retention_hours:
        yield Finding(
            "retention",
            "outbox",
            "problem",
            f"the outbox can replay messages of {_hours(relay.retention_hours)}, the inbox remembers {_hours(keep)}: "
            "an older one would run again",
            f"Raise relay.inbox_retention_hours to {relay.retention_hours:g}, or lower relay.retention_hours.",
        )
    else:
        told = f"the inbox remembers {_hours(keep)}, the outbox can replay {_hours(relay.retention_hours)}"
        yield Finding("retention", "outbox", "ok", told)
    if not patient.has_kafka:
        return
    there = [topic for topic in patient.read_topics if topic in patient.partitions]
    try:
        found = patient.topics.configuration(there)
    except PostroomError as error:
        told = f"the topics' retention is not known: {sentence(error)}"
        yield Finding("retention", "kafka", "warning", told, f"See that it is below {_hours(keep)}.")
        return
    for topic in there:
        yield _of_topic(topic, found.get(topic), keep)


def _of_topic(topic: str, config: Mapping[str, str] | None, keep: float) -> Finding:
    """The retention of a topic beside the inbox's, in hours."""
    below = f"See that its retention.ms is at most {keep * _HOUR_MS:.0f}."
    if config is None or not _is_number(config.get("retention.ms")):
        return Finding("retention", topic, "warning", "its settings may not be read", below)
    milliseconds = int(config["retention.ms"])
    again = "a group that starts over, or a replay, runs again what is older"
    if "compact" in config.get("cleanup.policy", ""):
        told = f"it is compacted and keeps the last message of each key for ever, the inbox {_hours(keep)}: {again}"
        return Finding(
            "retention", topic, "warning", told, "Do not read it again from its beginning, or be idempotent."
        )
    if milliseconds < 0:
        told = f"it keeps its messages for ever (retention.ms is {milliseconds}), the inbox {_hours(keep)}: {again}"
        return Finding("retention", topic, "warning", told, f"Set its retention.ms to {keep * _HOUR_MS:.0f} or less.")
    hours = milliseconds / _HOUR_MS
    if hours > keep:
        told = f"it keeps its messages for {_hours(hours)}, the inbox only {_hours(keep)}: {again}"
        todo = f"Raise relay.inbox_retention_hours to {_up(hours)}, or lower its retention.ms."
        return Finding("retention", topic, "problem", told, todo)
    segment = config.get("segment.ms")
    longest = hours + (int(segment) / _HOUR_MS if segment is not None and segment.isdecimal() else 0)
    if longest > keep:
        told = f"Kafka drops whole segments, so it may keep messages for {_hours(longest)}, the inbox {_hours(keep)}"
        return Finding("retention", topic, "warning", told, f"Raise relay.inbox_retention_hours to {_up(longest)}.")
    return Finding("retention", topic, "ok", f"it keeps its messages for {_hours(hours)}, the inbox {_hours(keep)}")


CHECKS: Sequence[Check] = (settings, database, kafka, topics, retention)
"""In the order in which they are told. Later ones find what earlier ones told as absent not worth a word."""


def _is_number(text: str | None) -> bool:
    return text is not None and text.lstrip("-").isdecimal()


def _up(hours: float) -> str:
    """Whole hours, not less."""
    return f"{-int(-hours // 1):d}"


def _hours(hours: float) -> str:
    return output.span(timedelta(hours=hours))
