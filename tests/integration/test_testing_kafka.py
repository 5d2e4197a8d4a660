"""The Kafka broker for tests: the mock cluster, and Apache Kafka itself."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from postroom.testing import Broker, ControlUnsupportedError, ServerUnavailableError, kafka_broker
from postroom.testing.supervisor import running

CHILD = """
import json, time
from postroom.testing import kafka_broker

with kafka_broker(prefer={source!r}) as broker:
    control = broker._control
    print(json.dumps([control.pid, control._supervisor._process.pid]), flush=True)
    while True:
        time.sleep(0.05)  # signal.pause() would sleep through a signal that came just before it
"""


def eventually(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder of child processes."""
    folder = Path(tempfile.mkdtemp(prefix="scratch-"))
    folder.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=["mock", "maven"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    try:
        context = kafka_broker(prefer=request.param)
        found = context.__enter__()
    except ServerUnavailableError as error:
        pytest.skip(str(error))
    try:
        yield found
    finally:
        context.__exit__(None, None, None)


def send(broker: Broker, topic: str, *values: bytes) -> None:
    options = {"bootstrap_servers": broker.bootstrap_servers, "acks": "all", **broker.client_config}
    with KafkaProducer(**options) as producer:
        for future in [producer.send(topic, value, key=b"key") for value in values]:
            future.get(timeout=30)


def receive(broker: Broker, topic: str, group: str, count: int) -> list[bytes]:
    """Read ``count`` values as a member of ``group``, and commit."""
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=broker.bootstrap_servers,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,  # the mock cluster lets a group's next member in only after this
        heartbeat_interval_ms=1000,
        **broker.client_config,
    )
    values: list[bytes] = []
    patience = 200 if broker.is_mock else 5_000  # kafka-python forgets a join that outlives its poll

    def enough() -> bool:
        for records in consumer.poll(timeout_ms=patience).values():
            values.extend(record.value for record in records)
        return len(values) >= count

    try:
        eventually(enough, f"{count} records arrive")
        consumer.commit()
    finally:
        consumer.close()
    return values


def test_a_round_trip_with_a_consumer_group(broker: Broker, postroom_topic: Callable[[str], str]) -> None:
    topic, group = postroom_topic("orders"), postroom_topic("billing")
    send(broker, topic, b"one", b"two")
    assert receive(broker, topic, group, 2) == [b"one", b"two"]
    send(broker, topic, b"three")
    assert receive(broker, topic, group, 1) == [b"three"], "the group goes on where it committed"


def test_a_paused_broker_answers_after_resume(broker: Broker, postroom_topic: Callable[[str], str]) -> None:
    topic = postroom_topic("orders")
    send(broker, topic, b"warm")
    options = {"bootstrap_servers": broker.bootstrap_servers, "acks": "all", **broker.client_config}
    with KafkaProducer(**options) as producer:
        producer.send(topic, b"before", key=b"key").get(timeout=30)
        broker.pause()
        future = producer.send(topic, b"during", key=b"key")
        with pytest.raises(KafkaError):
            future.get(timeout=1)
        broker.resume()
        future.get(timeout=30)
    assert receive(broker, topic, postroom_topic("group"), 3) == [b"warm", b"before", b"during"]


def test_the_mock_cluster_says_that_it_cannot_start_again() -> None:
    with kafka_broker(prefer="mock") as broker:
        broker.start()  # runs already: nothing to do
        broker.stop()
        with pytest.raises(ControlUnsupportedError, match="mock cluster"):
            broker.start()


@pytest.mark.parametrize("down", ["stop", "kill"])
def test_a_real_broker_keeps_its_log(
    postroom_real_kafka: Broker, postroom_topic: Callable[[str], str], down: str
) -> None:
    topic = postroom_topic("orders")
    send(postroom_real_kafka, topic, b"kept")
    getattr(postroom_real_kafka, down)()
    postroom_real_kafka.start()
    send(postroom_real_kafka, topic, b"new")
    assert receive(postroom_real_kafka, topic, postroom_topic("group"), 2) == [b"kept", b"new"]


def test_a_real_broker_makes_topics_with_the_default_partitions(
    postroom_real_kafka: Broker, postroom_topic: Callable[[str], str]
) -> None:
    topic = postroom_topic("orders")
    send(postroom_real_kafka, topic, b"first")
    admin = KafkaAdminClient(bootstrap_servers=postroom_real_kafka.bootstrap_servers)
    try:
        [described] = admin.describe_topics([topic])
    finally:
        admin.close()
    assert len(described["partitions"]) == 4


def test_kafkas_own_console_consumer_runs(postroom_real_kafka: Broker, postroom_topic: Callable[[str], str]) -> None:
    topic = postroom_topic("orders")
    send(postroom_real_kafka, topic, b"hello")
    command = postroom_real_kafka.command_line(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        *("--bootstrap-server", postroom_real_kafka.bootstrap_servers, "--topic", topic),
        *("--from-beginning", "--max-messages", "1", "--timeout-ms", "30000"),
    )
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert finished.stdout == "hello\n"


def own(source: str, request: pytest.FixtureRequest) -> "subprocess.Popen[str]":
    """A process that has a broker of its own, and says so with the process ids in a line."""
    if source == "maven":
        request.getfixturevalue("postroom_real_kafka")  # the jars are here, then
    command = [sys.executable, "-c", CHILD.format(source=source)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.parametrize("source", ["mock", "maven"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_whatever_ends_the_owner_ends_the_broker(
    source: str, number: int, scratch: Path, request: pytest.FixtureRequest
) -> None:
    with own(source, request) as owner:
        assert owner.stdout is not None
        pids = json.loads(owner.stdout.readline())
        assert running(pids) == pids
        owner.send_signal(number)
    eventually(lambda: not running(pids), "every process of the broker is gone")
    eventually(lambda: not list(scratch.iterdir()), "the folder is removed")


@pytest.mark.parametrize(("source", "moment"), [("mock", "mock.log"), ("maven", "format.log"), ("maven", "kafka.log")])
def test_ctrl_c_during_the_start_leaves_nothing_behind(
    source: str, moment: str, scratch: Path, request: pytest.FixtureRequest
) -> None:
    with own(source, request) as owner:
        eventually(lambda: list(scratch.glob(f"postroom-*/{moment}")), f"{moment} appears")
        owner.send_signal(signal.SIGINT)
        assert owner.wait(30) != 0
    eventually(lambda: not list(scratch.iterdir()), "the folder is removed")
    listing = subprocess.run(["ps", "-axww", "-o", "args="], capture_output=True, text=True, check=True)
    assert str(scratch) not in listing.stdout


def test_a_given_broker_is_used_and_left_alone(postroom_kafka: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTROOM_TESTING_KAFKA", raising=False)
    monkeypatch.setenv("POSTROOM_KAFKA_BOOTSTRAP_SERVERS", postroom_kafka.bootstrap_servers)
    with kafka_broker() as broker:
        assert broker.origin == "POSTROOM_KAFKA_BOOTSTRAP_SERVERS"
        with pytest.raises(ControlUnsupportedError, match="not ours"):
            broker.kill()
