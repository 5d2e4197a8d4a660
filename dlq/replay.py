"""Replay: the letters of a plan go back to their original topics, through the outbox.

    batch    one transaction writes messages into the outbox, and each letter's state. So each goes once, whoever runs
             the plan, however often, killed or not: what a run finds planned has not gone.
    step     after each but the last, the run waits until every one of its letters was handled or died again; where
             more than the plan's share of a step died again, it stops. Who runs a stopped plan again says that the
             cause is gone: what died before that counts no more.

All that a run needs stands in the plan, so another one can take over at any time, or several go on side by side.
Observer steps, with their facts:

    step        number, first, last       a step begins: the ordinals of its letters
    replaying   plan, count               a batch is written, not committed
    replayed    plan, count               it is committed
    waiting     plan, count               so many of the step, or of the plan, are neither handled nor dead again yet
    stopped     plan, reason
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from ..messaging.clock import Clock, SystemClock
from ..messaging.observer import Observer, unobserved
from .ledger import Ledger, Work, by_index, whole
from .letter import DeadLetter
from .outcomes import settle
from .plan import Plan, find_plan, plan_in, set_state
from .states import State

BATCH = 1_000
STEP_TIMEOUT = 300.0
_BATCH_BYTES = 8_000_000
_LETTER_BYTES = 2_000
_LONGEST_PACE = 0.5
_LOOK_EVERY = 0.25
_LOOK_AT_KAFKA_EVERY = 2.0


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run did, and how the plan stands. ``interrupted``: ``wait`` said so. ``unsettled``: still on their way."""

    replayed: int
    plan: Plan
    interrupted: bool = False

    @property
    def unsettled(self) -> int:
        """Replayed, and neither handled nor dead again yet."""
        return self.plan.counts[State.REPLAYED]


def run_plan(
    ledger: Ledger,
    plan: int,
    *,
    actor: str,
    reason: str | None = None,
    look: Callable[[], object] = lambda: None,
    wait: Callable[[float], bool] | None = None,
    batch: int = BATCH,
    step_timeout: float = STEP_TIMEOUT,
    unconfirmed_go_on: bool = False,
    observer: Observer = unobserved,
    clock: Clock | None = None,
) -> Ran:
    """Send what is left of a plan. Blocks, for ``step_timeout`` seconds at the most after each step but the last.

    ``look``: brings the ledger up to date with Kafka. ``wait``: sleeps so many seconds, true when the run
    shall end; it is asked after each batch.
    ``unconfirmed_go_on``: a step whose letters are not settled in time does not stop the plan, only failures do.

    Raises UsageError where there is no such plan, DatabaseUnavailable, and what ``look`` does; what is committed
    stays, and another run goes on there.
    """
    run = _Run(ledger, plan, actor, reason, look, wait or _sleep, clock or SystemClock(), observer)
    return run.go(batch, step_timeout, unconfirmed_go_on=unconfirmed_go_on)


def await_settled(
    ledger: Ledger,
    plan: int,
    seconds: float,
    *,
    look: Callable[[], object] = lambda: None,
    wait: Callable[[float], bool] | None = None,
    observer: Observer = unobserved,
    clock: Clock | None = None,
) -> Plan:
    """Wait up to ``seconds`` until all that was replayed of a plan was handled or died again; the plan then."""
    run = _Run(ledger, plan, "", None, look, wait or _sleep, clock or SystemClock(), observer)
    run.settled(lambda: find_plan(ledger, plan).counts[State.REPLAYED], seconds)
    return find_plan(ledger, plan)


class _Run:
    def __init__(
        self,
        ledger: Ledger,
        plan: int,
        actor: str,
        reason: str | None,
        look: Callable[[], object],
        wait: Callable[[float], bool],
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._ledger = ledger
        self._id = plan
        self._actor = actor
        self._reason = reason
        self._look = look
        self._wait = wait
        self._clock = clock
        self._observe = observer
        self._replayed = 0
        self._interrupted = False
        self._sent = 0  # what has a lower ordinal is planned no more
        self._glance_at = 0.0
        self._excused: Sequence[int] = ()  # the ordinals of those that had failed again when a stopped plan goes on

    def go(self, batch: int, step_timeout: float, *, unconfirmed_go_on: bool) -> Ran:
        plan = self._open()
        begun = -1
        while plan.state == "open" and not self._interrupted and (following := self._following()) is not None:
            number, first, last = plan.step_of(following)
            if number != begun:
                if number and not self._passed(plan, number, step_timeout, go_on=unconfirmed_go_on):
                    break
                self._observe("step", number=number, first=first, last=last)
                begun = number
            self._glance(plan)
            if told := self._too_many_failures(plan, first, last):
                self._stop(told)
                break
            self._interrupted = self._wait(min(self._send(following, last, batch), _LONGEST_PACE))
            plan = find_plan(self._ledger, self._id, counted=False)
        with self._ledger.changing() as work:
            plan = plan_in(work, self._id)
            if plan.state == "open" and plan.next is None:
                set_state(work, self._id, "done")
                plan = plan_in(work, self._id)
        return Ran(self._replayed, plan, self._interrupted)

    def settled(self, waiting: Callable[[], int], seconds: float) -> bool:
        """Wait until nothing is ``waiting``; False where it took too long, or the run shall end."""
        until = self._clock.monotonic() + seconds
        look_at = 0.0
        while True:
            if self._clock.monotonic() >= look_at:
                self._look()
                look_at = self._clock.monotonic() + _LOOK_AT_KAFKA_EVERY
            settle(self._ledger, self._id)
            left = waiting()
            self._observe("waiting", plan=self._id, count=left)
            if not left:
                return True
            if self._clock.monotonic() >= until:
                return False
            if self._wait(_LOOK_EVERY):
                self._interrupted = True
                return False

    def _open(self) -> Plan:
        """Take up a plan that had stopped."""
        with self._ledger.changing() as work:
            plan = plan_in(work, self._id)
            if plan.state == "stopped" and plan.next is not None:
                set_state(work, self._id, "open")
                plan = plan_in(work, self._id)
                letter = self._ledger.tables.letter.c
                failed = (letter.plan_id == self._id) & (letter.state == State.FAILED_AGAIN.value)
                self._excused = work.connection.execute(sa.select(letter.ordinal).where(failed)).scalars().all()
        return plan

    def _passed(self, plan: Plan, number: int, seconds: float, *, go_on: bool) -> bool:
        """Wait for the step before; False where the plan stops there."""
        _, first, last = plan.step_of(sum(plan.pace.steps[:number]))
        settled = self.settled(lambda: self._count(first, last, State.REPLAYED), seconds)
        if self._interrupted:
            return False
        told = self._too_many_failures(plan, first, last)
        if told is None and not settled and not go_on:
            left = self._count(first, last, State.REPLAYED)
            told = (
                f"{left} of the {last - first + 1} of step {number} were neither handled nor dead again after "
                f"{seconds:.0f} s."
            )
        if told is not None:
            self._stop(told)
        return told is None

    def _glance(self, plan: Plan) -> None:
        """Now and then, see what became of those that went."""
        if plan.pace.max_failures is not None and self._clock.monotonic() >= self._glance_at:
            self._look()
            settle(self._ledger, self._id)
            self._glance_at = self._clock.monotonic() + _LOOK_AT_KAFKA_EVERY

    def _too_many_failures(self, plan: Plan, first: int, last: int) -> str | None:
        """Why the plan stops; None where it goes on."""
        if plan.pace.max_failures is None:
            return None
        excused = sum(first <= ordinal <= last for ordinal in self._excused)
        failed, size = self._count(first, last, State.FAILED_AGAIN) - excused, last - first + 1
        if failed <= plan.pace.max_failures * size:
            return None
        return f"{failed} of the {size} of a step failed again, more than {plan.pace.max_failures:.0%}."

    def _following(self) -> int | None:
        """The ordinal of the next letter to send; None after the last."""
        state = self._ledger.tables.state.c
        planned = (state.plan_id == self._id) & (state.state == State.PLANNED.value) & (state.ordinal > self._sent)
        with self._ledger.reading() as connection:
            by_index(self._ledger, connection)
            query = sa.select(state.ordinal).where(planned).order_by(state.ordinal).limit(1)
            return connection.execute(query).scalar_one_or_none()

    def _count(self, first: int, last: int, state: State) -> int:
        letter = self._ledger.tables.letter.c
        chosen = (letter.plan_id == self._id) & letter.ordinal.between(first, last) & (letter.state == state.value)
        with self._ledger.reading() as connection:
            return int(connection.execute(sa.select(sa.func.count()).where(chosen)).scalar_one())

    def _stop(self, told: str) -> None:
        with self._ledger.changing() as work:
            set_state(work, self._id, "stopped", told)
        self._observe("stopped", plan=self._id, reason=told)

    def _send(self, first: int, last: int, most: int) -> float:
        """Send the next ones of the step, from ``first`` on; how many seconds the rate wants to wait."""
        with self._ledger.changing() as work:
            by_index(self._ledger, work.connection)
            plan = plan_in(work, self._id, counted=False)
            now = self._clock.now().timestamp()
            if plan.state != "open":
                return 0.0
            if plan.pace.rate is not None and plan.paced_until > now:
                return plan.paced_until - now
            last = min(last, first - 1 + min(most, _pace(plan.pace.rate)))
            letters = self._next(work, first, last)
            targets = frozenset(plan.targets)
            going = [letter for letter in letters if (letter.topic, letter.group) in targets]
            self._refuse(work, [letter for letter in letters if (letter.topic, letter.group) not in targets])
            if going:
                replaced = self._replaced(work, going)
                work.publish([each.replayed(each.group, replaced.get(each.id)) for each in going])
                column = self._ledger.tables.letter.c
                work.change("replay", column.id.in_([each.id for each in going]), self._actor, self._reason)
            if plan.pace.rate is not None:
                table = self._ledger.tables.plan
                paced = {"paced_until": max(now, plan.paced_until) + len(going) / plan.pace.rate}
                work.connection.execute(sa.update(table).where(table.c.id == self._id).values(paced))
            self._observe("replaying", plan=self._id, count=len(going))
        self._replayed += len(going)
        self._sent = max(self._sent, *(letter.ordinal or 0 for letter in letters)) if letters else last
        self._observe("replayed", plan=self._id, count=len(going))
        return 0.0

    def _next(self, work: Work, first: int, last: int) -> list[DeadLetter]:
        """The letters of these ordinals, whole, no more than fit into a batch."""
        fact, state = self._ledger.tables.fact, self._ledger.tables.state
        planned = (state.c.plan_id == self._id) & (state.c.state == State.PLANNED.value)
        query = sa.select(fact.c.id, fact.c.size).join_from(state, fact, state.c.id == fact.c.id)
        query = query.where(planned, state.c.ordinal.between(first, last)).order_by(state.c.ordinal)
        letter = self._ledger.tables.letter.c
        ids: list[int] = []
        weight = 0
        for id_, size in work.connection.execute(query):
            weight += (size or 0) + _LETTER_BYTES
            if ids and weight > _BATCH_BYTES:
                break
            ids.append(id_)
        return sorted(whole(work.connection, self._ledger.tables, letter.id.in_(ids)), key=_by_ordinal)

    def _refuse(self, work: Work, letters: Sequence[DeadLetter]) -> None:
        """What would go elsewhere than the plan says does not go."""
        if letters:
            chosen = self._ledger.tables.letter.c.id.in_([letter.id for letter in letters])
            why = "Its topic and group are not among the plan's."
            work.change("cancel", chosen, self._actor, why, {"plan_id": None, "ordinal": None})

    def _replaced(self, work: Work, letters: Sequence[DeadLetter]) -> dict[int, str]:
        """Of edited letters: as the inbox knows the message that each takes the place of."""
        edited = {letter.follows: letter.id for letter in letters if letter.follows and letter.incarnation < 0}
        if not edited:
            return {}
        column = self._ledger.tables.letter.c
        rows = work.connection.execute(sa.select(column.id, column.inbox_id).where(column.id.in_(list(edited))))
        return {edited[id_]: inbox_id for id_, inbox_id in rows}


def _pace(rate: float | None) -> int:
    """So many at once that the pace stays even."""
    return BATCH if rate is None else max(1, int(rate * _LONGEST_PACE))


def _by_ordinal(letter: DeadLetter) -> int:
    return letter.ordinal or 0


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
