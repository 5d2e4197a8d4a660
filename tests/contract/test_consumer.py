"""What every Kafka client guarantees behind the port of a consumer group's member."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from kafka import KafkaProducer

from postroom.messaging.errors import Fenced, KafkaUnavailable
from postroom.messaging.ports import Consumer, Kafka, Topics
from postroom.messaging.records import OutgoingRecord, Partition, ReceivedRecord
from postroom.testing.kafka import Broker


@pytest.fixture
def kafka(any_cluster: Any) -> Kafka:
    kafka: Kafka = any_cluster.kafka()
    return kafka


@pytest.fixture
def topics(kafka: Kafka) -> Iterator[Topics]:
    topics = kafka.topics()
    yield topics
    topics.close()


@dataclass
class Member:
    """A member of a group, and what its hooks told."""

    kafka: Kafka
    group: str
    topic: str
    cooperative: bool = False
    owned: list[Partition] = field(default_factory=list)
    placed: bool = False
    revoked: list[Partition] = field(default_factory=list)
    polling: bool = False

    def __post_init__(self) -> None:
        self.consumer: Consumer = self.kafka.consumer(
            self.group,
            [self.topic],
            on_assigned=self._assigned,
            on_revoked=self._revoked,
            cooperative=self.cooperative,
        )

    def _assigned(self, partitions: Sequence[Partition]) -> None:
        assert self.polling, "the hooks run inside poll and close"
        self.owned += partitions
        self.placed = True

    def _revoked(self, partitions: Sequence[Partition]) -> None:
        assert self.polling, "the hooks run inside poll and close"
        self.revoked += partitions
        self.owned = [part for part in self.owned if part not in partitions]

    def poll(self, timeout: float = 0.2, max_records: int = 1000) -> list[ReceivedRecord]:
        self.polling = True
        records = list(self.consumer.poll(timeout, max_records))
        self.polling = False
        return records

    def poll_for(self, count: int, max_records: int = 1000) -> list[ReceivedRecord]:
        got: list[ReceivedRecord] = []
        for _ in range(200):
            polled = self.poll(max_records=max_records)
            assert len(polled) <= max_records
            got += polled
            if len(got) >= count:
                return got
        places = sorted((record.partition.number, record.offset) for record in got)
        with closing(self.kafka.reader()) as reader:
            ends = {number: end for number, (_, end) in reader.offsets(self.topic).items()}
        pytest.fail(f"only {len(got)} of {count} records came: {places}; {self.owned} are ours; the log ends at {ends}")

    def close(self) -> None:
        self.polling = True
        self.consumer.close()


def send(kafka: Kafka, topic: str, count: int) -> None:
    publisher = kafka.publisher()
    publication = publisher.send([OutgoingRecord(topic, b"%d" % n, b"%d" % n, [("h", b"")]) for n in range(count)])
    assert publication.wait(30)
    assert publication.errors() == {}
    publisher.close(5)


def test_a_group_goes_on_where_it_committed(
    any_cluster: Any, kafka: Kafka, topics: Topics, postroom_topic: Callable[[str], str]
) -> None:
    topic, group = postroom_topic("group"), postroom_topic("group")
    send(kafka, topic, 50)
    first = Member(kafka, group, topic)
    got = first.poll_for(50, max_records=7)
    assert sorted(int(record.value or b"") for record in got) == list(range(50))
    assert got[0].headers == [("h", b"")]
    assert topics.committed(group, [topic]) == {}

    kept = {record.partition: record.offset for record in got}
    first.consumer.commit(kept)  # the last of each partition stays to be read
    first.consumer.commit({})
    owned = list(first.owned)
    first.close()
    assert topics.committed(group, [topic]) == kept
    assert set(owned) >= set(kept)
    assert set(first.revoked) == set(owned)

    if any_cluster.is_mock:
        return  # it keeps a member that left until its session ends
    second = Member(kafka, group, topic)
    again = second.poll_for(len(kept))
    second.close()
    assert {record.partition: record.offset for record in again} == kept
    assert len(again) == len(kept)


def test_closing_commits_nothing(kafka: Kafka, topics: Topics, postroom_topic: Callable[[str], str]) -> None:
    topic, group = postroom_topic("group"), postroom_topic("group")
    send(kafka, topic, 10)
    member = Member(kafka, group, topic)
    member.poll_for(10)
    member.close()

    assert topics.committed(group, [topic]) == {}


def test_a_member_seeks_and_pauses(kafka: Kafka, postroom_topic: Callable[[str], str]) -> None:
    topic = postroom_topic("places")
    send(kafka, topic, 50)
    member = Member(kafka, postroom_topic("group"), topic)
    got = member.poll_for(50)
    last = {record.partition: record for record in got}
    paused, *others = last

    member.consumer.pause_only([paused, Partition("elsewhere", 0)])
    for partition, record in last.items():
        member.consumer.seek(partition, record.offset)
    member.consumer.seek(Partition("elsewhere", 0), 7)
    read = member.poll_for(len(others))
    read += member.poll()
    assert {record.partition for record in read} == set(others)

    member.consumer.pause_only(others)
    assert [record.partition for record in member.poll_for(1)] == [paused]
    member.consumer.pause_only([])
    member.consumer.seek(others[0], last[others[0]].offset)
    assert [record.partition for record in member.poll_for(1)] == [others[0]]
    member.close()


def share(first: Member, second: Member) -> None:
    """Poll until all that the first has is theirs together, and some of it the second's."""
    everything = set(first.owned)
    for _ in range(400):
        first.poll(0.05)
        second.poll(0.05)
        if second.owned and set(first.owned) | set(second.owned) == everything:
            return
    pytest.fail(f"{first.owned} and {second.owned} are not {everything}")


def test_members_share_the_partitions(real: Any, postroom_topic: Callable[[str], str]) -> None:
    kafka = real.kafka()
    topic, group = postroom_topic("shared"), postroom_topic("group")
    send(kafka, topic, 50)
    first = Member(kafka, group, topic)
    first.poll_for(50)
    second = Member(kafka, group, topic)
    share(first, second)

    assert first.owned
    assert set(first.owned).isdisjoint(second.owned)
    first.close()
    second.close()


@pytest.mark.parametrize("cooperative", [False, True])
def test_what_was_paused_when_it_went_is_read_when_it_comes_back(
    real: Any, postroom_topic: Callable[[str], str], cooperative: bool
) -> None:
    kafka = real.kafka()
    topic, group = postroom_topic("paused"), postroom_topic("group")
    send(kafka, topic, 40)
    first = Member(kafka, group, topic, cooperative)
    first.poll_for(40)
    everything = set(first.owned)
    first.consumer.pause_only(sorted(everything))
    second = Member(kafka, group, topic, cooperative)
    share(first, second)
    second.close()
    for _ in range(400):
        first.poll(0.05)
        if set(first.owned) == everything:
            break
    assert set(first.owned) == everything, "what the other gave up comes back"
    first.consumer.pause_only([])
    send(kafka, topic, 40)
    with closing(kafka.reader()) as reader:
        there = {(record.partition, record.offset) for record in reader.read(topic)}
    latest = {(part, max(offset for place, offset in there if place == part)) for part in everything}
    for _ in range(100):
        latest -= {(record.partition, record.offset) for record in first.poll()}
        if not latest:
            break
    first.close()

    still = ", ".join(f"{part} up to offset {offset}" for part, offset in sorted(latest))
    assert not latest, f"not paused any more, and yet nothing comes: {still}"


def test_what_went_to_another_member_cannot_be_committed(real: Any, postroom_topic: Callable[[str], str]) -> None:
    kafka = real.kafka()
    topic, group = postroom_topic("lost"), postroom_topic("group")
    send(kafka, topic, 5)
    first = Member(real.kafka("silent"), group, topic)
    (record, *_) = first.poll_for(5)
    everything = set(first.owned)
    second = Member(kafka, group, topic)
    for _ in range(200):
        second.poll(0.1)
        if set(second.owned) == everything:
            break
    assert set(second.owned) == everything

    with pytest.raises(Fenced):
        first.consumer.commit({record.partition: record.offset})
    second.consumer.commit({record.partition: record.offset})
    first.close()
    second.close()


def test_what_a_producer_aborted_is_not_read(
    real: Any, postroom_real_kafka: Broker, postroom_topic: Callable[[str], str]
) -> None:
    """Of another producer than ours, which writes no transactions."""
    if real.client == "memory":
        pytest.skip("the Kafka in memory has no transactions")
    topic = postroom_topic("aborted")
    producer = KafkaProducer(bootstrap_servers=postroom_real_kafka.bootstrap_servers, transactional_id=topic)
    producer.init_transactions()
    for value, end in ((b"no", producer.abort_transaction), (b"yes", producer.commit_transaction)):
        producer.begin_transaction()
        producer.send(topic, value, partition=0).get(30)
        end()
    producer.close()
    with closing(Member(real.kafka(), postroom_topic("group"), topic)) as member:
        assert [record.value for record in member.poll_for(1)] == [b"yes"]


def test_a_topic_that_comes_later_is_read(real: Any, postroom_topic: Callable[[str], str]) -> None:
    """The members start before anybody published."""
    kafka = real.kafka()
    topic = postroom_topic("later")
    member = Member(kafka, postroom_topic("group"), topic)
    for _ in range(100):
        member.poll(0.05)
        if member.owned:
            break
    send(kafka, topic, 10)

    assert len(member.poll_for(10)) == 10
    member.close()


def test_a_broker_that_dies_and_returns_is_read_on(real: Any, postroom_topic: Callable[[str], str]) -> None:
    kafka = real.kafka()
    topic = postroom_topic("killed")
    send(kafka, topic, 10)
    with closing(Member(kafka, postroom_topic("group"), topic)) as member:
        member.poll_for(10)
        real.kill()
        try:
            assert member.poll(0.5) == []
        except KafkaUnavailable:
            member.polling = False
        finally:
            real.start()
        send(kafka, topic, 10)
        assert len(member.poll_for(10)) >= 10


def test_a_member_that_closes_while_the_broker_is_silent_ends_soon(
    cluster: Any, postroom_topic: Callable[[str], str]
) -> None:
    kafka = cluster.kafka()
    topic = postroom_topic("silent")
    send(kafka, topic, 1)
    member = Member(kafka, postroom_topic("group"), topic)
    member.poll_for(1)
    cluster.pause()
    try:
        member.close()
    finally:
        cluster.resume()


def read_to_end(member: Member, cluster: Any) -> dict[Partition, int]:
    """Poll until nothing is left; the lag then."""
    for _ in range(200):
        member.poll(0.05)
        if member.owned and not any((lag := dict(member.consumer.lag(member.owned, 5))).values()):
            return lag
    pytest.fail(f"{cluster.client} says for ever that it is {lag} behind")


def test_the_lag_is_what_was_not_polled(any_cluster: Any, kafka: Kafka, postroom_topic: Callable[[str], str]) -> None:
    topic, group = postroom_topic("lag"), postroom_topic("group")
    send(kafka, topic, 20)
    with closing(Member(kafka, group, topic)) as member:
        assert member.consumer.lag([Partition(topic, 0)], 5) == {}, "it is not assigned yet"
        got = member.poll_for(20)
        assert set(read_to_end(member, any_cluster)) == set(member.owned)
        member.consumer.pause_only(member.owned)
        send(kafka, topic, 30)
        member.poll()
        behind = member.consumer.lag([*member.owned, Partition("elsewhere", 0)], 5)
        assert (sum(behind.values()), set(behind)) == (30, set(member.owned))
        member.consumer.pause_only([])
        place = got[0].partition
        member.poll_for(30)
        read_to_end(member, any_cluster)
        member.consumer.pause_only(member.owned)
        member.consumer.seek(place, 0)
        member.poll()
        assert member.consumer.lag([place], 5)[place] >= sum(record.partition == place for record in got)


def test_the_lag_of_one_that_polled_nothing_is_what_is_not_committed(
    real: Any, postroom_topic: Callable[[str], str]
) -> None:
    kafka = real.kafka()
    topic, group = postroom_topic("lag"), postroom_topic("group")
    send(kafka, topic, 20)
    with closing(Member(kafka, group, topic)) as first:
        got = first.poll_for(20)
        first.consumer.commit({record.partition: record.offset + 1 for record in got})
    with closing(Member(kafka, group, topic)) as second:
        read_to_end(second, real)


def test_the_lag_counts_nothing_that_no_poll_brings(
    real: Any, postroom_real_kafka: Broker, postroom_topic: Callable[[str], str]
) -> None:
    """Markers of transactions, aborted records, and what stands behind a transaction that is open."""
    if real.client == "memory":
        pytest.skip("the Kafka in memory has no transactions")
    topic, group = postroom_topic("lag"), postroom_topic("group")
    producer = KafkaProducer(bootstrap_servers=postroom_real_kafka.bootstrap_servers, transactional_id=topic)
    producer.init_transactions()
    with closing(Member(real.kafka(), group, topic)) as member:
        for end in (producer.commit_transaction, producer.abort_transaction, None):
            producer.begin_transaction()
            producer.send(topic, b"x", partition=0).get(30)
            if end is not None:
                end()
            if end == producer.commit_transaction:
                member.poll_for(1)
            assert Partition(topic, 0) in read_to_end(member, real)
    producer.close(0)


def test_a_broker_that_does_not_answer_is_no_lag_of_none(cluster: Any, postroom_topic: Callable[[str], str]) -> None:
    kafka = cluster.kafka()
    topic = postroom_topic("silent")
    send(kafka, topic, 1)
    with closing(Member(kafka, postroom_topic("group"), topic)) as member:
        member.poll_for(1)
        read_to_end(member, cluster)
        cluster.pause()
        try:
            began = time.monotonic()
            with pytest.raises(KafkaUnavailable):
                member.consumer.lag(member.owned, 0.5)
            assert time.monotonic() - began < 3
        finally:
            cluster.resume()
        read_to_end(member, cluster)


def test_a_member_is_told_that_others_have_the_partitions(real: Any, postroom_topic: Callable[[str], str]) -> None:
    """A cooperative one; tests of the inbox's health have the other kind."""
    kafka = real.kafka()
    topic, group = postroom_topic("one"), postroom_topic("group")
    with closing(kafka.topics()) as topics:
        topics.create(topic, 1, 1, {})
    members = [Member(kafka, group, topic, cooperative=True) for _ in range(2)]
    for _ in range(400):
        for member in members:
            member.poll(0.05)
        if all(member.placed for member in members) and sum(len(member.owned) for member in members) == 1:
            break
    assert [member.placed for member in members] == [True, True]
    for member in members:
        member.close()
