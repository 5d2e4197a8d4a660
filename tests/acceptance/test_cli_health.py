"""P9: a daemon's probes. Ready is making progress, and the answer says why it is not."""

import http.client
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from postroom.outbox import Message, Names, Outbox
from postroom.outbox.database import open_store
from postroom.outbox.write import write_psycopg

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


def probe(daemon: Any, path: str) -> tuple[int, dict[str, Any]]:
    port = next(event["port"] for event in daemon.seen if event["event"] == "probed")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    document = json.loads(answer.read())
    connection.close()
    return answer.status, document


def scraped(daemon: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What /metrics shows, by name and labels."""
    port = next(event["port"] for event in daemon.seen if event["event"] == "probed")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(**labels: str) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())


def test_a_relay_is_ready_while_it_makes_progress_and_says_why_when_not(
    daemon: Any,
    environment: dict[str, str],
    postroom_topic: Callable[[str], str],
    eventually: Callable[..., None],
) -> None:
    url, topic = environment["POSTROOM_DATABASE_URL"], postroom_topic("orders")
    publish(url, topic, 3)
    store = open_store(url)
    with daemon({**environment, "POSTROOM_HEALTH_ADDRESS": "127.0.0.1:0"}, "relay", "run") as relay:
        relay.await_event("settled", count=3)
        eventually(lambda: probe(relay, "/readyz")[0] == 200, "ready")
        assert probe(relay, "/readyz")[1]["status"] == "ok"
        found = scraped(relay)
        assert found["postroom_relay_published_messages_total", of(topic=topic)] == 3
        assert found["postroom_relay_publish_latency_seconds_count", of()] == 3
        assert found["postroom_relay_state", of(state="running")] == 1
        assert [found["postroom_tables_up", of(tables=part)] for part in ("outbox", "dead_letters")] == [1, 1]
        assert found["postroom_outbox_shards_without_relay", of()] == 0
        store.pause(None, "kafka upgrade", "test")
        eventually(lambda: probe(relay, "/readyz")[0] == 503, "not ready while paused")
        _, document = probe(relay, "/readyz")
        assert (document["status"], document["state"]) == ("paused: by an operator: kafka upgrade", "paused")
        assert probe(relay, "/livez")[0] == 200, "to start it anew would not help"
        store.resume(None, "test")
        eventually(lambda: probe(relay, "/readyz")[0] == 200, "ready again")
        port = str(next(event["port"] for event in relay.seen if event["event"] == "probed"))
        taken = {**environment, "POSTROOM_HEALTH_ADDRESS": f"127.0.0.1:{port}"}
        with daemon(taken, "relay", "run") as second:
            assert second.process.wait(60) == 3
        assert relay.stop(signal.SIGTERM) == 0
    store.close()


def test_a_relay_that_kafka_does_not_answer_is_not_ready(
    daemon: Any,
    environment: dict[str, str],
    postroom_topic: Callable[[str], str],
    eventually: Callable[..., None],
) -> None:
    publish(environment["POSTROOM_DATABASE_URL"], postroom_topic("orders"), 3)
    away = {
        **environment,
        "POSTROOM_HEALTH_ADDRESS": "127.0.0.1:0",
        "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "POSTROOM_RELAY__STUCK_SECONDS": "2",
    }
    with daemon(away, "relay", "run") as relay:
        relay.await_event("probed")
        eventually(lambda: probe(relay, "/readyz")[1]["status"].startswith("unavailable: Kafka"), "it says why")
        assert probe(relay, "/readyz")[0] == 503
        assert probe(relay, "/livez")[0] == 200


def test_an_inbox_answers_probes_before_and_after_the_database_does(
    daemon: Any,
    tmp_path: Path,
    environment: dict[str, str],
    postroom_topic: Callable[[str], str],
    eventually: Callable[..., None],
) -> None:
    topic = postroom_topic("orders")
    (tmp_path / "shop.py").write_text(SHOP.format(topic=topic))
    there = {**environment, "POSTROOM_HEALTH_ADDRESS": "127.0.0.1:0"}
    away = {**there, "POSTROOM_DATABASE_URL": "postgresql://u@127.0.0.1:1/x"}
    with daemon(away, "inbox", "run", "shop:inbox", "--relay") as waiting:
        waiting.await_event("paused")
        assert probe(waiting, "/livez")[0] == 200
        status, document = probe(waiting, "/readyz")
        assert status == 503
        for part in ("inbox", "relay"):
            assert document[part]["status"].startswith("unavailable: The database does not answer")
        assert waiting.stop(signal.SIGTERM) == 0
    with daemon(there, "inbox", "run", "shop:inbox") as inbox:
        inbox.await_event("started")
        eventually(lambda: probe(inbox, "/readyz")[0] == 200, "ready")
        assert probe(inbox, "/readyz")[1] | {"status": "ok", "state": "running"} == probe(inbox, "/readyz")[1]
        group = f"{topic}-billing"
        found = scraped(inbox)
        place = of(group=group, topic=topic, handler="shop.charge")
        assert found["postroom_inbox_handled_messages_total", place] == 0
        assert found["postroom_inbox_workers", of(group=group)] > 0
        assert found["postroom_inbox_state", of(group=group, state="running")] == 1
        assert [found["postroom_tables_up", of(tables=part)] for part in ("held", "dead_letters")] == [1, 1]
        assert inbox.stop(signal.SIGTERM) == 0


FAILING = """
import logging

from postroom.inbox import Inbox

inbox = Inbox(group="{topic}-billing")

@inbox.handler("{topic}", attempts=2)
def charge(event, ctx):
    logging.getLogger("shop").info("charging")
    raise ValueError(f"card {{event.payload}} was refused by https://shop:hunter2@bank.example")
"""


@pytest.mark.parametrize("redact", ["", "payload.card"])
def test_the_log_of_a_failing_handler_has_the_correlation_and_no_secret(
    daemon: Any,
    tmp_path: Path,
    environment: dict[str, str],
    postroom_topic: Callable[[str], str],
    eventually: Callable[..., None],
    *,
    redact: str,
) -> None:
    topic = postroom_topic("orders")
    (tmp_path / "shop.py").write_text(FAILING.format(topic=topic))
    card = "4111-1111"
    with psycopg.connect(environment["POSTROOM_DATABASE_URL"]) as connection:
        message = Message(topic=topic, key=b"k", payload=b'{"card": "%s"}' % card.encode(), type="n")
        entry = Outbox(source="/test").entry(message, correlation_id="story-1")
        write_psycopg(connection, [entry], Names())
    debugging = {**environment, "POSTROOM_REDACT": redact, "POSTROOM_HEALTH_ADDRESS": "127.0.0.1:0"}
    with daemon(debugging, "inbox", "run", "shop:inbox", "--relay") as inbox:
        inbox.await_event("dead_lettered")
        found = scraped(inbox)
        place = of(group=f"{topic}-billing", topic=topic, handler="shop.charge")
        assert found["postroom_inbox_failed_attempts_total", place] == 2
        assert found["postroom_inbox_dead_lettered_messages_total", place] == 1
        lag = ("postroom_inbox_lag_messages", of(group=f"{topic}-billing", topic=topic))
        eventually(lambda: lag in scraped(inbox), "the lag is told")
        assert inbox.stop(signal.SIGTERM) == 0
    text = json.dumps(inbox.seen, ensure_ascii=False)
    assert "was refused" in text or redact
    assert "hunter2" not in text
    assert (card in text) == (not redact)
    of_message = [event for event in inbox.seen if "message_id" in event]
    assert {event["event"] for event in of_message} >= {
        *("received", "raised", "retried", "dead_lettered"),
        "charging",  # the handler's own word
    }
    assert {event["correlation_id"] for event in of_message} == {"story-1"}
