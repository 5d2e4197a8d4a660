"""One key that fails: it waits in the table and the others go on; it drains in order; dead letters and replays."""

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from postroom.inbox import Context, Inbox, Received
from postroom.messaging.dead_letter import REPLAY_COUNT, REPLAY_GROUP, REPLAY_OF
from postroom.messaging.errors import Unavailable
from postroom.outbox import Event
from postroom.testing import TcpProxy

BAD = "key-3/2"


class Faulty:
    """A handler that fails for some messages until they are mended."""

    def __init__(self, ledger: Any, *bad: str) -> None:
        self._apply = ledger.apply
        self.bad = set(bad)
        self.tried: list[str] = []

    def __call__(self, _: Received, ctx: Context) -> None:
        self.tried.append(ctx.message_id)
        self._apply(ctx)
        if ctx.message_id in self.bad:
            raise RuntimeError("bad")


def test_a_key_that_fails_is_held_the_others_go_on_and_it_drains_in_order(
    ledger: Any, steps: Any, eventually: Any
) -> None:
    handler = Faulty(ledger, BAD)
    inbox: Inbox = ledger.inbox()
    inbox.handler(ledger.topic, attempts=1_000)(handler)
    ledger.send(50, keys=10)
    ledger.start(inbox, concurrency=4)
    steps.await_step("held")
    ledger.send(50, keys=10)
    eventually(lambda: ledger.closed() == 91, "all but the key's messages")
    eventually(lambda: len(ledger.held()) == 9, "they wait")
    assert ledger.effects()["key-3"] == [1]
    assert [state for _, state in ledger.held()] == ["retry"] + ["behind"] * 8
    eventually(lambda: sum(ledger.committed().values()) == 100, "offsets go on")
    handler.bad.clear()
    eventually(lambda: ledger.closed() == 100, "it drains")

    ledger.check()
    assert {message for message in handler.tried if handler.tried.count(message) > 1} == {BAD}


def test_attempts_used_up_are_one_dead_letter_and_the_rest_goes_on_in_order(
    ledger: Any, steps: Any, eventually: Any
) -> None:
    handler = Faulty(ledger, BAD, "key-5/1")
    inbox: Inbox = ledger.inbox()
    inbox.handler(ledger.topic, attempts=5)(handler)
    ledger.send(100, keys=10)
    ledger.start(inbox, concurrency=4)
    eventually(lambda: ledger.closed() == 100, "all are closed")
    eventually(lambda: ledger.held() == [], "nothing waits")

    ledger.check(dead=[BAD, "key-5/1"])
    assert handler.tried.count(BAD) == 5
    assert ledger.attempts(BAD) == 5
    assert [facts["attempt"] for facts in steps.of("attempt") if facts["message_id"] == BAD] == [1, 2, 3, 4, 5]


def test_messages_without_a_key_do_not_wait_for_each_other(ledger: Any, eventually: Any) -> None:
    handler = Faulty(ledger, "none/3", "none/4")
    inbox: Inbox = ledger.inbox()
    inbox.handler(ledger.topic, attempts=1_000)(handler)
    ledger.put(*(ledger.record("none", number, keyless=True) for number in range(1, 21)))
    ledger.start(inbox)
    eventually(lambda: ledger.closed() == 18, "all but two")
    eventually(lambda: len(ledger.held()) == 2, "two wait")
    assert {state for _, state in ledger.held()} == {"retry"}
    handler.bad.discard("none/4")
    eventually(lambda: ledger.closed() == 19, "one is mended, the one before it is not")
    handler.bad.clear()
    eventually(lambda: ledger.closed() == 20, "all are")

    assert sorted(ledger.effects()["none"]) == list(range(1, 21))


def replay(ledger: Any, message: str, count: int) -> Any:
    key, number = message.split("/")
    headers = {REPLAY_COUNT: str(count), REPLAY_GROUP: ledger.group}
    return ledger.record(key, int(number), **headers)


@pytest.mark.parametrize("attempts", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [1, 10])
def test_a_key_waits_behind_its_dead_letter_until_a_replay_is_handled(
    ledger: Any, steps: Any, eventually: Any, attempts: int, batch_size: int
) -> None:
    """Also where the replay dies again, and where such a one is delivered twice."""
    handler = Faulty(ledger, BAD)
    inbox: Inbox = ledger.inbox()
    inbox.handler(ledger.topic, attempts=attempts, on_dead_letter="wait")(handler)
    ledger.send(100, keys=10)
    ledger.start(inbox, concurrency=2, batch_size=batch_size)
    eventually(lambda: ledger.closed() == 92, "all others, and the one that died")
    eventually(lambda: len(ledger.held()) == 9, "the key waits")
    assert [state for _, state in ledger.held()] == ["dead-letter"] + ["behind"] * 8
    assert ledger.effects()["key-3"] == [1]

    ledger.put(replay(ledger, BAD, 1), replay(ledger, BAD, 1))
    steps.await_step("dead_lettered", 2)
    ledger.send(10, keys=10)  # what comes meanwhile
    eventually(lambda: ledger.closed() == 101, "of the other keys")
    eventually(lambda: len(ledger.held()) == 11, "the key waits, and the second of them with it")
    assert ledger.held()[0] == (BAD, "dead-letter")
    assert ledger.effects()["key-3"] == [1]
    handler.bad.clear()
    ledger.put(replay(ledger, BAD, 2))
    eventually(lambda: ledger.closed() == 110 and ledger.held() == [], "it drains")

    assert ledger.effects() == ledger.orders
    assert ledger.dead_letters() == {BAD: 2}
    assert set(ledger.outcomes()) == {"handled"}


def test_an_edited_replay_takes_the_place_of_what_it_replaces_each_time_it_dies(ledger: Any, eventually: Any) -> None:
    """With a new id each time; delivered twice; the key waits behind it and goes on in order."""
    handler = Faulty(ledger, BAD, "key-3/1001")
    inbox: Inbox = ledger.inbox()
    inbox.handler(ledger.topic, attempts=2, immediate=1, on_dead_letter="wait")(handler)

    def edit(number: int, replaces: str, count: int) -> Any:
        headers = {REPLAY_COUNT: str(count), REPLAY_GROUP: ledger.group, REPLAY_OF: replaces}
        return ledger.record("key-3", number, **headers)

    ledger.send(50, keys=10)
    ledger.start(inbox, concurrency=2)
    eventually(lambda: len(ledger.held()) == 4 and ledger.closed() == 47, "the key waits")
    ledger.put(edit(1001, BAD, 1), edit(1001, BAD, 1), edit(1003, "\x00", 1))
    eventually(lambda: "key-3/1001" in ledger.dead_letters() and len(ledger.held()) == 6, "it dies, too")
    assert ledger.held() == [
        ("key-3/1001", "dead-letter"),
        *((f"key-3/{number}", "behind") for number in (3, 4, 5)),
        ("key-3/1001", "behind"),
        ("key-3/1003", "behind"),  # it replaces nothing
    ]
    ledger.put(edit(1002, "key-3/1001", 2))
    eventually(lambda: ledger.held() == [], "it drains")

    assert ledger.effects()["key-3"] == [1, 1002, 3, 4, 5, 1003]
    assert ledger.dead_letters() == {BAD: 1, "key-3/1001": 1}
    rows = ledger.query("SELECT message_id, outcome FROM postroom.inbox WHERE message_id LIKE 'key-3/%%'")
    assert dict(rows) == {
        **{f"key-3/{number}": "handled" for number in (1, 3, 4, 5, 1002, 1003)},
        BAD: "dead-lettered",
        "key-3/1001": "dead-lettered",
    }


def test_what_cannot_be_read_in_the_midst_of_a_batch_has_its_key_wait_in_order(ledger: Any, eventually: Any) -> None:
    """Those of its key that were taken out with it wait behind it; those before it are handled."""

    class Numbered(Event, topic="ledger", key="key", type="n"):
        key: str
        number: int

    inbox: Inbox = ledger.inbox()

    @inbox.handler(ledger.topic, Numbered, on_dead_letter="wait")
    def handle(_: Numbered, ctx: Context) -> None:
        ledger.apply(ctx)

    ledger.create(1)
    ledger.put(*(ledger.record("a", number, value=b"{" if number == 3 else None) for number in range(1, 9)))
    ledger.put(*(ledger.record("b", number) for number in range(1, 9)))
    ledger.start(inbox, batch_size=20)
    eventually(lambda: ledger.closed() == 11 and len(ledger.held()) == 6, "the others, and those before it")
    assert ledger.effects() == {"a": [1, 2], "b": list(range(1, 9))}
    assert ledger.held()[0] == ("a/3", "dead-letter")
    ledger.put(replay(ledger, "a/3", 1))
    eventually(lambda: ledger.closed() == 16 and ledger.held() == [], "it drains")

    assert ledger.effects()["a"] == list(range(1, 9))


def test_the_wait_behind_a_dead_letter_outlives_a_restart(ledger: Any, steps: Any, eventually: Any) -> None:
    handler = Faulty(ledger, BAD)
    inbox: Inbox = ledger.inbox()
    inbox.handler(ledger.topic, attempts=2, on_dead_letter="wait")(handler)
    ledger.send(50, keys=10)
    first = ledger.start(inbox)
    eventually(lambda: len(ledger.held()) == 4, "the key waits")
    first.stop()
    assert first.join(30)
    ledger.send(50, keys=10)
    ledger.start(inbox, concurrency=4, batch_size=5)
    eventually(lambda: ledger.closed() == 92 and len(ledger.held()) == 9, "all others")
    assert ledger.effects()["key-3"] == [1]
    handler.bad.clear()
    ledger.put(replay(ledger, BAD, 1))
    eventually(lambda: ledger.closed() == 100, "it drains")

    assert ledger.effects() == ledger.orders


def test_an_outage_costs_a_held_message_no_attempt(ledger: Any, steps: Any, eventually: Any) -> None:
    """The database goes in the midst of its last attempt, before the table can be told: a crash would look so."""
    target = sa.make_url(ledger.url)
    assert target.host is not None
    inbox: Inbox = ledger.inbox()
    with TcpProxy(target.host, target.port or 5432) as proxy:

        @inbox.handler(ledger.topic, attempts=3)
        def handle(_: Received, ctx: Context) -> None:
            cut = ctx.message_id == BAD and ctx.attempt == 3 and len(steps.of("paused")) == 0
            if cut:
                proxy.cut()
            ledger.apply(ctx)
            if ctx.message_id == BAD and ctx.attempt < 3:
                raise RuntimeError("not yet")

        url = target.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        ledger.send(50, keys=10)
        ledger.start(inbox, url=url, concurrency=2)
        steps.await_step("paused", 3)
        proxy.restore()
        eventually(lambda: ledger.closed() == 50, "all are closed")
        ledger.check()
        assert ledger.attempts(BAD) == 3
        for runner in ledger.runners:
            runner.stop()
            assert runner.join(30)


def test_something_away_while_a_key_drains_or_a_replay_runs_is_waited_for(
    ledger: Any, steps: Any, eventually: Any
) -> None:
    inbox: Inbox = ledger.inbox()
    mended, back = threading.Event(), threading.Event()

    @inbox.handler(ledger.topic, attempts=3, on_dead_letter="wait")
    def handle(_: Received, ctx: Context) -> None:
        ledger.apply(ctx)
        if ctx.message_id == BAD:
            if not mended.is_set():
                raise RuntimeError("bad")
            if not back.is_set():
                raise Unavailable("the bank is closed")

    ledger.send(50, keys=10)
    ledger.start(inbox, concurrency=2)
    steps.await_step("dead_lettered")
    mended.set()
    ledger.put(replay(ledger, BAD, 1))
    steps.await_step("paused", 3)
    assert ledger.dead_letters() == {BAD: 1}
    back.set()
    eventually(lambda: ledger.closed() == 50 and ledger.held() == [], "all are closed")

    assert ledger.effects() == ledger.orders
    assert ledger.attempts(BAD) == 1


def test_a_long_key_of_the_table_lets_others_have_their_turn(ledger: Any, steps: Any, eventually: Any) -> None:
    """With one worker: what comes for other keys is handled before hundreds of one key are drained."""
    inbox: Inbox = ledger.inbox()
    mended, lock = threading.Event(), threading.Lock()
    order: list[str] = []

    @inbox.handler(ledger.topic, attempts=1_000)
    def handle(_: Received, ctx: Context) -> None:
        if ctx.message_id == "key-0/1" and not mended.is_set():
            raise RuntimeError("bad")
        with lock:
            order.append(ctx.message_id)
        if ctx.message_id == "key-0/60":  # in the midst of the drain
            ledger.put(*(ledger.record("other", number) for number in range(1, 6)))
            steps.await_step("received", 405)

    ledger.send(400, keys=1)
    ledger.start(inbox)
    eventually(lambda: len(ledger.held()) == 400, "the key waits")
    mended.set()
    eventually(lambda: ledger.closed() == 405, "all are handled")

    assert max(order.index(f"other/{number}") for number in range(1, 6)) < 150
    assert [one for one in order if one.startswith("key-0")] == [f"key-0/{number}" for number in range(1, 401)]
