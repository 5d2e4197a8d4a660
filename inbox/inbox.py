"""The inbox: which handlers a group has."""

import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, TypeVar, Unpack, cast, get_args, overload
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

from ..messaging.clock import Clock, SystemClock
from ..messaging.dead_letter import dead_letter_topic
from ..messaging.errors import ConfigurationError, InvalidHandler, InvalidMessage
from ..messaging.message import check_topic
from ..outbox import Event, Names, Outbox
from . import dedupe
from .handlers import Handler, Model, Options, Received, Register, RegisterBatch, handler_of

E = TypeVar("E", bound=Event)
OnUnhandled = Literal["skip", "dead-letter"]
_GROUP = re.compile(r"[A-Za-z0-9._-]{1,200}")


@dataclass(frozen=True, slots=True)
class Inbox:
    """The consuming side of one consumer group. Register all handlers before it runs.

    ``group``: the consumer group, 1 to 200 of the characters a-z A-Z 0-9 . _ - (dead-letter topics are named
    after it). ``names``: where the tables are. ``source``: the CloudEvents source of what handlers publish,
    by default ``/<group>``. ``on_unhandled``: what happens to a type without a handler on a subscribed topic:
    it is skipped and counted, or becomes a dead letter.

    Raises ConfigurationError for a value that cannot be.
    """

    group: str
    _: KW_ONLY
    names: Names = field(default_factory=Names)
    source: str = ""
    on_unhandled: OnUnhandled = "skip"
    _handlers: dict[tuple[str, str | None], Handler] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.group, str) or not _GROUP.fullmatch(self.group):
            raise ConfigurationError(
                f"group {self.group!r} must be 1 to 200 of the characters a-z A-Z 0-9 . _ -, since dead-letter "
                "topics are named after it."
            )
        if self.on_unhandled not in get_args(OnUnhandled):
            raise ConfigurationError(f"on_unhandled must be 'skip' or 'dead-letter', not {self.on_unhandled!r}.")

    @overload
    def handler(
        self, topic: str, model: type[E], *, type: str | None = None, batch: Literal[True], **options: Unpack[Options]
    ) -> RegisterBatch[E]: ...
    @overload
    def handler(
        self,
        topic: str,
        model: type[E],
        *,
        type: str | None = None,
        batch: Literal[False] = False,
        **options: Unpack[Options],
    ) -> Register[E]: ...
    @overload
    def handler(
        self,
        topic: str,
        model: type[Received] | None = None,
        *,
        type: str | None = None,
        batch: Literal[False] = False,
        **options: Unpack[Options],
    ) -> Register[Received]: ...
    def handler(
        self,
        topic: str,
        model: Model = None,
        *,
        type: str | None = None,
        batch: bool = False,
        **options: Any,
    ) -> Callable[..., Callable[..., object]]:
        """Register ``(event, ctx)``, sync or async, for one type on ``topic``.

        ``model``: a subclass of Event; its ``event_type`` is the type unless ``type`` says another. Without a
        model the handler gets a ``Received``, for ``type``, or for each type without a handler of its own.
        ``batch``: the function takes a sequence of events and a ``BatchContext``, up to ``settings.batch_size`` of
        them in one transaction; when it fails it is called again with each alone. ``options``: see
        ``handlers.Options``.

        A sync handler runs on one of the runner's threads, an async one on its event loop. What it returns is kept as
        JSON, for ``outcome`` and for duplicates. It may run more than once (each time the transaction of the one
        before was rolled back), so what it does outside ``ctx.session`` should bear repetition. An error of the
        ``Unavailable`` kind (``messaging.errors``) says that something it needs is away: it waits, and no attempt
        is counted.

        Raises InvalidHandler: not callable with two arguments, a second one for the same topic and type, ….
        """
        if callable(topic):
            raise InvalidHandler("Write @inbox.handler(topic, Model), with parentheses.")
        try:
            check_topic(topic)
            check_topic(dead_letter_topic(topic, self.group))
        except InvalidMessage as error:
            raise InvalidHandler(str(error)) from None

        def register(function: Callable[..., object]) -> Callable[..., object]:
            new = handler_of(function, topic, model, type_=type, batch=batch, options=cast("Options", options))
            taken = self._handlers.get((topic, new.event_type))
            if taken is not None:
                of = "any other type" if new.event_type is None else f"type {new.event_type!r}"
                raise InvalidHandler(f"Topic {topic!r} has a handler for {of} already: {taken.name}.")
            self._handlers[topic, new.event_type] = new
            return function

        return register

    @overload
    def once(
        self, target: dedupe.SyncTarget, message_id: str | UUID, *, topic: str = "", replays: int = 0
    ) -> AbstractContextManager[bool]: ...
    @overload
    def once(
        self, target: dedupe.AsyncTarget, message_id: str | UUID, *, topic: str = "", replays: int = 0
    ) -> AbstractAsyncContextManager[bool]: ...
    def once(
        self,
        target: dedupe.SyncTarget | dedupe.AsyncTarget,
        message_id: str | UUID,
        *,
        topic: str = "",
        replays: int = 0,
    ) -> AbstractContextManager[bool] | AbstractAsyncContextManager[bool]:
        """For those who consume with another client: is this the first time for this message?

            with Session(engine) as session, session.begin(), inbox.once(session, message_id) as first:
                if first:
                    ...

        ``target``: a SQLAlchemy ``Session`` or ``Connection``, with ``async with`` an ``AsyncSession`` or
        ``AsyncConnection``. The answer is part of its transaction: the message counts as handled when that
        commits, and as new when it rolls back, so let the block's error end the transaction. Where another
        transaction has the same message open, it blocks until that one ends. ``topic`` is for the record;
        ``replays`` (``messaging.dead_letter.replay_count``) lets a replayed dead letter be first again.

        Raises InvalidMessage, NotInTransaction, UsageError; SchemaMissing, DatabaseUnavailable.
        """
        closing = dedupe.Closing(
            group=self.group,
            message_id=dedupe.checked_id(message_id),
            outcome="handled",
            topic=topic,
            handler=None,
            attempts=1,
            replays=replays,
        )
        if isinstance(target, AsyncSession | async_scoped_session | AsyncConnection):
            return dedupe.once_async(target, closing, self.names)
        return dedupe.once(target, closing, self.names)

    @overload
    def outcome(self, target: dedupe.SyncTarget, message_id: str | UUID) -> dedupe.Outcome | None: ...
    @overload
    def outcome(self, target: dedupe.AsyncTarget, message_id: str | UUID) -> Awaitable[dedupe.Outcome | None]: ...
    def outcome(
        self, target: dedupe.SyncTarget | dedupe.AsyncTarget, message_id: str | UUID
    ) -> dedupe.Outcome | Awaitable[dedupe.Outcome | None] | None:
        """How this group closed a message, and what its handler returned; None while it is open.

        ``target`` as for ``once``; with an asynchronous one the result is to be awaited. Rows are kept for the
        inbox's retention. Raises InvalidMessage, UsageError; SchemaMissing, DatabaseUnavailable.
        """
        wanted = dedupe.checked_id(message_id)
        if isinstance(target, AsyncSession | async_scoped_session | AsyncConnection):
            return dedupe.outcome_async(target, self.group, wanted, self.names)
        return dedupe.outcome(dedupe.connection_of(target), self.group, wanted, self.names)

    @property
    def topics(self) -> list[str]:
        """The topics that have a handler."""
        return sorted({topic for topic, _ in self._handlers})

    @property
    def handlers(self) -> list[Handler]:
        """All handlers, in the order of their registration."""
        return list(self._handlers.values())

    def find(self, topic: str, type_: str | None) -> Handler | None:
        """The handler for a type on a topic, if the group has one."""
        return self._handlers.get((topic, type_)) or self._handlers.get((topic, None))

    def outbox(self, clock: Clock | None = None) -> Outbox:
        """What handlers publish with."""
        return Outbox(source=self.source or f"/{self.group}", names=self.names, clock=clock or SystemClock())
