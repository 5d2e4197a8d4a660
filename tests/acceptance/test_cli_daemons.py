"""The daemons as processes: they log steps, wait through outages, and end in phases on a signal."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from postroom.messaging.kafka import KafkaOptions, connect
from postroom.outbox import Message, Names, Outbox
from postroom.outbox.write import write_psycopg
from postroom.testing.kafka import Broker
from postroom.testing.proxy import TcpProxy

SHOP = """
from postroom.inbox import Inbox

inbox = Inbox(group="{topic}-billing")

@inbox.handler("{topic}")
def charge(event, ctx):
    pass
"""


def publish(url: str, topic: str, count: int) -> None:
    outbox = Outbox(source="/test")
    with psycopg.connect(url) as connection:
        entries = [outbox.entry(Message(topic=topic, key=b"k", payload=b"%d" % n, type="n")) for n in range(count)]
        write_psycopg(connection, entries, Names())


def owned(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(owner) FROM postroom.relay_cursor").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_relay_publishes_and_ends_cleanly_on_a_signal(
    daemon: Any,
    environment: dict[str, str],
    postroom_kafka: Broker,
    postroom_topic: Callable[[str], str],
    number: signal.Signals,
) -> None:
    topic, url = postroom_topic("orders"), environment["POSTROOM_DATABASE_URL"]
    publish(url, topic, 20)
    with daemon(environment, "relay", "run") as relay:
        relay.await_event("settled", count=20)
        assert owned(url) > 0
        assert relay.stop(number) == 0
        assert relay.await_event("signalled")["signal"] == number.name
        relay.await_event("stopped")
    assert owned(url) == 0, "the leases are given back"
    kafka = connect(KafkaOptions(postroom_kafka.bootstrap_servers, options=dict(postroom_kafka.client_config)))
    reader = kafka.reader()
    try:
        assert [int(record.value or b"") for record in reader.read(topic)] == list(range(20))
    finally:
        reader.close()


def test_a_relay_waits_for_the_database_and_says_so(daemon: Any, environment: dict[str, str]) -> None:
    before = psycopg.conninfo.conninfo_to_dict(environment["POSTROOM_DATABASE_URL"])
    proxy = TcpProxy(str(before.get("host") or "127.0.0.1"), int(before.get("port") or 5432))
    try:
        proxy.cut()
        moved = psycopg.conninfo.make_conninfo(
            environment["POSTROOM_DATABASE_URL"], host="127.0.0.1", port=str(proxy.port)
        )
        parts = psycopg.conninfo.conninfo_to_dict(moved)
        password = f":{parts['password']}" if parts.get("password") else ""
        url = f"postgresql://{parts['user']}{password}@127.0.0.1:{proxy.port}/{parts['dbname']}"
        with daemon({**environment, "POSTROOM_DATABASE_URL": url}, "relay", "run") as relay:
            assert "does not answer" in relay.await_event("paused")["error"]
            proxy.restore()
            relay.await_event("resumed")
            relay.await_event("claimed")
            assert relay.stop(signal.SIGTERM) == 0
    finally:
        proxy.close()


def test_a_relay_that_waits_for_the_database_ends_on_a_signal(daemon: Any, environment: dict[str, str]) -> None:
    away = {**environment, "POSTROOM_DATABASE_URL": "postgresql://u@127.0.0.1:1/x"}
    with daemon(away, "relay", "run") as relay:
        relay.await_event("paused")
        assert relay.stop(signal.SIGINT) == 0


def test_a_second_signal_ends_at_once(
    daemon: Any, environment: dict[str, str], postroom_topic: Callable[[str], str]
) -> None:
    publish(environment["POSTROOM_DATABASE_URL"], postroom_topic("orders"), 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        deaf = {
            **environment,
            "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{silent.getsockname()[1]}",
            "POSTROOM_KAFKA_OPTIONS": '{"bootstrap_timeout_ms": 120000, "request_timeout_ms": 100000}',
        }
        with daemon(deaf, "relay", "run") as relay:
            relay.await_event("read")
            connection, _ = silent.accept()  # it waits for an answer that never comes
            with connection:
                relay.process.send_signal(signal.SIGINT)
                relay.await_event("signalled")
                assert relay.process.poll() is None
                assert relay.stop(signal.SIGINT) == 130


@pytest.mark.parametrize("where", ["working-directory", "package"])
def test_an_inbox_with_a_relay_is_a_whole_service_and_ends_in_phases(
    daemon: Any, tmp_path: Path, environment: dict[str, str], postroom_topic: Callable[[str], str], where: str
) -> None:
    topic, url = postroom_topic("orders"), environment["POSTROOM_DATABASE_URL"]
    target = "shop:inbox" if where == "working-directory" else "shop.billing:inbox"
    module = tmp_path / (target.split(":", maxsplit=1)[0].replace(".", "/") + ".py")
    module.parent.mkdir(exist_ok=True)
    module.write_text(SHOP.format(topic=topic))
    publish(url, topic, 5)
    with daemon(environment, "inbox", "run", target, "--relay") as service:
        for _ in range(5):
            service.await_event("handled")
        assert service.stop(signal.SIGTERM) == 0
        service.await_event("stopped", service="inbox")
        service.await_event("stopping", service="relay")
        service.await_event("stopped", service="relay")
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT outcome, count(*) FROM postroom.inbox GROUP BY outcome").fetchall()
    assert rows == [("handled", 5)]


def test_an_inbox_whose_tables_the_settings_contradict_does_not_start(
    daemon: Any, tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "shop.py").write_text(SHOP.format(topic="orders"))
    elsewhere = {**environment, "POSTROOM_SCHEMA": "elsewhere"}
    with daemon(elsewhere, "inbox", "run", "shop:inbox", "--json") as inbox:
        assert inbox.process.wait(60) == 3
