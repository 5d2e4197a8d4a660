"""P9 of an inbox: ready means making progress, and not merely running, on real servers."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from kafka import KafkaProducer

from postroom.inbox import Context, Inbox, InboxRunner, Received
from postroom.inbox.desk import Desk
from postroom.messaging.kafka import connect
from postroom.messaging.ports import Consumer, Kafka
from postroom.messaging.records import Partition
from postroom.outbox import Names
from postroom.testing import TcpProxy
from postroom.testing.kafka import Broker

#: Not ready after so long without progress, in seconds.
STUCK = 2.0


@pytest.fixture(params=["kafka-python", "confluent-kafka"])
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def is_ready(runner: InboxRunner) -> bool:
    return runner.health.ready().ok


def why(runner: InboxRunner) -> str:
    return runner.health.ready().reason


@pytest.fixture
def far(ledger: Any, own_broker: Broker) -> Iterator[Any]:
    """The ledger on a broker whose proxy may be broken."""
    yield replace(ledger, broker=own_broker)
    assert own_broker.proxy is not None
    own_broker.proxy.restore()


def test_a_member_that_kafka_does_not_answer_is_not_ready_while_messages_gather(
    far: Any, eventually: Any, client: str
) -> None:
    """Half-open: what the member sends arrives, and no answer comes back."""
    proxy = far.broker.proxy
    far.create(1)
    far.send(5)
    kafka = connect(far.broker.through().options_for(client))
    runner = far.start(far.applying(), kafka=kafka, stuck_seconds=STUCK)
    eventually(lambda: sum(far.committed().values()) == 5 and is_ready(runner), "all are committed, and it is ready")

    proxy.freeze("to-client")
    far.send(20)
    eventually(lambda: not is_ready(runner), "not ready", 4 * STUCK)
    eventually(lambda: why(runner).startswith("unavailable: Kafka does not answer"), "it says why")
    assert runner.health.live().ok, "to start it anew would not help"

    proxy.restore()
    eventually(lambda: far.closed() == 25 and is_ready(runner), "all are closed, and it is ready again")
    far.check()


class Deaf:
    """A real client whose member fetches nothing while it is ``deaf``, as one did that forgot to."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self.deaf = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kafka, name)

    def consumer(self, group: str, topics: Sequence[str], **options: Any) -> Consumer:
        consumer: Any = self._kafka.consumer(group, topics, **options)
        pause_only = consumer.pause_only
        everything = [Partition(topic, number) for topic in topics for number in range(4)]
        consumer.pause_only = lambda partitions: pause_only(everything if self.deaf else partitions)
        return consumer  # type: ignore[no-any-return]


def test_a_member_that_runs_and_polls_and_gets_nothing_of_what_waits_is_not_ready(
    ledger: Any, eventually: Any, postroom_real_kafka: Broker, client: str
) -> None:
    ledger.create(2)
    ledger.send(10)
    kafka = Deaf(ledger.kafka(client))
    runner = ledger.start(ledger.applying(), kafka=kafka, stuck_seconds=STUCK)
    eventually(lambda: ledger.closed() == 10 and is_ready(runner), "all are closed, and it is ready")

    kafka.deaf = True
    ledger.send(20)
    eventually(lambda: not is_ready(runner), "not ready", 4 * STUCK)
    assert why(runner).startswith("messages wait and none was done for ")
    assert why(runner).endswith(" more offsets in Kafka, and none comes")
    assert runner.health.live().ok
    kafka.deaf = False
    eventually(lambda: ledger.closed() == 30 and is_ready(runner), "all are closed, and it is ready again")


def test_caught_up_and_idle_it_is_ready_behind_markers_and_aborted_records_too(
    ledger: Any, eventually: Any, postroom_real_kafka: Broker, client: str
) -> None:
    """Their offsets are never polled."""
    ledger.create(1)
    servers = postroom_real_kafka.bootstrap_servers
    with closing(KafkaProducer(bootstrap_servers=servers, transactional_id=ledger.topic)) as producer:
        producer.init_transactions()
        for end in (producer.commit_transaction, producer.abort_transaction):
            producer.begin_transaction()
            producer.send(ledger.topic, b"{}", b"k", headers=[("ce_id", b"k/1"), ("ce_type", b"n")]).get(30)
            end()
    runner = ledger.start(ledger.applying(), kafka=ledger.kafka(client), stuck_seconds=1.0)
    eventually(lambda: ledger.closed() == 1 and is_ready(runner), "the one that was said is closed")
    since = time.monotonic()

    def ready_for_long() -> bool:
        assert is_ready(runner), why(runner)
        return time.monotonic() - since > 2.5

    eventually(ready_for_long, "it stays ready")
    assert runner.health.ready().facts["seconds_waiting"] is None


def test_a_handler_that_hangs_is_told(ledger: Any, eventually: Any) -> None:
    go_on = threading.Event()
    inbox: Inbox = ledger.applying(go_on)
    ledger.create(1)
    ledger.send(3)
    runner = ledger.start(inbox, stuck_seconds=1.0)
    eventually(lambda: not is_ready(runner) and "none was done" in why(runner), "not ready")
    assert f": {inbox.handlers[0].name} has run for " in why(runner)
    assert runner.health.live().ok, "the loop comes round"
    go_on.set()
    eventually(lambda: ledger.closed() == 3 and is_ready(runner), "all are closed, and it is ready")


def test_what_an_operator_paused_says_so(ledger: Any, eventually: Any) -> None:
    inbox: Inbox = ledger.inbox()
    others = f"{ledger.topic}-others"

    @inbox.handler(ledger.topic)
    def handle(_: Received, ctx: Context) -> None:
        ledger.apply(ctx)

    @inbox.handler(others)
    def other(_: Received, ctx: Context) -> None: ...

    ledger.create(1)
    ledger.create(1, others)
    runner = ledger.start(inbox, stuck_seconds=1.0)
    eventually(lambda: is_ready(runner), "ready")
    with closing(Desk(ledger.url, Names())) as desk:
        desk.pause(ledger.group, f"handler:{inbox.handlers[0].name}", "the bank moves", "ann")
        eventually(lambda: "is paused by an operator: the bank moves" in runner.health.detail, "it is told")
        ledger.send(3)
        desk.pause(ledger.group, "", "a long night", "ann")
        eventually(lambda: "by an operator: a long night" in why(runner), "not ready")
        assert why(runner).startswith("paused: by an operator: ")
        assert runner.health.live().ok
        desk.resume(ledger.group, "", "ann")
        eventually(lambda: is_ready(runner), "ready: one of two may go on")
        desk.resume(ledger.group, f"handler:{inbox.handlers[0].name}", "ann")
    eventually(lambda: ledger.closed() == 3 and is_ready(runner), "all are closed")
    assert runner.health.detail == ""


@pytest.mark.parametrize("idle", [False, True])
def test_while_the_database_is_away_it_says_so_and_lives(ledger: Any, eventually: Any, *, idle: bool) -> None:
    target = sa.make_url(ledger.url)
    with TcpProxy(target.host or "127.0.0.1", target.port or 5432) as proxy:
        url = target.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        ledger.create(1)
        runner = ledger.start(ledger.applying(), url=url, stuck_seconds=1.0)
        eventually(lambda: is_ready(runner), "ready")
        proxy.cut()
        if not idle:
            ledger.send(3)
        eventually(lambda: why(runner).startswith("unavailable: The database does not answer"), "it says why")
        assert runner.health.live().ok
        since = time.monotonic()

        def still_away() -> bool:
            assert runner.health.state == "unavailable", why(runner)
            return time.monotonic() - since > 1.5

        eventually(still_away, "it is away for longer than a loop may be silent")
        assert why(runner).startswith("unavailable: "), "and not hung"
        proxy.restore()
        eventually(lambda: ledger.closed() == (0 if idle else 3) and is_ready(runner), "ready again")


def test_a_member_without_partitions_stands_by(
    ledger: Any, eventually: Callable[..., None], postroom_real_kafka: Broker, client: str
) -> None:
    ledger.create(1)
    runners = [ledger.start(ledger.applying(), kafka=ledger.kafka(client), stuck_seconds=STUCK) for _ in range(2)]
    eventually(
        lambda: (
            sorted(runner.health.state for runner in runners) == ["running", "standby"] and all(map(is_ready, runners))
        ),
        "one works, one stands by",
    )
    [working] = [runner for runner in runners if runner.health.state == "running"]
    [other] = [runner for runner in runners if runner is not working]
    working.stop()
    assert working.join(30)
    assert (working.health.state, working.health.live().ok) == ("stopped", False)
    eventually(lambda: other.health.state == "running" and is_ready(other), "the other one takes over")
