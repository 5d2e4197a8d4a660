"""P2, P3, P4, P8 when Kafka goes: killed, frozen, cut off from one relay, with several batches in flight."""

from typing import Any

import pytest

from postroom.messaging.kafka import connect

BATCH = 100
WINDOW = 400
STEP_ASIDE = 1.0
#: What is in flight fills the window, and what gets no answer is sent again soon.
IMPATIENT = {
    "kafka-python": {"linger_ms": 20, "request_timeout_ms": 1_500},
    "confluent-kafka": {"linger.ms": 20, "request.timeout.ms": 1_500, "socket.timeout.ms": 1_500},
}


def total(steps: Any, step: str) -> int:
    return sum(facts["count"] for facts in steps.of(step))


def shards(steps: Any) -> int:
    return len(steps.of("claimed")[-1]["shards"]) if steps.of("claimed") else 0


@pytest.mark.parametrize("client", ["kafka-python", "confluent-kafka"])
@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_broker_that_goes_in_mid_flow_costs_nothing_and_doubles_nothing(
    breakable: Any, steps: Any, relays: Any, eventually: Any, fault: str, client: str
) -> None:
    broker = breakable.broker
    breakable.publish(4_000)
    relays(breakable, kafka=connect(broker.options_for(client, IMPATIENT[client])))
    steps.await_step("settled", 2)
    eventually(lambda: total(steps, "read") - total(steps, "settled") > BATCH, "several batches are in flight")
    getattr(broker, fault)()
    breakable.publish(500)
    if fault == "kill":
        broker.start()
    else:
        steps.await_step("waiting")  # and the client has sent again what got no answer
        broker.resume()
    eventually(lambda: breakable.unsettled() == 0, "all is settled")

    assert not steps.of("parked")
    assert breakable.check(duplicates=0) == 0


def test_a_relay_started_while_kafka_is_away_begins_when_it_comes_and_alone_does_not_step_aside(
    breakable: Any, steps: Any, relays: Any, eventually: Any
) -> None:
    breakable.broker.stop()
    breakable.publish(100)
    kafka = connect(breakable.broker.options_for(options={"bootstrap_timeout_ms": 500}))
    relay = relays(breakable, kafka=kafka, step_aside_seconds=STEP_ASIDE)
    steps.await_step("paused", 4)  # half a second each at least
    assert not relay.health.ready().ok
    breakable.broker.start()
    eventually(lambda: breakable.unsettled() == 0, "all is settled")
    steps.await_step("resumed")
    assert relay.health.ready().ok

    assert not steps.of("stepped_aside")
    breakable.check(duplicates=0)


@pytest.mark.parametrize(
    ("fault", "client"), [("freeze", "kafka-python"), ("cut", "kafka-python"), ("freeze", "confluent-kafka")]
)
def test_a_relay_that_alone_loses_kafka_steps_aside_and_joins_again(
    breakable: Any, steps: Any, relays: Any, writing: Any, eventually: Any, fault: str, client: str
) -> None:
    broker, other = breakable.broker, type(steps)()
    relays(breakable, kafka=connect(broker.through().options_for(client)), step_aside_seconds=STEP_ASIDE)
    eventually(lambda: shards(steps) == 16, "the first has all")
    relays(breakable, observer=other, step_aside_seconds=STEP_ASIDE)
    with writing(breakable):
        eventually(lambda: (shards(steps), shards(other)) == (8, 8), "half each")
        before = total(steps, "settled"), total(other, "settled")
        eventually(lambda: total(steps, "settled") > before[0] and total(other, "settled") > before[1], "both work")
        getattr(broker.proxy, fault)()
        # Its silence, then at most a lease until what was in flight is given up.
        steps.await_step("stepped_aside", seconds=STEP_ASIDE + 2 + 3)
        eventually(lambda: shards(other) == 16, "the other takes all", 3)
        before = total(steps, "settled"), total(other, "settled")
        eventually(lambda: total(other, "settled") > before[1] + 500, "the other goes on with all")
        assert total(steps, "settled") == before[0]
        broker.proxy.restore()
        eventually(lambda: (shards(steps), shards(other)) == (8, 8), "it joins again")
        eventually(lambda: total(steps, "settled") > before[0], "and works")
    eventually(lambda: breakable.unsettled() == 0, "all is settled")

    assert not other.of("stepped_aside")
    breakable.check(duplicates=WINDOW)


@pytest.mark.parametrize("client", ["kafka-python", "confluent-kafka"])
def test_without_another_relay_it_keeps_its_shards_and_doubles_nothing_when_the_line_is_back(
    breakable: Any, steps: Any, relays: Any, eventually: Any, client: str
) -> None:
    broker = breakable.broker
    breakable.publish(4_000)
    relays(
        breakable,
        kafka=connect(broker.through().options_for(client, IMPATIENT[client])),
        step_aside_seconds=STEP_ASIDE,
    )
    steps.await_step("settled", 2)
    broker.proxy.freeze()
    steps.await_step("waiting")
    assert steps.of("waiting")[0]["seconds"] >= STEP_ASIDE
    broker.proxy.cut()
    broker.proxy.restore()
    eventually(lambda: breakable.unsettled() == 0, "all is settled")

    assert not steps.of("stepped_aside")
    assert len(steps.of("claimed")) == 1
    assert breakable.check(duplicates=0) == 0
