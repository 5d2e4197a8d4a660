"""Publishing: a message becomes part of the caller's transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from ..messaging import dataschema, tracing
from ..messaging.clock import Clock, SystemClock
from ..messaging.correlation import inherited
from ..messaging.envelope import JSON, RESERVED, timestamp
from ..messaging.errors import InvalidMessage, MessageTooLarge, UsageError
from ..messaging.headers import check_headers
from ..messaging.message import Message
from .entry import Entry
from .event import Event
from .names import Names
from .session import remember
from .write import write_psycopg, write_psycopg_async, write_sqlalchemy

SyncTarget = (
    Session
    | AsyncSession
    | scoped_session[Session]
    | async_scoped_session[AsyncSession]
    | sa.Connection
    | psycopg.Connection[Any]
    | psycopg.Cursor[Any]
)
AsyncTarget = AsyncConnection | AsyncSession | psycopg.AsyncConnection[Any] | psycopg.AsyncCursor[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """The producing side. Thread-safe; make one for the application.

    ``source``: the CloudEvents source of what is published, a URI reference such as ``/shop``.
    ``names``: where the tables are. ``bind``: which engine holds the tables, for sessions with several.
    ``max_payload_bytes``: what is larger is refused at ``publish``; Kafka's brokers take a batch of 1,048,588
    bytes unless set otherwise, so the default of 1,000,000 leaves room for key and headers. ``clock``: what
    ``expires_in`` counts from.
    """

    source: str
    names: Names = field(default_factory=Names)
    bind: sa.Engine | None = None
    max_payload_bytes: int = 1_000_000
    clock: Clock = field(default_factory=SystemClock, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not self.source or not self.source.isprintable():
            raise InvalidMessage("source must be a text that is not empty, such as '/shop'.")
        check_headers({"ce_source": self.source})

    def publish(
        self,
        target: SyncTarget,
        message: Event | Message,
        *,
        key: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        deliver_at: datetime | None = None,
        expires_in: timedelta | None = None,
        correlation_id: str | None = None,
    ) -> UUID:
        """Publish ``message`` if, and only if, ``target``'s transaction commits. Returns the message id.

        ``target``: a SQLAlchemy ``Session``, ``AsyncSession`` or ``scoped_session``: the message is written as
        the last statement before COMMIT, so that messages of a key follow the order in which their transactions
        serialised. A SQLAlchemy or psycopg ``Connection``, or psycopg ``Cursor``: it is written at once; call it
        after the statements that lock the key's rows, for the same guarantee.

        ``key`` stands in for the event's own; ``headers`` are added; ``deliver_at`` (with a time zone) is the
        earliest time; ``expires_in`` sets ``expires_at``, after which consumers do not run it any more;
        ``correlation_id`` is by default the message id; the relay adds it.

        Raises InvalidMessage, MessageTooLarge, NotInTransaction, SchemaMissing; nothing is written then.
        """
        entry = self.entry(
            message,
            key=key,
            headers=headers,
            deliver_at=deliver_at,
            expires_in=expires_in,
            correlation_id=correlation_id,
        )
        session = _session(target)
        given: object = target
        if session is not None:
            remember(session, entry, self.names, self.bind)
        elif isinstance(given, sa.Connection):
            write_sqlalchemy(given, [entry], self.names)
        elif isinstance(given, psycopg.Connection | psycopg.Cursor):
            connection = given if isinstance(given, psycopg.Connection) else given.connection
            write_psycopg(connection, [entry], self.names)
        elif isinstance(given, AsyncConnection | psycopg.AsyncConnection | psycopg.AsyncCursor):
            raise UsageError(f"Use `await outbox.publish_async(…)` on a {type(target).__name__}.")
        else:
            raise UsageError(
                f"Cannot publish on a {type(target).__module__}.{type(target).__name__}; give a SQLAlchemy Session or "
                "Connection, or a psycopg Connection or Cursor."
            )
        return entry.id

    async def publish_async(
        self,
        target: AsyncTarget,
        message: Event | Message,
        *,
        key: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        deliver_at: datetime | None = None,
        expires_in: timedelta | None = None,
        correlation_id: str | None = None,
    ) -> UUID:
        """``publish`` for an ``AsyncConnection`` of SQLAlchemy or psycopg, and psycopg's ``AsyncCursor``."""
        entry = self.entry(
            message,
            key=key,
            headers=headers,
            deliver_at=deliver_at,
            expires_in=expires_in,
            correlation_id=correlation_id,
        )
        session = _session(target)
        if session is not None:
            remember(session, entry, self.names, self.bind)
        elif isinstance(target, AsyncConnection):
            await target.run_sync(write_sqlalchemy, [entry], self.names)
        elif isinstance(target, psycopg.AsyncConnection | psycopg.AsyncCursor):
            connection = target if isinstance(target, psycopg.AsyncConnection) else target.connection
            await write_psycopg_async(connection, [entry], self.names)
        else:
            raise UsageError(
                f"Cannot publish asynchronously on a {type(target).__name__}; use `outbox.publish(…)` for what is "
                "not asynchronous."
            )
        return entry.id

    def entry(
        self,
        message: Event | Message,
        *,
        key: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        deliver_at: datetime | None = None,
        expires_in: timedelta | None = None,
        correlation_id: str | None = None,
    ) -> Entry:
        """The row that ``publish`` would write. Raises InvalidMessage, MessageTooLarge."""
        composed: dict[str, str] = {**inherited(), "ce_source": self.source}
        if isinstance(message, Event):
            if isinstance(headers, Mapping) and dataschema.HEADER in headers:
                _check_version(message, headers)
            message = message.to_message(key=key)
            composed["content-type"] = JSON
        elif not isinstance(message, Message):
            raise InvalidMessage(f"Publish an Event or a Message, not a {type(message).__name__}.")
        elif key is not None:
            raise InvalidMessage("A Message carries its own key; set it there.")
        if message.payload is not None and len(message.payload) > self.max_payload_bytes:
            raise MessageTooLarge(
                f"The payload has {len(message.payload)} bytes, over the limit of {self.max_payload_bytes}; store the "
                "data elsewhere and publish where it is, or raise max_payload_bytes and Kafka's max.message.bytes."
            )
        if deliver_at is not None and deliver_at.tzinfo is None:
            raise InvalidMessage("deliver_at needs a time zone, such as datetime.now(UTC) + timedelta(hours=1).")
        traced = "traceparent" in message.headers or (headers is not None and "traceparent" in headers)
        composed = self._headers(composed, message, headers, correlation_id)
        if not traced:
            composed |= tracing.created(message.topic, str(message.id), message.payload, composed)
        if expires_in is not None:
            composed["expires_at"] = timestamp(self.clock.now() + expires_in)
        return Entry.of(message, composed, deliver_at)

    @staticmethod
    def _headers(
        composed: dict[str, str], message: Message, headers: Mapping[str, str] | None, correlation_id: str | None
    ) -> dict[str, str]:
        """``composed`` and what the application adds. Raises InvalidMessage."""
        own = {**message.headers, **check_headers(headers)} if headers else message.headers
        if own:
            if taken := sorted(RESERVED & own.keys()):
                raise InvalidMessage(f"header {taken[0]!r} is set by Postroom; choose another name.")
            composed |= own
        if correlation_id:
            composed["correlation_id"] = correlation_id
        elif not composed.get("correlation_id", True):
            del composed["correlation_id"]  # the relay adds the message's id
        if own or correlation_id:
            composed = check_headers(composed)  # what is ours alone was checked already
        return composed


def _check_version(event: Event, headers: Mapping[str, str]) -> None:
    """An event's readers go by the version in this header, so it must be the model's."""
    if dataschema.version_of(check_headers(headers)[dataschema.HEADER]) != event.event_version:
        raise InvalidMessage(
            f"header {dataschema.HEADER!r} must say version {event.event_version}, which {type(event).__name__} is of; "
            "leave it out."
        )


def _session(target: object) -> Session | None:
    if isinstance(target, scoped_session | async_scoped_session):
        target = target.registry()
    if isinstance(target, AsyncSession):
        target = target.sync_session
    return target if isinstance(target, Session) else None
