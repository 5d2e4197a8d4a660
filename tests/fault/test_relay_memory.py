"""A relay's memory is bounded by bytes, whatever is in a transaction."""

from typing import Any

import psycopg
import pytest

from postroom.outbox.database import open_store

BATCH_BYTES = 8 * 1024 * 1024
MOST = 110_000_000
SIZE = 500_000
COUNT = 200


@pytest.mark.parametrize("client", ["kafka-python", "confluent-kafka"])
def test_large_messages_of_one_transaction_come_in_batches_that_fit_into_memory(
    workload: Any, spawn: Any, eventually: Any, client: str
) -> None:
    workload.publish(10)
    relay = spawn(client, settings={"batch_size": 2_000, "max_in_flight": 10_000, "lease_seconds": 5})
    eventually(lambda: workload.unsettled() == 0, "it runs")
    before = relay.steps[-1]["resident"]
    workload.publish(COUNT, size=SIZE, per_transaction=COUNT)
    eventually(lambda: workload.unsettled() == 0, "all is settled")
    assert relay.end() == 0

    most = max(told["resident"] for told in relay.steps)
    largest = max(told["count"] for told in relay.of("read")[1:]) * SIZE
    assert largest <= BATCH_BYTES + 2 * SIZE
    assert most - before < MOST
    assert workload.check(duplicates=0) == 0


def test_large_messages_that_waited_for_their_topic_are_let_go_in_batches_that_fit_into_memory(
    workload: Any, spawn: Any, eventually: Any
) -> None:
    workload.publish(10)
    relay = spawn(settings={"batch_size": 2_000, "max_in_flight": 10_000, "lease_seconds": 5})
    eventually(lambda: workload.unsettled() == 0, "it runs")
    before = relay.steps[-1]["resident"]
    store = open_store(workload.url)
    assert store.pause(workload.topic, "a test", "operator")
    workload.publish(COUNT, size=SIZE, per_transaction=COUNT)
    eventually(lambda: workload.unsettled() == 0, "all wait beside the log or are there")
    assert store.resume(workload.topic, "operator")
    store.close()
    with psycopg.connect(workload.url, autocommit=True) as connection:
        waiting = "SELECT count(*) FROM postroom.outbox_parked"
        eventually(lambda: connection.execute(waiting).fetchone() == (0,), "all that waited is published")
    assert relay.end() == 0

    assert max(told["resident"] for told in relay.steps) - before < MOST
    assert workload.check(duplicates=0) == 0
