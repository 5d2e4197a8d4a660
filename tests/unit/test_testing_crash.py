"""Crash points: which there are, and when one falls."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from postroom.cli.events import EVENTS
from postroom.inbox import Context, Inbox, InboxRunner, Received
from postroom.messaging.errors import UsageError
from postroom.messaging.records import OutgoingRecord
from postroom.outbox import Message, Outbox, schema
from postroom.outbox.database import open_store
from postroom.outbox.entry import Entry
from postroom.outbox.memory import MemoryLog
from postroom.relay import Relay
from postroom.testing import Crash, FakeClock, MemoryKafka, crash_at
from postroom.testing.crash import INBOX_STEPS, MESSAGE_STEPS, RELAY_STEPS

#: Of the process around the relay or the inbox.
OF_THE_PROCESS = {"starting", "probed", "started", "signalled"}


def test_the_steps_are_those_of_the_table_of_events() -> None:
    told = {event.name: event for event in EVENTS if event.name not in OF_THE_PROCESS}
    assert {name for name, event in told.items() if "relay" in event.services} == RELAY_STEPS
    assert {name for name, event in told.items() if "inbox" in event.services} == INBOX_STEPS
    assert {name for name, event in told.items() if event.of_message} == MESSAGE_STEPS


def test_it_falls_once_at_the_nth_time_of_the_message_and_tells_before() -> None:
    steps: list[str] = []

    def tell(step: str, /, **facts: Any) -> None:
        steps.append(step)

    observe = crash_at("handled", times=2, of="a", observer=tell)
    observe("handled", message_id="a")
    observe("handled", message_id="b")
    observe("received", message_id="a")
    with pytest.raises(Crash, match="handled"):
        observe("handled", message_id="a")
    observe("handled", message_id="a")

    assert steps == ["handled", "handled", "received", "handled", "handled"]


def test_a_step_that_is_none_is_refused_with_a_list() -> None:
    with pytest.raises(UsageError, match=r"There is no step 'publish'; there are applied, assigned, .*, waiting\.$"):
        crash_at("publish")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"of": "a"},
            "The step 'published' is not of one message, so leave out `of`; those of one message are applied",
        ),
        ({"times": 0}, "times must be a number from 1, not 0"),
        ({"times": True}, "times must be a number from 1, not True"),
        ({"how": "explode"}, "how must be one of raise, kill, freeze, not 'explode'"),
    ],
)
def test_what_cannot_be_is_refused(options: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        crash_at("published", **options)


def entry() -> Entry:
    return Outbox(source="/test").entry(Message(topic="t", key="k", payload=b"1", type="n"))


def test_a_relay_that_crashed_has_settled_and_released_nothing() -> None:
    log, kafka = MemoryLog(), MemoryKafka()
    log.append([entry()])
    relay = Relay(log, kafka, observer=crash_at("published"), owner="crashed")
    relay.start()
    with pytest.raises(Crash):
        relay.join(10)

    assert len(kafka.records("t")) == 1
    assert (log.settled, log.owner) == (0, "crashed")


@pytest.mark.parametrize("step", ["received", "applied", "handled"])
def test_an_inbox_that_crashed_has_committed_no_offset_and_left_the_traces_of_a_crash(
    step: str, tmp_path: Path
) -> None:
    url, kafka, inbox = f"sqlite:///{tmp_path / 'crash.db'}", MemoryKafka(), Inbox("billing")
    schema.upgrade(url)
    inbox.handler("t")(lambda received, ctx: None)
    publisher = kafka.publisher()
    publisher.send([OutgoingRecord("t", b"k", b"1", [("ce_id", b"1"), ("ce_type", b"n")])])
    publisher.close(1)
    runner = InboxRunner(inbox, database_url=url, kafka=kafka, observer=crash_at(step))
    runner.start()
    with pytest.raises(Crash):
        runner.join(10)

    assert kafka.topics().committed("billing", ["t"]) == {}
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        closed = connection.exec_driver_sql("SELECT count(*) FROM postroom_inbox").scalar_one()
        begun = connection.exec_driver_sql("SELECT count(*) FROM postroom_inbox_attempt").scalar_one()
    engine.dispose()
    assert closed == (step == "handled")
    assert begun == 1, "what was begun and not ended is a suspect for the next one"


def test_a_relay_and_an_inbox_work_by_a_clock_that_is_moved(tmp_path: Path, eventually: Callable[..., None]) -> None:
    url, kafka, inbox, clock = f"sqlite:///{tmp_path / 'clock.db'}", MemoryKafka(), Inbox("billing"), FakeClock()
    schema.upgrade(url)
    tried: list[float] = []

    @inbox.handler("t", attempts=3, immediate=1, base=3600, cap=3600)
    def run(received: Received, ctx: Context) -> None:
        tried.append(clock.monotonic())
        raise RuntimeError("no")

    store = open_store(url)
    due = Outbox(source="/test", clock=clock).entry(
        Message(topic="t", key="k", payload=b"1", type="n"), deliver_at=clock.now() + timedelta(hours=1)
    )
    store.append([due])
    daemons = [
        Relay(store, kafka, clock=clock),
        InboxRunner(inbox, database_url=url, kafka=kafka, clock=clock),
    ]
    for daemon in daemons:
        daemon.start()
    clock.await_waiting()
    for _ in range(30):
        clock.advance(60)
        clock.await_waiting()
    assert kafka.records("t") == []

    def moved() -> bool:
        clock.advance(60)
        return len(tried) == 3

    eventually(moved, "three attempts, with the time that is moved")
    assert tried[0] >= 3600
    for daemon in daemons:
        daemon.stop()
    assert all(daemon.join(10) for daemon in daemons)
