"""Workers, batches, breakers, timeouts, outcomes and operators' wishes, on real servers."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from postroom.inbox import AsyncContext, Context, Inbox, Received
from postroom.inbox.context import BatchContext
from postroom.messaging.errors import Unavailable
from postroom.outbox import Event, Message, Outbox


class _Numbered(Event, topic="ledger", key="key", type="n"):
    key: str
    number: int


def test_a_long_handler_costs_no_membership_and_other_keys_go_on(
    ledger: Any, steps: Any, eventually: Any, postroom_real_kafka: Any
) -> None:
    """Longer than the client may be silent; offsets go up to the one that is not done."""
    inbox: Inbox = ledger.inbox()
    began, go_on = threading.Event(), threading.Event()

    @inbox.handler(ledger.topic)
    def handle(_: Received, ctx: Context) -> None:
        if ctx.message_id == "key-3/2":
            began.set()
            assert go_on.wait(60)
        ledger.apply(ctx)

    ledger.create(1)
    ledger.send(200, keys=10)
    ledger.start(inbox, kafka=ledger.kafka(max_poll_interval_ms=1_500, heartbeat_interval_ms=100), concurrency=8)
    assert began.wait(30)
    eventually(lambda: ledger.closed() == 181, "the other keys, and the first of this one")
    eventually(lambda: set(ledger.committed().values()) == {13}, "committed up to it")
    since = time.monotonic()
    eventually(lambda: time.monotonic() - since > 2, "more than the silence that is allowed")
    assert set(ledger.committed().values()) == {13}
    go_on.set()
    eventually(lambda: set(ledger.committed().values()) == {200}, "all is committed")

    assert steps.of("revoked") == []
    ledger.check()


def test_one_failing_message_of_a_batch_costs_the_others_nothing(ledger: Any, steps: Any, eventually: Any) -> None:
    inbox: Inbox = ledger.inbox()
    calls: Counter[str] = Counter()

    @inbox.handler(ledger.topic, attempts=4)
    def handle(_: Received, ctx: Context) -> None:
        calls[ctx.message_id] += 1
        ledger.apply(ctx)
        if ctx.message_id == "key-7/3":
            raise RuntimeError("bad")

    ledger.create(1)
    ledger.send(50, keys=10)
    ledger.start(inbox, batch_size=50)
    eventually(lambda: ledger.closed() == 50, "all are closed")

    ledger.check(dead=["key-7/3"])
    assert ledger.attempts("key-7/3") == 4
    assert calls["key-7/3"] == 5, "once with the others, which counts for nobody"
    assert len(steps.of("batch_failed")) == 1
    assert {facts["attempt"] for facts in steps.of("handled")} == {1}


@pytest.mark.parametrize("batch_size", [1, 40])
def test_duplicates_in_batches_and_beside_each_other_have_one_effect(
    ledger: Any, steps: Any, eventually: Any, batch_size: int
) -> None:
    inbox: Inbox = ledger.applying()
    ledger.create(2)
    again = [ledger.record(f"key-{n % 10}", n // 10 + 1) for n in range(100) for _ in range(3)]
    keyless = [ledger.record(f"none-{n}", 1, keyless=True) for n in range(50) for _ in range(2)]
    ledger.send(100, keys=10)
    ledger.put(*again, *keyless)
    ledger.start(inbox, batch_size=batch_size, concurrency=4)
    eventually(lambda: len(steps.of("handled")) + len(steps.of("duplicate")) == 500, "all are processed")

    assert len(steps.of("handled")) == 150
    assert steps.of("batch_failed") == []
    assert ledger.effects() == {**ledger.orders, **{f"none-{n}": [1] for n in range(50)}}
    assert steps.of("retried") == []


def test_batch_handlers_get_each_message_once_and_alone_after_a_failure(
    ledger: Any, steps: Any, eventually: Any
) -> None:
    inbox: Inbox = ledger.inbox()
    sizes: list[int] = []

    @inbox.handler(ledger.topic, _Numbered, type="n", batch=True, attempts=2)
    def handle(events: Sequence[_Numbered], batch: BatchContext[Session]) -> None:
        sizes.append(len(events))
        for event, ctx in zip(events, batch.messages, strict=True):
            assert ctx.message_id == f"{event.key}/{event.number}"
            ledger.apply(ctx)
        if any(ctx.message_id == "key-2/5" for ctx in batch.messages):
            raise RuntimeError("bad")

    ledger.create(1)
    ledger.send(100, keys=10)
    ledger.put(*(ledger.record("key-1", number) for number in range(1, 6)))
    ledger.start(inbox, batch_size=25)
    eventually(lambda: len(steps.of("handled")) + len(steps.of("dead_lettered")) == 100, "all are closed")
    eventually(lambda: len(steps.of("duplicate")) == 5, "duplicates are not shown")

    ledger.check(dead=["key-2/5"])
    assert max(sizes) == 25
    assert min(sizes) == 1


def test_async_handlers_run_beside_each_other_and_keep_the_order_of_keys(
    ledger: Any, steps: Any, eventually: Any
) -> None:
    inbox: Inbox = ledger.inbox()
    together: set[str] = set()
    met = asyncio.Event()

    @inbox.handler(ledger.topic)
    async def handle(_: Received, ctx: AsyncContext) -> None:
        key, number = ctx.message_id.split("/")
        if number == "1":
            together.add(key)
            if len(together) == 4:
                met.set()
            await asyncio.wait_for(met.wait(), 30)
        statement = sa.text("INSERT INTO effect (key, number) VALUES (:key, :number)")
        await ctx.session.execute(statement, {"key": key, "number": int(number)})

    ledger.send(80, keys=4)
    ledger.start(inbox, concurrency=4)
    eventually(lambda: ledger.closed() == 80, "all are handled")

    ledger.check()
    assert steps.of("retried") == []


def test_a_timeout_cancels_async_handlers_and_statements_of_sync_ones(ledger: Any, steps: Any, eventually: Any) -> None:
    inbox: Inbox = ledger.inbox()
    cancelled: list[str] = []

    @inbox.handler(ledger.topic, type="n", timeout=0.2, attempts=3)
    def sync(_: Received, ctx: Context) -> None:
        ledger.apply(ctx)
        if ctx.message_id == "key-1/2" and ctx.attempt == 1:
            ctx.session.execute(sa.text("SELECT pg_sleep(60)"))

    @inbox.handler(ledger.topic, type="async", timeout=0.2, attempts=3)
    async def asynchronous(_: Received, ctx: AsyncContext) -> None:
        if ctx.message_id == "hangs/1":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(ctx.message_id)
                raise

    ledger.send(20, keys=4)
    ledger.put(*(ledger.record(key, 1, ce_type="async") for key in ("hangs", "fine")))
    ledger.start(inbox, concurrency=2)
    eventually(lambda: ledger.closed() == 22, "all are closed")

    ledger.check(dead=["hangs/1"])
    assert cancelled == ["hangs/1"] * 3
    assert ledger.attempts("key-1/2") == 2
    assert type(steps.of("dead_lettered")[0]["error"]).__name__ == "HandlerTimeout"


def test_a_handler_that_hangs_is_told_with_its_message(ledger: Any, steps: Any, eventually: Any) -> None:
    inbox: Inbox = ledger.inbox()
    told = threading.Event()

    @inbox.handler(ledger.topic, type="n", timeout=0.1)
    def hang(_: Received, ctx: Context) -> None:
        assert told.wait(30)
        ledger.apply(ctx)

    ledger.send(1)
    ledger.start(inbox)
    steps.await_step("overdue")
    told.set()
    [overdue] = steps.of("overdue")
    assert overdue["message_id"] == overdue["correlation_id"] == "key-0/1"
    assert overdue["seconds"] > 0.1
    eventually(lambda: ledger.closed() == 1, "it comes to its end")


def test_what_expired_is_recorded_and_not_run(ledger: Any, steps: Any, eventually: Any) -> None:
    inbox: Inbox = ledger.applying()
    late, soon = (datetime.now(UTC) + timedelta(minutes=minutes) for minutes in (-1, 10))
    ledger.create(1)
    ledger.put(*(ledger.record("late", n, expires_at=late.isoformat()) for n in range(1, 4)))
    ledger.put(
        ledger.record("late", 1, expires_at=late.isoformat()), ledger.record("soon", 1, expires_at=soon.isoformat())
    )
    ledger.start(inbox, batch_size=10)
    eventually(lambda: ledger.closed() == 4, "all are closed")
    steps.await_step("duplicate")

    assert ledger.outcomes() == {"expired": 3, "handled": 1}
    assert ledger.effects() == {"soon": [1]}


def test_results_are_kept_and_shown_to_duplicates(ledger: Any, steps: Any, eventually: Any) -> None:
    inbox: Inbox = ledger.inbox()
    shown: list[tuple[bool, Any]] = []

    @inbox.handler(ledger.topic, duplicates=True, by_idempotency_key=True)
    def handle(_: Received, ctx: Context) -> dict[str, Any]:
        shown.append((ctx.duplicate, ctx.outcome))
        return {"answer": 42, "text": "é"}

    ledger.put(
        ledger.record("key-1", 1),
        ledger.record("key-1", 1),
        ledger.record("key-1", 2, idempotency_key="same"),
        ledger.record("key-1", 3, idempotency_key="same"),
    )
    ledger.start(inbox)
    steps.await_step("duplicate", 2)

    result = {"answer": 42, "text": "é"}
    assert shown == [(False, None), (True, result)] * 2
    engine = sa.create_engine(ledger.url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        told = inbox.outcome(connection, "key-1/1")
        assert told is not None
        assert (told.outcome, told.value) == ("handled", result)
        assert inbox.outcome(connection, "key-1/4") is None
    engine.dispose()


@pytest.mark.parametrize("is_async", [False, True])
def test_what_the_application_publishes_itself_inherits_the_story(ledger: Any, steps: Any, is_async: bool) -> None:
    inbox: Inbox = ledger.inbox()
    outbox = Outbox(source="/own")
    out = Message(topic="out", key="k", payload=b"", type="out")
    if is_async:

        @inbox.handler(ledger.topic)
        async def handle(_: Received, ctx: AsyncContext) -> None:
            outbox.publish(ctx.session, out)
    else:

        @inbox.handler(ledger.topic)
        def handle_sync(_: Received, ctx: Context) -> None:
            outbox.publish(ctx.session, out)

    story = {
        "correlation_id": "the-story",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "expires_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
    }
    ledger.put(ledger.record("key", 1, **story))
    ledger.start(inbox)
    steps.await_step("handled")

    [(headers,)] = ledger.query("SELECT headers FROM postroom.outbox WHERE topic = 'out'")
    assert headers.items() >= {**story, "causation_id": "key/1"}.items()


def test_what_operators_write_is_obeyed_while_it_runs(ledger: Any, steps: Any, eventually: Any) -> None:
    inbox: Inbox = ledger.inbox()

    @inbox.handler(ledger.topic, attempts=1)
    def handle(_: Received, ctx: Context) -> None:
        ledger.apply(ctx)
        if ctx.message_id == "key-1/4" and ctx.attempt < 3:
            raise RuntimeError("bad")

    upsert = (
        "INSERT INTO postroom.inbox_control (consumer_group, subject, paused, policy) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT (consumer_group, subject) DO UPDATE SET paused = excluded.paused, policy = excluded.policy"
    )
    ledger.send(20, keys=10)
    ledger.start(inbox, concurrency=4)
    eventually(lambda: ledger.closed() == 20, "all are handled")
    for subject in ("", f"topic:{ledger.topic}", f"handler:{inbox.handlers[0].name}"):
        held_back, resumed = len(steps.of("held_back")), len(steps.of("resumed"))
        ledger.execute(upsert, ledger.group, subject, "for a while", json.dumps({"attempts": 3}))
        steps.await_step("held_back", held_back + 1, 5)
        before = ledger.closed()
        received = len(steps.of("received"))
        ledger.send(10, keys=10)
        assert ledger.closed() == before
        ledger.execute(upsert, ledger.group, subject, None, json.dumps({"attempts": 3}))
        steps.await_step("resumed", resumed + 1, 5)
        eventually(lambda before=before: ledger.closed() == before + 10, "it goes on")
        assert len(steps.of("received")) == received + 10

    ledger.check()
    assert steps.of("policy_changed")[0]["policy"]["attempts"] == 3
    assert ledger.attempts("key-1/4") == 3


@pytest.mark.parametrize("how", ["unavailable", "pause_on", "plain"])
def test_something_away_stops_its_handler_only_and_costs_no_message(
    ledger: Any, steps: Any, eventually: Any, how: str
) -> None:
    """Its topic's partitions stand still; another topic of the same inbox goes on."""
    inbox: Inbox = ledger.inbox()
    other = f"{ledger.topic}-other"
    back = threading.Event()
    error = Unavailable("the bank is closed") if how == "unavailable" else ConnectionError("refused")
    away: dict[str, Any] = {"pause_on": ConnectionError} if how == "pause_on" else {}
    if how == "plain":
        away = {"breaker_window": 4, "breaker_open_seconds": 0.2, "attempts": 50, "immediate": 50}

    def needy(_: Received, ctx: Context) -> None:
        ledger.apply(ctx)
        if not back.is_set():
            raise error

    inbox.handler(ledger.topic, **away)(needy)

    @inbox.handler(other)
    def well(_: Received, ctx: Context) -> None:
        ledger.apply(ctx)

    ledger.create(2)
    ledger.create(2, other)
    ledger.send(60, keys=10)
    ledger.put(*(ledger.record("fine", number, topic=other) for number in range(1, 41)))
    ledger.start(inbox, concurrency=4, batch_size=5)
    steps.await_step("paused", 4)
    eventually(lambda: ledger.closed() == 40, "the other topic goes on")
    assert ledger.held() == []
    assert steps.of("dead_lettered") == []
    back.set()
    eventually(lambda: ledger.closed() == 100, "all are handled")

    assert ledger.effects() == {**ledger.orders, "fine": list(range(1, 41))}
    assert steps.of("held") == []
    if how != "plain":
        assert {facts["attempt"] for facts in steps.of("handled")} == {1}


def test_a_partition_paused_and_resumed_time_and_again_gives_all_its_records(
    ledger: Any, steps: Any, eventually: Any
) -> None:
    """So few in hand that its partitions are full most of the time, in the midst of what was fetched."""
    inbox: Inbox = ledger.applying()
    ledger.create(6)
    ledger.send(1_500, keys=100)
    ledger.start(inbox, concurrency=4, batch_size=10, max_in_hand=30, max_poll_records=10)
    eventually(lambda: ledger.closed() == 1_500, "all are handled")

    ledger.check()
    assert len(steps.of("received")) == 1_500
    assert steps.of("duplicate") == []
