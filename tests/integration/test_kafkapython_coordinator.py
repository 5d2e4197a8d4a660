"""Who coordinates a group changes with each broker that is restarted."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

from postroom.messaging.kafka import connect
from postroom.testing.kafka import Broker


def test_the_coordinator_is_not_taken_for_granted(
    postroom_real_kafka: Broker, postroom_topic: Callable[[str], str]
) -> None:
    """kafka-python's administrator never forgets one; here it believes in a broker that is gone."""
    kafka = connect(postroom_real_kafka.options_for("kafka-python"))
    topic, group = postroom_topic("read"), postroom_topic("group")
    with closing(kafka.topics()) as topics, closing(kafka.cluster()) as cluster:
        topics.create(topic, 1, 1, {})
        questions: list[tuple[Any, Callable[[], Any]]] = [
            (topics, lambda: topics.committed(group, [topic])),
            (cluster, lambda: cluster.members(group)),
        ]
        for client, ask in questions:
            assert not ask()
            known: dict[Any, Any] = client._admin._manager.cluster._coordinators
            assert known, "it remembers"
            known.update(dict.fromkeys(known, 7_000))
            assert not ask()
