"""Relays and inboxes of several services in this process, until nothing is left to do.

start ──▶ look: inboxes at the end of their topics, outboxes settled, and nothing told meanwhile? ──▶ stop, report
            ▲    │ no                                        │ yes, but attempts are held
            └────┴── wait, or move a clock that stands still to what is due ◀──┘
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import sqlalchemy as sa

from ..inbox import Inbox, InboxRunner, InboxSettings
from ..inbox.held import HeldTable
from ..messaging.clock import Clock
from ..messaging.errors import ConfigurationError, Unavailable, UnknownTopic
from ..messaging.lifecycle import Service
from ..messaging.observer import Crash, Observer, unobserved
from ..messaging.ports import Kafka, Publication
from ..messaging.records import OutgoingRecord, Partition
from ..outbox.database import open_store, parse_url, translated
from ..outbox.log import LogStore
from ..outbox.names import Names
from ..outbox.write import fetch_query
from ..relay import Relay, RelaySettings
from .clock import FakeClock
from .crash import MESSAGE_STEPS
from .messages import Messages, PublishedMessage
from .report import Fate, HeldMessage, Parked, Report
from .watched import PacedClock, WatchedKafka

#: What we wait between two looks, in seconds of real time.
_LOOK = 0.004
#: So long nothing is told before a clock that stands still is moved, in seconds of real time.
_STILL = 0.03
#: The longest poll of an empty topic: after it, what was handled is committed.
_POLL = 0.05
#: For the end of the daemons, in seconds.
_STOP = 30.0
#: How far the clock moves for a relay that waits for it: to look after delayed messages, or for Kafka.
_TICK = 0.1
#: Steps after which a message is somewhere else.
_ENDS = MESSAGE_STEPS - {"received", "attempt", "applied", "raised", "condemned", "result_not_kept"}
_OWNER = "postroom.testing"


@dataclass(frozen=True, slots=True)
class App:
    """A service: its database, with an outbox that a relay publishes, and the inboxes that work on it.

    ``database_url``: PostgreSQL, or SQLite in a file, with Postroom's tables. ``names``: where the outbox is.
    """

    database_url: str
    inboxes: Sequence[Inbox] = ()
    names: Names = field(default_factory=Names)


class NotQuietError(AssertionError):
    """There was still something to do when the time was over; the message says what, and where."""


def run_until_quiet(
    *apps: App,
    kafka: Kafka,
    clock: Clock | None = None,
    timeout: float = 30.0,
    relay_settings: RelaySettings | None = None,
    inbox_settings: InboxSettings | None = None,
    observer: Observer = unobserved,
) -> Report:
    """Run a relay and the inboxes of each of ``apps`` until nothing is left to do; what happened.

        report = run_until_quiet(App(shop_url), App(billing_url, [billing]), kafka=MemoryKafka())
        report.assert_well()
        assert_published(report.published, PaymentTaken, order_id=order_id)

    Nothing is left when every outbox is settled, every inbox has read its topics to their end, and no held attempt and
    no delayed message is due; what handlers publish is followed, too. ``kafka``: a ``MemoryKafka``, or what
    ``messaging.kafka.connect`` gives. ``clock``: by default a FakeClock that shows the time of now. On a FakeClock time
    stands still but for attempts, rates and breakers: it is moved on to the next of them, so that retries come to their
    end at once; move it yourself to see delayed messages go. On another clock, attempts that are not due yet are told
    in ``held``. ``observer`` is told every step of all: see ``crash_at``.

    ``timeout``: seconds of real time. Raises NotQuietError; what ends a relay or an inbox, as their ``join`` does.
    Everything that it started has ended when it returns or raises.
    """
    if not apps:
        raise ConfigurationError("Give run_until_quiet() at least one App(database_url, inboxes).")
    if not callable(getattr(kafka, "publisher", None)):
        raise ConfigurationError(
            f"kafka must be a MemoryKafka, or what messaging.kafka.connect(…) gives, not {type(kafka).__name__}."
        )
    clock = clock if clock is not None else FakeClock()
    with ExitStack() as stack:
        run = _Run(kafka, clock, observer)
        try:
            run.start(apps, relay_settings or RelaySettings(), inbox_settings or InboxSettings(), stack)
            run.until_quiet(timeout)
        except BaseException:
            run.stop()
            raise
        if failure := run.stop():
            raise failure
        return run.report()


@dataclass
class _Outbox:
    """One database's log, and the relay on it."""

    url: str
    names: Names
    store: LogStore
    engine: sa.Engine
    relay: Relay

    def scheduled(self) -> list[PublishedMessage]:
        """What is delayed."""
        with translated(), self.engine.connect() as connection:
            [(head,)] = fetch_query(connection, "head", {}, self.names)
            rows = fetch_query(connection, "written", {"after": head}, self.names)
        found = map(PublishedMessage.of_row, rows)
        return [message for message in found if message.deliver_at is not None]

    def __str__(self) -> str:
        return parse_url(self.url).render_as_string(hide_password=True)


@dataclass
class _Group:
    """One inbox, and its runner."""

    inbox: Inbox
    engine: sa.Engine
    runner: InboxRunner

    def held(self) -> list[HeldMessage]:
        """The first of each key that waits."""
        with translated(), self.engine.connect() as connection:
            heads = HeldTable(self.inbox.group, self.inbox.names).heads(connection)
        return [HeldMessage(self.inbox.group, lane.partition.topic, lane.key, due) for lane, due in heads.items()]


class _Run:
    """Daemons that were started, what they told, and what is left for them to do."""

    def __init__(self, kafka: Kafka, clock: Clock, observer: Observer) -> None:
        self._sent: list[tuple[Sequence[OutgoingRecord], Publication]] = []
        self._kafka = WatchedKafka(kafka, self._sent)
        self._clock = clock
        self._observer = observer
        self._outboxes: list[_Outbox] = []
        self._groups: list[_Group] = []
        self._fates: list[Fate] = []
        self._errors: dict[str, BaseException] = {}
        self._lock = Lock()
        self._steps = 0
        self._told_at = time.monotonic()

    def start(
        self, apps: Sequence[App], relay_settings: RelaySettings, inbox_settings: InboxSettings, stack: ExitStack
    ) -> None:
        """Start them all; ``stack`` closes what is ours."""
        clock = PacedClock(self._clock) if isinstance(self._clock, FakeClock) else self._clock
        # By a clock that stands still, nothing would gather for long enough to be settled.
        quick = {"settle_seconds": 0.0, "upkeep_seconds": 0.05, "lease_seconds": 60.0}
        relay_settings = relay_settings.model_copy(update=quick)
        inbox_settings = inbox_settings.model_copy(
            update={"poll_timeout_seconds": min(_POLL, inbox_settings.poll_timeout_seconds)}
        )
        self._topics = stack.enter_context(closing(self._kafka.topics()))
        self._reader = stack.enter_context(closing(self._kafka.reader()))
        known: set[tuple[str, Names]] = set()
        for app in apps:
            engine = sa.create_engine(parse_url(app.database_url), poolclass=sa.NullPool)
            if (app.database_url, app.names) not in known:
                known.add((app.database_url, app.names))
                stores = [open_store(app.database_url, app.names) for _ in range(2)]
                stack.enter_context(closing(stores[1]))
                relay = Relay(
                    stores[0],
                    self._kafka,
                    settings=relay_settings,
                    observer=self._observe("relay"),
                    clock=clock,
                    owner=_OWNER,
                )
                self._outboxes.append(_Outbox(app.database_url, app.names, stores[1], engine, relay))
            for inbox in app.inboxes:
                runner = InboxRunner(
                    inbox,
                    database_url=app.database_url,
                    kafka=self._kafka,
                    settings=inbox_settings,
                    observer=self._observe(inbox.group),
                    clock=clock,
                )
                self._groups.append(_Group(inbox, engine, runner))
        for daemon in self._daemons():
            daemon.start()

    def until_quiet(self, timeout: float) -> None:
        """Raises NotQuietError, and what ended a daemon."""
        until = time.monotonic() + timeout
        while True:
            for daemon in self._daemons():
                if not daemon.running:
                    daemon.join()
            before, looked_at = self._steps, time.monotonic()
            try:
                waiting = self._waiting()
            except Unavailable as error:
                waiting = [str(error)]
            if not waiting and before == self._steps and not self._move_on():
                return
            if time.monotonic() > until:
                raise NotQuietError(self._told(timeout, waiting))
            if waiting and time.monotonic() - self._told_at > _STILL:
                self._move(waiting)
            time.sleep(
                max(_LOOK, time.monotonic() - looked_at)
            )  # over a network it would keep the clients from working

    def stop(self) -> BaseException | None:
        """End them all; what one of them failed with."""
        failure: BaseException | None = None
        daemons = list(self._daemons())
        for daemon in daemons:
            daemon.stop()
        for daemon in daemons:
            try:
                if not daemon.join(_STOP):
                    failure = failure or TimeoutError(f"It does not end within {_STOP:g} s: a handler still runs.")
            except (Exception, Crash) as error:  # noqa: BLE001  all are to be ended
                failure = failure or error
        return failure

    def report(self) -> Report:
        """What happened."""
        acknowledged = [
            PublishedMessage.of_outgoing(record)
            for records, publication in self._sent
            for index, record in enumerate(records)
            if publication.wait(0) and index not in publication.errors()
        ]
        return Report(
            published=Messages(acknowledged),
            fates=list(self._fates),
            held=[held for group in self._groups for held in group.held()],
            parked=[
                Parked(parked.row.topic, parked.row.key, parked.row.id, parked.error)
                for outbox in self._outboxes
                for parked in outbox.store.parked()
            ],
            scheduled=[message for outbox in self._outboxes for message in outbox.scheduled()],
        )

    def _daemons(self) -> Iterator[Service]:
        yield from (outbox.relay for outbox in self._outboxes)
        yield from (group.runner for group in self._groups)

    def _observe(self, who: str) -> Observer:
        def observe(step: str, /, **facts: Any) -> None:
            with self._lock:
                self._steps += 1
                self._told_at = time.monotonic()
                if error := facts.get("error"):
                    self._errors[who] = error
                if step in _ENDS and who != "relay":
                    self._fates.append(_fate(who, step, facts))
            self._observer(step, **facts)

        return observe

    def _waiting(self) -> list[str]:
        """What is left to do: first what may still lead to a message in the next place that is looked at.

        Where a message went on between two looks, a step was told, and this look does not count.
        """
        ends = self._ends()
        waiting = [f"{group.inbox.group}: {told}" for group in self._groups for told in self._unread(group, ends)]
        waiting += [f"{group.inbox.group}: a handler runs" for group in self._groups if group.runner.busy]
        if waiting:
            return waiting
        now = self._clock.now()
        for group in self._groups:
            waiting += [str(held) for held in group.held() if held.next_attempt_at and held.next_attempt_at <= now]
        for outbox in self._outboxes:
            due = [message for message in outbox.scheduled() if message.deliver_at and message.deliver_at <= now]
            waiting += [f"{outbox}: delayed and due: {message}" for message in due]
        for outbox in self._outboxes:
            backlog = outbox.store.backlog()
            if backlog.messages:
                health = outbox.relay.health
                waiting.append(f"{outbox}: {backlog.messages} not published; its relay: {health.state} {health.detail}")
        return waiting

    def _ends(self) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        """First and next offset, of the topics that somebody reads."""
        found = {}
        for topic in sorted({topic for group in self._groups for topic in group.inbox.topics}):
            try:
                found[topic] = dict(self._reader.offsets(topic))
            except UnknownTopic:
                continue
        return found

    def _unread(self, group: _Group, ends: Mapping[str, Mapping[int, tuple[int, int]]]) -> Iterable[str]:
        topics = [topic for topic in group.inbox.topics if topic in ends]
        committed = self._topics.committed(group.inbox.group, topics) if topics else {}
        for topic in topics:
            for number, (first, after) in ends[topic].items():
                read = max(first, committed.get(Partition(topic, number), first))
                if read < after:
                    yield f"{after - read} unread of {Partition(topic, number)}, from offset {read}"

    def _next(self, group: _Group) -> Iterator[str]:
        """The first unread message of each of its topics."""
        for topic, offsets in self._ends().items():
            committed = self._topics.committed(group.inbox.group, [topic])
            start = {number: committed.get(Partition(topic, number), first) for number, (first, _) in offsets.items()}
            record = next(iter(self._reader.read(topic, start)), None) if topic in group.inbox.topics else None
            if record is not None:
                message = PublishedMessage.of_record(record)
                yield f"{message.id} at {record.partition}, offset {record.offset}: {message}"

    def _move_on(self) -> bool:
        """Nothing is due. Go on to the next attempt, where we may; False where none is left."""
        if not isinstance(self._clock, FakeClock):
            return False
        moments = [held.next_attempt_at for group in self._groups for held in group.held() if held.next_attempt_at]
        if not moments:
            return False
        self._clock.advance(max(0.0, (min(moments) - self._clock.now()).total_seconds()) + 0.000_001)
        return True

    def _move(self, waiting: Sequence[str]) -> None:
        """Something is left, and nobody does anything: they wait for time to pass."""
        if not isinstance(self._clock, FakeClock) or any(group.runner.busy for group in self._groups):
            return
        waits = [seconds for group in self._groups if (seconds := group.runner.due_in) is not None]
        if any(outbox.relay.health.state == "unavailable" for outbox in self._outboxes):
            waits.append(_TICK)
        if any("delayed and due" in told for told in waiting):
            waits.append(_TICK)
        if waits:
            self._clock.advance(min(waits) + 0.000_001)
            self._told_at = time.monotonic()

    def _told(self, timeout: float, waiting: Sequence[str]) -> str:
        lines = [f"Not quiet after {timeout:g} s. Left to do:", *(waiting or ["messages keep coming"])]
        with suppress(Unavailable):
            lines += [f"{group.inbox.group}: next is {each}" for group in self._groups for each in self._next(group)]
        for who, error in self._errors.items():
            lines.append(f"The last error of {who}: {type(error).__name__}: {error}")
        return "\n  ".join(lines)


def _fate(group: str, step: str, facts: Mapping[str, Any]) -> Fate:
    return Fate(
        step,
        group,
        facts["topic"],
        facts["message_id"],
        facts["type"],
        facts.get("handler"),
        facts.get("attempts", facts.get("attempt", 0)),
        facts.get("error"),
    )
