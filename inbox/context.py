"""What a handler knows of the message it is called with, and how it publishes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..messaging.correlation import inheriting
from ..messaging.envelope import PROPAGATED
from ..messaging.headers import HeaderPairs
from ..messaging.message import Message
from ..outbox import Event, Outbox
from .delivery import Delivery

S = TypeVar("S", Session, AsyncSession)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context(Generic[S]):
    message_id: str
    type: str | None
    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: Mapping[str, str]
    correlation_id: str
    time: datetime
    deadline: datetime | None
    attempt: int
    duplicate: bool
    outcome: Any
    session: S
    _outbox: Outbox = field(repr=False)

    @classmethod
    def of(
        cls,
        delivery: Delivery,
        attempt: int,
        session: S,
        outbox: Outbox,
        *,
        duplicate: bool = False,
        outcome: Any = None,
    ) -> Self:
        """The context of one attempt at ``delivery``."""
        envelope = delivery.envelope
        return cls(
            message_id=delivery.message_id,
            type=envelope.type,
            topic=delivery.topic,
            partition=delivery.record.partition.number,
            offset=delivery.record.offset,
            key=delivery.record.key,
            headers=_texts(envelope.headers),
            correlation_id=delivery.correlation_id,
            time=envelope.time,
            deadline=envelope.expires_at,
            attempt=attempt,
            duplicate=duplicate,
            outcome=outcome,
            session=session,
            _outbox=outbox,
        )

    @property
    def inherited(self) -> dict[str, str]:
        """The headers that go on into what is published here."""
        found = {name: value for name in PROPAGATED if (value := self.headers.get(name)) and value.isprintable()}
        return found | {"correlation_id": self.correlation_id, "causation_id": self.message_id}

    def publish(
        self,
        message: Event | Message,
        *,
        key: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        deliver_at: datetime | None = None,
        expires_in: timedelta | None = None,
        correlation_id: str | None = None,
    ) -> UUID:
        """Publish ``message`` if, and only if, this handler's transaction commits. Returns its id.

        As ``Outbox.publish`` on ``session``; an async handler calls it without await. The consumed message
        goes along as ``causation_id``; its ``correlation_id``, trace context and deadline go on, where the
        new message has none of its own.

        Raises InvalidMessage, MessageTooLarge.
        """
        with inheriting(self.inherited):
            return self._outbox.publish(
                self.session,
                message,
                key=key,
                headers=headers,
                deliver_at=deliver_at,
                expires_in=expires_in,
                correlation_id=correlation_id,
            )


class Context(_Context[Session]):
    """What a handler gets beside the message.

    ``session``: a SQLAlchemy session in the transaction of the inbox row. The inbox commits it; a handler
    must not end the transaction, and uses ``session.begin_nested()`` around a part that may fail.

    ``message_id``: what the inbox knows the message by. ``headers``: text by name; those that are no UTF-8
    are left out, and of several of one name the first is here. ``correlation_id``: the message's own, or
    its id. ``time``: when it was published. ``deadline``: until when it is worth anything. ``attempt``: 1, 2, … at
    this message. ``duplicate``: it was handled before (only where the handler asked for duplicates), and ``outcome``
    is what the handler returned then.
    """

    __slots__ = ()


class AsyncContext(_Context[AsyncSession]):
    """The same for an async handler: ``session`` is an ``AsyncSession``."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchContext(Generic[S]):
    """What a batch handler gets beside the events: ``messages`` has the context of each, in the same order.

    ``session`` is theirs, too: one transaction for all.
    """

    messages: Sequence[_Context[S]]
    session: S


def _texts(headers: HeaderPairs) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, value in headers:
        try:
            texts.setdefault(name, value.decode())
        except UnicodeDecodeError:
            continue
    return texts
