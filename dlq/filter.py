"""Which dead letters are meant: a filter, as SQL as far as SQL can tell, and the rest record by record."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import sqlalchemy as sa

from ..messaging.fingerprint import LENGTH
from ..messaging.headers import HeaderPairs
from ..outbox.wildcard import glob, like
from .letter import DeadLetter, known_id
from .states import State
from .tables import Tables


class Predicate(Protocol):
    """What looks into a message, such as ``messaging.match.Match``."""

    def matches(self, payload: bytes | None, headers: HeaderPairs, key: bytes | None) -> bool:
        """Whether it is asked for. Never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which dead letters; None, or nothing, asks for any.

    ``topic``: the original one, or the dead-letter topic. ``group``, ``type`` and ``handler``: with the wildcards
    ``*`` and ``?``. ``key``: the exact bytes. ``error``: a part of the error's class or message, in any case.
    ``fingerprint``: its beginning. ``since`` and ``until``: when it last failed, the first included, the second not.
    ``states``: any of these. ``headers``: pairs of a name and a value; without a value any will do. ``match``: what
    the payload must be. ``plan``: in this plan. ``after``: came into the ledger
    after the one with this id. ``ids``: these, 1,000 at the most.
    """

    topic: str | None = None
    group: str | None = None
    type: str | None = None
    handler: str | None = None
    key: bytes | None = None
    error: str | None = None
    fingerprint: str | None = None
    message_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    states: frozenset[State] = frozenset()
    plan: int | None = None
    after: int | None = None
    ids: Sequence[int] | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    match: Predicate | None = None

    @property
    def looks_inside(self) -> bool:
        """Whether each record has to be looked at: SQL alone cannot tell."""
        return bool(self.headers) or self.match is not None

    def sql(self, tables: Tables) -> list[sa.ColumnElement[bool]]:
        """The conditions that SQL can tell."""
        letter = tables.letter.c
        possible: tuple[tuple[Any, Callable[[Any], sa.ColumnElement[bool]]], ...] = (
            (self.topic, lambda topic: sa.or_(letter.topic == topic, letter.dead_letter_topic == topic)),
            (self.group, lambda pattern: _like(letter.consumer_group, pattern, tables)),
            (self.type, lambda pattern: _like(letter.type, pattern, tables)),
            (self.handler, lambda pattern: _like(letter.handler, pattern, tables)),
            (self.key, lambda key: letter.key == key),
            (self.error, lambda error: _tells(tables, error)),
            (self.fingerprint, lambda beginning: _begins(letter.fingerprint, beginning.lower())),
            (self.message_id, lambda message_id: letter.message_id == known_id(message_id)),
            (self.since, lambda since: letter.failed_at >= since),
            (self.until, lambda until: letter.failed_at < until),
            (self.states or None, tables.in_states),
            (self.plan, lambda plan: letter.plan_id == plan),
            (self.after, lambda after: letter.id > after),
            (self.ids, letter.id.in_),
        )
        return [condition(value) for value, condition in possible if value is not None]

    def matches(self, letter: DeadLetter) -> bool:
        """What SQL cannot tell, of a letter with its record."""
        headers = letter.headers or ()
        return all(
            any(own == name and value in (None, given) for own, given in headers) for name, value in self.headers
        ) and (self.match is None or self.match.matches(letter.payload, headers, letter.key))


def _tells(tables: Tables, part: str) -> sa.ColumnElement[bool]:
    """The class, the message, or both together as they are shown; of single columns the database knows what is rare."""
    letter = tables.letter.c
    if ":" in part:
        told = sa.func.coalesce(letter.error, "") + ": " + sa.func.coalesce(letter.message, "")
        return told.icontains(part, autoescape=True)
    return sa.or_(letter.error.icontains(part, autoescape=True), letter.message.icontains(part, autoescape=True))


def _begins(column: sa.ColumnElement[str], beginning: str) -> sa.ColumnElement[bool]:
    if len(beginning) >= LENGTH:
        return column == beginning
    return column.startswith(beginning, autoescape=True)


def _like(column: sa.ColumnElement[str], pattern: str, tables: Tables) -> sa.ColumnElement[bool]:
    if not set(pattern) & set("*?"):
        return column == pattern
    if tables.sqlite:  # whose LIKE knows no case
        return column.op("GLOB", is_comparison=True, return_type=sa.Boolean())(glob(pattern))
    return column.like(like(pattern), escape="\\")
