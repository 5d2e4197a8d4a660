"""P2, P3, P4, P8 under fire: processes really killed, servers really stopped, histories counted."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from postroom.messaging.kafka import KafkaOptions, connect
from postroom.outbox import schema
from postroom.outbox.database import open_store
from postroom.relay import Relay, RelaySettings
from postroom.testing import TcpProxy, kafka_broker, postgres_server

BATCH = 100
SETTINGS = {"batch_size": BATCH, "lease_seconds": 2, "backoff_cap_seconds": 0.5, "shutdown_seconds": 5}
Spawn = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def spawn(workload: Any) -> Iterator[Spawn]:
    """Starts relay processes, which do not outlive the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(**told: Any) -> subprocess.Popen[str]:
        arguments = {
            "url": workload.url,
            "bootstrap_servers": workload.broker.bootstrap_servers,
            "client_config": dict(workload.broker.client_config),
            "settings": SETTINGS,
            **told,
        }
        script = str(Path(__file__).with_name("relay_process.py"))
        process = subprocess.Popen(
            [sys.executable, script, json.dumps(arguments)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], step: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(step):
            return
    pytest.fail(f"the relay ended before {step!r}")


@pytest.mark.parametrize("step", ["claimed", "read", "published", "settled"])
def test_a_relay_killed_at_any_step_loses_nothing_and_repeats_at_most_a_batch(
    workload: Any, spawn: Spawn, eventually: Any, step: str
) -> None:
    workload.publish(1_000)
    for _ in range(2):
        killed = spawn(die_at=step, die_after=1 if step == "claimed" else 3)
        killed.communicate(timeout=60)
        assert killed.returncode == -signal.SIGKILL
    successor = spawn()
    eventually(lambda: workload.unsettled() == 0, "the successor settles the rest")
    successor.send_signal(signal.SIGTERM)
    out, _ = successor.communicate(timeout=30)
    assert successor.returncode == 0
    assert out.split()[-1] == "stopped"

    doubled = workload.check(duplicates=2 * BATCH)
    if step == "published":
        assert doubled == 2 * BATCH, "both were killed between the acknowledgement and the settling"


def test_a_relay_that_hangs_past_its_lease_is_replaced_and_cannot_settle(
    workload: Any, spawn: Spawn, eventually: Any
) -> None:
    workload.publish(2_000)
    hung = spawn()
    read_until(hung, "settled")
    hung.send_signal(signal.SIGSTOP)
    successor = spawn()
    eventually(lambda: workload.unsettled() == 0, "the successor takes over after the lease")
    workload.publish(500)
    hung.send_signal(signal.SIGCONT)
    eventually(lambda: workload.unsettled() == 0, "both together")
    for process in (hung, successor):
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0

    workload.check(duplicates=2 * BATCH)


def test_a_relay_told_to_stop_finishes_what_is_in_flight(workload: Any, spawn: Spawn, eventually: Any) -> None:
    workload.publish(3_000)
    for _ in range(3):
        stopped = spawn()
        read_until(stopped, "settled")
        stopped.send_signal(signal.SIGTERM)
        stopped.communicate(timeout=30)
        assert stopped.returncode == 0
    last = spawn()
    eventually(lambda: workload.unsettled() == 0, "the rest")
    last.send_signal(signal.SIGTERM)
    last.communicate(timeout=30)

    assert workload.check(duplicates=0) == 0


def test_kafka_stopped_in_mid_flow_burns_nothing(
    workload: Any, steps: Any, eventually: Any, postroom_topic: Callable[[str], str]
) -> None:
    with kafka_broker() as broker:
        if broker.is_mock:
            pytest.skip("needs a real Kafka broker that can be restarted with its data")
        workload.broker = broker
        workload.kafka = connect(KafkaOptions(broker.bootstrap_servers))
        relay = Relay(open_store(workload.url), workload.kafka, settings=RelaySettings(**SETTINGS), observer=steps)
        workload.publish(2_000)
        relay.start()
        steps.await_step("settled", 3)
        broker.kill()
        workload.publish(500)
        before = len(steps.of("settled"))
        broker.start()
        steps.await_step("settled", before + 2)
        eventually(lambda: workload.unsettled() == 0, "all is settled")
        broker.stop()
        workload.publish(100)
        steps.await_step("read", len(steps.of("read")) + 1)
        broker.start()
        eventually(lambda: workload.unsettled() == 0, "and after a second outage")
        relay.stop()
        assert relay.join(30)

        assert not steps.of("parked")
        workload.check(duplicates=0)


def test_a_relay_started_while_kafka_is_away_begins_when_it_comes(workload: Any, steps: Any, eventually: Any) -> None:
    with kafka_broker() as broker:
        if broker.is_mock:
            pytest.skip("needs a real Kafka broker that can be restarted with its data")
        broker.stop()
        workload.kafka = connect(KafkaOptions(broker.bootstrap_servers, options={"bootstrap_timeout_ms": 500}))
        workload.publish(100)
        relay = Relay(open_store(workload.url), workload.kafka, settings=RelaySettings(**SETTINGS), observer=steps)
        relay.start()
        steps.await_step("paused", 3)
        broker.start()
        eventually(lambda: workload.unsettled() == 0, "all is settled")
        steps.await_step("resumed")
        relay.stop()
        assert relay.join(30)

        workload.check(duplicates=0)


def test_the_database_killed_in_mid_flow_loses_nothing(workload: Any, steps: Any, eventually: Any) -> None:
    with postgres_server() as server, server.database() as database:
        workload.url = database.url
        schema.upgrade(database.url)
        workload.publish(3_000)
        relay = Relay(open_store(workload.url), workload.kafka, settings=RelaySettings(**SETTINGS), observer=steps)
        relay.start()
        steps.await_step("settled", 3)
        server.kill()
        steps.await_step("paused", 2)
        server.start()
        eventually(lambda: workload.unsettled() == 0, "all is settled")
        relay.stop()
        assert relay.join(30)

        assert not steps.of("parked")
        workload.check(duplicates=BATCH)


@pytest.mark.parametrize("fault", ["cut", "freeze"])
def test_a_broken_network_to_the_database_loses_nothing(workload: Any, steps: Any, eventually: Any, fault: str) -> None:
    parts = urlsplit(workload.url)
    workload.publish(3_000)
    with TcpProxy(parts.hostname or "", parts.port or 5432) as proxy:
        url = workload.url.replace(f":{parts.port}/", f":{proxy.port}/").replace(str(parts.hostname), "127.0.0.1")
        settings = RelaySettings(**SETTINGS)
        relay = Relay(open_store(url), workload.kafka, settings=settings, observer=steps)
        relay.start()
        steps.await_step("settled", 3)
        (proxy.cut if fault == "cut" else proxy.freeze)()
        if fault == "cut":
            steps.await_step("paused", 2)
        else:
            successor = Relay(open_store(workload.url), workload.kafka, settings=settings, observer=steps)
            successor.start()
            eventually(lambda: workload.unsettled() == 0, "another relay takes over after the lease")
            successor.stop()
            assert successor.join(30)
        proxy.restore()
        workload.publish(200)
        eventually(lambda: workload.unsettled() == 0, "all is settled", 120)
        relay.stop()
        assert relay.join(60)

    workload.check(duplicates=2 * BATCH)
