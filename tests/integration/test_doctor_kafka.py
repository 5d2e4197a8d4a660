"""Each check of ``postroom doctor`` that asks Kafka, in both states, against real brokers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from threading import Event
from typing import Any

import pytest

from postroom.cli.checkup.cluster import judged_copies
from postroom.cli.checkup.examine import CHECKS, examine
from postroom.inbox import Inbox
from postroom.messaging.clock import SystemClock
from postroom.messaging.kafka import connect
from postroom.messaging.kafkapython.cluster import AdminCluster
from postroom.messaging.ports import Kafka
from postroom.messaging.records import Copies, OutgoingRecord
from postroom.testing.kafka import Broker

Doctor = Any  # tests/integration/conftest.py
Append = Callable[..., None]


@contextmanager
def topics_of(kafka: Kafka, **made: dict[str, str]) -> Iterator[None]:
    with closing(kafka.topics()) as topics:
        for name, config in made.items():
            assert topics.create(name.replace("__", "."), 1, 1, config)
    yield


def inbox_of(*topics: str) -> Inbox:
    inbox = Inbox("billing")
    for topic in topics:

        @inbox.handler(topic)
        def handle(event: Any, ctx: Any) -> None: ...

    return inbox


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ({"auto.create.topics.enable": "false"}, "problem"),
        ({}, "warning"),
        ({"auto.create.topics.enable": "true"}, "ok"),
    ],
)
def test_topics_that_are_missing_are_a_problem_where_the_brokers_make_none(
    doctor: Doctor,
    append: Append,
    postroom_real_kafka: Broker,
    postroom_topic: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    told: dict[str, str],
    state: str,
) -> None:
    """What the brokers are set to is the only thing that is not real here."""
    monkeypatch.setattr(AdminCluster, "defaults", lambda _: told)
    orders, prices = postroom_topic("orders"), postroom_topic("prices")
    inbox, dead = inbox_of(orders), f"{orders}.billing.dlq"
    append(prices, b"k")
    here = doctor.at(postroom_real_kafka)
    found = here.look("topic", inbox=inbox)
    assert {place: each.state for place, each in found.items()} == {
        ("topic", orders): "problem",
        ("topic", dead): state,
        ("topic", prices): state,
    }
    assert found["topic", dead].todo == (
        "" if state == "ok" else f"postroom topics create {orders} --dead-letters billing"
    )
    assert ("would be refused by Kafka and parked" in found["topic", prices].told) == (state != "ok")
    with topics_of(connect(postroom_real_kafka.options_for()), **{orders: {}, dead.replace(".", "__"): {}, prices: {}}):
        assert {each.state for each in here.look("topic", inbox=inbox).values()} == {"ok"}


def test_a_compacted_topic_takes_no_messages_without_a_key(
    doctor: Doctor, append: Append, postroom_real_kafka: Broker, postroom_topic: Callable[[str], str]
) -> None:
    topic = postroom_topic("compacted")
    here = doctor.at(postroom_real_kafka)
    with topics_of(connect(postroom_real_kafka.options_for()), **{topic: {"cleanup.policy": "compact"}}):
        append(topic, b"k")
        assert ("topic", topic) not in here.look("topic")
        append(topic, None)
        found = here.look("topic")["topic", topic]
        assert (found.state, "without a key" in found.told) == ("problem", True)


def test_topics_that_take_less_than_what_is_sent_or_less_than_all_brokers_are_told(
    doctor: Doctor, append: Append, postroom_real_kafka: Broker, postroom_topic: Callable[[str], str]
) -> None:
    tight, small, read = postroom_topic("tight"), postroom_topic("small"), postroom_topic("read")
    append(tight, b"k")
    append(small, b"k")
    topics = {
        tight: {"max.message.bytes": "1000"},
        small: {"max.message.bytes": "5000", "min.insync.replicas": "2"},
        read: {"max.message.bytes": "3000000"},
        f"{read}__billing__dlq": {},
    }
    with topics_of(connect(postroom_real_kafka.options_for()), **topics):
        found = doctor.at(postroom_real_kafka).look("size", "copies", inbox=inbox_of(read))
    assert (found["size", tight].state, found["size", small].state) == ("problem", "warning")
    letters = found["size", f"{read}.billing.dlq"]
    assert (letters.state, "max.message.bytes to 3000000" in letters.todo) == ("warning", True)
    assert ("size", read) not in found
    assert (found["copies", small].state, found["copies", ""].state) == ("problem", "ok")
    assert "Kafka takes nothing for it now" in found["copies", small].told


def test_a_group_that_is_behind_is_told_by_who_reads(
    doctor: Doctor, postroom_kafka: Broker, postroom_topic: Callable[[str], str]
) -> None:
    topic, group = postroom_topic("lag"), postroom_topic("group")
    kafka, inbox = connect(postroom_kafka.options_for()), Inbox(group)
    inbox.handler(topic)(lambda event, ctx: None)
    publisher = kafka.publisher()
    assert publisher.send([OutgoingRecord(topic, b"k", b"%d" % n, []) for n in range(20)]).wait(30)
    here, place = doctor.at(postroom_kafka), ("lag", f"{group}, {topic}")
    alone = here.look("lag", inbox=inbox)[place]
    assert (alone.state, "20 behind, 0 members: nobody reads" in alone.told) == ("problem", True)

    with ExitStack() as stack:
        stack.callback(publisher.close, 5)
        consumer = kafka.consumer(group, [topic], on_assigned=lambda _: None, on_revoked=lambda _: None)
        stack.callback(consumer.close)
        read: list[Any] = []
        while len(read) < 20:
            read += consumer.poll(1.0, 100)
        stuck = here.look("lag", inbox=inbox)[place]
        assert (stuck.state, "none was read within a second" in stuck.told) == ("warning", True)

        patient = here.patient(inbox)
        patient.clock = Busy(lambda: consumer.commit({read[4].partition: read[4].offset + 1}))
        [moving] = examine(patient, [check for check in CHECKS if check.name == "lag"])
        assert (moving.state, "5 read within the last second" in moving.told) == ("ok", True)
        patient.close()
        consumer.commit({read[-1].partition: read[-1].offset + 1})
        assert here.look("lag", inbox=inbox)[place].state == "ok"


class Busy(SystemClock):
    """Something happens while the doctor waits."""

    def __init__(self, what: Callable[[], None]) -> None:
        self._what = what

    def wait(self, event: Event, timeout: float) -> bool:
        self._what()
        return event.is_set()


@pytest.mark.parametrize(
    ("of", "config", "brokers", "expected"),
    [
        (Copies(1, 1, 0), {}, 1, []),
        (Copies(3, 3, 0), {"min.insync.replicas": "2"}, 3, []),
        (Copies(1, 1, 0), {}, 3, ["warning: one copy on a cluster of 3 brokers"]),
        (Copies(3, 3, 0), {"min.insync.replicas": "1"}, 3, ["warning: min.insync.replicas is 1 of 3"]),
        (Copies(2, 2, 0), {"min.insync.replicas": "2"}, 3, ["warning: min.insync.replicas is 2 of 2"]),
        (Copies(3, 2, 0), {"min.insync.replicas": "2"}, 3, ["warning: 2 of 3 copies in sync"]),
        (Copies(3, 1, 0), {"min.insync.replicas": "2"}, 3, ["problem: 1 of 3 copies in sync"]),
        (Copies(3, 0, 2), {"min.insync.replicas": "2"}, 3, ["problem: 2 partitions without a leader"]),
        (
            Copies(3, 3, 0),
            {"min.insync.replicas": "2", "unclean.leader.election.enable": "true"},
            3,
            ["problem: unclean.leader.election.enable is true"],
        ),
    ],
)
def test_copies_over_several_brokers_are_judged(
    of: Copies, config: dict[str, str], brokers: int, expected: list[str]
) -> None:
    """By numbers, as one broker has no more than one copy."""
    found = [f"{each.state}: {each.told}" for each in judged_copies("orders", of, config, brokers)]
    assert [told.startswith(start) for told, start in zip(found, expected, strict=True)] == [True] * len(expected), (
        found
    )
