"""What becomes of a replay: handled, dead again, expired; and a letter that dies too often is put aside."""

from itertools import product
from typing import Any

import pytest
import sqlalchemy as sa

from postroom.dlq import Filter, State, get, ingest, knows, neighbours, settle

DLQ = "orders.billing.dlq"


def actions(desk: Any, letter: int) -> list[tuple[str, str, str]]:
    """What was done to a letter, the first first."""
    return [(each.action, each.before, each.after) for each in reversed(desk.ledger.actions(letter=letter))]


def replayed(desk: Any, *numbers: int) -> Any:
    """These messages died, and were replayed."""
    for n in numbers:
        desk.die(n)
    desk.catch_up()
    plan = desk.planned()
    desk.run(plan)
    return plan


def test_a_death_after_a_replay_follows_the_one_before(desk: Any) -> None:
    replayed(desk, 1, 2)
    desk.die(1, replays=1, offset=50)
    desk.catch_up()
    again, before = get(desk.ledger, "id-1")
    assert (before.state, again.state) == ("failed-again", "dead")
    assert (again.follows, again.rounds, again.same_failures) == (before.id, 1, 1)
    assert (again.order_partition, again.order_offset, again.topic_offset) == (0, 1, 50)
    assert actions(desk, before.id)[-1] == ("fail", "replayed", "failed-again")
    assert desk.states()["id-2"] == ["replayed"]


def test_the_same_id_in_another_group_is_another_story(desk: Any) -> None:
    replayed(desk, 1)
    desk.die(1, replays=1, offset=50, group="mail", dlq="orders.mail.dlq")
    desk.catch_up(DLQ, "orders.mail.dlq")
    other, first = get(desk.ledger, "id-1")
    assert (first.state, other.state, other.follows) == ("replayed", "dead", None)


def test_a_different_failure_begins_to_count_anew(desk: Any) -> None:
    desk.die(1)
    for replays, told in enumerate(["no stock", "no money", "no money"], 1):
        desk.die(1, replays=replays, told=told, offset=10 * replays)
    desk.catch_up()
    letters = get(desk.ledger, "id-1")
    assert [(letter.rounds, letter.same_failures) for letter in reversed(letters)] == [(0, 0), (1, 1), (2, 0), (3, 1)]


@pytest.mark.parametrize("batch", [1, 3, 5_000])
def test_several_deaths_are_one_chain_however_they_are_read(
    desk: Any, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(ingest, "_BATCH", batch)
    for replays in range(3):
        for n in range(3):
            desk.die(n, replays=replays, offset=100 * replays + n)
    desk.catch_up()
    for n in range(3):
        chain = get(desk.ledger, f"id-{n}")
        assert [letter.state for letter in chain] == ["dead", "failed-again", "failed-again"]
        assert [letter.follows for letter in chain] == [chain[1].id, chain[2].id, None]
        assert {letter.order_offset for letter in chain} == {n}


@pytest.mark.parametrize("batch", [1, 5_000])
def test_deaths_are_one_chain_though_a_later_one_is_read_first(
    desk: Any, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Without a key, the deaths of one message are in any partition. None may be replayed besides its successor."""
    monkeypatch.setattr(ingest, "_BATCH", batch)
    for replays, into in enumerate([2, 1, 0]):
        desk.topics.create(DLQ, 3)
        desk.die(1, replays=replays, offset=10 * replays, key=None, at=replays, into=into)
    desk.catch_up()
    chain = sorted(get(desk.ledger, "id-1"), key=lambda letter: letter.replays)
    assert [letter.id for letter in chain] == sorted((letter.id for letter in chain), reverse=True)
    assert [letter.state for letter in chain] == ["failed-again", "failed-again", "dead"]
    assert [letter.follows for letter in chain] == [None, chain[0].id, chain[1].id]
    assert [letter.rounds for letter in chain] == [0, 1, 2]


def test_a_message_sent_anew_with_its_old_id_is_no_earlier_death(desk: Any) -> None:
    """Its first death is not known any more: what comes later is not hidden behind it."""
    desk.die(1, replays=1, offset=10, at=1)
    desk.catch_up()
    desk.die(1, offset=20, at=2)
    desk.catch_up()
    assert desk.states() == {"id-1": ["dead", "dead"]}


def test_the_same_failure_after_every_replay_goes_to_quarantine(desk: Any) -> None:
    desk.die(1)
    desk.die(2)
    for replays in (1, 2):
        desk.die(1, replays=replays, offset=10 * replays)
    desk.catch_up(max_replays=3)
    assert get(desk.ledger, "id-1")[0].state is State.DEAD
    desk.die(1, replays=3, offset=30)
    desk.catch_up(max_replays=3)
    latest = get(desk.ledger, "id-1")[0]
    assert (latest.state, latest.same_failures) == ("quarantined", 3)
    assert actions(desk, latest.id) == [("quarantine", "dead", "quarantined")]
    assert "same failure after 3 replays" in desk.ledger.actions(letter=latest.id)[0].reason
    plan, draft = desk.plan()
    assert [desk.ledger.letters([id_])[0].message_id for id_ in draft.letters] == ["id-2"]
    assert draft.elsewhere == {"quarantined": 1, "failed-again": 3}
    assert plan is not None
    assert desk.change("plan", latest.id) == 0
    assert desk.plan(again=True)[0] is None, "and again takes none either"


def test_different_failures_go_to_quarantine_after_many_rounds(desk: Any) -> None:
    for replays in range(ingest.MAX_ROUNDS):
        desk.die(1, replays=replays, offset=replays, told=f"reason {'ab'[replays % 2]}")
    desk.catch_up(max_replays=3)
    assert get(desk.ledger, "id-1")[0].state is State.DEAD
    desk.die(1, replays=ingest.MAX_ROUNDS, offset=99, told="reason a")
    desk.catch_up(max_replays=3)
    latest = get(desk.ledger, "id-1")[0]
    assert (latest.state, latest.rounds) == ("quarantined", ingest.MAX_ROUNDS)
    assert "after every replay" in desk.ledger.actions(letter=latest.id)[0].reason


def test_after_a_release_the_rounds_count_anew(desk: Any) -> None:
    for replays in range(4):
        desk.die(1, replays=replays, offset=replays)
    desk.catch_up()
    latest = get(desk.ledger, "id-1")[0]
    assert desk.change("release", latest.id, values={"rounds": 0, "same_failures": 0}) == 1
    desk.run(desk.planned())
    desk.die(1, replays=4, offset=9)
    desk.catch_up()
    again = get(desk.ledger, "id-1")[0]
    assert (again.state, again.rounds, again.same_failures, again.follows) == ("dead", 1, 1, latest.id)


def test_where_the_first_death_is_not_known_its_replays_count(desk: Any) -> None:
    desk.die(1, replays=2)
    desk.die(2, replays=3)
    desk.catch_up(max_replays=3)
    assert desk.states() == {"id-1": ["dead"], "id-2": ["quarantined"]}
    assert [(each.rounds, each.same_failures) for each in desk.letters()] == [(2, 2), (3, 3)]


@pytest.mark.parametrize("state", ["dead", "planned"])
def test_what_somebody_else_replayed_is_not_replayed_again(desk: Any, state: str) -> None:
    """Its next death is there: the one before it is over, also in a plan."""
    desk.die(1)
    desk.die(2)
    desk.catch_up()
    plan = desk.planned() if state == "planned" else None
    desk.die(1, replays=1, offset=50)
    desk.catch_up()
    assert desk.states() == {"id-1": ["failed-again", "dead"], "id-2": [state]}
    if plan is not None:
        assert desk.run(plan).replayed == 1
        assert desk.published() == ["id-2"]


@pytest.mark.parametrize(
    ("outcome", "state", "action"),
    [
        ("handled", "confirmed", "confirm"),
        ("dead-lettered", "failed-again", "fail"),
        ("expired", "dead", "expire"),
        ("discarded", "discarded", "discard"),
    ],
)
def test_the_inbox_tells_what_became_of_a_replay(desk: Any, outcome: str, state: str, action: str) -> None:
    replayed(desk, 1, 2)
    desk.closes(1, outcome, replays=1)
    desk.closes(2, outcome, replays=1, group="mail")
    assert settle(desk.ledger) == 1
    assert settle(desk.ledger) == 0
    assert desk.states() == {"id-1": [state], "id-2": ["replayed"]}
    assert actions(desk, desk.letters()[0].id)[-1] == (action, "replayed", state)
    assert (desk.letters()[0].plan_id is None) == (outcome == "expired")


def test_only_the_outcome_of_this_replay_or_of_a_later_one_counts(desk: Any) -> None:
    """Each letter had been replayed once before, so its replay is the second."""
    cases = list(enumerate(product(("handled", "dead-lettered", "expired", "discarded"), range(4))))
    for n, _ in cases:
        desk.die(n, replays=1)
    desk.catch_up()
    desk.run(desk.planned())
    for n, (outcome, replays) in cases:
        desk.closes(n, outcome, replays)
    assert settle(desk.ledger) == 8
    for n, (_, replays) in cases:
        assert (desk.states()[f"id-{n}"] == ["replayed"]) == (replays < 2)


def test_one_plan_is_settled_alone_and_inboxes_are_known(desk: Any) -> None:
    first = replayed(desk, 1)
    second = replayed(desk, 2)
    desk.closes(1, "handled", 1)
    desk.closes(2, "handled", 1)
    assert settle(desk.ledger, second.id) == 1
    assert desk.states() == {"id-1": ["replayed"], "id-2": ["confirmed"]}
    assert settle(desk.ledger, first.id) == 1
    assert knows(desk.ledger, {"billing", "mail"}) == {"billing"}


def test_the_inbox_tells_first_or_the_next_death_does(desk: Any) -> None:
    """It died again, and one action says so, whoever tells it first."""
    replayed(desk, 1, 2)
    for n in (1, 2):
        desk.closes(n, "dead-lettered", 1)
    desk.die(1, replays=1, offset=50)
    desk.catch_up()
    settle(desk.ledger)
    desk.die(2, replays=1, offset=51)
    desk.catch_up()
    for n in (1, 2):
        again, before = get(desk.ledger, f"id-{n}")
        assert (again.state, again.follows, before.state) == ("dead", before.id, "failed-again")
        assert [action for action, *_ in actions(desk, before.id)] == ["plan", "replay", "fail"]


def test_neighbours_of_a_key_stand_in_their_first_order(desk: Any) -> None:
    for n in range(1, 6):
        desk.die(n, key=b"k" if n != 3 else b"other")
    desk.catch_up()
    desk.die(2, replays=1, offset=50)
    desk.catch_up()
    latest = get(desk.ledger, "id-2")[0]
    near = neighbours(desk.ledger, latest, 2)
    assert [(each.message_id, each.replays) for each in near] == [
        ("id-1", 0), ("id-2", 0), ("id-2", 1), ("id-4", 0), ("id-5", 0)
    ]  # fmt: skip


def test_what_was_done_before_there_was_a_ledger_is_kept(desk: Any) -> None:
    """By place and message: another record may stand at a place by now."""
    action = desk.ledger.tables.action
    rows = [("replay", 0, "id-0"), ("discard", 1, "id-1"), ("show", 2, "id-2"), ("replay", 3, "id-of-another")]
    rows += [("replay", 4, "id-4"), ("discard", 4, "id-4")]
    with desk.ledger.changing() as work:
        for verb, offset, message_id in rows:
            place = {"dead_letter_topic": DLQ, "partition": 0, "offset": offset, "message_id": message_id}
            work.connection.execute(sa.insert(action).values(actor="eve", action=verb, **place))
    for n in range(5):
        desk.die(n)
    desk.catch_up()
    assert [letter.state for letter in desk.letters()] == ["replayed", "discarded", "dead", "dead", "discarded"]
    desk.closes(0, "handled", 1)
    assert settle(desk.ledger) == 1
    assert len(desk.plan(Filter())[1].letters) == 2


def test_an_old_action_is_not_taken_for_one_of_a_topic_made_anew(desk: Any) -> None:
    """Else its letter would never be replayed."""
    action = desk.ledger.tables.action
    with desk.ledger.changing() as work:
        place = {"dead_letter_topic": DLQ, "partition": 0, "offset": 0, "message_id": "id-0"}
        work.connection.execute(sa.insert(action).values(actor="eve", action="replay", **place))
    desk.die(0)
    desk.catch_up()
    del desk.topics.topics[DLQ]
    desk.die(7, offset=70)
    desk.catch_up()
    assert desk.states() == {"id-0": ["replayed"], "id-7": ["dead"]}
