"""What every Kafka client guarantees behind the publisher's port."""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from postroom.messaging.errors import (
    ConfigurationError,
    Interrupted,
    KafkaUnavailable,
    NotAuthorized,
    PostroomError,
    RecordTooLarge,
    Refused,
    UnknownTopic,
)
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.partitioner import positive_hash
from postroom.messaging.ports import Kafka, Publisher
from postroom.messaging.records import OutgoingRecord, ReceivedRecord
from postroom.testing import kafka as kafka_module
from postroom.testing.kafka import Broker

#: Not to wait long for a broker that is not there.
IMPATIENT: dict[str, dict[str, Any]] = {
    "kafka-python": {"bootstrap_timeout_ms": 100},
    "confluent-kafka": {"socket.connection.setup.timeout.ms": 1000},
}


@pytest.fixture
def kafka(cluster: Any) -> Kafka:
    kafka: Kafka = cluster.kafka()
    return kafka


@pytest.fixture
def publisher(kafka: Kafka) -> Iterator[Publisher]:
    publisher = kafka.publisher()
    yield publisher
    publisher.close(5)


def record(topic: str, value: str | bytes, key: str = "k") -> OutgoingRecord:
    payload = value.encode() if isinstance(value, str) else value
    return OutgoingRecord(topic, key.encode(), payload, [("h", b"\x00\xff")])


def numbered(topic: str, numbers: Sequence[int], keys: int = 5) -> list[OutgoingRecord]:
    return [record(topic, str(n), key=f"k{n % keys}") for n in numbers]


def read(kafka: Kafka, topic: str) -> list[ReceivedRecord]:
    reader = kafka.reader()
    try:
        return list(reader.read(topic))
    finally:
        reader.close()


def values(kafka: Kafka, topic: str) -> list[bytes]:
    return [received.value or b"" for received in read(kafka, topic)]


def send(publisher: Publisher, *records: OutgoingRecord) -> dict[int, PostroomError]:
    publication = publisher.send(records)
    assert publication.wait(30)
    return dict(publication.errors())


def create(kafka: Kafka, topic: str, partitions: int = 3, **config: str) -> str:
    topics = kafka.topics()
    topics.create(topic, partitions, 1, {name.replace("_", "."): value for name, value in config.items()})
    topics.close()
    return topic


def each_once_in_order(got: Sequence[bytes], count: int, keys: int = 5) -> None:
    numbers = list(map(int, got))
    assert sorted(numbers) == list(range(count)), "each once"
    for key in range(keys):
        mine = [n for n in numbers if n % keys == key]
        assert mine == sorted(mine), "in order"


def publish_all(
    publisher: Publisher, chunks: Sequence[Sequence[OutgoingRecord]], rounds: int = 12
) -> list[OutgoingRecord]:
    """As a relay does it: every chunk on its way at once, then what came back again. Returns what is refused."""
    refused: list[OutgoingRecord] = []
    for _ in range(rounds):
        publications = [(chunk, publisher.send(chunk)) for chunk in chunks if chunk]
        again: list[list[OutgoingRecord]] = []
        for chunk, publication in publications:
            assert publication.wait(60)
            errors = sorted(publication.errors().items())
            refused += [chunk[i] for i, error in errors if isinstance(error, Refused)]
            again.append([chunk[i] for i, error in errors if not isinstance(error, Refused)])
            assert all(isinstance(error, Interrupted | Refused) for _, error in errors)
        if not any(again):
            return refused
        probe = publisher.send(chunks[-1])
        assert probe.wait(0)
        assert {type(error) for error in probe.errors().values()} == {Interrupted}, "halted until recover"
        assert len(probe.errors()) == len(chunks[-1])
        chunks = again
        publisher.recover()
    pytest.fail(f"not within {rounds} rounds; {sum(map(len, chunks))} records are left")


def test_records_of_a_key_are_appended_in_order_as_they_are(
    kafka: Kafka, publisher: Publisher, postroom_topic: Callable[[str], str]
) -> None:
    topic = postroom_topic("plain")
    assert send(publisher, *(record(topic, str(n)) for n in range(100))) == {}
    received = read(kafka, topic)

    assert [each.value for each in received] == [str(n).encode() for n in range(100)]
    assert {each.key for each in received} == {b"k"}
    assert len({each.partition for each in received}) == 1
    assert received[0].headers == [("h", b"\x00\xff")]


def test_keys_values_and_headers_arrive_byte_for_byte(
    kafka: Kafka, publisher: Publisher, postroom_topic: Callable[[str], str]
) -> None:
    topic = postroom_topic("bytes")
    sent = [
        OutgoingRecord(topic, b"\x00", None, []),  # a tombstone
        OutgoingRecord(topic, b"", b"", [("empty", b""), ("ü", b"\xff"), ("twice", b"1"), ("twice", b"2")]),
        OutgoingRecord(topic, None, b"no key", [("h", b"1")]),
        OutgoingRecord(topic, None, None, []),
    ]
    assert send(publisher, *sent) == {}

    got = [(each.key, each.value, each.headers) for each in read(kafka, topic)]
    assert sorted(got, key=repr) == sorted([tuple(each)[1:] for each in sent], key=repr)


def test_records_without_a_key_spread_over_publications(
    kafka: Kafka, publisher: Publisher, postroom_topic: Callable[[str], str]
) -> None:
    topic = create(kafka, postroom_topic("keyless"), partitions=3)
    for n in range(300):  # librdkafka stays with a partition for 10 ms
        assert send(publisher, OutgoingRecord(topic, None, str(n).encode(), [])) == {}

    received = read(kafka, topic)
    assert sorted(int(each.value or b"") for each in received) == list(range(300))
    assert len({each.partition for each in received}) == 3


def test_several_publications_are_in_flight_in_order(
    kafka: Kafka, publisher: Publisher, postroom_topic: Callable[[str], str]
) -> None:
    topic = create(kafka, postroom_topic("pipelined"))
    chunks = [numbered(topic, range(start, start + 100)) for start in range(0, 1000, 100)]
    publications = [publisher.send(chunk) for chunk in chunks]
    empty = publisher.send([])

    assert all(publication.wait(30) for publication in publications)
    assert [dict(publication.errors()) for publication in publications] == [{}] * 10
    assert publications[0].wait(0)
    assert empty.wait(0)
    assert empty.errors() == {}
    each_once_in_order(values(kafka, topic), 1000)


def test_nothing_of_a_partition_is_appended_behind_a_refused_record_and_nothing_is_doubled(
    real: Any, postroom_topic: Callable[[str], str]
) -> None:
    """The broker refuses one in the middle of the first of two; what follows must not overtake it."""
    kafka = real.kafka()
    strict = create(kafka, postroom_topic("strict"), max_message_bytes="2000")
    free = create(kafka, postroom_topic("free"))
    wanted = [each for n in range(300) for topic in (strict, free) for each in numbered(topic, [n])]
    large = record(strict, b"x" * 5000, key="k3")
    wanted.insert(100, large)
    publisher = kafka.publisher()

    assert publish_all(publisher, [wanted[:300], wanted[300:]]) == [large]

    publisher.close(5)
    for topic in (strict, free):
        each_once_in_order(values(kafka, topic), 300)


def test_nothing_is_appended_behind_the_first_record_that_a_partition_ever_saw_of_a_producer(
    real: Any, postroom_topic: Callable[[str], str]
) -> None:
    """A broker that knows nothing of a producer takes its second record, though it refused the first one."""
    kafka = real.kafka()
    topic = create(kafka, postroom_topic("first"), partitions=1, max_message_bytes="2000")
    large, small = record(topic, b"x" * 5000, key="k"), record(topic, b"small", key="k")
    publisher = kafka.publisher()
    for _ in range(3):  # together, and as the ones that came back
        assert 0 in send(publisher, large, small)
        publisher.recover()

    publisher.close(5)
    assert values(kafka, topic) == []


def test_nothing_is_appended_behind_the_first_record_of_a_partition_by_a_later_publication(
    real: Any, postroom_topic: Callable[[str], str]
) -> None:
    """Two requests would queue before a paused broker that knows nothing of their producer."""
    kafka = real.kafka()
    topic = create(kafka, postroom_topic("first"), partitions=2, max_message_bytes="2000")
    keys = {positive_hash(key.encode()) % 2: key for key in ("a", "b", "c", "d", "e")}
    publisher = kafka.publisher()
    for _ in range(2):  # by a new producer each
        assert send(publisher, record(topic, "elsewhere", key=keys[0])) == {}
        real.pause()
        resume = threading.Timer(1.0, real.resume)
        try:
            large = publisher.send([record(topic, b"x" * 5000, key=keys[1])])
            assert not large.wait(0.3), "it is on its way"
        finally:
            resume.start()
        small = publisher.send([record(topic, "small", key=keys[1])])
        resume.join()
        assert large.wait(30)
        assert small.wait(30)
        assert isinstance(large.errors()[0], RecordTooLarge)
        assert isinstance(small.errors()[0], Interrupted)
        publisher.recover()

    publisher.close(5)
    assert values(kafka, topic) == [b"elsewhere"] * 2


def test_nothing_is_appended_behind_a_refused_record_of_an_earlier_publication(
    real: Any, postroom_topic: Callable[[str], str]
) -> None:
    """2 MB between small ones of their key, in the second of four publications that are on their way together."""
    kafka = real.kafka("large requests")
    topic = create(kafka, postroom_topic("between"), partitions=2)
    chunks = [numbered(topic, range(start, start + 50)) for start in range(0, 200, 50)]
    large = record(topic, b"x" * 2_000_000, key="k3")
    chunks[1].insert(25, large)
    publisher = kafka.publisher()
    publications = [publisher.send(chunk) for chunk in chunks]
    for _ in range(10):  # it halts on its own, before anybody asks
        early = list(map(int, values(kafka, topic)))
        assert not [n for n in early if n % 5 == 3 and n >= 75], "nothing of its key is appended behind it"
    assert all(publication.wait(30) for publication in publications)
    failed = [publication.errors() for publication in publications]
    before = list(map(int, values(kafka, topic)))

    assert 25 in failed[1], "the large one is refused"
    behind = {i for i, each in enumerate(chunks[3]) if each.key == b"k3"}
    assert behind <= failed[3].keys(), "what is behind it comes back"
    assert not [n for n in before if n % 5 == 3 and n >= 75], "nothing of its key is appended behind it"
    for key in range(5):
        mine = [n for n in before if n % 5 == key]
        assert mine == list(range(key, 200, 5))[: len(mine)], "what was appended of a key is its beginning"

    after = publisher.send(chunks[3])
    assert after.wait(0)
    assert after.errors().keys() == set(range(50)), "halted until it is told to go on"
    publisher.recover()
    refused = [chunks[1][i] for i, error in failed[1].items() if isinstance(error, Refused)]
    again = [
        [chunk[i] for i, error in sorted(errors.items()) if not isinstance(error, Refused)]
        for chunk, errors in zip(chunks, failed, strict=True)
    ]
    refused += publish_all(publisher, again)
    publisher.close(5)

    assert refused == [large]
    each_once_in_order(values(kafka, topic), 200)


def test_a_batch_over_the_topics_limit_is_no_refusal(real: Any, postroom_topic: Callable[[str], str]) -> None:
    """Each record is small enough, many together are not. What is refused once is not tried again and again."""
    kafka = real.kafka()
    topic = create(kafka, postroom_topic("narrow"), partitions=1, max_message_bytes="100000")
    publisher = kafka.publisher()
    records = [record(topic, b"%d " % n + b"x" * 1000, key=f"k{n % 5}") for n in range(1500)]

    assert publish_all(publisher, [records[n : n + 250] for n in range(0, 750, 250)]) == []
    assert publish_all(publisher, [records[750:1000]]) == []
    assert send(publisher, *records[1000:]) == {}
    publisher.close(5)
    each_once_in_order([value.split()[0] for value in values(kafka, topic)], 1500)


def test_what_is_on_its_way_elsewhere_is_heard_and_not_blamed(real: Any, postroom_topic: Callable[[str], str]) -> None:
    """Requests queue before a paused broker; it refuses the first, and takes the others."""
    kafka = real.kafka()
    strict = create(kafka, postroom_topic("strict"), partitions=1, max_message_bytes="2000")
    free = create(kafka, postroom_topic("free"), partitions=8)
    for _ in range(5):
        publisher = kafka.publisher()
        assert send(publisher, record(strict, "1"), *numbered(free, range(40), keys=40)) == {}
        real.pause()
        try:
            publications = [publisher.send([record(strict, b"x" * 5000)])]
            for n in range(40):
                publications.append(publisher.send(numbered(free, [n], keys=40)))
                publications[-1].wait(0.002)
        finally:
            real.resume()
        assert all(publication.wait(30) for publication in publications)
        errors = [publication.errors().get(0) for publication in publications]
        publisher.close(5)

        assert isinstance(errors[0], RecordTooLarge)
        assert {type(error) for error in errors[1:]} <= {type(None), Interrupted}
        told = {b"%d" % n for n, error in enumerate(errors[1:]) if error is None}
        there = Counter(values(kafka, free))
        assert told == {value for value, count in there.items() if count % 2 == 0}, "told what is there"
        free = create(kafka, postroom_topic("free"), partitions=8)


@pytest.fixture
def wide(real: Any, postroom_topic: Callable[[str], str]) -> str:
    """A topic that takes more than the client sends."""
    return create(real.kafka(), postroom_topic("wide"), max_message_bytes="9000000")


def test_a_record_over_the_clients_limit_is_refused_before_it_is_sent(
    kafka: Kafka, publisher: Publisher, wide: str
) -> None:
    errors = send(publisher, record(wide, "1"), record(wide, b"x" * 2_000_000), record(wide, "2"))

    assert isinstance(errors.pop(1), RecordTooLarge)
    assert isinstance(errors.pop(2), Interrupted)
    assert errors == {}
    assert isinstance(send(publisher, record(wide, "2"))[0], Interrupted)
    publisher.recover()
    assert send(publisher, record(wide, "2")) == {}
    assert values(kafka, wide) == [b"1", b"2"]


def test_headers_count_for_the_clients_limit(publisher: Publisher, wide: str) -> None:
    errors = send(publisher, OutgoingRecord(wide, b"k", b"v", [("h", b"x" * 2_000_000)]))

    assert isinstance(errors[0], RecordTooLarge)


def test_an_unknown_topic_is_told_apart_from_an_absent_broker(real: Any, postroom_topic: Callable[[str], str]) -> None:
    kafka = real.kafka("no creation")
    known, unknown = create(kafka, postroom_topic("known")), postroom_topic("unknown")
    publisher = kafka.publisher()

    errors = send(publisher, record(known, "1"), record(unknown, "2"), record(known, "3"))
    assert {index: type(error) for index, error in errors.items()} == {1: UnknownTopic, 2: Interrupted}
    assert unknown in str(errors[1])

    publisher.recover()
    assert send(publisher, record(known, "3")) == {}
    again = send(publisher, record(unknown, "2"), record(known, "4"))
    assert {index: type(error) for index, error in again.items()} == {0: UnknownTopic, 1: Interrupted}
    publisher.recover()
    create(kafka, unknown)
    assert isinstance(send(publisher, record(unknown, "5"))[0], UnknownTopic), "remembered for a while"
    publisher.recover()
    assert send(publisher, record(known, "4")) == {}
    publisher.close(5)
    assert sorted(values(kafka, known)) == [b"1", b"3", b"4"]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Broker]:
    """A broker with access control, which denies nothing yet."""
    usual = kafka_module._settings
    control = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kafka_module, "_settings", lambda **given: {**usual(**given), **control})
        with kafka_module.kafka_broker() as broker:
            if broker.is_mock or broker.origin == kafka_module.ADDRESS_VARIABLE:
                pytest.skip("needs a broker of its own, by Docker or Maven")
            yield broker


def may_not(broker: Broker, operation: str, topic: str, eventually: Callable[..., None]) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    pattern = ResourcePattern(ResourceType.TOPIC, topic)
    denied = ACL("User:*", "*", ACLOperation[operation], ACLPermissionType.DENY, pattern)
    # Where there is any, what none allows is denied.
    allowed = ACL("User:*", "*", ACLOperation.DESCRIBE, ACLPermissionType.ALLOW, pattern)
    admin.create_acls([denied, allowed])
    every = ACLFilter(
        None,
        None,
        ACLOperation.ANY,
        ACLPermissionType.ANY,
        ResourcePatternFilter(ResourceType.TOPIC, topic, ACLResourcePatternType.LITERAL),
    )
    eventually(lambda: len(admin.describe_acls(every)[0]) == 2, "the broker knows what is allowed")
    admin.close()


def test_a_topic_that_may_not_be_written_is_told_and_remembered(
    guarded: Broker, client: str, postroom_topic: Callable[[str], str], eventually: Callable[..., None]
) -> None:
    kafka = connect(guarded.options_for(client))
    barred, free = create(kafka, postroom_topic("barred")), create(kafka, postroom_topic("free"))
    may_not(guarded, "WRITE", barred, eventually)
    publisher = kafka.publisher()

    assert send(publisher, record(free, "1")) == {}
    assert isinstance(send(publisher, record(barred, "x"))[0], NotAuthorized)
    publisher.recover()
    errors = send(publisher, record(free, "2"), record(barred, "x"), record(free, "3"))
    assert {index: type(error) for index, error in errors.items()} == {1: NotAuthorized, 2: Interrupted}
    publisher.recover()
    assert send(publisher, record(free, "3")) == {}
    publisher.close(5)
    assert sorted(values(kafka, free)) == [b"1", b"2", b"3"]


def test_an_illegal_topic_name_is_refused(publisher: Publisher) -> None:
    assert isinstance(send(publisher, record("no topic!", "1"))[0], UnknownTopic)


def test_an_absent_broker_is_unavailable(client: str) -> None:
    options = KafkaOptions("127.0.0.1:1", client, IMPATIENT[client])
    with pytest.raises(KafkaUnavailable, match="Kafka does not answer"):
        connect(options).publisher()


@pytest.mark.parametrize("part", ["publisher", "consumer", "reader", "topics"])
def test_a_connect_that_fails_leaves_no_thread_behind(part: str, client: str) -> None:
    """Each try of a long outage would leave one."""
    kafka = connect(KafkaOptions("127.0.0.1:1", client, IMPATIENT[client]))
    hooks: dict[str, Any] = {"on_assigned": list, "on_revoked": list}
    before = set(threading.enumerate())
    with pytest.raises(KafkaUnavailable):
        kafka.consumer("g", ["t"], **hooks) if part == "consumer" else getattr(kafka, part)()

    assert set(threading.enumerate()) <= before


def test_closing_gives_up_what_is_in_flight(cluster: Any, postroom_topic: Callable[[str], str]) -> None:
    publisher = cluster.kafka().publisher()
    topic = postroom_topic("paused")
    assert send(publisher, record(topic, "1")) == {}
    cluster.pause()
    try:
        publications = [publisher.send([record(topic, "2")]), publisher.send([record(topic, "3")])]
        assert not publications[0].wait(0.2)
        assert not publications[1].wait(0)
        began = time.monotonic()
        publisher.close(0.2)
        assert time.monotonic() - began < 10
        assert all(publication.wait(5) for publication in publications)
    finally:
        cluster.resume()

    for publication in [*publications, publisher.send([record(topic, "4")])]:
        assert publication.wait(0)
        assert {index: type(error) for index, error in publication.errors().items()} == {0: Interrupted}
    publisher.recover()
    publisher.close(0)


def test_a_broker_that_pauses_is_waited_for(
    cluster: Any, kafka: Kafka, publisher: Publisher, postroom_topic: Callable[[str], str]
) -> None:
    topic = postroom_topic("resumed")
    assert send(publisher, *numbered(topic, range(5))) == {}
    cluster.pause()
    try:
        publications = [publisher.send(numbered(topic, range(n, n + 5))) for n in range(5, 25, 5)]
        assert not publications[-1].wait(0.5)
    finally:
        cluster.resume()

    assert all(publication.wait(30) for publication in publications)
    assert [dict(publication.errors()) for publication in publications] == [{}] * 4
    each_once_in_order(values(kafka, topic), 25)


def test_a_broker_that_dies_and_returns_loses_and_doubles_nothing(
    real: Any, postroom_topic: Callable[[str], str]
) -> None:
    kafka = real.kafka()
    topic = create(kafka, postroom_topic("killed"))
    publisher = kafka.publisher()
    chunks = [numbered(topic, range(start, start + 500)) for start in range(0, 20_000, 500)]
    publications = [publisher.send(chunk) for chunk in chunks[:20]]
    real.kill()
    try:
        publications += [publisher.send(chunk) for chunk in chunks[20:]]
        assert not publications[-1].wait(0)
    finally:
        real.start()

    assert all(publication.wait(60) for publication in publications)
    assert [dict(publication.errors()) for publication in publications] == [{}] * 40
    publisher.close(5)
    each_once_in_order(values(kafka, topic), 20_000)


#: From Kafka's own tests of murmur2 (org.apache.kafka.common.utils.UtilsTest), signed as in Java.
JAVAS_MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def test_a_key_lands_where_javas_default_partitioner_puts_it(
    kafka: Kafka, publisher: Publisher, postroom_topic: Callable[[str], str]
) -> None:
    """Java: toPositive(murmur2(key)) % partitions."""
    topic = create(kafka, postroom_topic("java"), partitions=7)
    assert send(publisher, *(OutgoingRecord(topic, key, b"1", []) for key in JAVAS_MURMUR2)) == {}

    reader = kafka.reader()
    partitions = len(reader.offsets(topic))  # the mock cluster makes as many as it likes
    placed = {each.key: each.partition.number for each in reader.read(topic)}
    reader.close()
    assert placed == {key: (murmur2 & 0x7FFFFFFF) % partitions for key, murmur2 in JAVAS_MURMUR2.items()}


def bytes_on_disk(broker: Broker, topic: str) -> int:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    told = json.dumps(admin.describe_log_dirs([topic]), default=str)
    admin.close()
    return sum(map(int, re.findall(r'"partition_size": (\d+)', told)))


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_records_are_compressed(
    postroom_real_kafka: Broker, client: str, compression: Any, postroom_topic: Callable[[str], str]
) -> None:
    options = postroom_real_kafka.options_for(client, compression=compression)
    try:
        kafka = connect(options)
    except ConfigurationError as error:
        assert client == "kafka-python"  # librdkafka brings them all
        assert f"pip install 'kafka-python[{compression}]'" in str(error)  # noqa: PT017  not every client lacks it
        pytest.skip(str(error))
    topic = postroom_topic(compression)
    publisher = kafka.publisher()
    for _ in range(10):
        assert send(publisher, record(topic, "x" * 10_000)) == {}
    publisher.close(5)

    assert values(kafka, topic) == [b"x" * 10_000] * 10
    size = bytes_on_disk(postroom_real_kafka, topic)
    assert size > 100_000 if compression == "none" else 0 < size < 20_000


@pytest.mark.parametrize(
    ("client", "options", "told"),
    [
        ("kafka-python", {"acks": 1}, "'acks' cannot be set: every record needs acks='all'"),
        ("kafka-python", {"enable_idempotence": False}, "idempotent producer"),
        ("kafka-python", {"no_such_option": 1}, "knows no option 'no_such_option'"),
        ("kafka-python", {"compression_type": "rar"}, "knows no compression 'rar'"),
        ("confluent-kafka", {"acks": 1}, "'acks' cannot be set: every record needs acks=all"),
        ("confluent-kafka", {"request.required.acks": 1}, "every record needs acks=all"),
        ("confluent-kafka", {"enable.idempotence": False}, "idempotent producer"),
        ("confluent-kafka", {"enable.gapless.guarantee": False}, "halts at the first failure"),
        ("confluent-kafka", {"group.id": "g"}, "the group is the inbox's"),
        ("confluent-kafka", {"no.such.option": 1}, "knows no option 'no.such.option'"),
        ("confluent-kafka", {"linger.ms": "soon"}, "'linger.ms'"),
        ("confluent-kafka", {"compression.type": "rar"}, "'compression.type'"),
    ],
)
def test_options_that_break_a_promise_are_refused(client: str, options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        connect(KafkaOptions("127.0.0.1:1", client, options))


def test_an_unknown_client_is_told_so() -> None:
    with pytest.raises(ConfigurationError, match="'carrier-pigeon' is not known"):
        connect(KafkaOptions("127.0.0.1:1", client="carrier-pigeon"))


@pytest.fixture
def restless(client: str, postroom_real_kafka: Broker, monkeypatch: pytest.MonkeyPatch) -> Kafka:
    """A client that asks for a topic's partitions again and again."""
    monkeypatch.setattr("postroom.messaging.confluent.publisher._KNOWN_FOR", 0.0)
    options = {"kafka-python": {"metadata_max_age_ms": 500}, "confluent-kafka": {}}[client]
    return connect(postroom_real_kafka.options_for(client, options))


def test_a_topic_that_gets_more_partitions_uses_them(
    restless: Kafka, postroom_real_kafka: Broker, postroom_topic: Callable[[str], str], eventually: Callable[..., None]
) -> None:
    topic = create(restless, postroom_topic("grows"), partitions=1)
    publisher = restless.publisher()
    assert send(publisher, *numbered(topic, range(20), keys=20)) == {}
    admin = KafkaAdminClient(bootstrap_servers=postroom_real_kafka.bootstrap_servers)
    admin.create_partitions({topic: 4})
    admin.close()

    def uses_all() -> bool:
        assert send(publisher, *numbered(topic, range(20), keys=20)) == {}
        return {each.partition.number for each in read(restless, topic)} == {0, 1, 2, 3}

    eventually(uses_all, "records in each of the four")
    publisher.close(5)
    for each in read(restless, topic):
        assert each.partition.number in {0, positive_hash(each.key or b"") % 4}


def test_a_topic_that_is_made_anew_with_fewer_partitions_is_written_on(
    client: str,
    restless: Kafka,
    postroom_real_kafka: Broker,
    postroom_topic: Callable[[str], str],
    eventually: Callable[..., None],
) -> None:
    if client == "kafka-python":
        pytest.skip("it keeps what it has for the partitions that are gone; the relay has to start anew")
    topic = create(restless, postroom_topic("anew"), partitions=4)
    publisher = restless.publisher()
    assert send(publisher, *numbered(topic, range(20), keys=20)) == {}
    admin = KafkaAdminClient(bootstrap_servers=postroom_real_kafka.bootstrap_servers)
    admin.delete_topics([topic])
    topics = restless.topics()
    eventually(lambda: topic not in topics.partitions(), "gone")
    eventually(lambda: topics.create(topic, 1, 1, {}), "made anew")
    topics.close()
    admin.close()

    assert publish_all(publisher, [numbered(topic, range(20), keys=20)]) == []
    publisher.close(5)
    assert sorted(map(int, values(restless, topic))) == list(range(20))
