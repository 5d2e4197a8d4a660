"""kafka-python's way of joining a group, where it needs help."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

from kafka.coordinator.base import MemberState

from postroom.messaging.kafka import connect
from postroom.messaging.records import Partition
from postroom.testing.kafka import Broker


def test_a_join_that_is_done_while_nobody_polls_is_taken_up(
    postroom_real_kafka: Broker, postroom_topic: Callable[[str], str], eventually: Any
) -> None:
    """Else it is begun anew, which is a rebalance for all; members that poll in turns would never come to rest."""
    kafka = connect(postroom_real_kafka.options_for("kafka-python"))
    topic, group = postroom_topic("joined"), postroom_topic("group")
    with closing(kafka.topics()) as topics:
        topics.create(topic, 2, 1, {})
    came: list[Partition] = []
    consumer: Any = kafka.consumer(group, [topic], on_assigned=came.extend, on_revoked=lambda _: came.clear())
    with closing(consumer):
        coordinator = consumer._consumer._coordinator

        def poll_until(condition: Callable[[], bool], what: str, timeout: float) -> None:
            def polled() -> bool:
                consumer.poll(timeout, 1)
                return condition()

            eventually(polled, what)

        poll_until(lambda: len(came) == 2, "it has the partitions", 0.2)
        coordinator.request_rejoin()
        poll_until(lambda: coordinator._join_task is not None, "it joins again", 0.0)
        eventually(lambda: coordinator._join_task.is_done, "it has joined")
        generation = coordinator._generation
        assert coordinator.state is MemberState.REBALANCING, "nobody knows yet"

        poll_until(lambda: len(came) == 2, "it has the partitions again", 0.2)
        assert coordinator._generation == generation
        coordinator.request_rejoin()
        poll_until(lambda: coordinator._generation != generation, "the next join is another one", 0.2)
