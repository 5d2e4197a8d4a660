"""A plan holds the very letters that will go, in their order; what cannot go is refused with a reason."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from postroom.dlq import (
    Aim,
    Filter,
    Pace,
    Repair,
    State,
    cancel_plan,
    draft_plan,
    edit,
    find_plan,
    find_plans,
    get,
    make_plan,
    set_pace,
)
from postroom.dlq import plan as plans
from postroom.messaging.errors import UsageError
from postroom.messaging.match import Match
from postroom.messaging.records import Partition, ReceivedRecord

DLQ = "orders.billing.dlq"
PAST, FUTURE = b"2020-01-01T00:00:00Z", b"2999-01-01T00:00:00Z"


def numbers(desk: Any, plan: Any) -> list[int]:
    """The messages of a plan, in its order."""
    letters = sorted(desk.letters(Filter(plan=plan.id)), key=lambda letter: letter.ordinal)
    assert [letter.ordinal for letter in letters] == list(range(1, len(letters) + 1))
    return [int(letter.message_id.removeprefix("id-")) for letter in letters]


def test_a_plan_holds_what_matched_and_nothing_that_came_later(desk: Any) -> None:
    for n in range(6):
        desk.die(n, n % 2)
    desk.catch_up()
    draft = draft_plan(desk.ledger, Filter(), existing={"orders"})
    plan = desk.planned(reason="it is back", pace=Pace((1, 2), 10.0, 0.5))
    assert [letter.id for letter in desk.letters(Filter(states=frozenset({State.PLANNED})))] == sorted(draft.letters)
    assert (plan.total, plan.next, plan.state, plan.actor, plan.reason, plan.wanted) == (
        6, 1, "open", "ada@host", "it is back", "all"
    )  # fmt: skip
    assert plan.pace == Pace((1, 2), 10.0, 0.5)
    assert plan.targets == [("orders", "billing")]
    desk.die(6)
    desk.catch_up()
    assert desk.run(find_plan(desk.ledger, plan.id), wait=lambda _: True).interrupted
    set_pace(desk.ledger, plan.id, 1_000_000.0, 1.0)
    assert desk.run(plan, unconfirmed_go_on=True).replayed == 5
    assert sorted(desk.published()) == [f"id-{n}" for n in range(6)]
    assert find_plan(desk.ledger, plan.id).counts == {"replayed": 6}


def test_a_draft_changes_nothing(desk: Any) -> None:
    desk.die(1)
    desk.catch_up()
    assert len(draft_plan(desk.ledger, Filter(), existing={"orders"}).letters) == 1
    assert desk.states() == {"id-1": ["dead"]}
    assert find_plans(desk.ledger) == []
    assert desk.ledger.actions() == []


def test_letters_go_in_the_order_of_their_original_partition(desk: Any) -> None:
    """Neither that of the dead-letter topic nor that of the clock."""
    for offset, n in enumerate([5, 1, 4, 2, 3]):
        desk.die(n, at=offset, into=n % 2)
    for n in (12, 11):
        desk.die(n, 1)
    desk.catch_up()
    assert numbers(desk, desk.planned()) == [1, 2, 3, 4, 5, 11, 12]


@pytest.mark.parametrize("match", [None, Match.parse("exists(payload)")])
def test_the_order_is_that_of_the_first_deaths_also_after_more_of_them(desk: Any, match: Any) -> None:
    for n in range(1, 6):
        desk.die(n)
    desk.catch_up()
    desk.run(desk.planned())
    for offset, n in enumerate([4, 2, 5], 90):  # they come last in the original topic now
        desk.die(n, replays=1, offset=offset)
    desk.die(6, offset=100)
    desk.catch_up()
    plan = desk.planned(Filter(match=match))
    assert numbers(desk, plan) == [2, 4, 5, 6]
    desk.run(plan)
    assert desk.published()[-4:] == ["id-2", "id-4", "id-5", "id-6"]


def test_a_limit_takes_the_first_of_the_order(desk: Any) -> None:
    for n in (3, 1, 2):
        desk.die(n)
    desk.die(0, offset=-1, topic="gone")
    desk.catch_up()
    plan = desk.planned(limit=2)
    assert numbers(desk, plan) == [1, 2]
    assert numbers(desk, desk.planned(limit=2)) == [3]


REFUSALS: dict[str, tuple[dict[str, bytes | None], str]] = {
    "unknown": ({"__dlq.errors.topic": None}, "original topic is unknown"),
    "itself": ({"__dlq.errors.topic": DLQ.encode()}, "dead-letter topic itself"),
    "gone": ({"__dlq.errors.topic": b"gone"}, "'gone' does not exist any more"),
    "no name": ({"__dlq.errors.topic": b"no topic!"}, "'no topic!' does not exist any more"),
    "expired": ({"expires_at": PAST}, "deadline has passed"),
    "no group": ({"__dlq.errors.group": None}, "consumer group is unknown"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_go_back_is_refused_and_never_sent(desk: Any, case: str) -> None:
    changed, reason = REFUSALS[case]
    desk.die(1, headers=[("expires_at", FUTURE)])
    record = desk.die(2)
    headers = {**dict(record.headers), **changed}
    pairs = [(name, value) for name, value in headers.items() if value is not None]
    desk.topics.topics[DLQ][0].records[-1] = record._replace(headers=pairs)
    desk.catch_up()
    plan, draft = desk.plan(existing={"orders", DLQ})
    assert [(reason in each.reason, each.count) for each in draft.refused] == [(True, 1)]
    assert draft.refused[0].examples == [desk.letters()[1].id]
    assert numbers(desk, plan) == [1]
    desk.run(plan)
    assert desk.published() == ["id-1"]
    assert desk.states()["id-2"] == ["dead"]


def test_what_was_erased_masked_or_never_copied_is_refused(desk: Any) -> None:
    for n in range(3):
        desk.die(n)
    headers = [("__dlq.errors.topic", b"orders"), ("__dlq.errors.group", b"billing")]
    desk.topics.put(DLQ, 0, ReceivedRecord(Partition(DLQ, 0), 0, None, None, headers, datetime.now(UTC)))
    desk.catch_up()
    letters = desk.letters()
    with desk.ledger.changing() as work:
        table = work.ledger.tables.fact
        for n, values in ((0, {"masked": True}), (1, {"forgotten_at": datetime.now(UTC)})):
            work.connection.execute(sa.update(table).where(table.c.id == letters[n].id).values(values))
    plan, draft = desk.plan()
    assert numbers(desk, plan) == [2]
    told = " ".join(each.reason for each in draft.refused)
    assert len(draft.refused) == 3
    assert all(word in told for word in ("masked fields", "erased", "no copy"))


def test_refusals_are_counted_with_a_few_examples(desk: Any) -> None:
    for n in range(5):
        desk.die(n, topic="gone")
    desk.catch_up()
    plan, draft = desk.plan()
    assert plan is None
    assert [(each.count, len(each.examples)) for each in draft.refused] == [(5, 3)]
    assert find_plans(desk.ledger) == []


def test_a_letter_that_does_not_tell_its_group_can_be_aimed(desk: Any) -> None:
    record = desk.die(1)
    told = [pair for pair in record.headers if pair[0] != "__dlq.errors.group"]
    desk.topics.topics[DLQ][0].records[-1] = record._replace(headers=told)
    desk.die(2, group="mail")
    desk.catch_up()
    assert desk.plan(Filter(message_id="id-1"))[0] is None
    every = desk.planned(aim=Aim(every=True))
    assert every.targets == [("orders", "mail"), ("orders", None)]
    cancel_plan(desk.ledger, every.id, "ada@host")
    aimed = desk.planned(aim=Aim("billing"))
    assert aimed.targets == [("orders", "billing"), ("orders", "mail")]
    assert [letter.group for letter in desk.letters()] == ["billing", "mail"]
    desk.run(aimed)
    assert [told["postroom_replay_group"] for told in desk.sent_headers()] == ["billing", "mail"]


def test_what_is_in_a_plan_or_done_is_in_no_other(desk: Any) -> None:
    for n in range(4):
        desk.die(n)
    desk.catch_up()
    first = desk.planned(limit=1)
    desk.change("discard", desk.letters()[3].id)
    plan, draft = desk.plan()
    assert numbers(desk, plan) == [1, 2]
    assert (draft.elsewhere, draft.plans) == ({"planned": 1, "discarded": 1}, [first.id])
    plan, draft = desk.plan()
    assert (plan, len(draft.letters)) == (None, 0)
    assert draft.elsewhere == {"planned": 3, "discarded": 1}


def test_again_takes_what_is_done_but_nothing_that_waits(desk: Any) -> None:
    for n in range(6):
        desk.die(n)
    desk.catch_up()
    letters = desk.letters()
    desk.run(desk.planned(Filter(ids=[letters[n].id for n in (0, 1)])))
    desk.change("confirm", letters[1].id)
    desk.change("discard", letters[2].id)
    desk.change("quarantine", letters[3].id)
    waiting = desk.planned(Filter(ids=[letters[4].id]))
    plan = desk.planned(again=True)
    assert numbers(desk, plan) == [0, 1, 2, 5]
    assert numbers(desk, waiting) == [4]
    assert desk.plan(again=True)[0] is None, "of two who ask for it again, one"
    desk.run(plan)
    assert Counter(desk.published()) == {"id-0": 2, "id-1": 2, "id-2": 1, "id-5": 1}
    done = [each.action for each in desk.ledger.actions(letter=letters[2].id)]
    assert done == ["replay", "plan", "reopen", "discard"]


def test_a_cancelled_plan_gives_back_what_has_not_gone(desk: Any) -> None:
    for n in range(4):
        desk.die(n)
    desk.catch_up()
    plan = desk.planned(pace=Pace((2,)))
    desk.run(plan, step_timeout=0)
    assert find_plan(desk.ledger, plan.id).state == "stopped"
    assert cancel_plan(desk.ledger, plan.id, "bob@host", "no more") == 2
    assert [letter.state for letter in desk.letters()] == ["replayed", "replayed", "dead", "dead"]
    assert [letter.plan_id for letter in desk.letters()] == [plan.id, plan.id, None, None]
    found = find_plan(desk.ledger, plan.id)
    assert (found.state, found.told, found.next, found.counts) == ("cancelled", "no more", None, {"replayed": 2})
    assert desk.run(plan).replayed == 0
    assert len(desk.published()) == 2
    told = desk.ledger.actions(letter=desk.letters()[3].id)[0]
    assert (told.action, told.actor, told.plan, told.reason) == ("cancel", "bob@host", plan.id, "no more")
    assert numbers(desk, desk.planned()) == [2, 3]


def test_plans_are_listed_latest_first_and_unknown_ones_told(desk: Any) -> None:
    for n in range(2):
        desk.die(n)
    desk.catch_up()
    made = [desk.planned(limit=1).id for _ in range(2)]
    assert [plan.id for plan in find_plans(desk.ledger)] == made[::-1]
    assert [plan.id for plan in find_plans(desk.ledger, 1)] == made[1:]
    for refused in (
        lambda: find_plan(desk.ledger, 10**9),
        lambda: cancel_plan(desk.ledger, 10**9, "x"),
        lambda: desk.run(made and find_plan(desk.ledger, 10**9)),
    ):
        with pytest.raises(UsageError, match="There is no plan 1000000000"):
            refused()


def test_too_many_letters_are_refused_and_nothing_is_frozen(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MAX_LETTERS", 3)
    for n in range(4):
        desk.die(n)
    desk.catch_up()
    with pytest.raises(UsageError, match="more than 3"):
        desk.plan()
    assert find_plans(desk.ledger) == []
    assert desk.planned(limit=3).total == 3


def test_a_plan_that_fails_to_freeze_is_none(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.die(1)
    desk.catch_up()
    with monkeypatch.context() as broken:
        broken.setattr(plans, "_plan", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            desk.plan()
    assert find_plans(desk.ledger) == []
    assert desk.states() == {"id-1": ["dead"]}
    assert desk.ledger.actions() == []


def test_many_letters_are_frozen_in_parts(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "_AT_ONCE", 3)
    for n in range(8):
        desk.die(n)
    desk.catch_up()
    assert numbers(desk, desk.planned()) == list(range(8))
    assert len(get(desk.ledger, "id-7")) == 1


@pytest.mark.parametrize("inside", [False, True])
def test_again_leaves_out_what_an_open_letter_was_edited_from(desk: Any, inside: bool) -> None:
    desk.die(1)
    desk.catch_up()
    [old] = desk.letters()
    new = edit(desk.ledger, old.id, Repair(payload=b"{}x"), actor="ada@host")
    match = Match.parse('key != "nobody"') if inside else None
    plan, _ = make_plan(desk.ledger, Filter(match=match), existing={"orders"}, actor="ada@host", told="all", again=True)
    assert plan is not None
    assert [letter.id for letter in desk.letters(Filter(plan=plan.id))] == [new.id], "both would be handled"
