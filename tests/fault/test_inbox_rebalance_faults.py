"""P3, P5: members join, leave and die under load; keys keep their order, each effect is there once."""

import signal
import threading
from typing import Any

import pytest

from postroom.inbox import Inbox
from postroom.messaging.records import Partition

pytestmark = pytest.mark.usefixtures("postroom_real_kafka")

#: The group notices soon that a member was killed.
SHORT = {
    "kafka-python": {"session_timeout_ms": 2_000, "heartbeat_interval_ms": 300},
    "confluent-kafka": {"session.timeout.ms": 2_000, "heartbeat.interval.ms": 300},
}
BOTH = ["kafka-python", "confluent-kafka"]


@pytest.mark.parametrize("client", BOTH)
def test_what_was_in_hand_when_a_rebalance_came_is_read_again(
    ledger: Any, steps: Any, eventually: Any, client: str
) -> None:
    """A partition may be revoked and come back at once: what was polled of it and dropped must come, too."""
    go_on = threading.Event()
    inbox: Inbox = ledger.applying(go_on)
    ledger.create(4)
    ledger.send(200, keys=20)
    ledger.start(inbox, kafka=ledger.kafka(client), concurrency=2)
    steps.await_step("received", 200)
    ledger.start(inbox, kafka=ledger.kafka(client), concurrency=2)
    eventually(lambda: sum(len(facts["partitions"]) for facts in steps.of("assigned")) == 8, "they share them")
    go_on.set()
    eventually(lambda: ledger.closed() == 200, "all are handled")

    assert len(steps.of("revoked")) == 1
    ledger.check()


@pytest.mark.slow
@pytest.mark.parametrize("cooperative", [False, True])
@pytest.mark.parametrize("client", BOTH)
def test_members_that_join_leave_and_die_under_load(
    ledger: Any, consumers: Any, eventually: Any, client: str, cooperative: bool
) -> None:
    settings = {"concurrency": 4, "batch_size": 20, "attempts": 6, "cooperative": cooperative}

    def join() -> Any:
        told = {"settings": settings, "tell": ["assigned", "revoked", "stopped"], "fail_every": 10}
        return consumers(client, options=SHORT[client], **told)

    def share(count: int) -> None:
        """Publish so many, and wait until half of all is handled: the load never ends meanwhile."""
        ledger.send(count, keys=200)
        eventually(lambda: ledger.closed() >= sum(map(len, ledger.orders.values())) - count // 2, "half of it")

    ledger.create(6)
    one, two = join(), join()
    one.await_step("assigned")
    share(1_000)
    three = join()
    share(1_000)
    one.end(signal.SIGKILL)
    share(1_000)
    four = join()
    four.await_step("assigned")
    assert two.end() == 0
    share(500)
    total = sum(map(len, ledger.orders.values()))
    eventually(lambda: ledger.closed() == total, "all are closed")
    eventually(lambda: ledger.held() == [], "nothing waits")
    assert three.end() == 0
    assert four.end() == 0

    ledger.check()
    assert two.of("revoked"), "there were rebalances"
    assert ledger.outcomes() == {"handled": total}


@pytest.mark.parametrize("client", BOTH)
def test_a_named_member_that_restarts_causes_no_rebalance(
    ledger: Any, consumers: Any, eventually: Any, client: str
) -> None:
    ledger.create(6)

    def join(name: str) -> Any:
        return consumers(client, settings={"instance_id": name}, tell=["assigned", "revoked", "stopped"])

    one, two = join("one"), join("two")
    one.await_step("assigned")
    two.await_step("assigned")
    eventually(lambda: count(one) + count(two) == 6, "both have their share")
    before = len(one.steps)
    for number in (signal.SIGTERM, signal.SIGKILL):
        ledger.send(300, keys=50)
        two.end(number)
        two = join("two")
        two.await_step("assigned")
        assert count(two) == 3
        total = sum(map(len, ledger.orders.values()))
        eventually(lambda total=total: ledger.closed() == total, "all are handled")

    assert len(one.steps) == before, "the other one heard nothing of it"
    ledger.check()


@pytest.mark.parametrize("client", BOTH)
def test_a_named_member_that_was_taken_for_another_comes_back(
    ledger: Any, steps: Any, eventually: Any, client: str
) -> None:
    """As brokers do when the answer to its first request was lost. Else it would poll for ever, and get nothing."""
    inbox: Inbox = ledger.applying()
    ledger.create(2)
    ledger.send(20)
    kafka = ledger.kafka(client, **SHORT[client])
    runner = ledger.start(inbox, kafka=kafka, instance_id="the-one")
    eventually(lambda: ledger.closed() == 20, "all are closed")
    taken: list[Partition] = []
    other = kafka.consumer(
        ledger.group, [ledger.topic], on_assigned=taken.extend, on_revoked=lambda _: None, instance="the-one"
    )
    eventually(lambda: other.poll(0.1, 1) or taken, "the other one has the partitions")
    other.close()
    steps.await_step("assigned", 2)
    ledger.send(20)
    eventually(lambda: ledger.closed() == 40 and runner.health.ready().ok, "all are closed, and it is ready")
    ledger.check()


def count(member: Any) -> int:
    """How many partitions it has."""
    partitions = 0
    for told in member.steps:
        if told["step"] in {"assigned", "revoked"}:
            changed = told["partitions"].count("Partition(")
            partitions += changed if told["step"] == "assigned" else -changed
    return partitions


@pytest.mark.parametrize("client", BOTH)
def test_only_what_moves_is_revoked_from_a_cooperative_member(
    ledger: Any, steps: Any, eventually: Any, client: str
) -> None:
    inbox: Inbox = ledger.applying()
    ledger.create(4)
    ledger.start(inbox, kafka=ledger.kafka(client), cooperative=True)
    eventually(lambda: sum(len(facts["partitions"]) for facts in steps.of("assigned")) == 4, "all are its own")
    ledger.send(200, keys=20)
    ledger.start(inbox, kafka=ledger.kafka(client), cooperative=True)
    eventually(lambda: sum(len(facts["partitions"]) for facts in steps.of("assigned")) == 6, "two moved")
    ledger.send(200, keys=20)
    eventually(lambda: ledger.closed() == 400, "all are handled")

    assert sum(len(facts["partitions"]) for facts in steps.of("revoked")) == 2
    ledger.check()
