"""Plans: a filter becomes the very letters that a replay will send, frozen when it is made."""

import json
from collections import Counter
from collections.abc import Collection, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, NamedTuple

import sqlalchemy as sa

from ..messaging.errors import UsageError
from .browse import each
from .disposal import replaced
from .families import is_copied
from .filter import Filter
from .ledger import Ledger, Work
from .letter import DeadLetter
from .states import State

MAX_LETTERS = 1_000_000
_AT_ONCE = 10_000
_EXAMPLES = 3
#: What ``again`` takes besides the dead ones.
_DONE = (State.REPLAYED, State.CONFIRMED, State.DISCARDED)
Target = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Pace:
    """How to go about a plan.

    ``steps``: the sizes of the first steps; the last one takes the rest. ``rate``: messages a second at the most.
    ``max_failures``: the share of a step, 0 to 1, that may fail again; with more of them it stops.
    """

    steps: Sequence[int] = ()
    rate: float | None = None
    max_failures: float | None = None


@dataclass(frozen=True, slots=True)
class Aim:
    """Whom a replay is for, where a letter does not tell its group: this one, or ``every``."""

    group: str | None = None
    every: bool = False


@dataclass(slots=True)
class Refusal:
    """Why some letters are not in a plan; ``examples`` are ids."""

    reason: str
    count: int = 0
    examples: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a plan would hold: ``letters``, ids in their order; where they go; what is left out.

    ``elsewhere``: how many match, and are not dead (any more), by state; ``plans``: those that hold planned ones.
    """

    letters: Sequence[int]
    targets: Counter[Target]
    refused: Sequence[Refusal]
    elsewhere: Counter[str]
    plans: Sequence[int]


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan as it stands. ``counts``: its letters by state. ``next``: the ordinal of the next to send."""

    id: int
    created_at: datetime
    actor: str
    reason: str | None
    wanted: str
    targets: Sequence[Target]
    total: int
    pace: Pace
    state: str
    told: str | None
    paced_until: float
    changed_at: datetime
    counts: Counter[str] = field(default_factory=Counter)
    next: int | None = None

    def step_of(self, ordinal: int) -> tuple[int, int, int]:
        """The step of the letter with this ordinal: its number from 0, and its first and last ordinals."""
        first = 1
        for number, last in enumerate(accumulate(self.pace.steps)):
            if ordinal <= last:
                return number, first, min(last, self.total)
            first = last + 1
        return len(self.pace.steps), first, self.total


def draft_plan(
    ledger: Ledger,
    wanted: Filter,
    *,
    existing: Collection[str],
    aim: Aim | None = None,
    again: bool = False,
    limit: int | None = None,
) -> Draft:
    """What a plan of the ``wanted`` letters would hold; nothing is changed.

    In the order of their original partitions. ``existing``: the cluster's topics. ``again``: also those that were
    replayed, confirmed or discarded. ``limit``: the first of them. Raises UsageError for more than 1,000,000.
    """
    with ledger.reading() as connection:
        return _draft(ledger, connection, wanted, existing, aim or Aim(), again=again, limit=limit)


def make_plan(
    ledger: Ledger,
    wanted: Filter,
    *,
    existing: Collection[str],
    actor: str,
    told: str,
    reason: str | None = None,
    pace: Pace | None = None,
    aim: Aim | None = None,
    again: bool = False,
    limit: int | None = None,
) -> tuple[Plan | None, Draft]:
    """Freeze what ``draft_plan`` tells; None where there is nothing to replay. ``told``: the filter in words.

    Raises UsageError for more than 1,000,000 letters, DatabaseUnavailable.
    """
    pace, aim = pace or Pace(), aim or Aim()
    with ledger.changing() as work:
        draft = _draft(ledger, work.connection, wanted, existing, aim, again=again, limit=limit)
        if not draft.letters:
            return None, draft
        values = {
            "actor": actor,
            "reason": reason,
            "wanted": told,
            "targets": json.dumps(sorted(draft.targets, key=str)),
            "total": len(draft.letters),
            "steps": json.dumps(list(pace.steps)),
            "rate": pace.rate,
            "max_failures": pace.max_failures,
            "created_at": ledger.now,
            "changed_at": ledger.now,
        }
        plan = work.connection.execute(sa.insert(ledger.tables.plan).values(values)).inserted_primary_key
        assert plan is not None  # noqa: S101  it is generated
        _freeze(work, int(plan[0]), draft.letters, actor, reason, aim, again=again)
        made_plan = _plan(ledger, work.connection, int(plan[0]))
    return made_plan, draft


def find_plan(ledger: Ledger, plan: int, *, counted: bool = True) -> Plan:
    """One plan; ``counted``: with its letters counted. Raises UsageError where there is none."""
    with ledger.reading() as connection:
        return _plan(ledger, connection, plan, counted=counted)


def find_plans(ledger: Ledger, limit: int = 50) -> list[Plan]:
    """The latest plans first."""
    table = ledger.tables.plan
    with ledger.reading() as connection:
        ids = connection.execute(sa.select(table.c.id).order_by(table.c.id.desc()).limit(limit)).scalars().all()
        return [_plan(ledger, connection, id_) for id_ in ids]


def cancel_plan(ledger: Ledger, plan: int, actor: str, reason: str | None = None) -> int:
    """Give up what is left of a plan; how many letters are dead again. Raises UsageError where there is none."""
    with ledger.changing() as work:
        found = _plan(ledger, work.connection, plan)
        letter = ledger.tables.letter.c
        count = work.change("cancel", letter.plan_id == plan, actor, reason, {"plan_id": None, "ordinal": None})
        if found.state not in ("done", "cancelled"):
            set_state(work, plan, "cancelled", reason)
    return count


def set_state(work: Work, plan: int, state: str, told: str | None = None) -> None:
    """Note how a plan stands."""
    table = work.ledger.tables.plan
    values = {"state": state, "told": told, "changed_at": work.ledger.now}
    work.connection.execute(sa.update(table).where(table.c.id == plan).values(values))


def set_pace(ledger: Ledger, plan: int, rate: float | None, max_failures: float | None) -> None:
    """Change what is not None of the pace of a plan."""
    table = ledger.tables.plan
    given = {"rate": rate, "max_failures": max_failures}
    values = {name: value for name, value in given.items() if value is not None}
    if values:
        with ledger.changing() as work:
            work.connection.execute(sa.update(table).where(table.c.id == plan).values(values))


def plan_in(work: Work, plan: int, *, counted: bool = True) -> Plan:
    """As ``find_plan``, within a change."""
    return _plan(work.ledger, work.connection, plan, counted=counted)


def _plan(ledger: Ledger, connection: sa.Connection, plan: int, *, counted: bool = True) -> Plan:
    table, letter = ledger.tables.plan, ledger.tables.letter.c
    row = connection.execute(sa.select(table).where(table.c.id == plan)).mappings().first()
    if row is None:
        raise UsageError(f"There is no plan {plan}; `postroom dlq plans` lists them.")
    by_state = sa.select(letter.state, sa.func.count(), sa.func.min(letter.ordinal)).where(letter.plan_id == plan)
    rows = connection.execute(by_state.group_by(letter.state)) if counted else ()
    counts = {state: (count, first) for state, count, first in rows}
    return Plan(
        id=row["id"],
        created_at=row["created_at"],
        actor=row["actor"],
        reason=row["reason"],
        wanted=row["wanted"],
        targets=[(topic, group) for topic, group in json.loads(row["targets"])],
        total=row["total"],
        pace=Pace(tuple(json.loads(row["steps"])), row["rate"], row["max_failures"]),
        state=row["state"],
        told=row["told"],
        paced_until=row["paced_until"],
        changed_at=row["changed_at"],
        counts=Counter({state: count for state, (count, _) in counts.items()}),
        next=counts[State.PLANNED][1] if State.PLANNED in counts else None,
    )


def _draft(
    ledger: Ledger,
    connection: sa.Connection,
    wanted: Filter,
    existing: Collection[str],
    aim: Aim,
    *,
    again: bool,
    limit: int | None,
) -> Draft:
    known, moment = frozenset(existing), datetime.now(UTC)
    states = frozenset({State.DEAD, *(_DONE if again else ())})
    asked = states & wanted.states if wanted.states else states
    letters: list[int] = []
    targets: Counter[Target] = Counter()
    refused: dict[str, Refusal] = {}
    with closing(_candidates(ledger, connection, replace(wanted, states=asked))) as candidates:
        for letter in candidates if asked else ():
            if reason := refusal(letter, known, aim, moment):
                told = refused.setdefault(reason, Refusal(reason))
                told.count += 1
                told.examples += [letter.id] if len(told.examples) < _EXAMPLES else []
                continue
            letters.append(letter.id)
            targets[str(letter.topic), letter.group or aim.group] += 1
            if len(letters) == limit:
                break
            if len(letters) > MAX_LETTERS:
                raise UsageError(f"That is more than {MAX_LETTERS:,} dead letters; replay them with --limit.")
    elsewhere, plans = _elsewhere(ledger, connection, wanted, states)
    return Draft(letters, targets, list(refused.values()), elsewhere, plans)


def _elsewhere(
    ledger: Ledger, connection: sa.Connection, wanted: Filter, states: frozenset[State]
) -> tuple[Counter[str], list[int]]:
    """How many of the wanted letters are in other states, and in which plans they are."""
    others = frozenset(State) - states
    asked = replace(wanted, states=others & wanted.states if wanted.states else others)
    if not asked.states:
        return Counter(), []
    found: Counter[tuple[str, int | None]] = Counter()
    if asked.looks_inside:
        found.update((each_.state.value, each_.plan_id) for each_ in each(ledger, asked))
    else:
        letter = ledger.tables.letter.c
        query = sa.select(letter.state, letter.plan_id, sa.func.count()).where(*asked.sql(ledger.tables))
        for state, plan, count in connection.execute(query.group_by(letter.state, letter.plan_id)):
            found[state, plan] = count
    elsewhere: Counter[str] = Counter()
    for (state, _), count in found.items():
        elsewhere[state] += count
    return elsewhere, sorted(plan for state, plan in found if state == State.PLANNED and plan is not None)


class _Candidate(NamedTuple):
    """What of a letter decides whether it can be replayed."""

    id: int
    topic: str | None
    dead_letter_topic: str
    group: str | None
    family: str
    key: bytes | None
    size: int | None
    expires_at: datetime | None
    masked: bool
    forgotten_at: datetime | None


def _candidates(
    ledger: Ledger, connection: sa.Connection, wanted: Filter
) -> Generator[DeadLetter | _Candidate, None, None]:
    """The letters of the filter, in the order in which they would go."""
    if wanted.looks_inside:
        edited = set(connection.execute(replaced(ledger)).scalars())
        found = (letter for letter in each(ledger, wanted) if letter.id not in edited)
        chosen = [letter._replace(payload=None, headers=None) for letter in found]
        yield from sorted(
            chosen, key=lambda each_: (each_.topic or "", each_.order_partition, each_.order_offset, each_.id)
        )
        return
    letter = ledger.tables.letter.c
    columns = (letter["consumer_group" if name == "group" else name] for name in _Candidate._fields)
    query = sa.select(*columns).where(*wanted.sql(ledger.tables), letter.id.not_in(replaced(ledger)))
    query = query.order_by(letter.topic, letter.order_partition, letter.order_offset, letter.id)
    with connection.execute(query, execution_options={"yield_per": _AT_ONCE}) as rows:
        yield from map(_Candidate._make, rows)


def refusal(letter: DeadLetter | _Candidate, existing: frozenset[str], aim: Aim, moment: datetime) -> str | None:
    """Why ``letter`` cannot be replayed, as a sentence; None where it can."""
    if lacking := _lacking(letter) or _no_way_back(letter, existing):
        return lacking
    if letter.expires_at is not None and letter.expires_at <= moment:
        return (
            "Its deadline has passed, so it would not be handled; take it off with `postroom dlq edit ID "
            "--remove-header expires_at`."
        )
    if letter.group is None and aim.group is None and not aim.every:
        return "Its consumer group is unknown; aim it with --to-group, or let all handle it with --every-group."
    return None


def _lacking(letter: DeadLetter | _Candidate) -> str | None:
    if letter.forgotten_at is not None:
        return "Its contents were erased by `postroom dlq forget`."
    if letter.masked:
        return "It was imported with masked fields; import it from an export without masks."
    if not is_copied(letter.family, letter.key, b"" if letter.size is not None else None):
        return "It holds no copy of the record; set errors.deadletterqueue.copy.record.enable for its share group."
    return None


def _no_way_back(letter: DeadLetter | _Candidate, existing: frozenset[str]) -> str | None:
    topic = letter.topic
    if topic is None:
        return "Its original topic is unknown: none of its headers names it."
    if topic == letter.dead_letter_topic:
        return "Its original topic is the dead-letter topic itself."
    if topic not in existing:
        return f"Its original topic {topic!r} does not exist any more, or may not be seen by this user."
    return None


def _freeze(
    work: Work, plan: int, letters: Sequence[int], actor: str, reason: str | None, aim: Aim, *, again: bool
) -> None:
    """Take the letters into the plan."""
    ledger, connection = work.ledger, work.connection
    letter = ledger.tables.letter.c
    for start in range(0, len(letters), _AT_ONCE):
        part = list(letters[start : start + _AT_ONCE])
        if again:
            work.change("reopen", letter.id.in_(part), actor, reason)
        _put_in(work, plan, part, start)
    if aim.group is not None:
        fact = ledger.tables.fact
        planned = sa.select(letter.id).where(letter.plan_id == plan).scalar_subquery()
        unknown = fact.c.id.in_(planned) & fact.c.consumer_group.is_(None)
        connection.execute(sa.update(fact).where(unknown).values(consumer_group=aim.group))
    work.note_each("plan", letter.plan_id == plan, actor, reason, State.PLANNED, before=State.DEAD)


def _put_in(work: Work, plan: int, part: Sequence[int], start: int) -> None:
    sqlite = work.ledger.sqlite
    params: dict[str, Any] = {"plan": plan, "start": start, "ids": json.dumps(part) if sqlite else list(part)}
    work.connection.exec_driver_sql(work.ledger.sql["plan_letters"], params)
