"""``verify`` beside applications that publish and relays that are killed: never a false alarm, no doubt at the end."""

import signal
from typing import Any

from postroom.outbox.verification import Verification, verify

WINDOW = 400


def test_no_false_alarm_while_relays_are_killed(workload: Any, spawn: Any, writing: Any, eventually: Any) -> None:
    seen: list[Verification] = []
    kills = 0

    def look() -> Verification:
        found = verify(workload.url, workload.kafka)
        assert found.ok, (found.topics, found.examples)
        seen.append(found)
        return found

    workload.publish(500)
    with writing(workload, pause=0.002):
        for _ in range(3):
            relay = spawn(settings={"settle_seconds": 0.2})  # so that much is in Kafka and not settled
            relay.await_step("settled")
            look()
            look()
            relay.await_step("published", len(relay.of("published")) + 1)
            assert relay.end(signal.SIGKILL) == -signal.SIGKILL
            kills += 1
            look()
    last = spawn()
    eventually(lambda: workload.unsettled() == 0, "all is settled")
    assert last.end() == 0

    found = look()
    [topic] = found.topics
    assert (topic.logged, topic.arrived) == (workload.sent.total(), workload.sent.total())
    assert topic.doubled == workload.check(duplicates=kills * WINDOW)
    assert topic.doubled > 0, "some were published twice, so that something could be misread"
    assert any(each.topics and each.topics[0].waiting for each in seen), "it looked while messages waited"
