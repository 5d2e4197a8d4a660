"""The engine without its threads: the real lanes, processor and tables on SQLite, a step at a time, in any order.

A test polls, takes work, does it later, lets time pass, takes partitions away, cuts the database off, kills the
process between any two steps, and acts as an operator. In the end all must add up.
"""

import json
import shlex
import shutil
import sqlite3
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postroom.inbox import Context, Inbox, InboxRunner, InboxSettings, Received
from postroom.inbox.attempt import Attempts
from postroom.inbox.delivery import Delivery
from postroom.inbox.desk import Desk
from postroom.inbox.fate import Fates
from postroom.inbox.handlers import Handler
from postroom.inbox.intake import Intake
from postroom.inbox.lane import Job
from postroom.inbox.limit import DeadLetterLimit
from postroom.inbox.member import Member, Polled
from postroom.inbox.outage import Left, Outages
from postroom.inbox.process import Processor
from postroom.inbox.transactions import SyncTransactions, Work
from postroom.inbox.workers import Workers
from postroom.messaging.dead_letter import INBOX_ID, REPLAY_COUNT, REPLAY_GROUP, REPLAY_OF, strip
from postroom.messaging.envelope import storable_id
from postroom.messaging.errors import DatabaseUnavailable, Poison, Unavailable
from postroom.messaging.headers import load
from postroom.messaging.ports import Kafka
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.outbox import schema
from postroom.testing import FakeClock

T = TypeVar("T")
DLQ = "orders.billing.dlq"
PLACES = (Partition("orders", 0), Partition("orders", 1))


class Killed(BaseException):
    """The process is no more."""


class Unreliable:
    """Transactions on a database that is away, or goes away, for as many of them as ``script`` says.

    ``away``: before anything is done; ``cut``: before the commit; ``lost``: after it, so that nobody knows.
    """

    def __init__(self, url: str, script: list[str]) -> None:
        self._real = SyncTransactions(url, "test")
        self._script = script

    def run(self, work: Work[T]) -> T:
        what = self._script.pop(0) if self._script else "well"
        if what == "away":
            raise DatabaseUnavailable("away")

        def cut(session: Any, shown: Any) -> T:
            result = work(session, shown)
            if what == "cut":
                raise DatabaseUnavailable("cut")
            return result

        result = self._real.run(cut)
        if what == "lost":
            raise DatabaseUnavailable("the answer to the commit is lost")
        return result

    def finish(self, returned: object, timeout: float | None = None) -> object:
        return returned

    def close(self) -> None:
        self._real.close()


@dataclass
class Engine:
    """One database, one topic, and one process at a time, with its threads' work done by hand."""

    path: Path
    settings: InboxSettings = field(default_factory=InboxSettings)
    options: dict[str, Any] = field(default_factory=dict)
    clock: FakeClock = field(default_factory=lambda: FakeClock(datetime(2025, 1, 1, tzinfo=UTC), passing=True))
    log: dict[Partition, list[ReceivedRecord]] = field(default_factory=lambda: {place: [] for place in PLACES})
    committed: dict[Partition, int] = field(default_factory=dict)
    positions: dict[Partition, int] = field(default_factory=dict)
    scripts: dict[str, list[str]] = field(default_factory=dict)
    database: list[str] = field(default_factory=list)
    steps: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    kill_at: int = 0
    """The process is killed at so many steps from now; 0: not."""
    calls: list[tuple[str, int]] = field(default_factory=list)
    resumes: int = 0

    def __post_init__(self) -> None:
        self.inbox = Inbox("billing", on_unhandled="dead-letter")
        self.inbox.handler("orders", **self.options)(self._handle)
        self.transactions: Unreliable | None = None
        self.start()

    # --- the application -----------------------------------------------------------------------------------

    def _handle(self, received: Received, ctx: Context) -> None:
        name = (received.payload or b"").decode()
        self.calls.append((name, ctx.attempt))
        waiting = ctx.session.execute(
            sa.text(
                "SELECT count(*) FROM postroom_inbox_held WHERE state = 'dead-letter' AND key = :key"
                ' AND "partition" = :partition AND "offset" < :offset'
            ),
            {"key": ctx.key, "partition": ctx.partition, "offset": int(name.partition("/")[2] or 0)},
        ).scalar_one()
        if REPLAY_COUNT not in ctx.headers:
            assert waiting == 0, f"{name} passes a dead letter that is not resolved"
        ctx.session.execute(sa.text("INSERT INTO effect VALUES (:name)"), {"name": name})
        script = self.scripts.get(name)
        what = script.pop(0) if script else "."
        if what != ".":
            raise {"f": RuntimeError, "u": Unavailable, "p": Poison, "k": Killed}[what]

    # --- the process ---------------------------------------------------------------------------------------

    @property
    def handler(self) -> str:
        return self.inbox.handlers[0].name

    def start(self) -> None:
        url = f"sqlite:///{self.path}"
        if self.transactions is not None:
            self.transactions.close()
        self.runner = InboxRunner(
            self.inbox,
            database_url=url,
            kafka=cast("Kafka", None),
            settings=self.settings,
            observer=self._observe,
            clock=self.clock,
        )
        self.transactions = Unreliable(url, self.database)
        self.lanes = self.runner._lanes
        fates = Fates(
            self.inbox,
            self.settings,
            self.lanes,
            self.runner._gates,
            transactions=self.transactions,
            observe=self._observe,
            clock=self.clock,
        )
        self.runner._fates = fates
        self.runner._intake = Intake(fates, self.lanes, self.runner._begun, self.clock)
        self.processor = Processor(
            fates, Attempts(self.inbox, self.transactions, None, fates.tell, self.clock), self.runner._begun
        )
        self.jobs = []
        self.came: list[Partition] = []
        self.assign()

    def _observe(self, step: str, /, **facts: Any) -> None:
        self.steps.append((step, facts))
        if self.kill_at:
            self.kill_at -= 1
            if self.kill_at == 0:
                raise Killed

    def alive(self, work: Callable[[], object]) -> bool:
        """Do it; if that is the end of the process, start another one."""
        try:
            work()
        except Killed:
            self.start()
            return False
        return True

    def assign(self) -> None:
        self.lanes.assign(PLACES)
        self.came += PLACES
        self.positions = {place: self.committed.get(place, 0) for place in PLACES}

    def rebalance(self) -> None:
        """Away and back; what was taken is still being worked at."""
        self.commit()
        self.lanes.revoke(PLACES)
        self.runner._end_begun(PLACES)
        self.came = []
        self.assign()

    def commit(self) -> None:
        offsets = self.lanes.uncommitted()
        for place, offset in offsets.items():
            for record in self.log[place][self.committed.get(place, 0) : offset]:
                self.check_safe(record)
        self.committed.update(offsets)
        self.lanes.committed(offsets)

    def check_safe(self, record: ReceivedRecord) -> None:
        """Nothing that is neither closed nor held may be passed."""
        delivery = Delivery.of(record)
        id_ = delivery.message_id if delivery.has_id else delivery.replaces or delivery.message_id
        if self.inbox.handlers[0].by_idempotency_key:
            id_ = self.inbox.handlers[0].known_as(delivery).message_id
        held = self.query(
            'SELECT 1 FROM postroom_inbox_held WHERE "partition" = ? AND "offset" = ?',
            record.partition.number,
            record.offset,
        )
        assert id_ in self.outcomes() or held, f"{record.partition}/{record.offset} is passed"

    def poll(self, most: int = 10) -> None:
        self.commit()
        self.runner._look_after(cast("Workers", NO_WORKERS))
        most = min(most, self.runner._bound())
        full = set(self.lanes.full())
        records = [
            record
            for place in PLACES
            if place not in full
            for record in self.log[place][self.positions[place] : self.positions[place] + most]
        ]
        for record in records:
            self.positions[record.partition] = record.offset + 1
        came, self.came = self.came, []
        try:
            backlog = deque([Polled(self.lanes.receive(records), came, [])])
            wait = partial(self.runner._wait, cast("Member", Silent()), backlog)
            self.runner._intake.take(backlog, Outages(self.runner._backoff, self._observe, wait))
        except Left:
            raise AssertionError from None

    def take(self) -> bool:
        job = self.lanes.take(0)
        if job is not None:
            self.jobs.append(job)
        return job is not None

    def work(self, which: int = 0) -> None:
        if self.jobs:
            self.processor.run(self.jobs.pop(which % len(self.jobs)))

    def work_all(self) -> None:
        while self.take():
            self.work()

    def settle(self, rounds: int = 400) -> None:
        """Until nothing moves any more."""
        for _ in range(rounds):
            alive = self.alive(self.poll)
            while alive and (self.jobs or self.take()):
                alive = self.alive(self.work)
            if alive and not self.lanes.in_hand and self.is_read():
                self.commit()
                return
            self.clock.advance(1.0)
        raise AssertionError(f"it does not come to rest; the last steps: {self.steps[-20:]}")

    def is_read(self) -> bool:
        return all(self.positions[place] == len(self.log[place]) for place in PLACES)

    # --- the world around it -------------------------------------------------------------------------------

    def send(self, partition: int, key: bytes | None, script: str = "", *headers: tuple[str, bytes]) -> str:
        place = PLACES[partition]
        name = f"{partition}/{len(self.log[place])}"
        self.scripts[name] = list(script)
        self.append(place, key, name, name, *headers)
        return name

    def append(self, place: Partition, key: bytes | None, name: str, id_: str, *headers: tuple[str, bytes]) -> None:
        pairs = [("ce_id", id_.encode()), ("ce_type", b"t"), *headers]
        at = self.clock.now()
        self.log[place].append(ReceivedRecord(place, len(self.log[place]), key, name.encode(), pairs, at))

    def headers(self, offset: int) -> list[tuple[str, bytes]]:
        """Those of a record of the first partition, to be changed before it is polled."""
        return cast("list[tuple[str, bytes]]", self.log[PLACES[0]][offset].headers)

    def replay(self, name: str, count: int = 1, *, edited: tuple[str, str] | None = None, key: bytes = b"") -> None:
        """As ``postroom dlq replay`` does.

        ``edited``: the id under which it died and the new one; the handler knows it by its old name. ``key``: another.
        """
        partition, _, offset = name.partition("/")
        original = self.log[PLACES[int(partition)]][int(offset)]
        marks = [(REPLAY_COUNT, str(count).encode()), (REPLAY_GROUP, b"billing")]
        replaces, id_ = edited or ("", name)
        if replaces:
            marks.append((REPLAY_OF, replaces.encode()))
        self.append(original.partition, key or original.key, name, id_, *marks)

    def limit(self, most: int) -> None:
        """As ``postroom inbox policy set billing --dead-letters-per-minute`` does."""
        self.operator(
            "INSERT INTO postroom_inbox_control (consumer_group, policy) VALUES ('billing', ?)"
            " ON CONFLICT (consumer_group, subject) DO UPDATE SET policy = excluded.policy",
            json.dumps({"dead_letters_per_minute": most}),
        )

    def resume(self, handler: str = "") -> bool:
        """As ``postroom inbox resume --handler`` does."""
        with closing(Desk(f"sqlite:///{self.path}")) as desk:
            changed = desk.resume("billing", f"handler:{handler or self.handler}", "ops")
        self.resumes += changed
        return changed

    def pauses(self) -> dict[str, str]:
        """Why what is paused is, by subject."""
        return dict(self.query("SELECT subject, paused FROM postroom_inbox_control WHERE paused IS NOT NULL"))

    def stand_still(self, rounds: int = 20) -> None:
        """All that can happen does, with the handler paused: messages stay in hand, or in the table."""
        for _ in range(rounds):
            self.poll()
            self.work_all()
            self.clock.advance(1.0)
        self.commit()

    def operator(self, sql: str, *params: object) -> int:
        """Change held messages by hand, and say so."""
        with closing(sqlite3.connect(self.path)) as connection:
            changed = connection.execute(sql, params).rowcount
            connection.execute(
                "INSERT INTO postroom_inbox_control (consumer_group, revision) VALUES ('billing', 1)"
                " ON CONFLICT (consumer_group, subject) DO UPDATE SET revision = revision + 1"
            )
            connection.commit()
        return changed

    def retry(self) -> None:
        self.operator(
            "UPDATE postroom_inbox_held SET attempts = 0, next_attempt_at = ? WHERE state = 'retry'",
            self.clock.now().isoformat().replace("+00:00", "Z"),
        )

    def discard_blockers(self) -> int:
        return self.operator("DELETE FROM postroom_inbox_held WHERE state = 'dead-letter'")

    def discard(self, row: int) -> None:
        """As ``postroom inbox held discard`` does."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(
                "INSERT OR IGNORE INTO postroom_inbox (consumer_group, message_id, outcome, topic, handler)"
                " SELECT 'billing', message_id, 'discarded', topic, handler FROM postroom_inbox_held WHERE id = ?",
                [row],
            )
            connection.commit()
        self.operator("DELETE FROM postroom_inbox_held WHERE id = ?", row)

    # --- what became of it ---------------------------------------------------------------------------------

    def query(self, sql: str, *params: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql, params).fetchall()

    def effects(self) -> list[str]:
        return [name for (name,) in self.query("SELECT name FROM effect ORDER BY rowid")]

    def outcomes(self) -> dict[str, str]:
        return dict(self.query("SELECT message_id, outcome FROM postroom_inbox"))

    def dead(self) -> Counter[str]:
        return Counter(
            payload.decode() for (payload,) in self.query("SELECT payload FROM postroom_outbox WHERE topic = ?", DLQ)
        )

    def held(self) -> list[tuple[str, str, int]]:
        return self.query('SELECT message_id, state, attempts FROM postroom_inbox_held ORDER BY "partition", "offset"')

    def told(self, *steps: str) -> list[str]:
        return [step for step, _ in self.steps if step in steps]


class Silent:
    """A member of a group that nobody hears from."""

    silence = 0.0


class NoWorkers:
    def overdue(self, timeout: object) -> Sequence[Any]:
        return []


NO_WORKERS = NoWorkers()


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "blank.db"
    schema.upgrade(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE effect (name TEXT)")
        connection.commit()
    return path


@pytest.fixture
def make(blank: Path, tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def engine(options: dict[str, Any] | None = None, **chosen: Any) -> Engine:
        path = Path(shutil.copy(blank, tmp_path / f"{uuid4().hex}.db"))
        made.append(Engine(path, InboxSettings(**chosen), options or {}))
        return made[-1]

    yield engine
    for each in made:
        assert each.transactions is not None
        each.transactions.close()


ACTIONS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 1), st.sampled_from([b"a", b"b", None]), st.text("ffupk.", max_size=5)),
    st.tuples(st.just("poll"), st.integers(1, 5)),
    st.tuples(st.just("take")),
    st.tuples(st.just("work"), st.integers(0, 3)),
    st.tuples(st.just("work"), st.integers(0, 3)),
    st.tuples(st.just("pass"), st.sampled_from([0.1, 1.0, 31.0])),
    st.tuples(st.just("rebalance")),
    st.tuples(st.just("kill"), st.integers(0, 6)),
    st.tuples(st.just("database"), st.lists(st.sampled_from(["well", "away", "cut", "lost"]), max_size=4)),
    st.tuples(st.just("retry")),
    st.tuples(st.just("resume")),
    st.tuples(st.just("discard"), st.integers(0, 3)),
    st.tuples(st.just("expired"), st.integers(0, 1), st.sampled_from([b"a", b"b"])),
)


def act(engine: Engine, name: str, *arguments: Any) -> None:
    """One of ``ACTIONS``."""
    DEEDS[name](engine, *arguments)


def do_kill(engine: Engine, steps: int) -> None:
    engine.kill_at = steps
    if not steps:
        engine.start()


def do_pass(engine: Engine, seconds: float) -> None:
    engine.clock.advance(seconds)


def do_database(engine: Engine, script: list[str]) -> None:
    engine.database[:] = script


def do_discard(engine: Engine, number: int) -> None:
    rows = [row for (row,) in engine.query("SELECT id FROM postroom_inbox_held WHERE state <> 'dead-letter'")]
    if len(rows) > number:
        engine.discard(rows[number])


DEEDS: dict[str, Callable[..., object]] = {
    "send": Engine.send,
    "expired": lambda engine, *place: engine.send(*place, "", ("expires_at", b"2020-01-01T00:00:00Z")),
    "poll": lambda engine, most: engine.alive(lambda: engine.poll(most)),
    "take": Engine.take,
    "work": lambda engine, which: engine.alive(lambda: (engine.jobs or engine.take()) and engine.work(which)),
    "pass": do_pass,
    "rebalance": Engine.rebalance,
    "kill": do_kill,
    "database": do_database,
    "retry": Engine.retry,
    "resume": Engine.resume,
    "discard": do_discard,
}


def check(engine: Engine) -> None:
    """Nothing fails any more: it all comes to its end, and adds up."""
    engine.kill_at = 0
    engine.database.clear()
    for script in engine.scripts.values():
        script.clear()
    most = engine.options.get("dead_letters_per_minute", 60)
    assert engine.dead().total() <= most * (engine.resumes + 1)
    engine.limit(0)
    engine.resume()
    engine.settle()
    while engine.discard_blockers():
        engine.clock.advance(2.0)
        engine.settle()

    outcomes, dead, effects = engine.outcomes(), engine.dead(), engine.effects()
    assert engine.held() == []
    assert outcomes.keys() == engine.scripts.keys()
    assert Counter(effects) == Counter(name for name, outcome in outcomes.items() if outcome == "handled")
    assert dead == Counter(name for name, outcome in outcomes.items() if outcome == "dead-lettered")
    assert engine.committed == {place: len(records) for place, records in engine.log.items() if records}
    by_key = defaultdict(list)
    for name in effects:
        partition, _, offset = name.partition("/")
        record = engine.log[PLACES[int(partition)]][int(offset)]
        if record.key is not None:
            by_key[partition, record.key].append(int(offset))
    assert all(offsets == sorted(offsets) for offsets in by_key.values()), effects
    assert (engine.lanes.in_hand, engine.lanes._bytes, engine.lanes._lanes) == (0, 0, {})


@pytest.fixture
def few_are(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Say how many messages a crash may leave without their being wide."""

    def patch(number: int) -> None:
        for module in ("begun", "runner"):
            monkeypatch.setattr(f"postroom.inbox.{module}.FEW", number)

    return patch


@given(
    sent=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([b"a", b"b", None]), st.text("ffupk.", max_size=5)), max_size=12
    ),
    actions=st.lists(ACTIONS, max_size=60),
    on_dead_letter=st.sampled_from(["go-on", "wait"]),
    attempts=st.integers(1, 4),
    immediate=st.integers(1, 3),
    batch_size=st.sampled_from([1, 3, 10]),
    window=st.sampled_from([2, 50]),
    max_in_hand=st.sampled_from([2, 2000]),
    limit=st.sampled_from([1, 2, 60]),
    few=st.sampled_from([2, 100]),
)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_happens_all_adds_up(
    make: Callable[..., Engine],
    few_are: Callable[[int], None],
    sent: list[tuple[int, bytes | None, str]],
    actions: list[tuple[Any, ...]],
    on_dead_letter: str,
    attempts: int,
    immediate: int,
    batch_size: int,
    window: int,
    max_in_hand: int,
    limit: int,
    few: int,
) -> None:
    few_are(few)
    engine = make(
        {"on_dead_letter": on_dead_letter, "breaker_window": window, "dead_letters_per_minute": limit},
        attempts=attempts,
        immediate_attempts=immediate,
        batch_size=batch_size,
        max_in_hand=max_in_hand,
    )
    for message in sent:
        engine.send(*message)
    for action in actions:
        act(engine, *action)

    check(engine)


def test_a_key_that_is_taken_away_before_it_is_shelved_is_left_alone(make: Callable[..., Engine]) -> None:
    engine = make(immediate_attempts=1)
    engine.send(0, b"a", "f")
    engine.poll()
    engine.work_all()
    engine.send(0, b"a")
    engine.poll()
    assert engine.take()

    engine.rebalance()
    engine.work()  # the job to put the second one behind the first
    engine.settle()

    assert engine.effects() == ["0/0", "0/1"]


def test_what_was_taken_and_revoked_before_it_began_is_not_begun(make: Callable[..., Engine]) -> None:
    engine = make()
    engine.send(0, b"a")
    engine.poll()
    assert engine.take()

    engine.rebalance()
    engine.work()

    assert (engine.effects(), engine.calls) == ([], [])
    engine.settle()
    assert engine.effects() == ["0/0"]


@pytest.mark.parametrize("lost_after", ["lost", "cut", "away"])
@pytest.mark.parametrize("script", ["ff", "fff"])
def test_a_hold_whose_commit_is_in_doubt_leaves_nothing_behind(
    make: Callable[..., Engine], lost_after: str, script: str
) -> None:
    """The message and those behind it may be in the table or not; it must be looked for there."""
    engine = make(immediate_attempts=1)
    for what in (script, "", ""):
        engine.send(0, b"a", what)
    engine.poll()
    engine.take()
    engine.database[:] = ["well", lost_after]
    engine.work()

    engine.settle()

    assert engine.effects() == ["0/0", "0/1", "0/2"]
    assert engine.held() == []


@pytest.mark.parametrize("failing", ["lost", "cut", "away"])
def test_a_dead_letter_whose_commit_is_in_doubt_still_stops_its_key(make: Callable[..., Engine], failing: str) -> None:
    engine = make({"on_dead_letter": "wait"})
    engine.send(0, b"a", "p")
    engine.send(0, b"a")
    engine.poll()
    engine.take()
    engine.database[:] = ["well", failing]
    engine.work()
    engine.settle()

    assert (engine.effects(), engine.dead()) == ([], Counter(["0/0"]))
    assert engine.held() == [("0/0", "dead-letter", 1), ("0/1", "behind", 0)]
    engine.discard_blockers()
    engine.clock.advance(2)
    engine.settle()
    assert engine.effects() == ["0/1"]


def test_an_outage_burns_no_attempt_of_a_held_message_even_if_it_cannot_be_written_down(
    make: Callable[..., Engine],
) -> None:
    engine = make(attempts=3, immediate_attempts=1)
    engine.send(0, b"a", "f" + "u" * 9)
    engine.poll()
    engine.work_all()
    for _ in range(9):  # each time the row says one attempt more, and it cannot be set right
        engine.clock.advance(31.0)
        engine.lanes.wake()
        if engine.take():
            engine.database[:] = ["well", "well", "well", "away"]
            engine.work()
            engine.database.clear()
    engine.settle()

    assert engine.effects() == ["0/0"]
    assert engine.dead() == Counter()
    assert engine.calls[-1] == ("0/0", 2)


def test_the_diagnosis_outlives_an_outage_in_which_it_could_not_be_written(make: Callable[..., Engine]) -> None:
    engine = make(attempts=2, immediate_attempts=1)
    engine.send(0, b"a", "ff")
    engine.poll()
    engine.work_all()
    engine.clock.advance(31.0)
    engine.take()
    engine.database[:] = ["well", "well", "well", "away"]
    engine.work()
    engine.settle()

    [dead] = [facts for step, facts in engine.steps if step == "dead_lettered"]
    assert (type(dead["error"]), dead["attempts"]) == (RuntimeError, 2)
    assert len(engine.calls) == 2


def test_a_replay_takes_the_place_of_the_dead_letter_its_key_waits_for(make: Callable[..., Engine]) -> None:
    engine = make({"on_dead_letter": "wait"}, attempts=2)
    engine.send(0, b"a", "pp")
    engine.send(0, b"a")
    engine.settle()
    assert engine.effects() == []

    engine.replay("0/0")  # fails again
    engine.settle()
    assert engine.held() == [("0/0", "dead-letter", 1), ("0/1", "behind", 0)]
    engine.replay("0/0")  # the same replay come again: it changes nothing
    engine.settle()
    assert engine.held()[0] == ("0/0", "dead-letter", 1)
    assert engine.effects() == []
    engine.replay("0/0", 2)
    engine.settle()

    assert engine.effects() == ["0/0", "0/1"]
    assert engine.dead() == Counter({"0/0": 2})
    assert engine.held() == []
    assert engine.outcomes() == {"0/0": "handled", "0/1": "handled"}


def test_a_replay_waits_through_an_outage_and_keeps_its_attempts(make: Callable[..., Engine]) -> None:
    engine = make({"on_dead_letter": "wait"}, attempts=1)
    engine.send(0, b"a", "f" + "u" * 3)
    engine.send(0, b"a")
    engine.settle()
    engine.replay("0/0")
    engine.database[:] = ["well", "well", "away", "lost", "cut"]
    engine.settle()

    assert engine.effects() == ["0/0", "0/1"]
    assert engine.dead() == Counter(["0/0"])


def test_a_database_that_is_away_is_not_asked_again_at_once_for_a_held_key(make: Callable[..., Engine]) -> None:
    engine = make(immediate_attempts=1)
    engine.send(0, b"a", "f")
    engine.poll()
    engine.work_all()
    engine.send(0, b"a")
    engine.poll()
    engine.take()
    engine.database[:] = ["away"]
    engine.work()

    assert not engine.take()
    engine.clock.advance(0.5)
    assert engine.take()


def test_a_wish_of_an_operator_is_not_lost_on_a_key_that_is_being_looked_at(make: Callable[..., Engine]) -> None:
    engine = make({"on_dead_letter": "wait"})
    engine.send(0, b"a", "p")
    engine.send(0, b"a")
    engine.settle()
    engine.lanes.hold({})
    job = engine.lanes.take(0)
    assert job is not None
    [lane] = job.lanes

    engine.discard_blockers()
    engine.clock.advance(2)
    engine.poll()  # hears of it while the worker has the lane
    engine.lanes.holding(lane, None)  # what the worker had read before
    engine.lanes.done(job)
    engine.settle()

    assert engine.effects() == ["0/1"]


@pytest.mark.parametrize("immediate", [1, 5])
def test_an_open_breaker_burns_no_attempt_in_hand_or_in_the_table(make: Callable[..., Engine], immediate: int) -> None:
    engine = make({"breaker_window": 3}, attempts=2, immediate_attempts=immediate, control_seconds=60.0)
    names = [engine.send(0, str(number).encode(), "f" * 9) for number in range(6)]
    engine.poll()
    engine.work_all()  # until the breaker opens
    for _ in range(600):
        if engine.take():
            engine.work()
        engine.clock.advance(1.0)

    assert engine.dead() == Counter()
    assert "paused" in engine.told("paused")
    engine.scripts.clear()
    engine.settle()
    assert sorted(engine.effects()) == names
    assert max(attempt for _, attempt in engine.calls) <= 2


def test_a_held_message_that_is_the_probe_pays_nothing(make: Callable[..., Engine]) -> None:
    engine = make({"breaker_window": 2}, attempts=2, immediate_attempts=1)
    engine.send(0, b"a", "fffff")
    engine.send(0, b"b", "f", ("expires_at", b"2025-01-01T00:00:10Z"))  # opens it, and is soon gone
    engine.poll()
    engine.work_all()
    for _ in range(200):
        engine.clock.advance(1.0)
        engine.work_all()

    assert engine.effects() == ["0/0"]
    assert engine.dead() == Counter()
    assert [attempt for name, attempt in engine.calls if name == "0/0"] == [1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("failing", [[], ["away"], ["cut"], ["lost"]])
@pytest.mark.parametrize("on_dead_letter", ["go-on", "wait"])
def test_what_cannot_be_read_in_the_middle_of_a_batch(
    make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, on_dead_letter: str, failing: list[str]
) -> None:
    decode = Handler.decode

    def refuse(handler: Handler, delivery: Any) -> Any:
        if delivery.message_id == "0/1":
            raise Poison("no JSON")
        return decode(handler, delivery)

    monkeypatch.setattr(Handler, "decode", refuse)
    engine = make({"on_dead_letter": on_dead_letter}, batch_size=10)
    for key in (b"a", b"a", b"a", b"b"):
        engine.send(0, key)
    engine.poll()
    engine.take()
    engine.database[:] = failing
    engine.work()
    engine.settle()

    behind = [] if on_dead_letter == "wait" else ["0/2"]
    assert sorted(engine.effects()) == sorted(["0/0", "0/3", *behind])
    assert engine.dead() == Counter(["0/1"])
    assert [name for name, *_ in engine.held()] == ([] if behind else ["0/1", "0/2"])
    engine.discard_blockers()
    engine.clock.advance(2)
    engine.settle()
    assert [name for name in engine.effects() if name != "0/3"] == ["0/0", "0/2"]


def test_a_failure_of_a_suspect_is_no_crash(make: Callable[..., Engine]) -> None:
    engine = make(attempts=3, immediate_attempts=3)
    engine.send(0, b"a", "kff")
    engine.settle()

    assert engine.effects() == ["0/0"]
    assert engine.dead() == Counter()


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_message_that_kills_its_process_is_a_dead_letter_after_its_attempts(
    make: Callable[..., Engine], attempts: int
) -> None:
    engine = make(attempts=attempts, batch_size=10)
    for script in ("", "k" * 50, ""):
        engine.send(0, b"a", script)
    engine.send(1, b"b")
    engine.settle()

    assert engine.effects().count("0/0") == 1
    assert sorted(engine.effects()) == ["0/0", "0/2", "1/0"]
    assert engine.dead() == Counter(["0/1"])
    assert Counter(name for name, _ in engine.calls)["0/1"] == max(2, attempts)
    [dead] = [facts for step, facts in engine.steps if step == "dead_lettered"]
    assert type(dead["error"]).__name__ == "HandlerCrashed"


def test_rebalances_between_its_crashes_do_not_hide_a_message_that_kills_its_process(
    make: Callable[..., Engine],
) -> None:
    """Another member has the partition for a while, and gives it back before it came to that message."""
    engine = make(attempts=3, batch_size=10)
    for script in ("", "k" * 50, ""):
        engine.send(0, b"a", script)
    for _ in range(10):
        engine.poll()
        engine.rebalance()
        engine.poll()
        if engine.alive(engine.work_all):
            break
    engine.settle()

    assert sorted(engine.effects()) == ["0/0", "0/2"]
    assert engine.dead() == Counter(["0/1"])
    assert Counter(name for name, _ in engine.calls)["0/1"] == 3


def test_a_commit_in_doubt_does_not_hide_a_message_that_kills_its_process(make: Callable[..., Engine]) -> None:
    """What the process before had begun is ours by then, in the table."""
    engine = make(attempts=3)
    engine.send(0, b"a", "k" * 50)
    for _ in range(10):
        engine.database[:] = ["well", "well", "lost"]  # what operators ask, what is held, what is about to begin
        engine.poll()
        assert engine.database == []
        assert "paused" in engine.told("paused")
        engine.steps.clear()
        if engine.alive(engine.work_all):
            break
    engine.settle()

    assert engine.dead() == Counter(["0/0"])
    assert Counter(name for name, _ in engine.calls)["0/0"] == 3


@pytest.mark.parametrize("attempts", [1, 3])
def test_what_kills_its_process_among_many_is_a_dead_letter_after_one_death_more(
    make: Callable[..., Engine], few_are: Callable[[int], None], attempts: int
) -> None:
    few_are(4)
    engine = make(attempts=attempts, batch_size=10)
    for number in range(30):
        engine.send(0, b"a%d" % number, "k" * 50 if number == 7 else "")
    engine.settle()

    assert sorted(engine.effects()) == sorted(f"0/{n}" for n in range(30) if n != 7)
    assert engine.dead() == Counter(["0/7"])
    assert Counter(name for name, _ in engine.calls)["0/7"] == max(2, attempts) + 1


def killed_among_ten(make: Callable[..., Engine]) -> Engine:
    """The process was killed, by none of the ten that it had begun; another one has the partitions."""
    engine = make(batch_size=10)
    for number in range(10):
        engine.send(0, b"a%d" % number)
    engine.poll()
    engine.start()
    engine.assign()
    return engine


def test_many_that_a_crash_left_are_done_a_few_at_a_time_and_together(
    make: Callable[..., Engine], few_are: Callable[[int], None]
) -> None:
    few_are(4)
    engine = killed_among_ten(make)
    engine.poll(0)
    polls = 0
    while engine.effects() != [f"0/{n}" for n in range(10)]:
        engine.poll()
        assert engine.take()
        assert len(engine.jobs[0].items) == 2, "half as many as are few"
        assert not any(item.suspect for _, item in engine.jobs[0].items)
        assert engine.query("SELECT suspect_offset, suspect_attempts FROM postroom_inbox_attempt") == [(9, 0)]
        engine.work_all()
        engine.work()
        polls += 1
    assert polls == 5

    engine.send(0, b"a")
    engine.poll()
    assert engine.query("SELECT first_offset, suspect_offset FROM postroom_inbox_attempt") == [(10, None)]
    assert not engine.runner._intake.few_at_a_time


def test_a_partition_of_which_nothing_comes_bounds_the_others_for_a_moment_only(
    make: Callable[..., Engine], few_are: Callable[[int], None]
) -> None:
    few_are(4)
    engine = killed_among_ten(make)
    engine.poll(0)
    assert engine.runner._bound() == 2
    engine.clock.advance(11.0)
    assert engine.runner._bound() > 2, "all of it may have been done before"
    engine.poll()
    assert engine.runner._bound() == 2, "it was not"


def test_few_come_with_the_first_partitions(make: Callable[..., Engine], few_are: Callable[[int], None]) -> None:
    few_are(4)
    engine = make(batch_size=10)
    engine.lanes.revoke(PLACES)
    assert engine.runner._bound() == 2
    engine.assign()
    assert engine.runner._bound() > 2


def test_an_orderly_end_among_many_that_a_crash_left_is_no_death(
    make: Callable[..., Engine], few_are: Callable[[int], None]
) -> None:
    few_are(4)
    engine = killed_among_ten(make)
    engine.poll()
    engine.rebalance()
    assert engine.query("SELECT last_offset, suspect_offset FROM postroom_inbox_attempt") == [(9, None)]
    engine.poll(0)
    engine.poll()
    engine.start()  # killed at that, too
    engine.assign()
    engine.poll(0)
    engine.poll()
    assert engine.query("SELECT first_offset, last_offset FROM postroom_inbox_attempt") == [(0, 1)], "few again"
    assert engine.take()
    [(_, item)] = engine.jobs[0].items
    assert item.suspect
    engine.settle()
    assert sorted(engine.effects()) == [f"0/{n}" for n in range(10)]


def test_what_a_crash_left_is_forgotten_when_it_is_done(make: Callable[..., Engine]) -> None:
    engine = make()
    engine.send(0, b"a", "k")
    engine.settle()
    engine.poll()
    engine.rebalance()

    assert engine.effects() == ["0/0"]
    assert engine.query("SELECT * FROM postroom_inbox_attempt") == []


def test_a_held_message_that_kills_its_process_is_a_dead_letter_after_its_attempts(make: Callable[..., Engine]) -> None:
    engine = make(attempts=3, immediate_attempts=1)
    engine.send(0, b"a", "f" + "k" * 20)
    engine.send(0, b"a")
    engine.settle()

    assert engine.effects() == ["0/1"]
    assert [attempt for name, attempt in engine.calls if name == "0/0"] == [1, 2, 3]
    assert engine.dead() == Counter(["0/0"])


def test_the_crash_of_one_is_not_held_against_others(make: Callable[..., Engine]) -> None:
    engine = make(attempts=1, batch_size=10)
    names = [engine.send(0, key, script) for key, script in ((b"a", ""), (b"b", "k"), (b"c", ""))]
    engine.settle()

    assert sorted(engine.effects()) == names
    assert engine.dead() == Counter()


def test_an_orderly_end_leaves_no_trace_of_a_crash(make: Callable[..., Engine]) -> None:
    engine = make()
    engine.send(0, b"a")
    engine.poll()
    assert engine.query("SELECT first_offset, last_offset FROM postroom_inbox_attempt") == [(0, 0)]

    engine.rebalance()

    assert engine.query("SELECT * FROM postroom_inbox_attempt") == []


def test_what_waits_goes_on_after_the_longest_of_waits_and_not_before(make: Callable[..., Engine]) -> None:
    engine = make({"base": 8.0, "cap": 8.0}, attempts=3, immediate_attempts=1)
    engine.send(0, b"a", "f")
    engine.send(0, b"a")
    engine.send(0, b"b")
    engine.poll()
    engine.work_all()
    [(seconds, behind)] = [(facts["seconds"], facts["behind"]) for step, facts in engine.steps if step == "held"]

    assert behind == 1

    assert engine.effects() == ["0/2"]
    engine.poll()
    assert engine.committed[PLACES[0]] == 3
    engine.clock.advance(seconds * 0.99)
    assert not engine.take()
    engine.clock.advance(seconds * 0.02)
    engine.work_all()
    assert engine.effects() == ["0/2", "0/0", "0/1"]


def test_what_would_be_over_the_limit_of_dead_letters_pauses_the_handler_and_is_not_lost(
    make: Callable[..., Engine],
) -> None:
    engine = make({"dead_letters_per_minute": 3})
    names = [engine.send(0, b"%d" % number, "" if number == 9 else "p" * 9) for number in range(10)]
    engine.stand_still()

    assert engine.dead() == Counter(names[:3])
    subject = f"handler:{engine.handler}"
    assert engine.pauses() == {
        subject: "It reached its limit of 3 dead letters per minute: look at `postroom dlq stats`, mend the cause, "
        f"then go on with `postroom inbox resume --group billing --handler {shlex.quote(engine.handler)}`."
    }
    assert engine.query("SELECT actor, action, consumer_group, subject, reason FROM postroom_inbox_action") == [
        ("postroom", "pause", "billing", subject, engine.pauses()[subject])
    ]
    [limited] = [facts for step, facts in engine.steps if step == "limited"]
    assert limited == {"handler": engine.handler, "limit": 3, "reason": engine.pauses()[subject]}
    assert engine.committed[PLACES[0]] == 3
    assert [name for name, _ in engine.calls] == names[:4]  # the fourth was one too many; nothing began after it

    assert engine.resume()
    engine.stand_still()
    assert engine.dead().total() == 6
    assert len(engine.told("limited")) == 2
    engine.limit(0)
    engine.resume()
    engine.settle()
    assert engine.dead() == Counter(names[:9])
    assert engine.effects() == names[9:]
    assert engine.pauses() == {}


@pytest.mark.parametrize("immediate", [1, 5])
@pytest.mark.parametrize("on_dead_letter", ["go-on", "wait"])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_limit_of_dead_letters_burns_no_attempt_and_keeps_the_order(
    make: Callable[..., Engine], on_dead_letter: str, immediate: int, batch_size: int
) -> None:
    """The cause is mended before the handler goes on: what was one too many is handled by its last attempt."""
    options = {"dead_letters_per_minute": 1, "on_dead_letter": on_dead_letter, "breaker_threshold": 1.0}
    engine = make(options, attempts=2, immediate_attempts=immediate, batch_size=batch_size)
    engine.send(0, b"a", "p")
    engine.stand_still()
    engine.send(1, b"b", "f" * (3 if batch_size > 1 else 2))  # in a batch it fails once without a count
    engine.send(1, b"b")
    engine.stand_still()
    engine.send(1, b"b")
    engine.stand_still()

    assert engine.dead() == Counter(["0/0"])
    assert engine.effects() == []
    assert [attempt for name, attempt in engine.calls if name == "1/0"][-2:] == [1, 2]
    assert engine.outcomes() == {"0/0": "dead-lettered"}
    if immediate == 1:
        assert next(held for held in engine.held() if held[0][0] == "1") == ("1/0", "retry", 1)
    else:
        assert engine.committed.get(PLACES[1], 0) == 0
    engine.resume()
    for _ in range(9):
        engine.stand_still(1)

    assert engine.calls[-3:] == [("1/0", 2), ("1/1", 1), ("1/2", 1)]
    assert engine.effects() == ["1/0", "1/1", "1/2"]
    assert engine.dead() == Counter(["0/0"])


@pytest.mark.parametrize("failing", ["away", "cut", "lost"])
@pytest.mark.parametrize("immediate", [1, 5])
def test_a_limit_that_cannot_be_written_down_holds_all_the_same(
    make: Callable[..., Engine], immediate: int, failing: str
) -> None:
    engine = make({"dead_letters_per_minute": 1}, attempts=2, immediate_attempts=immediate)
    engine.send(0, b"a", "p")
    engine.settle()
    engine.send(0, b"a", "fp" if failing == "lost" else "fpp")
    engine.send(0, b"a")
    engine.poll()
    engine.work_all()
    engine.clock.advance(31.0)
    engine.take()
    before = ["well", "well"] if immediate == 1 else []  # the table is read, and the attempt counted
    engine.database[:] = [*before, "well", "well", failing]  # the attempt, the dead letter, the pause
    engine.work()
    assert engine.database == []
    engine.stand_still()

    assert engine.dead() == Counter(["0/0"])
    assert len(engine.pauses()) == 1
    engine.resume()
    engine.settle()
    assert engine.effects() == ["0/1", "0/2"]


def test_a_dead_letter_whose_write_failed_and_then_is_over_the_limit_has_its_last_attempt_again(
    make: Callable[..., Engine],
) -> None:
    engine = make({"dead_letters_per_minute": 1}, attempts=2, immediate_attempts=1)
    engine.send(0, b"a", "f")
    engine.poll()
    engine.work_all()
    engine.scripts["0/0"][:] = ["f"]
    engine.clock.advance(31.0)
    engine.take()
    engine.database[:] = ["well", "well", "well", "away"]  # it is known here only that its attempts are used up
    engine.work()
    engine.send(1, b"b", "p")
    engine.poll()
    engine.take()
    engine.work()
    engine.stand_still()

    assert engine.dead() == Counter(["1/0"])
    assert engine.held() == [("0/0", "retry", 1)]
    engine.resume()
    engine.settle()
    assert engine.effects() == ["0/0"]


@pytest.mark.parametrize("held", [False, True])
def test_crashes_count_towards_the_limit(make: Callable[..., Engine], held: bool) -> None:
    engine = make({"dead_letters_per_minute": 1}, attempts=2, immediate_attempts=1)
    engine.send(1, b"b", "p")
    engine.settle()
    engine.send(0, b"a", "fkkk" if held else "kkk")
    for _ in range(20):
        if not engine.alive(engine.poll):
            continue
        while engine.take() and engine.alive(engine.work):
            pass
        engine.clock.advance(31.0)

    tries = len(engine.calls)
    assert engine.dead() == Counter(["1/0"])
    assert len(engine.pauses()) == 1
    engine.resume()
    engine.settle()
    assert engine.dead() == Counter(["1/0", "0/0"])
    assert len(engine.calls) == tries, "a crash is not asked for again"


@pytest.mark.parametrize("shelved", [False, True])
def test_messages_without_a_handler_have_the_limit_too(make: Callable[..., Engine], shelved: bool) -> None:
    engine = make({"dead_letters_per_minute": 1, "type": "other"}, immediate_attempts=1)
    engine.limit(1)
    engine.send(0, b"a")
    if shelved:
        engine.send(0, b"b", "f", ("ce_type", b"other"))
        engine.headers(1).remove(("ce_type", b"t"))
    engine.send(0, b"b")
    engine.stand_still()

    assert engine.dead() == Counter(["0/0"])
    assert list(engine.pauses()) == ["handler:(none)"]
    assert "--handler '(none)'" in engine.pauses()["handler:(none)"]
    assert engine.outcomes().keys() == ({"0/0", "0/1"} if shelved else {"0/0"})
    engine.resume("(none)")
    engine.settle()
    assert engine.dead() == Counter(["0/0", "0/2" if shelved else "0/1"])


def test_what_was_closed_before_is_no_dead_letter_too_many(make: Callable[..., Engine]) -> None:
    engine = make({"dead_letters_per_minute": 1})
    engine.send(0, b"a", "pp")
    engine.poll()
    engine.work_all()
    engine.lanes.revoke(PLACES)
    engine.assign()  # nothing was committed, so it comes again
    engine.settle()

    assert engine.told("dead_lettered", "duplicate", "limited") == ["dead_lettered", "duplicate"]
    assert engine.dead() == Counter(["0/0"])


@pytest.mark.parametrize(
    ("column", "value", "counts"),
    [
        ("processed_at", "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-50 seconds')", True),
        ("processed_at", "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-61 seconds')", False),
        ("outcome", "'handled'", False),
        ("handler", "'another'", False),
        ("consumer_group", "'another'", False),
    ],
)
def test_the_dead_letters_of_a_handler_within_a_minute_count(
    make: Callable[..., Engine], column: str, value: str, counts: bool
) -> None:
    engine = make({"dead_letters_per_minute": 1})
    engine.send(0, b"a", "p")
    engine.settle()
    engine.operator(f"UPDATE postroom_inbox SET {column} = {value}")
    engine.start()  # a restart forgets nothing
    engine.send(0, b"b", "p")
    engine.stand_still()

    assert engine.dead().total() == (1 if counts else 2)
    assert bool(engine.pauses()) is counts


def test_a_handler_that_was_resumed_before_its_member_looked_goes_on(make: Callable[..., Engine]) -> None:
    engine = make({"dead_letters_per_minute": 1}, control_seconds=60.0)
    for key in (b"a", b"b"):
        engine.send(0, key, "pp")
    engine.poll()
    engine.work_all()
    assert engine.told("limited", "held_back") == ["limited"]
    engine.resume()
    engine.clock.advance(61.0)
    engine.settle()

    assert engine.dead() == Counter(["0/0", "0/1"])
    assert engine.told("resumed") == ["resumed"]


def test_a_handler_that_was_paused_and_resumed_meanwhile_is_not_paused_for_what_is_old(
    make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between finding itself at the limit and writing that down, another member did, and an operator resumed."""
    pause = DeadLetterLimit.pause

    def late(limit: DeadLetterLimit, *arguments: Any) -> Any:
        with closing(Desk(f"sqlite:///{engine.path}")) as desk:
            desk.pause("billing", f"handler:{engine.handler}", "the limit", "postroom")
            desk.resume("billing", f"handler:{engine.handler}", "ops")
        return pause(limit, *arguments)

    engine = make({"dead_letters_per_minute": 1})
    for key in (b"a", b"b"):
        engine.send(0, key, "pp")
    monkeypatch.setattr(DeadLetterLimit, "pause", late)
    engine.settle()

    assert engine.dead() == Counter(["0/0", "0/1"])
    assert engine.told("limited", "held_back") == []


def test_the_reason_of_an_operator_stays_when_the_limit_is_reached(make: Callable[..., Engine]) -> None:
    engine = make({"dead_letters_per_minute": 1}, control_seconds=60.0)
    for key in (b"a", b"b"):
        engine.send(0, key, "p")
    engine.poll()
    with closing(Desk(f"sqlite:///{engine.path}")) as desk:
        desk.pause("billing", f"handler:{engine.handler}", "the bank moves", "ops")
    engine.work_all()

    assert engine.dead() == Counter(["0/0"])
    assert list(engine.pauses().values()) == ["the bank moves"]
    assert engine.query("SELECT actor FROM postroom_inbox_action") == [("ops",)]
    assert [facts["reason"] for step, facts in engine.steps if step == "held_back"] == ["the bank moves"]


def test_a_replay_that_dies_again_counts(make: Callable[..., Engine]) -> None:
    engine = make({"dead_letters_per_minute": 1})
    engine.send(0, b"a", "pp")
    engine.settle()
    engine.operator("UPDATE postroom_inbox SET processed_at = '2020-01-01T00:00:00.000Z'")
    engine.replay("0/0")
    engine.settle()
    assert engine.dead() == Counter({"0/0": 2})
    engine.send(0, b"b", "p")
    engine.stand_still()

    assert engine.dead() == Counter({"0/0": 2})
    assert len(engine.pauses()) == 1


def test_an_edited_replay_takes_the_place_of_the_dead_letter_that_it_replaces(make: Callable[..., Engine]) -> None:
    engine = make({"on_dead_letter": "wait"})
    engine.send(0, b"a", "ppp")
    engine.send(0, b"a")
    engine.settle()

    engine.replay("0/0", edited=("0/0", "edit-1"))  # dies as well
    engine.settle()
    assert engine.held() == [("edit-1", "dead-letter", 1), ("0/1", "behind", 0)]
    assert engine.outcomes() == {"0/0": "dead-lettered", "edit-1": "dead-lettered"}
    engine.replay("0/0", edited=("0/0", "edit-1"))  # delivered again
    engine.replay("0/0", edited=("0/0", "late"))  # another edit of what is replaced already is a message of its own
    engine.settle()
    assert engine.held()[0] == ("edit-1", "dead-letter", 1)
    assert [name for name, *_ in engine.held()] == ["edit-1", "0/1", "edit-1", "late"]
    assert engine.effects() == []
    engine.replay("0/0", 2, edited=("edit-1", "edit-2"))  # an edit of the edit dies, too
    engine.settle()
    assert engine.held()[0] == ("edit-2", "dead-letter", 1)
    assert engine.effects() == []
    engine.append(PLACES[0], b"a", "0/0", "edit-2", (REPLAY_COUNT, b"3"), (REPLAY_GROUP, b"billing"))
    engine.settle()

    assert engine.effects() == ["0/0", "0/1", "0/0"]  # "late" comes last
    assert engine.dead() == Counter({"0/0": 3})
    assert engine.held() == []
    assert engine.outcomes() == {
        "0/0": "dead-lettered",
        "edit-1": "dead-lettered",
        "edit-2": "handled",
        "0/1": "handled",
        "late": "handled",
    }


def test_an_edited_replay_with_another_key_or_of_another_message_replaces_nothing(make: Callable[..., Engine]) -> None:
    engine = make({"on_dead_letter": "wait"})
    for key in (b"a", b"b"):
        engine.send(0, key, "p")
    engine.settle()
    engine.replay("0/0", edited=("0/0", "edit-1"), key=b"b")
    engine.replay("0/1", edited=("0/7", "edit-2"))
    engine.replay("0/1", edited=("\x00", "edit-3"))
    engine.settle()

    assert engine.effects() == []
    assert [held[:2] for held in engine.held()] == [
        ("0/0", "dead-letter"),
        ("0/1", "dead-letter"),
        ("edit-1", "behind"),
        ("edit-2", "behind"),
        ("edit-3", "behind"),
    ]


def test_a_replay_without_an_id_takes_the_place_of_what_it_replaces_each_time(make: Callable[..., Engine]) -> None:
    """A foreign record is known by its place, and its replay is at another one."""
    engine = make({"on_dead_letter": "wait"})
    engine.send(0, b"a", "pp")
    del engine.headers(0)[0]  # its ce_id
    engine.send(0, b"a")
    engine.settle()
    assert engine.held()[0] == ("orders/0/0", "dead-letter", 1)
    for count in (b"1", b"2"):
        engine.replay("0/0")
        engine.headers(-1)[:] = [("ce_type", b"t"), (REPLAY_COUNT, count), (REPLAY_OF, b"orders/0/0")]
        engine.settle()

    assert engine.effects() == ["0/0", "0/1"]
    assert engine.held() == []
    assert engine.outcomes()["orders/0/0"] == "handled"


@pytest.mark.parametrize(
    ("headers", "inbox_id"),
    [
        ([("ce_id", b"m")], None),
        ([("ce_id", b"m"), ("idempotency_key", b"k")], "key:k"),
        ([("ce_id", b"key:k"), ("idempotency_key", b"k")], None),
        ([], "orders/0/0"),
        ([("ce_id", b"\xff")], "orders/0/0"),
        ([("ce_id", b"m\n")], storable_id("m\n")),
        ([("ce_id", b"m" * 256)], storable_id("m" * 256)),
        ([("ce_id", b"m"), ("postroom_dlq_inbox_id", b"of an earlier death")], None),
    ],
)
@pytest.mark.parametrize("immediate", [1, 5])
def test_a_dead_letter_tells_the_id_of_its_inbox_row_where_that_is_not_its_own(
    make: Callable[..., Engine], headers: list[tuple[str, bytes]], inbox_id: str | None, immediate: int
) -> None:
    engine = make({"by_idempotency_key": True}, attempts=2, immediate_attempts=immediate)
    engine.send(0, b"a", "ff")
    engine.headers(0)[:] = headers
    for _ in range(20):
        engine.poll()
        engine.work_all()
        engine.clock.advance(31.0)

    [(stored,)] = engine.query("SELECT headers FROM postroom_outbox WHERE topic = ?", DLQ)
    pairs, _ = load(stored)
    told = [value.decode() for name, value in pairs if name == INBOX_ID]
    assert told == ([] if inbox_id is None else [inbox_id])
    [row] = engine.outcomes()
    assert row == (inbox_id or dict(headers)["ce_id"].decode())
    assert INBOX_ID not in dict(strip(pairs))


@pytest.mark.parametrize("keeps", [True, False])
def test_the_edited_replay_of_what_is_known_by_its_idempotency_key_stays_known_by_it(
    make: Callable[..., Engine], keeps: bool
) -> None:
    engine = make({"on_dead_letter": "wait", "by_idempotency_key": True})
    engine.send(0, b"a", "p", ("idempotency_key", b"k"))
    engine.send(0, b"a")
    engine.settle()
    assert engine.held()[0][:2] == ("key:k", "dead-letter")
    engine.replay("0/0", edited=("key:k", "edit-1"))
    if keeps:
        engine.headers(-1).append(("idempotency_key", b"k"))
    engine.settle()

    assert engine.effects() == ["0/0", "0/1"]
    edited = {"key:k": "handled"} if keeps else {"key:k": "dead-lettered", "edit-1": "handled"}
    assert engine.outcomes() == {**edited, "0/1": "handled"}
