"""Lanes against a model of them: keys in order, one worker each, nothing lost, nothing counted wrongly."""

from collections import defaultdict, deque
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from postroom.inbox import Inbox, InboxSettings
from postroom.inbox.delivery import Delivery
from postroom.inbox.gate import Gate
from postroom.inbox.handlers import Handler
from postroom.inbox.lane import Item, Job, Kind, LaneId, weight
from postroom.inbox.lanes import Lanes
from postroom.messaging.backoff import Backoff
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.testing import FakeClock

PLACES = [Partition("orders", number) for number in range(3)]
TYPES = ("first", "second")
MOST = 6
MOST_BYTES = 6_000
BATCH = 3


def handlers(**priorities: int) -> dict[str, Handler]:
    inbox = Inbox("billing")
    for type_ in TYPES:
        inbox.handler("orders", type=type_, priority=priorities.get(type_, 0))(lambda received, ctx: None)
    return {str(each.event_type): each for each in inbox.handlers}


def gates(known: dict[str, Handler], clock: FakeClock, workers: int = 4) -> dict[Handler, Gate]:
    policy = InboxSettings()
    return {each: Gate(each.policy_by(policy), clock, Backoff(), workers=workers) for each in known.values()}


class World:
    """Lanes, and the log that they are fed from."""

    def __init__(self, batch: int = BATCH, most: int = MOST, **priorities: int) -> None:
        self.clock = FakeClock()
        self.handlers = handlers(**priorities)
        self.gates = gates(self.handlers, self.clock)
        self.lanes = Lanes(self.clock, self.gates, batch_size=batch, most=most, most_bytes=MOST_BYTES)
        self.offsets = dict.fromkeys(PLACES, 0)

    def add(
        self, place: Partition, key: bytes | None, type_: str = "first", id_: str = "", size: int = 0, **flags: Any
    ) -> Item:
        offset = self.offsets[place]
        self.offsets[place] += 1
        headers = [("ce_id", (id_ or f"{place.number}/{offset}").encode()), ("ce_type", type_.encode())]
        record = ReceivedRecord(place, offset, key, b"x" * size, headers, self.clock.now())
        [in_hand] = self.lanes.receive([record])
        item = Item(in_hand, Delivery.of(record), self.handlers[type_], weight(record), **flags)
        self.lanes.add([item])
        return item

    def take(self) -> Job:
        job = self.lanes.take(0)
        assert job is not None
        return job

    def finish(self, job: Job) -> None:
        self.lanes.finished([item for _, item in job.items])
        self.lanes.done(job)


def offset(item: Item) -> int:
    return item.in_hand.record.offset


class LanesMachine(RuleBasedStateMachine):
    """Every order of calls that a poller and its workers can make."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.lanes = self.world.lanes
        self.owned: set[Partition] = set()
        self.epochs: defaultdict[Partition, int] = defaultdict(int)
        self.waiting: defaultdict[tuple[Any, ...], deque[Item]] = defaultdict(deque)
        self.jobs: list[Job] = []
        self.ended: dict[Partition, dict[int, bool]] = {}
        self.epoch_of: dict[int, int] = {}
        self.items: list[Item] = []

    def mine(self, item: Item) -> bool:
        place = item.in_hand.record.partition
        return place in self.owned and self.epoch_of[id(item)] == self.epochs[place]

    def queue(self, item: Item) -> deque[Item]:
        return self.waiting[LaneId.of(item.in_hand.record), self.epoch_of[id(item)]]

    @initialize()
    def begin(self) -> None:
        for place in PLACES:
            self.assign(place)

    @rule(place=st.sampled_from(PLACES))
    def assign(self, place: Partition) -> None:
        if place not in self.owned:
            self.lanes.assign([place])
            self.owned.add(place)
            self.epochs[place] += 1
            self.ended[place] = {}

    @rule(place=st.sampled_from(PLACES))
    def revoke(self, place: Partition) -> None:
        self.lanes.revoke([place])
        self.owned.discard(place)
        for (lane, _), items in self.waiting.items():
            if lane.partition == place:
                items.clear()

    @rule(
        place=st.sampled_from(PLACES),
        several=st.lists(
            st.fixed_dictionaries(
                {
                    "key": st.sampled_from([b"a", b"b", b"c", None]),
                    "type_": st.sampled_from(TYPES),
                    "id_": st.sampled_from(["", "", "same"]),
                    "size": st.sampled_from([0, 0, 2_000]),
                    "alone": st.sampled_from([False] * 5 + [True]),
                    "suspect": st.sampled_from([False] * 9 + [True]),
                }
            ),
            min_size=1,
            max_size=6,
        ),
    )
    def add(self, place: Partition, several: list[dict[str, Any]]) -> None:
        for facts in several if place in self.owned else []:
            item = self.world.add(place, **facts)
            self.items.append(item)
            self.epoch_of[id(item)] = self.epochs[place]
            self.ended[place][offset(item)] = False
            self.queue(item).append(item)

    @rule(times=st.integers(1, 3))
    def take_some(self, times: int) -> None:
        for _ in range(times):
            self.take()

    def take(self) -> None:
        job = self.lanes.take(0)
        if job is None:
            return
        busy = {id(lane) for other in self.jobs for lane in other.lanes}
        assert not busy & {id(lane) for lane in job.lanes}, "a key is with two workers"
        assert len({id(lane) for lane in job.lanes}) == len(job.lanes)
        self.jobs.append(job)
        items = [item for _, item in job.items]
        if job.kind is not Kind.RUN:
            assert not items
            return
        assert items
        assert len(items) <= BATCH
        assert {item.handler for item in items} == {job.handler}
        assert len({item.delivery.message_id for item in items}) == len(items)
        if any(item.alone or item.suspect for item in items):
            assert len(items) == 1
        if items[0].suspect:
            assert len(self.jobs) == 1, "something runs beside a suspect"
        assert not any(item.suspect for other in self.jobs if other is not job for _, item in other.items)
        for lane, item in job.items:
            assert not lane.held
            assert self.mine(item)
            assert self.queue(item).popleft() is item, "not in order, or twice"

    @precondition(lambda self: self.jobs)
    @rule(
        which=st.integers(0, 9),
        done=st.sampled_from([0, 0, 1, 2, 3]),
        how=st.sampled_from(["again", "again", "hold"]),
        wait=st.sampled_from([False, False, True]),
    )
    def end(self, which: int, done: int, how: str, wait: bool) -> None:
        """Some of a job are finished, the rest comes again, or its key goes into the table."""
        job = self.jobs.pop(which % len(self.jobs))
        if job.kind is not Kind.RUN:
            self.end_shelf(job, wait)
            return
        finished, left = job.items[:done], job.items[done:]
        self.finish([item for _, item in finished])
        by_lane: dict[int, list[tuple[Any, Item]]] = {}
        for lane, item in left:
            by_lane.setdefault(id(lane), []).append((lane, item))
        for pairs in by_lane.values():
            lane, items = pairs[0][0], [item for _, item in pairs]
            if how == "again" or lane.dropped:
                self.lanes.again(lane, items, 5.0 if wait else 0.0)
                if self.mine(items[0]):
                    self.queue(items[0]).extendleft(reversed(items))
            else:
                rest = self.lanes.rest_of(lane)
                assert rest == list(self.queue(items[0]))
                self.queue(items[0]).clear()
                self.lanes.holding(lane, None if wait else 3.0)
                self.finish([*items, *rest])
        self.lanes.done(job)

    def end_shelf(self, job: Job, wait: bool) -> None:
        [lane] = job.lanes
        if job.kind is Kind.SHELVE:
            rest = self.lanes.rest_of(lane)
            for item in rest:
                assert self.queue(item).popleft() is item
            if wait:
                self.lanes.again(lane, rest, 0.5)
                for item in reversed(rest):
                    if self.mine(item):
                        self.queue(item).appendleft(item)
            else:
                self.finish(rest)
                self.lanes.holding(lane, 0.0)
        elif wait:
            self.lanes.holding(lane, 2.0)
        else:
            self.lanes.drained(lane)
        self.lanes.done(job)

    def finish(self, items: list[Item]) -> None:
        self.lanes.finished(items)
        for item in items:
            if self.mine(item):
                self.ended[item.in_hand.record.partition][offset(item)] = True

    @rule(
        place=st.sampled_from(PLACES),
        key=st.sampled_from([b"a", b"b"]),
        due=st.sampled_from([None, 0.0, 4.0]),
    )
    def hold(self, place: Partition, key: bytes, due: float | None) -> None:
        """The table is read again: it has one key."""
        self.lanes.hold({LaneId(place, key, -1): None if due is None else self.world.clock.monotonic() + due})

    @rule(seconds=st.sampled_from([0.5, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @rule()
    def commit(self) -> None:
        self.lanes.committed(self.lanes.uncommitted())

    @invariant()
    def nothing_is_counted_wrongly(self) -> None:
        running = [item for job in self.jobs for _, item in job.items]
        waiting = [item for items in self.waiting.values() for item in items]
        assert self.lanes._bytes == sum(item.bytes for item in (*running, *waiting))
        assert sum(self.lanes._in_hand.values()) == len(running) + len(waiting)
        assert min(self.lanes._in_hand.values(), default=0) >= 0
        assert self.lanes._running == len(self.jobs)
        assert {handler: gate.running for handler, gate in self.world.gates.items()} == {
            handler: sum(job.handler is handler for job in self.jobs) for handler in self.world.gates
        }
        if self.lanes._bytes >= MOST_BYTES or len(running) + len(waiting) >= 2 * MOST:
            assert set(self.lanes.full()) == self.owned
        for place in self.lanes.full():
            assert self.lanes._in_hand[place] >= max(1, MOST // len(self.owned)) or set(self.lanes.full()) == self.owned

    @invariant()
    def no_offset_passes_what_is_unfinished(self) -> None:
        for place, upto in self.lanes.uncommitted().items():
            assert all(done for number, done in self.ended[place].items() if number < upto)
            assert not self.ended[place].get(upto, False), "it could be further"

    def teardown(self) -> None:
        """All that is waiting can be brought to its end."""
        while self.jobs:
            self.end(0, BATCH, "again", wait=False)
        for _ in range(500):
            self.world.clock.advance(10)
            self.take()
            if not self.jobs:
                break
            self.end(0, BATCH, "again", wait=False)
        assert not any(self.waiting.values()), "something was forgotten"
        assert (self.lanes._bytes, sum(self.lanes._in_hand.values())) == (0, 0)
        assert all(lane.held and lane.due == float("inf") for lane in self.lanes._lanes.values())
        assert all(done for place in self.owned for done in self.ended[place].values())


TestLanes = LanesMachine.TestCase
TestLanes.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("seed", range(150))
def test_a_long_life_of_them(seed: int) -> None:
    """The same, with more of what takes and ends work than generated lives have."""
    chance = Random(seed)
    life = LanesMachine()
    life.begin()
    for _ in range(80):
        what = chance.choices(["add", "take", "end", "time", "hold", "commit", "move"], [6, 8, 8, 3, 1, 2, 1])[0]
        if what == "add":
            several = [
                {
                    "key": chance.choice([b"a", b"b", b"c", None]),
                    "type_": chance.choice(TYPES),
                    "id_": chance.choice(["", "", "", "same"]),
                    "size": chance.choice([0, 0, 0, 2_000]),
                    "alone": chance.random() < 0.1,
                    "suspect": chance.random() < 0.05,
                }
                for _ in range(chance.randint(1, 5))
            ]
            life.add(chance.choice(PLACES), several)
        elif what == "take":
            life.take()
        elif what == "end" and life.jobs:
            how = chance.choice(["again", "again", "again", "hold"])
            life.end(chance.randint(0, 9), chance.choice([0, 0, 1, 2, 3]), how, wait=chance.random() < 0.2)
        elif what == "time":
            life.time_passes(chance.choice([0.5, 5.0]))
        elif what == "hold":
            life.hold(chance.choice(PLACES), chance.choice([b"a", b"b"]), chance.choice([None, 0.0, 4.0]))
        elif what == "commit":
            life.commit()
        elif what == "move":
            place = chance.choice(PLACES)
            life.revoke(place)
            life.assign(place)
        life.nothing_is_counted_wrongly()
        life.no_offset_passes_what_is_unfinished()
    life.teardown()


@pytest.fixture
def world() -> World:
    made = World()
    made.lanes.assign(PLACES)
    return made


def numbers(job: Job) -> list[str]:
    return [item.delivery.message_id for _, item in job.items]


def test_a_batch_takes_from_several_keys_and_several_of_a_key(world: World) -> None:
    for key in (b"a", b"a", b"b", b"c"):
        world.add(PLACES[0], key)

    assert numbers(world.take()) == ["0/0", "0/1", "0/2"]
    assert numbers(world.take()) == ["0/3"]


def test_a_handler_of_a_higher_priority_comes_first_and_equals_take_turns() -> None:
    urgent = World(batch=1, second=5)
    urgent.lanes.assign(PLACES)
    for type_ in ("first", "second", "second"):
        urgent.add(PLACES[0], None, type_)
    assert [numbers(urgent.take()) for _ in range(3)] == [["0/1"], ["0/2"], ["0/0"]]

    equal = World(batch=1)
    equal.lanes.assign(PLACES)
    for type_ in ("first", "first", "second", "second"):
        equal.add(PLACES[0], None, type_)
    assert [numbers(equal.take()) for _ in range(4)] == [["0/0"], ["0/2"], ["0/1"], ["0/3"]]


def test_a_closed_gate_lets_the_other_handlers_go_on(world: World) -> None:
    world.gates[world.handlers["first"]].paused = "a wrong price"
    world.add(PLACES[0], None, "first")
    world.add(PLACES[0], None, "second")

    assert numbers(world.take()) == ["0/1"]
    assert world.lanes.take(0) is None
    world.gates[world.handlers["first"]].paused = None
    assert numbers(world.take()) == ["0/0"]


def test_nobody_is_woken_up_while_a_suspect_runs_or_waits_for_all_others_to_end(world: World) -> None:
    world.add(PLACES[0], None, "second")
    job = world.take()
    world.add(PLACES[0], b"a", suspect=True)
    world.lanes.hold({LaneId(PLACES[1], b"due", -1): world.clock.monotonic() + 1.0})
    world.add(PLACES[0], b"b")

    assert world.lanes.take(0) is None
    assert world.lanes._next_in() > 1
    world.finish(job)
    suspect = world.take()
    assert numbers(suspect) == ["0/1"]
    world.clock.advance(2.0)  # what waited for its time is due, and waits for the suspect
    assert world.lanes.take(0) is None
    assert world.lanes._next_in() > 1
    world.finish(suspect)
    assert [numbers(world.take()), numbers(world.take())] == [[], ["0/2"]], "the look at the table, and the last one"


def test_room_is_shared_out_among_the_partitions_and_bounded_by_bytes(world: World) -> None:
    world.add(PLACES[0], b"a")
    assert world.lanes.full() == []
    world.add(PLACES[0], b"a")
    assert world.lanes.full() == [PLACES[0]]
    world.add(PLACES[1], b"a", size=MOST_BYTES)
    assert world.lanes.full() == PLACES
    world.finish(world.take())
    assert world.lanes.full() == []


@pytest.mark.parametrize("how", [Lanes.drained, lambda lanes, lane: lanes.holding(lane, None)])
def test_what_the_table_was_said_to_hold_meanwhile_is_looked_at(
    world: World, how: Callable[[Lanes, Any], None]
) -> None:
    key = LaneId(PLACES[0], b"a", -1)
    world.lanes.hold({key: 0.0})
    job = world.take()
    assert job.kind is Kind.DRAIN

    world.lanes.hold({key: 0.0})  # an operator acted; the worker has read the row before
    how(world.lanes, job.lanes[0])
    world.lanes.done(job)

    assert world.take().kind is Kind.DRAIN


def test_a_key_whose_wait_was_cut_short_is_not_forgotten_when_the_wait_would_have_ended(world: World) -> None:
    key = LaneId(PLACES[0], b"a", -1)
    world.lanes.hold({key: 10.0})
    world.lanes.hold({})  # an operator took away what it waited for
    job = world.take()
    world.lanes.drained(job.lanes[0])
    world.lanes.done(job)
    world.add(PLACES[0], b"a")
    first = world.take()
    world.clock.advance(11.0)
    assert world.lanes.take(0) is None  # the old wait ends here

    world.add(PLACES[0], b"a")

    assert world.lanes.take(0) is None, "two workers have the key"
    world.finish(first)
    assert numbers(world.take()) == ["0/1"]


def test_what_was_received_and_revoked_before_it_was_added_is_dropped(world: World) -> None:
    record = ReceivedRecord(PLACES[0], 0, b"a", b"", [("ce_type", b"first")], world.clock.now())
    [in_hand] = world.lanes.receive([record])
    world.lanes.revoke([PLACES[0]])
    world.lanes.add([Item(in_hand, Delivery.of(record), world.handlers["first"], 1)])

    assert world.lanes.take(0) is None
    assert world.lanes.in_hand == 0


def test_a_key_that_the_table_has_by_now_is_in_no_batch(world: World) -> None:
    world.add(PLACES[0], b"a")
    world.add(PLACES[0], b"b")
    world.lanes.hold({LaneId(PLACES[0], b"b", -1): None})

    assert numbers(world.take()) == ["0/0"]
    assert world.take().kind is Kind.SHELVE


def test_no_partition_runs_too_far_ahead_of_what_is_unfinished(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.inbox.assignment._MOST_BEYOND", 3)
    world.add(PLACES[0], b"a")
    first = world.take()
    for _ in range(3):
        assert world.lanes.full() == []
        world.add(PLACES[0], None)
        world.finish(world.take())
    assert world.lanes.full() == [PLACES[0]]
    world.finish(first)
    assert world.lanes.full() == []


def test_a_closed_set_of_lanes_gives_nothing_more(world: World) -> None:
    world.add(PLACES[0], b"a")
    world.lanes.close()
    assert world.lanes.take(5) is None
