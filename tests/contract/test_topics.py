"""What tools rely on, whatever the client: topics, offsets, reading without a group, and a group's place."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from postroom.messaging.errors import ConfigurationError, InvalidRecord, KafkaUnavailable, UnknownTopic
from postroom.messaging.kafka import connect
from postroom.messaging.ports import DEFAULT, Kafka, Topics
from postroom.messaging.records import Copies, OutgoingRecord
from postroom.testing import kafka_broker


@pytest.fixture
def kafka(any_cluster: Any) -> Kafka:
    kafka: Kafka = any_cluster.kafka()
    return kafka


@pytest.fixture
def topics(kafka: Kafka) -> Iterator[Topics]:
    topics = kafka.topics()
    yield topics
    topics.close()


def send(kafka: Kafka, topic: str, count: int) -> None:
    publisher = kafka.publisher()
    publication = publisher.send([OutgoingRecord(topic, b"%d" % n, b"%d" % n, []) for n in range(count)])
    assert publication.wait(30)
    assert publication.errors() == {}
    publisher.close(5)


def test_a_topic_is_created_once(real: Any, postroom_topic: Callable[[str], str]) -> None:
    """Not on the mock cluster, which makes topics on first use only."""
    topic = postroom_topic("new")
    topics = real.kafka().topics()

    assert topic not in topics.partitions()
    assert topics.create(topic, 3, 1, {})
    assert topics.partitions()[topic] == 3
    assert not topics.create(topic, 5, 1, {})
    assert topics.partitions()[topic] == 3
    topics.close()


def test_a_topic_is_created_as_the_brokers_settings_say(real: Any, postroom_topic: Callable[[str], str]) -> None:
    topic = postroom_topic("default")
    topics = real.kafka().topics()

    assert topics.create(topic, DEFAULT, DEFAULT, {})
    assert topics.partitions()[topic] >= 1
    assert not topics.create(topic, DEFAULT, DEFAULT, {})
    topics.close()


def test_a_topic_is_created_with_its_settings(real: Any, postroom_topic: Callable[[str], str]) -> None:
    """A compacted topic takes no record without a key."""
    topic = postroom_topic("compacted")
    kafka = real.kafka()
    topics = kafka.topics()
    assert topics.create(topic, 1, 1, {"cleanup.policy": "compact"})
    topics.close()

    publisher = kafka.publisher()
    publication = publisher.send([OutgoingRecord(topic, None, b"1", [])])
    assert publication.wait(30)
    publisher.close(5)
    assert {type(error) for error in publication.errors().values()} == {InvalidRecord}


@pytest.mark.parametrize(
    ("replication", "config"), [(300, {}), (1, {"no.such.setting": "1"}), (1, {"retention.ms": "soon"})]
)
def test_settings_that_kafka_refuses_are_told_and_create_nothing(
    real: Any,
    postroom_topic: Callable[[str], str],
    replication: int,
    config: dict[str, str],
) -> None:
    topic = postroom_topic("refused")
    topics = real.kafka().topics()

    with pytest.raises(ConfigurationError, match="Kafka refuses these settings of a topic") as raised:
        topics.create(topic, 1, replication, config)

    assert "\n" not in str(raised.value)
    assert topic not in topics.partitions()
    topics.close()


def test_a_topic_is_read_from_anywhere_to_its_end(kafka: Kafka, postroom_topic: Callable[[str], str]) -> None:
    topic = postroom_topic("read")
    send(kafka, topic, 200)
    reader = kafka.reader()
    offsets = reader.offsets(topic)
    everything = list(reader.read(topic))
    middle = {number: after // 2 for number, (_, after) in offsets.items()}
    half = list(reader.read(topic, middle))
    nothing = list(reader.read(topic, {number: after for number, (_, after) in offsets.items()}))
    reader.close()

    assert sorted(int(record.value or b"") for record in everything) == list(range(200))
    assert {record.partition.number: [] for record in everything}.keys() <= offsets.keys()
    for number, (first, after) in offsets.items():
        mine = [record.offset for record in everything if record.partition.number == number]
        assert mine == list(range(first, after))
        assert [r.offset for r in half if r.partition.number == number] == list(range(after // 2, after))
    assert nothing == []


def test_reading_ends_where_it_is_told(kafka: Kafka, postroom_topic: Callable[[str], str]) -> None:
    topic = postroom_topic("middle")
    send(kafka, topic, 200)
    reader = kafka.reader()
    offsets = reader.offsets(topic)
    middle = {number: after // 2 for number, (_, after) in offsets.items()}
    found = list(reader.read(topic, end=middle))
    beyond = list(reader.read(topic, end={number: after + 5 for number, (_, after) in offsets.items()}))
    reader.close()

    assert len(beyond) == 200
    for number, end in middle.items():
        assert [record.offset for record in found if record.partition.number == number] == list(range(end))


def test_a_moment_is_the_offset_of_the_first_record_that_is_not_older(
    real: Any, postroom_topic: Callable[[str], str]
) -> None:
    """Not on the mock cluster, which knows no timestamps: see the next test."""
    kafka, topic = real.kafka(), postroom_topic("moments")
    send(kafka, topic, 40)
    reader = kafka.reader()
    before, ends = list(reader.read(topic)), {n: end for n, (_, end) in reader.offsets(topic).items()}
    last = max(record.timestamp for record in before)
    later = last + timedelta(milliseconds=1)
    while datetime.now(UTC) <= later:  # the clock that the client stamps its records by
        pass
    send(kafka, topic, 40)

    assert reader.offsets_at(topic, later) == ends
    assert reader.offsets_at(topic, last - timedelta(hours=1)) == dict.fromkeys(ends, 0)
    assert reader.offsets_at(topic, last + timedelta(hours=1)) == {
        n: end for n, (_, end) in reader.offsets(topic).items()
    }
    with pytest.raises(UnknownTopic):
        reader.offsets_at(postroom_topic("absent"), last)
    reader.close()


def test_a_cluster_without_timestamps_has_no_moment(client: str, postroom_topic: Callable[[str], str]) -> None:
    with kafka_broker(prefer="mock") as mock:
        kafka, topic = connect(mock.options_for(client)), postroom_topic("mock")
        send(kafka, topic, 40)
        reader = kafka.reader()
        ends = {n: end for n, (_, end) in reader.offsets(topic).items()}
        assert reader.offsets_at(topic, datetime(2020, 1, 1, tzinfo=UTC)) == ends
        reader.close()


def test_an_unknown_topic_is_told_and_not_created(
    kafka: Kafka, topics: Topics, postroom_topic: Callable[[str], str]
) -> None:
    topic = postroom_topic("absent")
    reader = kafka.reader()
    with pytest.raises(UnknownTopic, match="check the name"):
        reader.offsets(topic)
    with pytest.raises(UnknownTopic, match="check the name"):
        list(reader.read(topic))
    reader.close()

    assert topic not in topics.partitions()


def test_reading_ends_at_the_end_as_it_was(kafka: Kafka, postroom_topic: Callable[[str], str]) -> None:
    topic = postroom_topic("growing")
    send(kafka, topic, 20)
    reader = kafka.reader()
    records = reader.read(topic)
    first = next(records)
    send(kafka, topic, 20)
    rest = list(records)
    again = list(reader.read(topic))
    reader.close()

    assert len([first, *rest]) == 20
    assert len(again) == 40


def test_a_group_that_committed_nothing_has_no_place(
    kafka: Kafka, topics: Topics, postroom_topic: Callable[[str], str]
) -> None:
    topic = postroom_topic("nobody")
    send(kafka, topic, 5)

    assert topics.committed(postroom_topic("group"), [topic]) == {}
    assert topics.committed(postroom_topic("group"), [postroom_topic("absent")]) == {}


def test_a_topics_settings_are_told_with_the_brokers_defaults(real: Any, postroom_topic: Callable[[str], str]) -> None:
    """Not on the mock cluster, which does not know the question."""
    topic, other, absent = postroom_topic("set"), postroom_topic("default"), postroom_topic("absent")
    topics = real.kafka().topics()
    topics.create(topic, 1, 1, {"retention.ms": "-1", "cleanup.policy": "compact"})
    topics.create(other, 1, 1, {})
    found = topics.configuration([topic, other, absent])

    assert found.keys() == {topic, other}
    assert (found[topic]["retention.ms"], found[topic]["cleanup.policy"]) == ("-1", "compact")
    assert int(found[other]["retention.ms"]) > 0
    assert found[other]["cleanup.policy"] == "delete"
    assert topics.configuration([]) == {}
    assert absent not in topics.partitions()
    topics.close()


def test_a_cluster_that_does_not_tell_settings_is_unavailable_for_that(client: str) -> None:
    with kafka_broker(prefer="mock") as mock:
        topics = connect(mock.options_for(client)).topics()
        with pytest.raises(KafkaUnavailable):
            topics.configuration(["t"])
        topics.close()


def test_a_cluster_tells_its_brokers_and_how_topics_are_copied(
    any_cluster: Any, kafka: Kafka, topics: Topics, postroom_topic: Callable[[str], str]
) -> None:
    topic, absent = postroom_topic("copied"), postroom_topic("absent")
    send(kafka, topic, 5)
    with closing(kafka.cluster()) as cluster:
        brokers = cluster.brokers()

        assert brokers.number == 1
        assert (brokers.version is not None) == (any_cluster.client == "kafka-python")
        assert cluster.copies([topic, absent]) == {topic: Copies(1, 1, 0)}
        assert cluster.copies([]) == {}
        assert absent not in topics.partitions(), "asking makes none"


def test_a_cluster_tells_its_settings(real: Any) -> None:
    """Not the mock cluster, which does not know the question."""
    with closing(real.kafka().cluster()) as cluster:
        found = cluster.defaults()
    assert found["auto.create.topics.enable"] in ("true", "false")
    assert int(found["min.insync.replicas"]) >= 1


def test_the_members_of_a_group_are_counted(real: Any, postroom_topic: Callable[[str], str]) -> None:
    kafka: Kafka = real.kafka()
    topic, group = postroom_topic("read"), postroom_topic("group")
    send(kafka, topic, 1)
    with closing(kafka.cluster()) as cluster:
        assert cluster.members(group) == 0
        consumer = kafka.consumer(group, [topic], on_assigned=lambda _: None, on_revoked=lambda _: None)
        while not consumer.poll(1.0, 10):
            pass
        assert cluster.members(group) == 1
        consumer.close()
        assert cluster.members(group) == 0
