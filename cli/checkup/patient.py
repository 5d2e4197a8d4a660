"""What the checks look at, and what they find."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from ...messaging.clock import Clock, SystemClock
from ...messaging.dead_letter import dead_letter_topic
from ...messaging.errors import DatabaseUnavailable, PostroomError
from ..app import App

if TYPE_CHECKING:
    from ...inbox import Inbox
    from ...messaging.ports import Cluster, Topics
    from ...outbox.names import Names
    from ..statistics import Statistics

#: ``unknown``: it could not be looked at, as a right is missing, or nothing answered in time.
State = Literal["ok", "warning", "problem", "unknown"]
#: The patience with one query.
PATIENCE = 5.0


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
    """Each part is looked for once, and its failure told by the check that is for it.

    ``silent``: what did not answer within a check's time (``database``, ``kafka``), and is not asked again.
    """

    app: App
    inbox: "Inbox | None" = None
    clock: Clock = field(default_factory=SystemClock)
    silent: set[str] = field(default_factory=set)
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
    def names(self) -> "Names":
        """Where the tables are. Raises ConfigurationError."""
        return self.app.names if self.inbox is None else self.inbox.names

    @cached_property
    def dialect(self) -> str:
        """``postgres`` or ``sqlite``. Raises ConfigurationError."""
        from ...outbox.database import parse_url

        return "sqlite" if parse_url(self.app.database_url).drivername == "sqlite" else "postgres"

    @cached_property
    def statistics(self) -> "Statistics":
        """Numbers about the tables. Raises ConfigurationError."""
        from ..statistics import Statistics

        return Statistics(self.app.database_url, self.names, patience=PATIENCE)

    @cached_property
    def database_error(self) -> PostroomError | None:
        """Why the database cannot be asked. It is asked once: that may take a while."""
        try:
            self.rows("hello")
        except PostroomError as error:
            return error
        return None

    @cached_property
    def tables(self) -> int | PostroomError:
        """Their version, or why they cannot be worked with; NotAuthorized: this role may not know whether they can."""
        from ...outbox import schema

        try:
            return schema.check(self.app.database_url, self.names)
        except PostroomError as error:
            return error

    @property
    def has_database(self) -> bool:
        """Whether the database answers."""
        return self.has_settings and "database" not in self.silent and self.database_error is None

    @property
    def has_tables(self) -> bool:
        """Whether there are tables that we can work with, as far as we may know."""
        from ...messaging.errors import NotAuthorized

        return self.has_database and isinstance(self.tables, int | NotAuthorized)

    @property
    def on_postgres(self) -> bool:
        """Whether PostgreSQL answers."""
        return self.has_database and self.dialect == "postgres"

    def rows(self, query: str, params: dict[str, Any] | None = None, file: str = "doctor") -> list[Any]:
        """The answer of a named query, in a short transaction of its own. Raises as Statistics does."""
        from ...outbox.names import queries

        if "database" in self.silent:
            raise DatabaseUnavailable("The database does not answer in time.")
        return self.statistics.answer(queries(self.names, self.dialect, file)[query], params)

    @cached_property
    def topics(self) -> "Topics":
        """The administrator's client. Raises KafkaUnavailable, ConfigurationError."""
        return self._stack.enter_context(self.app.topics())

    @cached_property
    def cluster(self) -> "Cluster":
        """The client for questions about the cluster. Raises KafkaUnavailable, ConfigurationError."""
        return self._stack.enter_context(self.app.cluster())

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
        return self.has_settings and "kafka" not in self.silent and self.kafka_error is None

    @cached_property
    def makes_topics(self) -> bool | None:
        """Whether the brokers make a topic when it is first used; None where they do not tell."""
        try:
            told = self.cluster.defaults().get("auto.create.topics.enable")
        except PostroomError:
            return None
        return None if told is None else told == "true"

    @property
    def dead_letter_topics(self) -> Sequence[str]:
        """Where the inbox's dead letters go."""
        return [dead_letter_topic(topic, self.inbox.group) for topic in self.inbox.topics] if self.inbox else []

    @property
    def read_topics(self) -> Sequence[str]:
        """The topics of the inbox, and those of its dead letters."""
        return [] if self.inbox is None else [*self.inbox.topics, *self.dead_letter_topics]

    def close(self) -> None:
        """Does not raise. What did not answer is left to the end of the process."""
        if not self.silent:
            self._stack.close()
