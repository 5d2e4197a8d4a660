"""P9 of an inbox: what its health is told, on a clock that stands still."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from postroom.inbox import Context, Inbox, InboxSettings, Received
from postroom.inbox.arrivals import Arrivals
from postroom.inbox.delivery import Delivery
from postroom.inbox.gate import Gate
from postroom.inbox.handlers import NOBODY, Handler
from postroom.inbox.lane import Item, Job, Kind, weight
from postroom.inbox.lanes import Lanes
from postroom.inbox.limit import DeadLetterLimit
from postroom.inbox.member import Member
from postroom.inbox.vitals import Vitals
from postroom.inbox.workers import Workers
from postroom.messaging.backoff import Backoff
from postroom.messaging.errors import DatabaseUnavailable, KafkaUnavailable, UnknownTopic
from postroom.messaging.health import Health
from postroom.messaging.ports import Kafka
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.outbox.names import Names
from postroom.testing import FakeClock

PLACES = [Partition("orders", 0), Partition("orders", 1)]
STUCK = 60


def charge(received: Received, ctx: Context) -> None: ...
def ship(received: Received, ctx: Context) -> None: ...


charge.__module__ = ship.__module__ = "shop"  # by which they are known


class Broker:
    """What a member's client answers when it is asked for the lag."""

    def __init__(self) -> None:
        self.lag: dict[Partition, int] = {}
        self.error: Exception | None = None
        self.asked: list[Sequence[Partition]] = []

    def answer(self, partitions: Sequence[Partition], timeout: float) -> Mapping[Partition, int]:
        assert 0 < timeout <= 2, "the loop stands still meanwhile"
        self.asked.append(partitions)
        if self.error is not None:
            raise self.error
        return {partition: self.lag.get(partition, 0) for partition in partitions}


class World:
    """An inbox of two handlers that has two partitions; ``round`` is one of its loop, ``wait`` some of them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        inbox = Inbox("billing")
        inbox.handler("orders", type="charge")(charge)
        inbox.handler("orders", type="ship")(ship)
        self.handlers = {str(handler.event_type): handler for handler in inbox.handlers}
        policy = InboxSettings()
        self.gates: dict[Handler, Gate] = {
            each: Gate(each.policy_by(policy), self.clock, Backoff(), workers=1)
            for each in (*self.handlers.values(), NOBODY)
        }
        self.lanes = Lanes(self.clock, self.gates, batch_size=1, most=100, most_bytes=10**6)
        self.health = Health(stuck_seconds=STUCK, hung_seconds=60, clock=self.clock)
        self.vitals = Vitals(self.health, self.lanes, self.gates, self.clock, every=STUCK / 4)
        self.broker = Broker()
        self.arrivals = Arrivals(self.clock, 10)
        self.placed = False
        self.jobs: list[tuple[Job, float]] = []
        self.offset = 0

    def working(self) -> list[tuple[Job, float]]:
        return [(job, self.clock.monotonic() - began) for job, began in self.jobs]

    def assign(self, *partitions: Partition) -> None:
        self.lanes.assign(partitions)
        self.arrivals.came(partitions)
        self.placed = True

    def add(self, handler: str = "charge", key: bytes | None = None, partition: Partition = PLACES[0]) -> None:
        self.offset += 1
        headers = [("ce_id", str(self.offset).encode()), ("ce_type", handler.encode())]
        record = ReceivedRecord(partition, self.offset, key, b"", headers, self.clock.now())
        [in_hand] = self.lanes.receive([record])
        self.arrivals.came([partition])
        self.lanes.add([Item(in_hand, Delivery.of(record), self.handlers[handler], weight(record))])

    def begin(self) -> Job:
        job = self.lanes.take(0)
        assert job is not None
        self.jobs.append((job, self.clock.monotonic()))
        return job

    def end(self, job: Job, *, again: float | None = None) -> None:
        if again is None:
            self.lanes.finished([item for _, item in job.items])
            self.vitals("handled")
        else:
            for lane, item in job.items:
                self.lanes.again(lane, [item], again)
        self.lanes.done(job)
        self.jobs = [pair for pair in self.jobs if pair[0] is not job]

    def round(self) -> str:
        paused = [] if any(not gate.is_shut for gate in self.gates.values()) else list(self.lanes.partitions)
        self.arrivals.look(self.broker.answer, paused)
        self.vitals.look(cast("Member", self), cast("Workers", self))
        found = self.health.ready()
        return "ok" if found.ok else found.reason

    def wait(self, seconds: float) -> str:
        for _ in range(int(seconds)):
            self.clock.advance(1)
            told = self.round()
        return told

    @property
    def detail(self) -> str:
        return self.health.detail


@pytest.fixture
def world() -> World:
    world = World()
    world.assign(*PLACES)
    assert world.round() == "ok"
    return world


def test_it_is_ready_once_the_group_said_what_is_its_own() -> None:
    world = World()
    assert world.round() == "starting: joining the group"
    assert world.wait(3) == "starting: joining the group"
    world.assign()
    assert (world.wait(1), world.health.state) == ("ok", "standby")
    assert world.wait(600) == "ok", "others have the partitions"
    world.assign(*PLACES)
    assert (world.wait(1), world.health.state) == ("ok", "running")


def test_caught_up_and_idle_it_stays_ready_and_asks_seldom(world: World) -> None:
    assert world.wait(600) == "ok"
    assert 50 <= len(world.broker.asked) <= 60


def test_what_waits_on_the_brokers_and_does_not_come_is_no_progress(world: World) -> None:
    world.broker.lag = {PLACES[1]: 120}
    assert world.wait(STUCK) == "ok"
    told = world.wait(15)
    assert told.startswith("messages wait and none was done for 6")
    assert told.endswith(" s: orders/1 has 120 more offsets in Kafka, and none comes")
    assert world.health.live().ok, "a restart may help, but nobody hangs"

    for _ in range(5):  # what others bring does not hide it
        world.add(partition=PLACES[0])
        world.end(world.begin())
        assert world.wait(1).endswith("none comes")
    world.add(partition=PLACES[1])
    world.end(world.begin())
    assert world.wait(1) == "ok"


def test_a_lag_that_goes_away_without_a_record_was_none(world: World) -> None:
    """Markers of transactions, or records that a compaction took."""
    world.broker.lag = {PLACES[1]: 1}
    world.wait(STUCK)
    world.broker.lag = {}
    assert world.wait(600) == "ok"


def test_of_partitions_that_are_paused_or_gone_nobody_asks(world: World) -> None:
    world.broker.lag = dict.fromkeys(PLACES, 5)
    world.arrivals.look(world.broker.answer, PLACES)
    world.clock.advance(20)
    world.arrivals.look(world.broker.answer, PLACES)
    assert world.broker.asked == []
    world.arrivals.went([PLACES[0]])
    assert world.wait(15) == "ok"
    assert world.broker.asked == [[PLACES[1]]]
    assert world.arrivals.behind == {PLACES[1]: 5}
    world.arrivals.went([PLACES[1]])
    assert world.arrivals.behind == {}


def test_a_broker_that_does_not_answer_twice_is_away_until_something_comes(world: World) -> None:
    world.broker.error = KafkaUnavailable("Kafka does not answer (timed out).")
    assert world.wait(19) == "ok", "once, it may be busy"
    assert world.wait(10) == "unavailable: Kafka does not answer (timed out)."
    assert world.wait(600) == "unavailable: Kafka does not answer (timed out)."
    assert world.health.live().ok
    world.add()
    assert world.wait(1) == "ok"


def test_a_broker_that_refuses_the_question_answers(world: World) -> None:
    world.broker.error = UnknownTopic("no such topic")
    assert world.wait(300) == "ok"


def test_a_handler_that_takes_long_is_said_after_a_while(world: World) -> None:
    world.add()
    job = world.begin()
    assert world.wait(STUCK) == "ok"
    told = world.wait(2)
    assert told.startswith("messages wait and none was done for 6")
    assert " s: shop.charge has run for 6" in told
    world.end(job)
    assert world.wait(1) == "ok"


def test_beside_a_handler_that_takes_long_others_make_progress(world: World) -> None:
    world.gates[world.handlers["charge"]]._workers = 2
    world.add()
    world.begin()
    for _ in range(10):
        world.add(key=b"other")
        job = world.begin()
        world.wait(30)
        world.end(job)
        assert world.round() == "ok"


def test_what_nobody_begins_is_no_progress(world: World) -> None:
    """The workers are busy elsewhere, or dead."""
    world.add()
    assert world.wait(STUCK) == "ok"
    assert world.wait(2).startswith("messages wait and none was done for 6")


def test_an_attempt_that_comes_later_is_waited_for(world: World) -> None:
    world.add()
    job = world.begin()
    assert world.round() == "ok"
    world.vitals("retried")
    world.end(job, again=300.0)
    assert world.wait(299) == "ok", "its time has not come"
    assert world.wait(STUCK + 3) != "ok", "its time has come, and nobody begins"


def test_failures_that_nobody_counts_are_no_progress(world: World) -> None:
    """What cannot be written, since the disk is full, comes again and again."""
    world.add()
    for _ in range(STUCK + 5):
        job = world.begin()
        world.round()
        world.clock.advance(0.5)
        world.end(job, again=0.4)
        told = world.round()
        world.clock.advance(0.5)
    assert told.startswith("messages wait and none was done for 6")


def test_a_rate_is_waited_for(world: World) -> None:
    gate = world.gates[world.handlers["charge"]]
    gate.policy = gate.policy.model_copy(update={"rate": 0.005})
    for _ in range(3):
        world.add()
    for _ in range(600):
        assert world.wait(1) == "ok"
        if job := world.lanes.take(0):
            world.end(job)


def test_paused_by_an_operator(world: World) -> None:
    world.gates[world.handlers["charge"]].paused = "the bank moves"
    world.add()
    assert world.wait(600) == "ok", "one of two"
    assert world.detail == "shop.charge is paused by an operator: the bank moves"
    world.gates[world.handlers["ship"]].paused = "the bank moves"
    assert world.wait(1) == "paused: by an operator: the bank moves"
    assert world.health.live().ok
    for gate in world.gates.values():
        gate.paused = None
    assert world.wait(1) == "ok"
    assert world.detail == ""


def test_paused_by_its_limit_is_told_apart(world: World) -> None:
    reason = DeadLetterLimit("billing", Names()).reason("charge", 60)
    for handler in world.handlers.values():
        world.gates[handler].paused = reason
    assert world.wait(1) == f"paused: by its limit: {reason}"


def test_an_open_breaker_with_all_that_waits_behind_it_is_no_progress(world: World) -> None:
    charge, ship = (world.gates[world.handlers[name]] for name in ("charge", "ship"))
    charge.breaker.unavailable()
    world.vitals("paused", handler="shop.charge", error=TimeoutError("https://shop:hunter2@bank"), seconds=1)
    assert world.wait(STUCK + 30) == "ok", "nothing waits for it"
    world.add()
    assert world.wait(1) == "ok"
    assert world.detail == "shop.charge waits for what it needs (TimeoutError)", "not in words of the application's"
    charge.breaker._open(10_000)
    assert world.wait(STUCK + 2).endswith(" s: shop.charge waits for what it needs (TimeoutError)")
    world.add("ship")
    ship.paused = "no more parcels"
    assert world.wait(1) == "unavailable: shop.charge waits for what it needs (TimeoutError)"
    charge.breaker.begin()
    charge.breaker.succeeded("1")
    world.vitals("handled")
    assert world.wait(1) == "ok"


def test_outages_are_told_and_end(world: World) -> None:
    world.vitals("paused", error=DatabaseUnavailable("The database does not answer (refused)."), seconds=1)
    assert world.health.ready().reason == "unavailable: The database does not answer (refused)."
    assert world.wait(5).startswith("unavailable: The database")
    world.vitals("resumed", failures=3)
    assert world.wait(1) == "ok"
    world.vitals("kafka_unavailable", error=KafkaUnavailable("Kafka does not answer."), seconds=1)
    assert world.health.ready().reason == "unavailable: Kafka does not answer."
    world.placed = False
    assert world.wait(5) == "unavailable: Kafka does not answer.", "until it has its place in the group"
    world.placed = True
    assert world.wait(1) == "ok"


def test_a_rebalance_is_waited_for_and_not_for_ever(world: World) -> None:
    world.lanes.revoke(PLACES)
    world.arrivals.went(PLACES)
    world.placed = False
    assert world.wait(STUCK) == "ok"
    assert world.wait(2).endswith(" s: the group has not shared out its partitions")
    world.assign(*PLACES)
    assert world.wait(1) == "ok"


def test_short_looks_at_held_messages_are_no_work_that_waits(world: World) -> None:
    """Of a key that waits for a handler that is paused, the table is looked at twice a second."""
    world.add()  # what waits for its time leaves all as it was
    failed = world.begin()
    world.vitals("retried")
    world.end(failed, again=1000.0)
    job = Job(Kind.DRAIN, [])
    for _ in range(STUCK + 30):
        world.jobs = [(job, world.clock.monotonic())]
        world.round()
        world.clock.advance(0.5)
        world.round()
        world.jobs = []
        world.clock.advance(0.5)
        assert world.round() == "ok"
    world.jobs = [(job, world.clock.monotonic())]
    assert " s: a look at held messages has run for 6" in world.wait(STUCK + 5)


def test_steps_of_others_say_nothing(world: World) -> None:
    facts: dict[str, Any] = {"handler": "shop.charge", "reason": "x"}
    for step in ("received", "attempt", "raised", "held_back", "committed"):
        world.vitals(step, **facts)
    world.vitals("resumed", **facts)
    assert (world.wait(1), world.health.state) == ("ok", "running")


class Away:
    """A client whose commits fail while Kafka is away."""

    def __init__(self) -> None:
        self.away = True
        self.commits: list[Mapping[Partition, int]] = []

    def consumer(self, *_: object, **__: object) -> "Away":
        return self

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        self.commits.append(offsets)
        if self.away:
            raise KafkaUnavailable("Kafka does not answer.")

    def lag(self, partitions: Sequence[Partition], timeout: float) -> Mapping[Partition, int]:
        if self.away:
            raise KafkaUnavailable("Kafka does not answer.")
        return {}


def test_a_commit_is_not_tried_again_before_kafka_answers(world: World) -> None:
    """Each try may take as long as a session of the group, and nothing else comes round meanwhile."""
    kafka = Away()
    patience: list[float] = []
    member = Member(
        cast("Kafka", kafka),
        "billing",
        ["orders"],
        world.lanes,
        observe=lambda step, /, **_: None,
        clock=world.clock,
        on_revoked=lambda _: None,
        instance=None,
        cooperative=False,
        ask_every=10,
        beat=patience.append,
    )
    member.arrivals.came(PLACES)
    world.add()
    world.end(world.begin())
    for _ in range(100):
        member.look([])
        member.commit()
        world.clock.advance(1)
    assert len(kafka.commits) == 1
    assert patience == [60]
    kafka.away = False
    for _ in range(11):
        member.look([])
        member.commit()
        world.clock.advance(1)
    assert len(kafka.commits) == 2
    assert member.arrivals.away is None
    assert world.lanes.uncommitted() == {}
