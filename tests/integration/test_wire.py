"""What others see of our records: the CloudEvents SDK, and Kafka's own consumer on the command line."""

import subprocess
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event

from postroom.outbox import Event, Message, Outbox
from postroom.outbox.database import open_store
from postroom.relay import Relay
from postroom.testing.kafka import Broker


@pytest.fixture
def published(workload: Any, steps: Any) -> UUID:
    """One order, relayed."""

    class OrderPlaced(Event, topic=workload.topic, key="order_id", type="shop.order.placed", version=2):
        order_id: int
        note: str
        total: Decimal

    outbox = Outbox(source="/shop/é")
    with psycopg.connect(workload.url) as connection:
        event = OrderPlaced(order_id=7, note="grüße", total=Decimal("1.50"))
        message_id = outbox.publish(connection, event, headers={"tenant": "zürich"}, correlation_id="c-1")
    relay = Relay(open_store(workload.url), workload.kafka, observer=steps)
    relay.start()
    steps.await_step("settled")
    relay.stop()
    assert relay.join(30)
    return message_id


def test_the_cloudevents_sdk_reads_them(workload: Any, published: UUID) -> None:
    reader = workload.kafka.reader()
    (record,) = reader.read(workload.topic)
    reader.close()

    event = from_kafka_event(KafkaMessage(headers=dict(record.headers), key=record.key, value=record.value))

    assert event.get_specversion() == "1.0"
    assert event.get_id() == str(published)
    assert event.get_type() == "shop.order.placed"
    assert event.get_source() == "/shop/é"
    assert event.get_subject() == "7"
    assert event.get_datacontenttype() == "application/json"
    assert event.get_dataschema() == "urn:postroom:schema:shop.order.placed:2"
    time = event.get_time()
    assert time is not None
    assert time.tzinfo is not None
    assert event.get_data() == {"order_id": 7, "note": "grüße", "total": "1.50"}


def test_kafkas_own_consumer_shows_key_and_headers(workload: Any, postroom_real_kafka: Broker, published: UUID) -> None:
    command = postroom_real_kafka.command_line(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        *("--bootstrap-server", postroom_real_kafka.bootstrap_servers, "--topic", workload.topic),
        *("--from-beginning", "--max-messages", "1", "--timeout-ms", "30000"),
        *("--property", "print.key=true", "--property", "print.headers=true"),
    )
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    headers, key, value = shown.strip().split("\t")
    assert key == "7"
    assert value == '{"order_id":7,"note":"grüße","total":"1.50"}'
    told = dict(pair.split(":", 1) for pair in headers.split(","))
    assert told.pop("ce_dataschema") == "urn:postroom:schema:shop.order.placed:2"
    told.pop("ce_time")
    assert told == {
        "ce_specversion": "1.0",
        "ce_id": str(published),
        "ce_type": "shop.order.placed",
        "ce_source": "/shop/é",
        "ce_subject": "7",
        "content-type": "application/json",
        "tenant": "zürich",
        "correlation_id": "c-1",
    }


def test_a_key_lands_where_javas_default_partitioner_puts_it(workload: Any, steps: Any, eventually: Any) -> None:
    """Java: toPositive(murmur2(key)) % partitions; these hashes are from Kafka's own tests of murmur2."""
    known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    with psycopg.connect(workload.url) as connection:
        for key in known:
            workload.outbox.publish(connection, Message(topic=workload.topic, key=key, payload=b"1", type="x"))
    relay = Relay(open_store(workload.url), workload.kafka, observer=steps)
    relay.start()
    eventually(lambda: workload.unsettled() == 0, "all is settled")
    relay.stop()
    assert relay.join(30)
    reader = workload.kafka.reader()
    partitions = len(reader.offsets(workload.topic))
    placed = {record.key: record.partition.number for record in reader.read(workload.topic)}
    reader.close()

    assert placed == {key: (murmur2 & 0x7FFFFFFF) % partitions for key, murmur2 in known.items()}
