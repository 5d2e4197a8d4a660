"""Operators of dead letters are killed, and work at once: each letter is taken once, and goes back once, in order."""

import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from postroom.dlq import Filter, Ledger, Plan, catch_up, count, each, find_plan, make_plan
from postroom.messaging.dead_letter import Failure, dead_letter_headers
from postroom.messaging.records import OutgoingRecord, Partition, ReceivedRecord

LETTERS = 120
BATCH = 10


@dataclass
class Desk:
    """Dead letters of a workload's topic, numbered by key, and the processes that work on them."""

    workload: Any
    ledger: Ledger
    start: Callable[..., Any]

    @property
    def topic(self) -> str:
        return f"{self.workload.topic}.billing.dlq"

    def die(self, number: int) -> None:
        now = datetime.now(UTC)
        failure = Failure(ValueError("no stock"), "shop.charge", 5, now, now)
        records = [OutgoingRecord(self.workload.topic, b"other", b"0", [])]
        begin = self.workload.sent.total()
        for n in range(begin, begin + number):
            key = b"key-%d" % (n % 5)
            self.workload.sent[key] += 1
            own = [("ce_id", b"%s/%d" % (key, self.workload.sent[key])), ("ce_type", b"n")]
            place = Partition(self.workload.topic, n % 5 % 2)
            original = ReceivedRecord(place, n, key, b"%d" % self.workload.sent[key], own, now)
            headers = dead_letter_headers(original, "billing", failure)
            records.append(OutgoingRecord(self.topic, key, original.value, headers))
        publisher = self.workload.kafka.publisher()
        publication = publisher.send(records)
        assert publication.wait(30)
        assert publication.errors() == {}
        publisher.close(5)

    def catch_up(self) -> int:
        with closing(self.workload.kafka.reader()) as reader:
            return catch_up(reader, self.ledger, [self.topic]).read

    def plan(self) -> Plan:
        plan, _ = make_plan(self.ledger, Filter(), existing={self.workload.topic}, actor="ada@host", told="all")
        assert plan is not None
        return plan

    def taken(self) -> Counter[str]:
        """Messages in the ledger."""
        return Counter(letter.message_id for letter in each(self.ledger, Filter()))

    def all(self) -> Counter[str]:
        """Each message once."""
        sent = self.workload.sent.items()
        return Counter(f"{key.decode()}/{n}" for key, most in sent for n in range(1, most + 1))

    def went(self) -> dict[bytes, list[int]]:
        """By key the numbers that are in the original topic, in their order."""
        found: dict[bytes, list[int]] = defaultdict(list)
        for record in self.workload.records():
            if record.key != b"other":
                found[record.key].append(int(record.value))
        return found

    def arrives(self, relays: Any, eventually: Any) -> None:
        """What is in the outbox goes to Kafka: each of the letters once, by key in order."""
        relays(self.workload)
        eventually(lambda: self.workload.unsettled() == 0, "all is published")
        assert self.went() == {key: list(range(1, most + 1)) for key, most in self.workload.sent.items()}


@pytest.fixture
def desk(workload: Any, operators: Any) -> Iterator[Desk]:
    with closing(Ledger(workload.url)) as ledger:
        desk = Desk(workload, ledger, operators)
        desk.die(LETTERS)
        yield desk


@pytest.mark.parametrize(("step", "before"), [("inserted", 2), ("read", 3)])
def test_killed_while_it_catches_up_each_record_is_taken_once(desk: Desk, step: str, before: int) -> None:
    killed = desk.start(desk, does="catch up", fall_at=step, fall_after=3)
    assert killed.ended() == -signal.SIGKILL
    assert desk.taken().total() == before * BATCH
    again = desk.start(desk, does="catch up")
    assert again.ended() == 0
    assert again.of("done")[0]["count"] == LETTERS - before * BATCH
    assert desk.taken() == desk.all()
    assert desk.catch_up() == 0


def test_two_catch_up_at_once_and_one_is_killed(desk: Desk) -> None:
    working = [desk.start(desk, does="catch up"), desk.start(desk, does="catch up", fall_at="inserted", fall_after=2)]
    assert working[0].ended() == 0
    working[1].ended()
    desk.catch_up()
    assert desk.taken() == desk.all()


@pytest.mark.parametrize(("step", "before"), [("replaying", 2), ("replayed", 3)])
def test_killed_while_it_replays_each_letter_goes_back_once_in_order(
    desk: Desk, step: str, before: int, relays: Any, eventually: Any
) -> None:
    desk.catch_up()
    plan = desk.plan()
    killed = desk.start(desk, does="run", plan=plan.id, fall_at=step, fall_after=3)
    assert killed.ended() == -signal.SIGKILL
    assert find_plan(desk.ledger, plan.id).counts["replayed"] == before * BATCH
    again = desk.start(desk, does="run", plan=plan.id)
    assert again.ended() == 0
    assert again.of("done")[0]["count"] == LETTERS - before * BATCH
    desk.arrives(relays, eventually)


def test_two_operators_run_one_plan_and_what_comes_meanwhile_stays(desk: Desk, relays: Any, eventually: Any) -> None:
    """More matches die while they are at it: the plan is what it was."""
    desk.catch_up()
    plan = desk.plan()
    both = [desk.start(desk, does="run", plan=plan.id, actor=actor) for actor in ("ada@host", "eve@host")]
    sent = dict(desk.workload.sent)
    desk.die(20)
    assert desk.catch_up() == 20
    assert [each_.ended() for each_ in both] == [0, 0]
    assert sum(each_.of("done")[0]["count"] for each_ in both) == LETTERS
    found = find_plan(desk.ledger, plan.id)
    assert (found.state, found.counts) == ("done", {"replayed": LETTERS})
    relays(desk.workload)
    eventually(lambda: desk.workload.unsettled() == 0, "all is published")
    assert desk.went() == {key: list(range(1, most + 1)) for key, most in sent.items()}
    assert count(desk.ledger, Filter()) == {"dead": 20, "replayed": LETTERS}
