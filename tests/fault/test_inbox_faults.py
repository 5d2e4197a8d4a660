"""The inbox under kills and outages: each effect once, no attempt burned, nothing lost."""

import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa

from postroom.inbox import Context, Inbox, InboxRunner, InboxSettings
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.records import OutgoingRecord
from postroom.outbox import Event, schema
from postroom.testing import ControlUnsupportedError, TcpProxy
from postroom.testing.kafka import Broker
from postroom.testing.postgres import Database, Postgres

QUICK = InboxSettings(
    attempts=1,
    backoff_base_seconds=0.01,
    backoff_cap_seconds=0.02,
    outage_cap_seconds=0.5,
    poll_timeout_seconds=0.1,
    keep_alive_seconds=0.2,
)

#: A service that kills itself at a step: before the commit, after it, after the offsets' commit, ….
SERVICE = textwrap.dedent(
    """
    import os, signal, sys
    import sqlalchemy as sa
    from postroom.inbox import Inbox, InboxRunner, InboxSettings
    from postroom.messaging.kafka import KafkaOptions, connect
    from postroom.messaging.message import Message

    url, servers, topic, group, fatal_step, fatal_count = sys.argv[1:]
    inbox = Inbox(group)

    @inbox.handler(topic, attempts=1)
    def handle(received, ctx):
        ctx.session.execute(sa.text("INSERT INTO effect VALUES (:name)"), {"name": ctx.message_id})
        ctx.publish(Message(topic="receipts", type="receipt", payload=b""))
        if received.payload == b"poison":
            raise RuntimeError("poison")

    left = int(fatal_count)

    def observe(step, /, **facts):
        global left
        if step == fatal_step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    # A member with a name of its own takes up its partitions at once after it was killed.
    kafka = connect(KafkaOptions(servers, options={"group_instance_id": "the-one"}))
    settings = InboxSettings(poll_timeout_seconds=0.1, max_poll_records=5)
    runner = InboxRunner(inbox, database_url=url, kafka=kafka, settings=settings, observer=observe)
    runner.start()
    sys.stdin.read()
    runner.stop()
    runner.join()
    """
)


class Paid(Event, topic="orders", key="order_id", type="shop.paid"):
    order_id: str


@dataclass
class Shop:
    """A database, a topic and a group."""

    url: str
    broker: Broker
    topic: str
    group: str = field(default_factory=lambda: f"billing-{uuid4().hex[:8]}")

    def send(self, *records: tuple[object, bytes]) -> None:
        publisher = connect(KafkaOptions(self.broker.bootstrap_servers, options=self.broker.client_config)).publisher()
        publication = publisher.send(
            [
                OutgoingRecord(self.topic, b"k", payload, [("ce_id", str(name).encode()), ("ce_type", b"shop.paid")])
                for name, payload in records
            ]
        )
        assert publication.wait(30)
        assert not publication.errors()
        publisher.close(5)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(sql.encode()).fetchall()

    def effects(self) -> Counter[str]:
        return Counter(name for (name,) in self.query("SELECT name FROM effect"))

    def outcomes(self) -> Counter[tuple[str, int]]:
        return Counter(self.query("SELECT outcome, attempts FROM postroom.inbox"))

    def published(self) -> Counter[str]:
        return Counter(topic for (topic,) in self.query("SELECT topic FROM postroom.outbox"))


@pytest.fixture
def shop(postroom_postgres: Database, postroom_kafka: Broker, postroom_topic: Callable[[str], str]) -> Shop:
    schema.upgrade(postroom_postgres.url)
    with psycopg.connect(postroom_postgres.url) as connection:
        connection.execute("CREATE TABLE effect (name text)")
    return Shop(postroom_postgres.url, postroom_kafka, postroom_topic("orders"))


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def service(shop: Shop, tmp_path: Path) -> Iterator[Start]:
    """Starts the service; it dies at a step, or goes on until its input ends."""
    script = tmp_path / "service.py"
    script.write_text(SERVICE)
    started: list[subprocess.Popen[bytes]] = []

    def start(fatal_step: str = "", count: int = 1) -> subprocess.Popen[bytes]:
        arguments = [shop.url, shop.broker.bootstrap_servers, shop.topic, shop.group, fatal_step, str(count)]
        process = subprocess.Popen([sys.executable, str(script), *arguments], stdin=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
    for process in started:
        assert process.wait(30) in (0, -signal.SIGKILL)


@pytest.mark.parametrize("step", ["received", "applied", "handled", "condemned", "dead_lettered", "committed"])
def test_a_process_killed_at_a_step_neither_loses_nor_repeats_an_effect(
    shop: Shop, service: Start, eventually: Any, postroom_real_kafka: Broker, step: str
) -> None:
    poison = {5, 12}
    shop.send(*((number, b"poison" if number in poison else b"fine") for number in range(20)))

    assert service(step, 2).wait(60) == -signal.SIGKILL
    service()
    eventually(lambda: shop.outcomes().total() == 20, "all are closed")

    assert shop.effects() == Counter(str(number) for number in range(20) if number not in poison)
    assert shop.outcomes() == {("handled", 1): 18, ("dead-lettered", 1): 2}
    assert shop.published() == {"receipts": 18, f"{shop.topic}.{shop.group}.dlq": 2}


@pytest.fixture
def runners(shop: Shop, steps: Any) -> Iterator[Callable[..., InboxRunner]]:
    started: list[InboxRunner] = []

    def start(inbox: Inbox, url: str, observer: Callable[..., None] = steps) -> InboxRunner:
        kafka = connect(KafkaOptions(shop.broker.bootstrap_servers, options=shop.broker.client_config))
        runner = InboxRunner(inbox, database_url=url, kafka=kafka, settings=QUICK, observer=observer)
        started.append(runner)
        runner.start()
        return runner

    yield start
    for runner in started:
        runner.stop()
    for runner in started:
        assert runner.join(30)


def through(proxy: TcpProxy, url: str) -> str:
    return sa.make_url(url).set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)


@pytest.fixture
def proxy(shop: Shop) -> Iterator[TcpProxy]:
    target = sa.make_url(shop.url)
    assert target.host is not None
    with TcpProxy(target.host, target.port or 5432) as proxy:
        yield proxy


@pytest.mark.parametrize("moment", ["attempt", "handler", "applied", "condemned", "handled"])
def test_a_database_that_goes_away_burns_nothing(
    shop: Shop, steps: Any, proxy: TcpProxy, runners: Callable[..., InboxRunner], eventually: Any, moment: str
) -> None:
    inbox = Inbox(shop.group)
    cuts = [10]

    def maybe_cut(step: str) -> None:
        if step == moment:
            cuts[0] -= 1
            if cuts[0] == 0:
                proxy.cut()

    def observe(step: str, /, **facts: Any) -> None:
        steps(step, **facts)
        maybe_cut(step)

    @inbox.handler(shop.topic, Paid, dead_letter_on=RuntimeError)
    def handle(event: Paid, ctx: Context) -> None:
        maybe_cut("handler")
        ctx.session.execute(sa.text("INSERT INTO effect VALUES (:name)"), {"name": event.order_id})
        if event.order_id == "poison":
            raise RuntimeError

    names = [f"{number}" for number in range(30)]
    poison = [f"p{number}" for number in range(10)]
    shop.send(*((name, Paid(order_id=name).model_dump_json().encode()) for name in names[:15]))
    shop.send(*((name, b'{"order_id": "poison"}') for name in poison))
    shop.send(*((name, Paid(order_id=name).model_dump_json().encode()) for name in names[15:]))
    runners(inbox, through(proxy, shop.url), observe)
    steps.await_step("paused", 3)
    proxy.restore()
    steps.await_step("resumed")
    eventually(lambda: shop.outcomes().total() == len(names + poison), "all are closed")

    assert shop.effects() == Counter(names)
    assert shop.outcomes() == {("handled", 1): 30, ("dead-lettered", 1): 10}
    assert shop.published() == {f"{shop.topic}.{shop.group}.dlq": 10}
    assert steps.of("retried") == []


def test_a_backend_that_is_terminated_in_the_handler_is_no_failed_attempt(
    shop: Shop, steps: Any, runners: Callable[..., InboxRunner]
) -> None:
    inbox = Inbox(shop.group)
    calls: list[int] = []

    @inbox.handler(shop.topic, Paid)
    def handle(event: Paid, ctx: Context) -> None:
        calls.append(ctx.attempt)
        if len(calls) == 1:
            pid = ctx.session.scalars(sa.text("SELECT pg_backend_pid()")).one()
            shop.query(f"SELECT pg_terminate_backend({pid}, 10000)")
        ctx.session.execute(sa.text("INSERT INTO effect VALUES (:name)"), {"name": event.order_id})

    shop.send(("1", b'{"order_id": "a"}'))
    runners(inbox, shop.url)
    steps.await_step("handled")

    assert calls == [1, 1]
    assert shop.effects() == {"a": 1}
    assert shop.outcomes() == {("handled", 1): 1}


def test_a_database_server_that_is_restarted_is_waited_for_also_at_the_start(
    shop: Shop, steps: Any, runners: Callable[..., InboxRunner], postroom_postgres_server: Postgres
) -> None:
    inbox = Inbox(shop.group)

    @inbox.handler(shop.topic, Paid)
    def handle(event: Paid, ctx: Context) -> None:
        ctx.session.execute(sa.text("INSERT INTO effect VALUES (:name)"), {"name": event.order_id})

    shop.send(("1", b'{"order_id": "a"}'))
    try:
        postroom_postgres_server.stop()
    except ControlUnsupportedError as error:
        pytest.skip(str(error))
    runners(inbox, shop.url)
    steps.await_step("paused", 2)
    postroom_postgres_server.start()
    steps.await_step("handled")
    postroom_postgres_server.kill()
    shop.send(("2", b'{"order_id": "b"}'))
    steps.await_step("paused", len(steps.of("paused")) + 2)
    postroom_postgres_server.start()
    steps.await_step("handled", 2)

    assert shop.effects() == {"a": 1, "b": 1}
    assert shop.outcomes() == {("handled", 1): 2}
    assert shop.published() == {}


def test_a_broker_that_is_restarted_is_waited_for(
    shop: Shop, steps: Any, runners: Callable[..., InboxRunner], postroom_real_kafka: Broker, eventually: Any
) -> None:
    inbox = Inbox(shop.group)

    @inbox.handler(shop.topic, Paid)
    def handle(event: Paid, ctx: Context) -> None:
        ctx.session.execute(sa.text("INSERT INTO effect VALUES (:name)"), {"name": event.order_id})

    names = [f"{number}" for number in range(40)]
    shop.send(*((name, Paid(order_id=name).model_dump_json().encode()) for name in names[:20]))
    runners(inbox, shop.url)
    steps.await_step("handled", 5)
    try:
        postroom_real_kafka.restart()
    except ControlUnsupportedError as error:
        pytest.skip(str(error))
    shop.send(*((name, Paid(order_id=name).model_dump_json().encode()) for name in names[20:]))
    eventually(lambda: shop.effects().total() >= len(names), "all are applied", 90)

    assert shop.effects() == Counter(names)
    assert shop.outcomes() == {("handled", 1): 40}
