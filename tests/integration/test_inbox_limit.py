"""The limit of dead letters per minute: a flood of poison stops at it, for all members; nothing is lost."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy.orm import Session

from postroom.inbox import BatchContext, Inbox, Received
from postroom.inbox.desk import Desk
from postroom.inbox.policy import OnDeadLetter
from postroom.messaging.errors import Poison

LIMIT = 10


def dead(ledger: Any) -> int:
    return int(ledger.dead_letters().total())


def register(inbox: Inbox, ledger: Any, mended: threading.Event, on_dead_letter: OnDeadLetter) -> None:
    """A handler to which all is poison until it is mended; with "wait" one of batches."""
    options: Any = {"attempts": 2, "on_dead_letter": on_dead_letter, "dead_letters_per_minute": LIMIT}

    def handle(_: Received, ctx: Any) -> None:
        ledger.apply(ctx)
        if not mended.is_set():
            raise Poison("bad")

    def handle_all(events: Sequence[Received], batch: BatchContext[Session]) -> None:
        for event, ctx in zip(events, batch.messages, strict=True):
            handle(event, ctx)

    if on_dead_letter == "wait":
        inbox.handler(ledger.topic, batch=True, **options)(handle_all)
    else:
        inbox.handler(ledger.topic, **options)(handle)


def adds_up(ledger: Any) -> None:
    """Each message is one dead letter, one effect in the order of its key, or waits behind those of its key."""
    died = ledger.dead_letters()
    assert set(died.values()) == {1}
    by_key = defaultdict(set)
    for message in died:
        key, number = message.split("/")
        by_key[key].add(int(number))
    held = {tuple(message.split("/")) for message, _ in ledger.held()}
    for key, numbers in ledger.orders.items():
        waiting = {int(number) for own, number in held if own == key}
        alive = [number for number in numbers if number not in by_key[key] | waiting]
        assert ledger.effects().get(key, []) == alive
        assert not waiting or sorted(waiting) == numbers[-len(waiting) :], "the last of the key wait, none passes"


@pytest.mark.parametrize("on_dead_letter", ["go-on", "wait"])
def test_a_flood_of_poison_stops_at_the_limit_in_all_members_and_goes_on_in_order(
    ledger: Any, steps: Any, eventually: Any, postroom_real_kafka: Any, on_dead_letter: OnDeadLetter
) -> None:
    """Two members with several workers each; then an operator resumes, and then raises the limit. Batches, too."""
    keys = 40 if on_dead_letter == "wait" else 20  # of a key that waits, only the first is a dead letter
    mended = threading.Event()
    inbox: Inbox = ledger.inbox()

    register(inbox, ledger, mended, on_dead_letter)
    [handler] = inbox.handlers
    ledger.create(4)
    ledger.send(200, keys=keys)
    others = type(steps)()
    ledger.start(inbox, concurrency=4, batch_size=3)
    ledger.start(inbox, concurrency=4, batch_size=3, observer=others)

    with closing(Desk(ledger.url)) as desk:
        both = (steps, others)
        eventually(lambda: all(each.of("limited") or each.of("held_back") for each in both), "both stand still")
        assert sum(len(each.of("limited")) for each in both) == 1
        assert dead(ledger) == LIMIT
        assert ledger.effects() == {}
        [control] = desk.controls(ledger.group)
        assert (control.subject, control.changed_by) == (f"handler:{handler.name}", "postroom")
        assert control.paused is not None
        assert "`postroom inbox resume --group" in control.paused
        [action] = desk.actions(10)
        assert (action.actor, action.action, action.reason) == ("postroom", "pause", control.paused)

        assert desk.resume(ledger.group, control.subject, "ops")
        eventually(lambda: len(desk.actions(10)) == 3, "so many more, and it is paused again")
        [(before,)] = ledger.query(
            "SELECT count(*) FROM postroom.inbox WHERE processed_at < (SELECT max(at) FROM postroom.inbox_action"
            " WHERE action = 'resume')"
        )
        assert before == LIMIT
        assert dead(ledger) == 2 * LIMIT
        assert [each.actor for each in desk.actions(10)] == ["postroom", "ops", "postroom"]
        assert sum(ledger.committed().values()) <= 2 * LIMIT + len(ledger.held()), "nothing is passed"

        desk.set_policy(ledger.group, None, {"dead_letters_per_minute": 0}, "ops")
        desk.set_policy(ledger.group, handler.name, {"dead_letters_per_minute": 1_000}, "ops")
        desk.resume(ledger.group, control.subject, "ops")
        eventually(lambda: dead(ledger) > 2 * LIMIT + 5, "more die than before")
        mended.set()
        if on_dead_letter == "go-on":
            eventually(lambda: ledger.closed() == 200 and ledger.held() == [], "all are closed")
        else:
            eventually(lambda: ledger.closed() == 200 - len(ledger.held()) + dead(ledger), "what may go on")
            eventually(lambda: {state for _, state in ledger.held()} <= {"dead-letter", "behind"}, "and came to rest")

    adds_up(ledger)
