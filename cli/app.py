"""What every command is given: flags, settings, and the parts that they describe, built when they are used."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from ..messaging.errors import ConfigurationError

if TYPE_CHECKING:
    from ..dlq import Ledger
    from ..inbox.desk import Desk
    from ..messaging.kafka import KafkaOptions
    from ..messaging.ports import Cluster, Kafka, TopicReader, Topics
    from ..messaging.redact import Redaction
    from ..outbox.archive import Archive
    from ..outbox.log import LogStore
    from ..outbox.names import Names
    from ..outbox.parking import Parking
    from .settings import Loaded, Settings


_PASSWORD = re.compile(r"://[^/?#@]*:[^/?#@]+@")


class App:
    """One run of ``postroom``."""

    def __init__(self) -> None:
        self.as_json = False
        self.debug = False
        self._config: str | None = None
        self._flags: dict[str, Any] = {}

    def take(self, common: dict[str, Any]) -> None:
        """Take the options that every command has; a command's own win over those before it.

        Raises click.UsageError, for a secret among them, too.
        """
        self.as_json = self.as_json or common["as_json"]
        self.debug = self.debug or common["debug"]
        self._config = common["config"] or self._config
        for name in ("database_url", "kafka_bootstrap_servers"):
            if common[name] is not None:
                self._flags[name] = common[name]
        for assignment in common["assignments"]:
            _assign(self._flags, assignment)
        if self._flags and _has_secret(self._flags):
            raise click.UsageError(
                "A password on the command line can be read by everybody on this machine. Put it into the environment "
                "(POSTROOM_DATABASE_URL, PGPASSWORD, POSTROOM_KAFKA_OPTIONS), ~/.pgpass or postroom.toml."
            )

    @cached_property
    def loaded(self) -> "Loaded":
        """The settings with their sources. Raises ConfigurationError."""
        from .settings import load

        return load(self._flags, self._config)

    @property
    def settings(self) -> "Settings":
        """The settings. Raises ConfigurationError."""
        return self.loaded.settings

    @cached_property
    def names(self) -> "Names":
        """Where the tables are. Raises ConfigurationError."""
        from ..outbox.names import Names

        return Names(self.settings.schema, self.settings.tables)

    @cached_property
    def redaction(self) -> "Redaction":
        """What is masked in all that is shown, exported or logged. Raises ConfigurationError."""
        from ..messaging.redact import Redaction

        return Redaction(self.settings.redact)

    @property
    def database_url(self) -> str:
        """Raises ConfigurationError where none is set."""
        if self.settings.database_url is None:
            raise ConfigurationError(
                "No database is set; give POSTROOM_DATABASE_URL, database_url in postroom.toml, or --database-url."
            )
        return self.settings.database_url.get_secret_value()

    @property
    def has_database(self) -> bool:
        """Whether a database is set."""
        return self.settings.database_url is not None

    def require_tables(self) -> None:
        """Raises SchemaMissing, SchemaOutdated, SchemaTooNew, DatabaseUnavailable, ConfigurationError."""
        from ..outbox import schema

        schema.check(self.database_url, self.names)

    @contextmanager
    def store(self) -> "Iterator[LogStore]":
        """The log, its tables checked; closed at the end."""
        from ..outbox.database import open_store

        self.require_tables()
        store = open_store(self.database_url, self.names)
        try:
            yield store
        finally:
            store.close()

    @contextmanager
    def archive(self) -> "Iterator[Archive]":
        """The log for those who look at it, its tables checked; closed at the end."""
        from ..outbox.archive import Archive

        self.require_tables()
        archive = Archive(self.database_url, self.names)
        try:
            yield archive
        finally:
            archive.close()

    @contextmanager
    def parking(self) -> "Iterator[Parking]":
        """Parked messages for those who look at them, the tables checked; closed at the end."""
        from ..outbox.parking import Parking

        self.require_tables()
        parking = Parking(self.database_url, self.names)
        try:
            yield parking
        finally:
            parking.close()

    @contextmanager
    def ledger(self) -> "Iterator[Ledger]":
        """The audit of dead letters, its tables checked; closed at the end."""
        from ..dlq import Ledger

        ledger = Ledger(self.database_url, self.names)
        try:
            ledger.check()
            yield ledger
        finally:
            ledger.close()

    @contextmanager
    def desk(self) -> "Iterator[Desk]":
        """What operators see of inboxes, the tables checked; closed at the end."""
        from ..inbox.desk import Desk

        self.require_tables()
        desk = Desk(self.database_url, self.names)
        try:
            yield desk
        finally:
            desk.close()

    @property
    def kafka_options(self) -> "KafkaOptions":
        """How to reach Kafka."""
        from ..messaging.kafka import KafkaOptions

        settings = self.settings
        return KafkaOptions(
            settings.kafka_bootstrap_servers,
            settings.kafka_client,
            settings.kafka_options,
            settings.kafka_compression,
        )

    def kafka(self) -> "Kafka":
        """The Kafka client's parts. Does not connect. Raises ConfigurationError."""
        from ..messaging.kafka import connect

        self.hush_libraries()
        return connect(self.kafka_options)

    @contextmanager
    def reader(self) -> "Iterator[TopicReader]":
        """A reader of topics, closed at the end."""
        reader = self.kafka().reader()
        try:
            yield reader
        finally:
            reader.close()

    @contextmanager
    def topics(self) -> "Iterator[Topics]":
        """The administrator's client, closed at the end."""
        topics = self.kafka().topics()
        try:
            yield topics
        finally:
            topics.close()

    @contextmanager
    def cluster(self) -> "Iterator[Cluster]":
        """The client for questions about the cluster, closed at the end."""
        cluster = self.kafka().cluster()
        try:
            yield cluster
        finally:
            cluster.close()

    def hush_libraries(self) -> None:
        """The Kafka client logs an error for each try to connect; ours says it once."""
        if self.debug:
            logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
            logging.getLogger().setLevel(logging.INFO)
        else:
            for client in ("kafka", "confluent_kafka"):
                logging.getLogger(client).setLevel(logging.CRITICAL + 1)

    def secrets(self) -> list[str]:
        """What must not be shown. Never raises."""
        from urllib.parse import quote, quote_plus

        if "loaded" not in self.__dict__:
            return []
        from .settings import is_secret

        found = [str(value) for name, value in self.settings.kafka_options.items() if is_secret(name)]
        if self.settings.database_url is not None:
            found += url_secrets(self.settings.database_url.get_secret_value())
        return [form for secret in found for form in {secret, quote(secret), quote_plus(secret), quote(secret, "")}]


def _has_secret(flags: dict[str, Any]) -> bool:
    """Whether a password stands among them: in a URL, or under the name of one."""
    from .settings import is_secret

    for name, value in flags.items():
        if isinstance(value, dict):
            if _has_secret(value):
                return True
        elif value not in ("", None) and (is_secret(name) or (name == "database_url" and _in_url(value))):
            return True
    return False


def _in_url(url: str) -> bool:
    from .settings import is_secret

    named = (part.partition("=") for part in url.partition("?")[2].split("&"))
    return bool(_PASSWORD.search(url)) or any(is_secret(name) and value for name, _, value in named)


def url_secrets(url: str) -> list[str]:
    """The passwords in a database URL."""
    import sqlalchemy as sa

    from .settings import is_secret

    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        return [url]
    query = [value for name, value in parsed.query.items() if is_secret(name)]
    return [str(value) for value in (parsed.password, *query) if value]


def _assign(flags: dict[str, Any], assignment: str) -> None:
    """``section.name=value`` into ``flags``."""
    name, separator, value = assignment.partition("=")
    *sections, last = name.strip().split(".")
    if not separator or not last or not all(sections):
        raise click.UsageError(f"--set takes NAME=VALUE, such as relay.lease_seconds=30, not {assignment!r}.")
    for section in sections:
        flags = flags.setdefault(section, {})
        if not isinstance(flags, dict):
            raise click.UsageError(f"--set {name}: {section} is no section.")
    flags[last] = _parsed(value)


def _parsed(value: str) -> Any:
    try:
        return json.loads(value) if value[:1] in ("{", "[") else value
    except ValueError:
        return value
