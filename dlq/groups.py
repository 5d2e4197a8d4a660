"""Counting dead letters: by failure, topic, group and so on; how many, since when, and how they come lately."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from .browse import each
from .choices import By
from .filter import Filter
from .ledger import Ledger
from .letter import DeadLetter

BUCKETS = 24
_DAY = timedelta(days=1)


@dataclass(slots=True)
class Group:
    """Dead letters that have something in common.

    ``value``: what they share, ``by`` the column. ``states``: how many are where. ``error``, ``message``, ``handler``,
    ``topic`` and ``consumer_group``: of the one that came last, whose id is ``example``.
    ``trend``: how many failed in each of the span's parts.
    """

    value: Any
    count: int
    first: datetime
    last: datetime
    states: Counter[str] = field(default_factory=Counter)
    error: str | None = None
    message: str | None = None
    handler: str | None = None
    topic: str | None = None
    consumer_group: str | None = None
    example: int = 0
    trend: list[int] = field(default_factory=lambda: [0] * BUCKETS)


@dataclass(frozen=True, slots=True)
class Statistics:
    """``groups``: the largest first, no more than asked for, of ``distinct``. ``total``: letters in all of them.

    ``since``, ``until``: the span of the trend, in BUCKETS parts.
    """

    groups: list[Group]
    distinct: int
    total: int
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class OpenCount:
    """Dead letters of a topic, group and state. ``example``: the id of one with the most frequent failure."""

    topic: str
    group: str | None
    state: str
    count: int
    oldest_at: datetime
    example: int


def open_counts(ledger: Ledger, wanted: Filter) -> list[OpenCount]:
    """The ``wanted`` letters by original topic (their own, where that is unknown), group and state.

    Raises DatabaseUnavailable.
    """
    letter = ledger.tables.letter.c
    topic = sa.func.coalesce(letter.topic, letter.dead_letter_topic)
    same = (topic, letter.consumer_group, letter.state)
    facts = (sa.func.count(), sa.func.min(letter.failed_at), sa.func.max(letter.id))
    query = sa.select(*same, *facts).where(*wanted.sql(ledger.tables)).group_by(*same, letter.fingerprint)
    with ledger.reading() as connection:
        rows = connection.execute(query).all()
    found: dict[tuple[str, str | None, str], list[tuple[int, datetime, int]]] = {}
    for topic_, group, state, *told in rows:
        found.setdefault((topic_, group, state), []).append((told[0], told[1], told[2]))
    return [
        OpenCount(*where, sum(each[0] for each in told), min(each[1] for each in told), max(told)[2])
        for where, told in sorted(found.items(), key=str)
    ]


def statistics(ledger: Ledger, wanted: Filter, *, by: By = "fingerprint", limit: int = 20) -> Statistics:
    """The ``wanted`` dead letters in groups. The trend is that of the filter's span, else of the last day.

    Raises DatabaseUnavailable.
    """
    until = wanted.until or datetime.now(UTC)
    since = min(wanted.since or until - _DAY, until - timedelta(seconds=BUCKETS))
    if wanted.looks_inside:
        return _by_hand(ledger, wanted, by, limit, since, until)
    letter = ledger.tables.letter.c
    column = letter.consumer_group if by == "group" else letter[by]
    conditions = wanted.sql(ledger.tables)
    facts = sa.func.count(), sa.func.min(letter.failed_at), sa.func.max(letter.failed_at), sa.func.max(letter.id)
    with ledger.reading() as connection:
        query = sa.select(column, letter.state, *facts).where(*conditions).group_by(column, letter.state)
        found: dict[Any, Group] = {}
        latest: dict[Any, int] = {}
        for value, state, count, first, last, newest in connection.execute(query):
            group = found.setdefault(value, Group(value, 0, first, last))
            group.count += count
            group.first, group.last = min(group.first, first), max(group.last, last)
            group.states[state] += count
            latest[value] = max(latest.get(value, 0), newest)
        groups = sorted(found.values(), key=lambda each_: (-each_.count, str(each_.value)))
        total, distinct, groups = sum(group.count for group in groups), len(groups), groups[:limit]
        _tell(connection, ledger, groups, latest)
        _draw(connection, ledger, column, conditions, groups, since, until)
    return Statistics(groups, distinct, total, since, until)


def _tell(connection: sa.Connection, ledger: Ledger, groups: list[Group], latest: dict[Any, int]) -> None:
    """What the one of each group that came last says."""
    letter = ledger.tables.letter.c
    columns = (letter.id, letter.error, letter.message, letter.handler, letter.topic, letter.consumer_group)
    for group in groups:
        group.example = latest[group.value]
    ids = [group.example for group in groups]
    told = {row[0]: row[1:] for row in connection.execute(sa.select(*columns).where(letter.id.in_(ids)))}
    for group in groups:
        facts = told.get(group.example, (None,) * 5)
        group.error, group.message, group.handler, group.topic, group.consumer_group = facts


def _draw(
    connection: sa.Connection,
    ledger: Ledger,
    column: sa.ColumnElement[Any],
    conditions: list[sa.ColumnElement[bool]],
    groups: list[Group],
    since: datetime,
    until: datetime,
) -> None:
    """The trend of each group."""
    failed_at = ledger.tables.letter.c.failed_at
    seconds = _seconds(failed_at, sqlite=ledger.sqlite)
    part = sa.cast((seconds - since.timestamp()) / _width(since, until), sa.Integer)
    of_groups = column.in_([group.value for group in groups if group.value is not None])
    span = [failed_at >= since, failed_at < until, sa.or_(of_groups, column.is_(None))]
    if not ledger.sqlite:
        part = sa.cast(sa.func.floor((seconds - since.timestamp()) / _width(since, until)), sa.Integer)
    query = sa.select(column, part, sa.func.count()).where(*conditions, *span).group_by(column, part)
    known = {group.value: group for group in groups}
    for value, number, count in connection.execute(query):
        if value in known:
            known[value].trend[min(max(number, 0), BUCKETS - 1)] += count


def _seconds(moment: sa.ColumnElement[datetime], *, sqlite: bool) -> sa.ColumnElement[float]:
    if sqlite:
        text = sa.type_coerce(moment, sa.Text)  # 2026-01-31T12:00:00.123456Z; julianday would round it
        return sa.cast(sa.func.strftime("%s", sa.func.substr(text, 1, 19)), sa.Float) + sa.cast(
            sa.func.substr(text, 20, 7), sa.Float
        )
    return sa.cast(sa.extract("epoch", moment), sa.Float)


def _width(since: datetime, until: datetime) -> float:
    return (until - since).total_seconds() / BUCKETS


def _by_hand(ledger: Ledger, wanted: Filter, by: By, limit: int, since: datetime, until: datetime) -> Statistics:
    """Where each record has to be looked at."""
    found: dict[Any, Group] = {}
    width = _width(since, until)
    for letter in each(ledger, wanted, sort="arrival"):
        value = getattr(letter, by)
        group = found.setdefault(value, Group(value, 0, letter.failed_at, letter.failed_at))
        _add(group, letter)
        if since <= letter.failed_at < until:
            group.trend[min(int((letter.failed_at - since).total_seconds() / width), BUCKETS - 1)] += 1
    groups = sorted(found.values(), key=lambda each_: (-each_.count, str(each_.value)))
    return Statistics(groups[:limit], len(groups), sum(group.count for group in groups), since, until)


def _add(group: Group, letter: DeadLetter) -> None:
    group.count += 1
    group.first, group.last = min(group.first, letter.failed_at), max(group.last, letter.failed_at)
    group.states[letter.state] += 1
    group.error, group.message, group.handler = letter.error, letter.message, letter.handler
    group.topic, group.consumer_group, group.example = letter.topic, letter.group, letter.id
