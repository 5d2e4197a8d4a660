"""What the health of an inbox is told: its state, whether work waits, and what moves.

    Kafka or the database is away ──────────────────────────▶ unavailable    while it lasts, by itself
    every handler is paused ────────────────────────────────▶ paused         by an operator, or by its limit
    no handler may begin, and messages wait for a breaker ──▶ unavailable    what handlers need is away
    the group gave it no partitions ────────────────────────▶ standby        ready: others have them
    else ───────────────────────────────────────────────────▶ running        ready, unless work waits and none is done

Work waits while a handler runs, a message could begin, one waits behind an open breaker, the brokers have more of a
partition of which nothing comes, or the group shares its partitions out. What waits for its time is no such work:
another attempt, a rate, what an operator paused. Done is what came to its end, or had an attempt counted.
"""

from collections.abc import Mapping
from typing import Any

from ..messaging.clock import Clock
from ..messaging.errors import PostroomError
from ..messaging.health import Health
from .gate import Gate
from .handlers import NOBODY, Handler
from .lane import Kind
from .lanes import Lanes
from .limit import is_limit
from .member import Member
from .outage import ours
from .workers import Workers

_DONE = frozenset(
    {"handled", "duplicate", "expired", "skipped", "not_for_group", "retried", "held", "shelved", "dead_lettered"}
)
#: To look at all that is in hand, the loop need not take the time at each of its rounds.
_LOOK_EVERY = 0.5
#: Jobs at the table of held messages are short, and come by themselves; one that takes longer is work that waits.
_SHORT = 1.0


class Vitals:
    """One inbox's; an observer of its steps. Those of messages come from any thread, all else is for the loop's."""

    def __init__(self, health: Health, lanes: Lanes, gates: Mapping[Handler, Gate], clock: Clock, every: float) -> None:
        self._health = health
        self._lanes = lanes
        self._gates = gates
        self._clock = clock
        self._every = min(_LOOK_EVERY, every)
        self._look_at = 0.0
        self._done = False
        self._in_hand = False
        self._kafka = ""
        self._database = ""
        self._needs: dict[str, str] = {}

    def __call__(self, step: str, /, **facts: Any) -> None:
        if step in _DONE:
            self._done = True
        elif step == "kafka_unavailable":
            self._kafka = str(facts["error"])
            self._tell_outage()
        elif step == "paused":
            self._paused(**facts)
        elif step == "resumed" and "handler" not in facts:
            self.database(None)

    def beat(self, patience: float = 0.0) -> None:
        """The loop came round, or waits for what will come. See ``Health.beat``."""
        self._health.beat(patience)

    def database(self, error: Exception | None) -> None:
        """It is away, or it answers."""
        self._look_at = 0.0
        self._database = _sentence(error) if error is not None else ""
        self._tell_outage()

    def look(self, member: Member, workers: Workers) -> None:
        """The loop came round: see how all stands."""
        self.beat()
        now = self._clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + self._every
        if member.arrivals.away is not None:
            self._kafka = str(member.arrivals.away)
        elif member.placed:
            self._kafka = ""
        done, self._done = self._done, False
        if done:
            self._in_hand = False
            if not member.arrivals.behind:  # else what comes of others would hide that nothing comes of these
                self._health.progressed()
        tripped = self._tripped()
        self._weigh(member, workers, tripped)
        self._tell_state(member, tripped)

    def _paused(self, *, error: Exception, handler: str | None = None, **_: Any) -> None:
        if handler is None:
            self.database(error)
        else:  # not its words: they are the application's, and who asks the probe is not asked who they are
            self._needs[handler] = type(error).__name__

    def _tell_outage(self) -> None:
        if away := self._kafka or self._database:
            self._health.became("unavailable", away)

    def _weigh(self, member: Member, workers: Workers, tripped: Mapping[Handler, str]) -> None:
        """Whether work waits, and for what."""
        nexts, timed = self._lanes.waiting()
        with self._lanes.lock:
            can_begin = any(self._gates[handler].room(1) > 0 for handler in nexts)
            timed = timed or any(not self._gates[handler].is_shut for handler in nexts)
        running = [(job, seconds) for job, seconds in workers.working() if job.kind is Kind.RUN or seconds > _SHORT]
        if running or can_begin or tripped:
            self._in_hand = True
        elif not timed:
            self._in_hand = False
        # What waits for its time leaves it as it was: a loop of short failures is no progress.
        behind = member.arrivals.behind
        what = ""
        if behind:
            partition = max(behind, key=lambda each: behind[each])
            what = f"{partition} has {behind[partition]:,} more offsets in Kafka, and none comes"
        elif not member.placed:
            what = "the group has not shared out its partitions"
        elif tripped:
            what = "; ".join(tripped.values())
        elif running:
            job, seconds = max(running, key=lambda each: each[1])
            what = f"{job.handler.name if job.handler else 'a look at held messages'} has run for {seconds:.0f} s"
        self._health.waiting(work=self._in_hand or bool(behind) or not member.placed, what=what)

    def _tell_state(self, member: Member, tripped: Mapping[Handler, str]) -> None:
        handlers = [handler for handler in self._gates if handler is not NOBODY]
        with self._lanes.lock:
            paused = {handler: why for handler in handlers if (why := self._gates[handler].paused) is not None}
        health = self._health
        if self._kafka or self._database:
            self._tell_outage()
        elif len(paused) == len(handlers):
            health.became("paused", "; ".join(dict.fromkeys(map(_by_whom, paused.values()))))
        elif tripped and len(paused.keys() | tripped.keys()) == len(handlers):
            health.became("unavailable", "; ".join(tripped.values()))
        elif not member.placed and health.state not in {"running", "standby"}:
            health.became("starting", "joining the group")
        elif member.placed and not self._lanes.partitions:
            health.became("standby", "the group gave this member no partitions")
        elif member.placed:
            told = [f"{handler.name} is paused {_by_whom(why)}" for handler, why in paused.items()]
            health.became("running", "; ".join([*told, *tripped.values()]))

    def _tripped(self) -> dict[Handler, str]:
        """The handlers for whose open breaker messages wait, a sentence for each."""
        nexts, _ = self._lanes.waiting()
        with self._lanes.lock:
            found = [
                handler
                for handler, gate in self._gates.items()
                if gate.paused is None and gate.breaker.is_open and (handler in nexts or gate.running)
            ]
        return {
            handler: f"{handler.name} waits for what it needs ({self._needs.get(handler.name, 'its breaker is open')})"
            for handler in found
        }


def _by_whom(why: str) -> str:
    return f"by its limit: {why}" if is_limit(why) else f"by an operator: {why}"


def _sentence(error: Exception) -> str:
    found = ours(error)
    return str(found) if isinstance(found, PostroomError) else f"The database gave up ({type(found).__name__})."
