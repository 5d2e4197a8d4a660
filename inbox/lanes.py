"""Which message may be worked at next: one lane for each key, lanes beside each other.

    add ──▶ lane of the key ──▶ ready, by handler ──▶ take ──▶ (worker) ──▶ done ──▶ the lane's next
                 │                                                │
                 │                                                └─ again: after a wait, before all others of its key
                 └─ held: the key waits in the table; what comes is put behind it there (shelve), and when it
                    is due the table's first is tried (drain)

A lane is worked at by one worker at a time, so messages of a key keep their order. A message without a key has a lane
of its own. Thread-safe; decides nothing about errors and knows no database.
"""

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from threading import Condition, Event

from ..messaging.clock import Clock
from ..messaging.records import Partition, ReceivedRecord
from .assignment import Assignment, InHand
from .gate import Gate
from .handlers import Handler
from .lane import Item, Job, Kind, Lane, LaneId


class Lanes:
    """The messages in hand. ``gates`` are looked at and changed under its lock only: see ``lock``."""

    def __init__(
        self, clock: Clock, gates: Mapping[Handler, Gate], *, batch_size: int, most: int, most_bytes: int
    ) -> None:
        self._clock = clock
        self._gates = gates
        self._batch_size = batch_size
        self.most = most
        """So many messages, about, may be in hand."""
        self._most_bytes = most_bytes
        self.lock = Condition()
        self.closing = Event()
        self.room = Event()
        """Set when something came to its end."""
        self._assignment = Assignment()
        self._lanes: dict[LaneId, Lane] = {}
        self._ready: dict[Handler, deque[Lane]] = {}
        self._order: list[Handler] = []
        self._waiting: list[tuple[float, int, Lane]] = []
        self._shelf: deque[Lane] = deque()
        self._numbers = count()
        self._in_hand: Counter[Partition] = Counter()
        self._bytes = 0
        self._running = 0
        self._exclusive = False
        self._clearing = False
        self._drained_last = False
        self._closed = False

    # --- what the poller does -----------------------------------------------------------------------------

    def assign(self, partitions: Iterable[Partition]) -> None:
        """They are ours."""
        with self.lock:
            self._assignment.assign(partitions)

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """They are not ours any more: what was not begun of them is dropped."""
        gone = set(partitions)
        with self.lock:
            self._assignment.revoke(gone)
            for lane in [lane for lane in self._lanes.values() if lane.id.partition in gone]:
                lane.dropped = True
                for item in lane.items:
                    self._forget(item)
                lane.items.clear()
                del self._lanes[lane.id]
            self.lock.notify_all()

    def receive(self, records: Sequence[ReceivedRecord]) -> list[InHand]:
        """Those of ``records`` that are of our partitions; each has to be added or finished."""
        with self.lock:
            return self._assignment.receive(records)

    def begun(self) -> Mapping[Partition, tuple[int, int]]:
        """First and last offset of what is unfinished, by partition."""
        with self.lock:
            return self._assignment.unfinished()

    def add(self, items: Iterable[Item]) -> None:
        """Put messages behind those of their keys."""
        with self.lock:
            for item in items:
                if not self._assignment.owns(item.in_hand):
                    continue
                lane = self._lane(LaneId.of(item.in_hand.record))
                lane.items.append(item)
                self._in_hand[lane.id.partition] += 1
                self._bytes += item.bytes
                self._offer(lane)
            self.lock.notify_all()

    def finish(self, in_hand: InHand) -> None:
        """It needs no work."""
        with self.lock:
            self._assignment.finish(in_hand)

    def hold(self, held: Mapping[LaneId, float | None]) -> None:
        """What the table holds now, of our partitions, with the time at which each is due (None: not by itself).

        Keys that are held here and not there any more look for themselves.
        """
        with self.lock:
            for lane_id, due in held.items():
                if lane_id.partition in self._assignment.owned:
                    lane = self._lane(lane_id)
                    lane.held = True
                    lane.due = float("inf") if due is None else due
                    lane.look = lane.busy
                    self._offer(lane)
            for lane in self._lanes.values():
                if lane.held and lane.id not in held:
                    lane.due = 0.0
                    lane.look = lane.busy
                    self._offer(lane)
            self.lock.notify_all()

    def uncommitted(self) -> Mapping[Partition, int]:
        """The next offset to read by partition, where it moved since the last commit."""
        with self.lock:
            return self._assignment.uncommitted()

    def low_water(self, partition: Partition) -> int:
        """No record before it is unfinished; 0 of a partition that is not ours, or of which nothing came."""
        with self.lock:
            return self._assignment.low_water(partition)

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """They are stored."""
        with self.lock:
            self._assignment.committed(offsets)

    def full(self) -> Sequence[Partition]:
        """The partitions of which nothing more should be fetched for now."""
        with self.lock:
            owned = self._assignment.partitions
            if not owned:
                return []
            if self._bytes >= self._most_bytes or sum(self._in_hand.values()) >= 2 * self.most:
                return owned
            fair = max(1, self.most // len(owned))
            return [part for part in owned if self._in_hand[part] >= fair or self._assignment.lags(part)]

    @property
    def partitions(self) -> Sequence[Partition]:
        """Those that are ours."""
        with self.lock:
            return self._assignment.partitions

    @property
    def in_hand(self) -> int:
        """Messages that are not finished, and keys of the table that will be due."""
        with self.lock:
            held = sum(lane.held and lane.due != float("inf") for lane in self._lanes.values())
            return sum(self._in_hand.values()) + held + self._running

    def waiting(self) -> tuple[set[Handler], bool]:
        """The handlers of which messages are next, for all the lanes know; whether some in hand wait for their time."""
        with self.lock:
            now = self._clock.monotonic()
            nexts = {handler for handler, lanes in self._ready.items() if any(lane.is_next for lane in lanes)}
            own = [(at, lane) for at, _, lane in self._waiting if lane.is_next]
            nexts |= {lane.items[0].handler for at, lane in own if at <= now}
            return nexts, any(at > now for at, _ in own)

    @property
    def due_in(self) -> float | None:
        """Seconds until something that waits may begin by itself; None where nothing waits for time."""
        with self.lock:
            now = self._clock.monotonic()
            waits = [at - now for at, _, lane in self._waiting if not lane.dropped]
            waits += [self._gates[handler].opens_in() for handler, lanes in self._ready.items() if lanes]
            return min((max(0.0, seconds) for seconds in waits if seconds != float("inf")), default=None)

    def wake(self) -> None:
        """Time has passed, or a gate was changed."""
        with self.lock:
            self.lock.notify_all()

    def close(self) -> None:
        """Nothing more begins."""
        with self.lock:
            self._closed = True
            self.closing.set()
            self.lock.notify_all()
        self.room.set()

    # --- what a worker does -------------------------------------------------------------------------------

    def take(self, timeout: float) -> Job | None:
        """The next work; None when there is none within ``timeout`` seconds, or all is closed."""
        with self.lock:
            if job := self._next():
                return job
            if timeout > 0 and not self._closed:
                self.lock.wait(max(0.0, min(timeout, self._next_in())))
                return self._next()
            return None

    def finished(self, items: Iterable[Item]) -> None:
        """They came to their end, which is committed."""
        with self.lock:
            for item in items:
                self._forget(item)
                self._assignment.finish(item.in_hand)

    def again(self, lane: Lane, items: Sequence[Item], seconds: float = 0.0) -> None:
        """They come before all others of their lane once more, after so many seconds. Call it before ``done``."""
        with self.lock:
            if lane.dropped:
                for item in items:
                    self._forget(item)
                return
            lane.items.extendleft(reversed(items))
            lane.not_before = self._clock.monotonic() + seconds

    def holding(self, lane: Lane, seconds: float | None) -> None:
        """Its first message is in the table, due after so many seconds (None: not by itself)."""
        with self.lock:
            lane.held = True
            lane.due = float("inf") if seconds is None else self._clock.monotonic() + seconds

    def drained(self, lane: Lane) -> None:
        """The table has nothing more of it."""
        with self.lock:
            lane.held = False
            lane.due = 0.0

    def rest_of(self, lane: Lane) -> list[Item]:
        """All that waits in it, taken out: to be finished, or given back by ``again``."""
        with self.lock:
            rest = list(lane.items)
            lane.items.clear()
            return rest

    def enter(self, handler: Handler) -> bool:
        """Whether one message of ``handler``, from the table, may begin; ``leave`` when it ended."""
        with self.lock:
            gate = self._gates[handler]
            if gate.room(1) <= 0:
                return False
            gate.begin(1)
            return True

    def leave(self, handler: Handler, seconds: float) -> None:
        """See ``enter``."""
        with self.lock:
            self._gates[handler].end(seconds)

    def done(self, job: Job, seconds: float = 0.0) -> None:
        """The job is over; ``seconds``: it took so long for each message. What was not finished was given back."""
        with self.lock:
            self._running -= 1
            self._exclusive = False
            if job.gate is not None:
                job.gate.end(seconds)
            for lane in job.lanes:
                lane.busy = False
                if lane.look:
                    lane.look, lane.held, lane.due = False, True, 0.0
                self._offer(lane)
            self.lock.notify_all()
        self.room.set()

    # --- under the lock -----------------------------------------------------------------------------------

    def _lane(self, lane_id: LaneId) -> Lane:
        lane = self._lanes.get(lane_id)
        if lane is None:
            lane = self._lanes[lane_id] = Lane(lane_id)
        return lane

    def _forget(self, item: Item) -> None:
        partition = item.in_hand.record.partition
        self._in_hand[partition] -= 1
        self._bytes -= item.bytes

    def _offer(self, lane: Lane) -> None:
        """Queue the lane for what it has to have done next."""
        if lane.busy or lane.queued or lane.dropped:
            return
        if not lane.items and not lane.held:
            del self._lanes[lane.id]
            lane.dropped = True  # it may still stand in the queue of those that wait, beside another of its key
            return
        at = lane.not_before if lane.items else lane.due
        if at > self._clock.monotonic():
            if at != float("inf"):
                heapq.heappush(self._waiting, (at, next(self._numbers), lane))
        elif lane.held:
            lane.queued = True
            self._shelf.append(lane)
        else:
            handler = lane.items[0].handler
            if handler not in self._ready:
                self._ready[handler] = deque()
                self._order = sorted(self._ready, key=lambda each: -each.priority)
            lane.queued = True
            self._ready[handler].append(lane)

    def _next_in(self) -> float:
        """Seconds until something may begin by itself."""
        if self._exclusive or self._clearing:
            return 3600.0  # all wait for a job to end, which will be told
        soonest = self._waiting[0][0] - self._clock.monotonic() if self._waiting else float("inf")
        opening = [self._gates[handler].opens_in() for handler, lanes in self._ready.items() if lanes]
        return max(0.001, min([soonest, *opening, 3600.0]))

    def _next(self) -> Job | None:
        self._clearing = False
        if self._closed or self._exclusive:
            return None
        now = self._clock.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            lane = heapq.heappop(self._waiting)[2]
            if not lane.dropped:
                self._offer(lane)
        # A long key of the table and those in hand take turns.
        turns = (self._next_of_shelf, self._next_ready, self._next_of_shelf)
        for turn in turns[self._drained_last :]:
            if job := turn():
                self._drained_last = job.kind is Kind.DRAIN
                return job
        return None

    def _next_of_shelf(self) -> Job | None:
        while self._shelf:
            lane = self._shelf.popleft()
            lane.queued = False
            if lane.dropped or lane.busy:
                continue
            kind = Kind.SHELVE if lane.items else Kind.DRAIN
            return self._begin(Job(kind, [lane]))
        return None

    def _next_ready(self) -> Job | None:
        for place, handler in enumerate(self._order):
            lanes = self._ready[handler]
            while lanes and not lanes[0].is_next:
                stale = lanes.popleft()
                stale.queued = False
                self._offer(stale)
            if lanes and (room := self._gates[handler].room(self._batch_size)) > 0:
                if lanes[0].items[0].suspect and self._running:
                    self._clearing = True
                    return None  # it is tried with nothing beside it, so all else comes to its end first
                self._order.append(self._order.pop(place))  # its equals have their turn
                self._order.sort(key=lambda each: -each.priority)
                return self._begin(self._batch(handler, lanes, room))
        return None

    def _batch(self, handler: Handler, lanes: deque[Lane], room: int) -> Job:
        taken: list[tuple[Lane, Item]] = []
        touched: list[Lane] = []
        ids: set[str] = set()
        while lanes and len(taken) < room:
            lane = lanes[0]
            if taken and (lane.dropped or lane.held or not lane.items or lane.items[0].alone or lane.items[0].suspect):
                break
            before = len(taken)
            while lane.items and len(taken) < room:
                item = lane.items[0]
                apart = item.alone or item.suspect
                if item.handler is not handler or item.delivery.message_id in ids or (apart and taken):
                    break
                ids.add(item.delivery.message_id)
                taken.append((lane, lane.items.popleft()))
                if apart:
                    room = 1
            if len(taken) == before:
                break  # the same message twice: the next batch has it
            lanes.popleft()
            lane.queued = False
            touched.append(lane)
        return Job(Kind.RUN, touched, taken, handler, self._gates[handler])

    def _begin(self, job: Job) -> Job:
        self._running += 1
        for lane in job.lanes:
            lane.busy = True
        if job.gate is not None:
            job.gate.begin(len(job.items))
        self._exclusive = any(item.suspect for _, item in job.items)
        return job
