"""P6: what Kafka refuses in the middle of several batches in flight stops its key, or its topic, and nothing else."""

import time
from collections import Counter
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from postroom.messaging.kafka import connect
from postroom.outbox import Message
from postroom.outbox.database import open_store

pytestmark = pytest.mark.usefixtures("postroom_real_kafka")
CLIENTS = ["kafka-python", "confluent-kafka"]
LARGE = 2_000_000
SEVERAL_BATCHES = {"batch_size": 20, "max_in_flight": 100}
#: The client lets large messages pass, so that it is the broker that refuses.
LARGE_OPTIONS = {"kafka-python": {"max_request_size": 4_000_000}, "confluent-kafka": {"message.max.bytes": 4_000_000}}
NO_NEW_TOPICS = {
    "kafka-python": {"allow_auto_create_topics": False, "max_block_ms": 1_000},
    "confluent-kafka": {"allow.auto.create.topics": False, "topic.metadata.propagation.max.ms": 1_000},
}


def create(workload: Any) -> None:
    topics = workload.kafka.topics()
    topics.create(workload.topic, 3, 1, {})
    topics.close()


def let_large_ones_in(workload: Any) -> None:
    admin = KafkaAdminClient(bootstrap_servers=workload.broker.bootstrap_servers)
    larger = {"max.message.bytes": "4000000"}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, workload.topic, larger)])
    admin.close()


def settled(steps: Any) -> int:
    return sum(facts["count"] for facts in steps.of("settled"))


@pytest.mark.parametrize("client", CLIENTS)
def test_large_messages_between_small_ones_wait_with_their_keys_until_the_limit_is_raised(
    workload: Any, steps: Any, relays: Any, eventually: Any, client: str
) -> None:
    create(workload)
    workload.publish(200, keys=5)
    workload.publish(2, keys=2, size=LARGE)  # key-0 and key-1
    workload.publish(200, keys=5)
    kafka = connect(workload.broker.options_for(client, LARGE_OPTIONS[client]))
    first = relays(workload, kafka=kafka, **SEVERAL_BATCHES)
    eventually(lambda: settled(steps) == 402, "all is settled")
    store = open_store(workload.url)
    parked = store.parked()

    assert [len(each.row.payload or b"") > LARGE for each in parked] == [True, True] + [False] * 80
    assert [each.error is None for each in parked] == [False, False] + [True] * 80
    assert Counter(each.row.key for each in parked) == {b"key-0": 41, b"key-1": 41}
    assert "max.message.bytes" in (parked[0].error or "")
    arrived = workload.arrived()
    assert len(arrived) == len(set(arrived)) == 320

    first.stop()
    assert first.join(30)
    workload.publish(5, keys=5)
    relays(workload, kafka=kafka, **SEVERAL_BATCHES)
    eventually(lambda: settled(steps) == 407, "another relay takes over")
    assert len(store.parked()) == 84, "the next of the two keys wait as well"
    let_large_ones_in(workload)
    assert store.request_retry([each.row.position for each in parked[:2]]) == 2
    workload.publish(50, keys=5)
    eventually(lambda: workload.unsettled() == 0 and not store.parked(), "all that waited is published")
    store.close()

    assert workload.check(duplicates=0) == 0


@pytest.mark.parametrize("client", CLIENTS)
def test_a_topic_whose_policy_is_stop_stands_still_while_others_go_on_and_goes_on_in_order(
    workload: Any, steps: Any, relays: Any, eventually: Any, client: str
) -> None:
    other = replace(workload, topic=f"{workload.topic}-other", sent=type(workload.sent)(), ids={})
    create(workload)
    create(other)
    workload.publish(100, keys=5)
    workload.publish(1, keys=1, size=LARGE)  # key-0
    for _ in range(5):
        workload.publish(40, keys=5)
        other.publish(40, keys=5)
    relays(
        workload,
        kafka=connect(workload.broker.options_for(client, LARGE_OPTIONS[client])),
        on_refused_by_topic={workload.topic: "stop"},
        **SEVERAL_BATCHES,
    )
    eventually(lambda: settled(steps) == 501, "all is settled")
    store = open_store(workload.url)

    assert "Kafka refused the message at position" in store.control().topics[workload.topic]
    other.check(duplicates=0)
    arrived = workload.arrived()
    # Shard by shard, so what other keys had on their way may be there, later messages too; not the rest.
    assert len(arrived) == len(set(arrived)) < 300
    assert [number for key, number in arrived if key == b"key-0"] == list(range(1, 21))
    other.publish(100)
    eventually(lambda: settled(steps) == 601, "the other goes on")
    [refused] = store.parked(topic=workload.topic, refused=True)
    let_large_ones_in(workload)
    assert store.request_retry([refused.row.position]) == 1
    assert store.resume(workload.topic, "operator")
    workload.publish(50, keys=5)
    eventually(lambda: workload.unsettled() == 0 and not store.parked(), "all that waited is published")
    store.close()

    assert workload.check(duplicates=0) == 0
    assert other.check(duplicates=0) == 0


def test_with_park_message_the_key_goes_on_with_several_batches_in_flight(
    workload: Any, steps: Any, relays: Any, eventually: Any
) -> None:
    create(workload)
    workload.publish(100, keys=2)
    workload.publish(1, keys=1, size=LARGE)
    workload.publish(100, keys=2)
    relays(workload, on_refused="park-message", **SEVERAL_BATCHES)
    eventually(lambda: settled(steps) == 201, "all is settled")
    by_key = {key: [number for found, number in workload.arrived() if found == key] for key in workload.sent}

    assert by_key == {
        b"key-0": [number for number in range(1, 102) if number != 51],
        b"key-1": list(range(1, 101)),
    }


@pytest.mark.parametrize("client", CLIENTS)
def test_thousands_of_messages_to_an_unknown_topic_are_parked_quickly_and_others_go_on(
    workload: Any, steps: Any, relays: Any, eventually: Any, client: str
) -> None:
    create(workload)
    with psycopg.connect(workload.url) as connection:
        for number in range(2_000):
            unknown = Message(topic=f"{workload.topic}-unknown", key=str(number), payload=b"1", type="x")
            workload.outbox.publish(connection, unknown)
    workload.publish(500)
    kafka = connect(workload.broker.options_for(client, NO_NEW_TOPICS[client]))
    began = time.monotonic()
    relays(workload, kafka=kafka)
    eventually(lambda: settled(steps) == 2_500, "all is settled")
    took = time.monotonic() - began
    store = open_store(workload.url)
    parked = store.parked(limit=3_000)
    store.close()

    assert len(parked) == 2_000
    assert all(each.error and f"{workload.topic}-unknown" in each.error for each in parked)
    assert workload.check(duplicates=0) == 0
    assert took <= 10.0
