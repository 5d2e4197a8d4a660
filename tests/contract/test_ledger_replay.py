"""A plan's letters go once each, in their order, whoever runs it and whatever breaks; and it stops where it should."""

from collections import Counter
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest
import sqlalchemy as sa

from postroom.dlq import Pace, await_settled, cancel_plan, find_plan, get
from postroom.dlq import replay as replaying
from postroom.dlq.ingest import insert
from postroom.dlq.plan import set_state


def dead(desk: Any, count: int, **options: Any) -> Any:
    """So many letters in a plan."""
    for n in range(count):
        desk.die(n, n % 2)
    desk.catch_up()
    return desk.planned(**options)


def test_each_goes_once_however_often_it_is_run(desk: Any) -> None:
    plan = dead(desk, 8)
    ran = desk.run(plan, batch=3)
    assert (ran.replayed, ran.plan.state, ran.unsettled, ran.interrupted) == (8, "done", 8, False)
    assert desk.run(plan).replayed == 0
    assert desk.published() == [f"id-{n}" for n in (0, 2, 4, 6, 1, 3, 5, 7)]
    told = [
        (each.actor, each.plan, each.before, each.after) for each in desk.ledger.actions() if each.action == "replay"
    ]
    assert told == [("ada@host", plan.id, "planned", "replayed")] * 8


def test_what_retention_took_since_it_was_read_goes_back_too(desk: Any) -> None:
    plan = dead(desk, 2)
    for number in (0, 1):
        desk.topics.truncate(desk.DLQ, number, 1)
    assert desk.run(plan).replayed == 2
    assert desk.published() == ["id-0", "id-1"]


def test_a_batch_that_fails_leaves_neither_message_nor_state(desk: Any) -> None:
    plan = dead(desk, 6)
    seen: list[str] = []

    def fail(step: str, /, **_: Any) -> None:
        seen.append(step)
        if seen.count("replaying") == 2:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        desk.run(plan, batch=2, observer=fail)
    assert len(desk.published()) == find_plan(desk.ledger, plan.id).counts["replayed"] == 2
    assert desk.run(plan, batch=2).replayed == 4
    assert desk.published() == [f"id-{n}" for n in (0, 2, 4, 1, 3, 5)]


@pytest.mark.parametrize("step", ["replaying", "replayed", "step"])
def test_two_runs_at_once_send_each_letter_once_in_order(desk: Any, step: str) -> None:
    """The second one begins while the first is inside a batch, or between two."""
    plan = dead(desk, 20)
    inside, over = Event(), Event()
    replayed: list[int] = []

    def hold(seen: str, /, **_: Any) -> None:
        if seen == step and not inside.is_set():
            inside.set()
            over.wait(0.3 if step == "replaying" else 20)  # the other one waits for the lock

    def second() -> None:
        other = desk.another()
        inside.wait(20)
        try:
            replayed.append(other.run(plan, batch=3).replayed)
        finally:
            other.ledger.close()
            over.set()

    thread = Thread(target=second)
    thread.start()
    replayed.append(desk.run(plan, batch=3, observer=hold).replayed)
    thread.join(20)
    assert sum(replayed) == 20
    assert desk.published() == [f"id-{n}" for n in (*range(0, 20, 2), *range(1, 20, 2))]
    assert find_plan(desk.ledger, plan.id).state == "done"


def test_readers_writers_and_settling_do_not_lock_each_other(desk: Any) -> None:
    """Each in a thread of its own, on one plan: no deadlock, no locked database, each letter once."""
    plan = dead(desk, 60)
    failed: list[BaseException] = []

    def often(work: Callable[[Any], object]) -> Thread:
        def run() -> None:
            other = desk.another()
            try:
                for _ in range(8):
                    work(other)
            except BaseException as error:  # noqa: BLE001  it is looked at below
                failed.append(error)
            finally:
                other.ledger.close()

        return Thread(target=run)

    later = iter(range(100, 200))
    threads = [
        often(lambda other: other.run(plan, batch=2)),
        often(lambda other: other.run(plan, batch=3)),
        often(lambda other: (other.die(next(later)), other.catch_up())),
        often(lambda other: other.catch_up()),
        often(lambda other: await_settled(other.ledger, plan.id, 0, clock=other.clock)),
        often(lambda other: other.closes(next(later) % 60, "handled", 1)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert Counter(desk.published()) == Counter(f"id-{n}" for n in range(60))
    desk.catch_up()
    assert len(desk.letters()) == len({letter.place for letter in desk.letters()}) == 68


def test_batches_are_bounded_by_their_bytes(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "_BATCH_BYTES", 30_000)
    for n in range(6):
        desk.die(n, value=b"x" * 10_000)
    desk.catch_up()
    sizes: list[int] = []
    plan = desk.planned()
    desk.run(plan, observer=lambda step, **facts: sizes.append(facts["count"]) if step == "replayed" else None)
    assert sizes == [2, 2, 2]


def test_a_step_goes_when_the_one_before_is_settled(desk: Any) -> None:
    plan = dead(desk, 8, pace=Pace((1, 3)))
    sent: list[tuple[int, int, int]] = []

    def look() -> None:
        for id_ in desk.published():
            desk.closes(int(id_.removeprefix("id-")), "handled", 1)

    def observe(step: str, /, **facts: Any) -> None:
        if step == "step":
            sent.append((facts["number"], facts["last"], len(desk.published())))

    ran = desk.run(plan, look=look, observer=observe, batch=2)
    assert sent == [(0, 1, 0), (1, 4, 1), (2, 8, 4)]
    assert (ran.replayed, ran.plan.state) == (8, "done")
    settled = await_settled(desk.ledger, plan.id, 5, look=look, wait=desk.sleep, clock=desk.clock)
    assert settled.counts == {"confirmed": 8}


def test_a_step_that_is_not_settled_in_time_stops_the_plan_which_goes_on_later(desk: Any) -> None:
    plan = dead(desk, 5, pace=Pace((2,)))
    before = desk.clock.monotonic()
    ran = desk.run(plan, step_timeout=60.0)
    assert (ran.replayed, ran.plan.state, ran.plan.next) == (2, "stopped", 3)
    assert "2 of the 2 of step 1 were neither handled nor dead again after 60 s" in ran.plan.told
    assert 59 < desk.clock.monotonic() - before < 62
    assert len(desk.published()) == 2
    desk.closes(0, "handled", 1)
    desk.closes(2, "dead-lettered", 1)
    ran = desk.run(plan)
    assert (ran.replayed, ran.plan.state, ran.plan.told) == (3, "done", None)


def test_what_is_not_confirmed_does_not_stop_it_when_told_so(desk: Any) -> None:
    plan = dead(desk, 5, pace=Pace((2,), None, 0.1))
    assert desk.run(plan, unconfirmed_go_on=True).replayed == 5


@pytest.mark.parametrize(("failures", "stops"), [(2, False), (3, True)])
def test_too_many_failures_of_a_step_stop_the_plan(desk: Any, failures: int, stops: bool) -> None:
    """More than half of the first four."""
    plan = dead(desk, 8, pace=Pace((4,), None, 0.5))

    def look() -> None:
        for position, id_ in enumerate(desk.published()):
            desk.closes(int(id_.removeprefix("id-")), "dead-lettered" if position < failures else "handled", 1)

    ran = desk.run(plan, look=look, unconfirmed_go_on=True)
    assert (ran.replayed, ran.plan.state) == ((4, "stopped") if stops else (8, "done"))
    if stops:
        assert ran.plan.told == "3 of the 4 of a step failed again, more than 50%."
        assert desk.run(plan, look=look).replayed == 4, "who runs it again says that the cause is gone"


def test_failures_stop_a_plan_between_its_batches(desk: Any) -> None:
    plan = dead(desk, 12, pace=Pace((), None, 0.2))

    def look() -> None:
        for id_ in desk.published():
            desk.closes(int(id_.removeprefix("id-")), "dead-lettered", 1)

    def pass_time(step: str, /, **_: Any) -> None:
        if step == "replayed":
            desk.sleep(5.0)

    ran = desk.run(plan, look=look, batch=2, observer=pass_time)
    assert (ran.replayed, ran.plan.state) == (4, "stopped")
    assert len(desk.published()) == 4


def test_the_rate_is_kept_over_runs(desk: Any) -> None:
    plan = dead(desk, 20, pace=Pace((), 4.0))
    sent: list[float] = []

    def observe(step: str, /, **facts: Any) -> None:
        if step == "replayed":
            sent.extend([desk.clock.monotonic()] * facts["count"])

    begin = desk.clock.monotonic()
    ran = desk.run(
        plan, observer=observe, wait=lambda seconds: desk.sleep(seconds) or desk.clock.monotonic() > begin + 2
    )
    assert ran.interrupted
    assert 8 <= ran.replayed <= 12
    assert desk.run(plan, observer=observe).plan.state == "done"
    for second in range(5):
        window = [at for at in sent if begin + second <= at < begin + second + 1]
        assert len(window) <= 4
    assert 4.0 <= sent[-1] - begin <= 5.5
    assert max(desk.clock.waits) <= 0.5, "it can be ended meanwhile"


@pytest.mark.parametrize("rate", [None, 1_000.0])
def test_a_run_can_be_ended_between_batches(desk: Any, rate: float | None) -> None:
    plan = dead(desk, 6, pace=Pace((), rate))
    ran = desk.run(plan, batch=2, wait=lambda _: len(desk.published()) >= 2)
    assert (ran.interrupted, ran.replayed, ran.plan.state) == (True, 2, "open")
    assert desk.run(plan).replayed == 4


def test_a_run_can_be_ended_while_a_step_is_awaited(desk: Any) -> None:
    plan = dead(desk, 4, pace=Pace((2,)))
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(desk.published()) == 2

    ran = desk.run(plan, wait=wait)
    assert (ran.interrupted, ran.replayed, ran.plan.state) == (True, 2, "open")


def test_a_letter_that_would_go_elsewhere_does_not_go(desk: Any) -> None:
    plan = dead(desk, 3)
    table = desk.ledger.tables.fact
    with desk.ledger.changing() as work:
        chosen = table.c.message_id == "id-1"
        work.connection.execute(sa.update(table).where(chosen).values(consumer_group="mail"))
    ran = desk.run(plan)
    assert (ran.replayed, ran.plan.state) == (2, "done")
    assert desk.published() == ["id-0", "id-2"]
    assert desk.states()["id-1"] == ["dead"]
    told = desk.ledger.actions(letter=get(desk.ledger, "id-1")[0].id)[0]
    assert (told.action, told.plan, told.reason) == ("cancel", plan.id, "Its topic and group are not among the plan's.")


def test_what_is_discarded_meanwhile_does_not_go(desk: Any) -> None:
    plan = dead(desk, 4)

    def discard(step: str, /, **_: Any) -> None:
        if step == "replayed" and len(desk.published()) == 1:
            desk.change("discard", *(letter.id for letter in desk.letters() if letter.message_id == "id-1"))

    ran = desk.run(plan, batch=1, observer=discard)
    assert (ran.replayed, ran.plan.state) == (3, "done")
    assert desk.published() == ["id-0", "id-2", "id-3"]


def test_a_plan_cancelled_meanwhile_ends_the_run(desk: Any) -> None:
    plan = dead(desk, 4)

    def cancel(step: str, /, **_: Any) -> None:
        if step == "replayed" and len(desk.published()) == 1:
            other = desk.another()
            cancel_plan(other.ledger, plan.id, "eve@host")
            other.ledger.close()

    ran = desk.run(plan, batch=1, observer=cancel)
    assert (ran.replayed, ran.plan.state) == (1, "cancelled")
    assert desk.published() == ["id-0"]


def test_a_plan_that_another_run_stopped_sends_nothing_more(desk: Any) -> None:
    """Also where it was open a moment ago."""
    plan = dead(desk, 4)

    def stop(step: str, /, **_: Any) -> None:
        if step == "step":
            with desk.ledger.changing() as work:
                set_state(work, plan.id, "stopped", "too many failures")

    ran = desk.run(plan, observer=stop)
    assert (ran.replayed, ran.plan.state, desk.published()) == (0, "stopped", [])


def test_waiting_looks_at_kafka_seldom_and_at_the_database_often(desk: Any) -> None:
    plan = dead(desk, 1)
    desk.run(plan)
    looks: list[float] = []
    desk.clock.waits.clear()
    await_settled(
        desk.ledger, plan.id, 10, look=lambda: looks.append(desk.clock.monotonic()), wait=desk.sleep, clock=desk.clock
    )
    assert len(looks) <= 6
    assert len(desk.clock.waits) >= 30


def test_an_edited_letter_stands_where_the_one_it_replaces_stood(desk: Any) -> None:
    """It goes in the order of the first, and tells its inbox which message it takes the place of."""
    for n in (1, 2, 3):
        desk.die(n)
    desk.catch_up()
    second = get(desk.ledger, "id-2")[0]
    headers = [(name, b"id-9" if name == "ce_id" else value) for name, value in second.headers or ()]
    edited = second._replace(message_id="id-9", inbox_id="id-9", incarnation=-1, payload=b"new", headers=headers)
    with desk.ledger.changing() as work:
        table = work.ledger.tables.letter.c
        work.change("edit", table.id == second.id, "ada@host")
        ids = insert(work, [edited])
        fact = work.ledger.tables.fact
        work.connection.execute(sa.update(fact).where(fact.c.id.in_(ids)).values(follows=second.id))
    desk.run(desk.planned())
    assert desk.published() == ["id-1", "id-9", "id-3"]
    assert desk.states()["id-2"] == ["discarded"]
    assert desk.sent_headers()[1]["postroom_replay_of"] == "id-2"
    desk.die(9, replays=1, offset=50)
    desk.catch_up()
    again, before = get(desk.ledger, "id-9")
    assert (before.state, again.state, again.follows, again.order_offset) == ("failed-again", "dead", before.id, 2)


def test_a_replay_carries_the_message_and_no_trace_of_its_death(desk: Any) -> None:
    desk.die(1, headers=[("x", b"\xff"), ("x", b"2")], key=b"\x00key", value=b"\xff")
    desk.catch_up()
    desk.run(desk.planned())
    names = list(desk.sent_headers()[0])
    assert names == ["ce_id", "ce_type", "x", "postroom_replay_count", "postroom_replay_group"]
    outbox = desk.ledger.names.table("outbox", "sqlite" if desk.ledger.sqlite else "postgres")
    with desk.ledger.reading() as connection:
        rows = connection.exec_driver_sql(f"SELECT topic, key, payload FROM {outbox}").all()
    assert [(topic, bytes(key), bytes(payload)) for topic, key, payload in rows] == [("orders", b"\x00key", b"\xff")]
