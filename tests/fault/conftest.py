"""Relays and inboxes in processes of their own, which can be killed and stopped, and a broker that can be broken."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import pytest

from postroom.messaging.kafka import connect
from postroom.testing import kafka_broker
from postroom.testing.kafka import Broker


class StepsProcess:
    """A process that tells its steps, a line each. ``at`` is on this machine's one clock."""

    def __init__(self, script: str, told: dict[str, Any]) -> None:
        path = str(Path(__file__).with_name(script))
        self._process = subprocess.Popen([sys.executable, path, json.dumps(told)], stdout=subprocess.PIPE, text=True)
        self._told: list[dict[str, Any]] = []
        self._news = Condition()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def steps(self) -> list[dict[str, Any]]:
        with self._news:
            return list(self._told)

    def of(self, step: str) -> list[dict[str, Any]]:
        return [told for told in self.steps if told["step"] == step]

    def await_step(self, step: str, count: int = 1, seconds: float = 60.0) -> None:
        with self._news:
            reached = self._news.wait_for(lambda: sum(told["step"] == step for told in self._told) >= count, seconds)
        assert reached, f"not {count} times {step}; the last: {self.steps[-3:]}"

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, number: int = signal.SIGTERM, seconds: float = 30.0) -> int:
        """Send the signal and wait for the end; the exit code."""
        self.send(number)
        return self.ended(seconds)

    def ended(self, seconds: float = 60.0) -> int:
        """Wait for the end; the exit code."""
        code = self._process.wait(seconds)
        self._reader.join(seconds)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            with self._news:
                self._told.append(told)
                self._news.notify_all()


class RelayProcess(StepsProcess):
    """A relay in a process of its own."""

    def sum_of(self, step: str) -> int:
        """Messages, over all steps of this name."""
        return sum(told["count"] for told in self.of(step))

    @property
    def shards(self) -> list[int]:
        claimed = self.of("claimed")
        return list(claimed[-1]["shards"]) if claimed else []


Spawn = Callable[..., RelayProcess]


@pytest.fixture
def spawn(workload: Any, relay_settings: dict[str, Any]) -> Iterator[Spawn]:
    """Starts relay processes, which do not outlive the test.

    ``settings`` are added to ``relay_settings``. At the step ``fall_at``, the ``fall_after``-th time, it falls by
    ``fall_by``: see ``crash_at``.
    """
    processes: list[RelayProcess] = []

    def start(client: str = "kafka-python", options: Any = None, settings: Any = None, **told: Any) -> RelayProcess:
        reached = workload.broker.options_for(client, options)
        process = RelayProcess(
            "relay_process.py",
            {
                "url": workload.url,
                "bootstrap_servers": reached.bootstrap_servers,
                "client": client,
                "options": dict(reached.options),
                "fall_after": 1,
                "fall_by": "kill",
                **told,
                "settings": {**relay_settings, **(settings or {})},
            },
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.running:
            process.end(signal.SIGKILL)


@pytest.fixture
def consumers(ledger: Any) -> Iterator[Callable[..., StepsProcess]]:
    """Starts processes with an inbox of the ledger's group, which do not outlive the test: see inbox_process.py.

    A member is ``named`` (static), so that one that comes after a kill need not wait for its session to end.
    """
    processes: list[StepsProcess] = []

    def start(client: str = "kafka-python", *, options: Any = None, settings: Any = None, **told: Any) -> StepsProcess:
        reached = ledger.broker.options_for(client, options)
        process = StepsProcess(
            "inbox_process.py",
            {
                "url": ledger.url,
                "bootstrap_servers": reached.bootstrap_servers,
                "client": client,
                "options": dict(reached.options),
                "topic": ledger.topic,
                "group": ledger.group,
                **told,
                "settings": {**ledger.settings, **(settings or {})},
            },
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.running:
            process.end(signal.SIGKILL)


@pytest.fixture
def operators() -> Iterator[Callable[..., StepsProcess]]:
    """Starts processes that work on a desk's dead letters, which do not outlive the test: see desk_process.py."""
    processes: list[StepsProcess] = []

    def start(desk: Any, **told: Any) -> StepsProcess:
        broker = desk.workload.broker
        reached = {"bootstrap_servers": broker.bootstrap_servers, "options": dict(broker.client_config)}
        given = {"url": desk.workload.url, "topic": desk.topic, "actor": "ada@host", "batch": 10, **reached, **told}
        process = StepsProcess("desk_process.py", given)
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.running:
            process.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def own_broker(postroom_real_kafka: Broker) -> Iterator[Broker]:
    """A broker for the tests of one file, which they stop, and whose proxy they break."""
    with kafka_broker(proxies=1) as broker:
        if broker.proxy is None:
            pytest.skip("needs a Kafka broker that is ours to break")
        yield broker


@pytest.fixture
def breakable(workload: Any, own_broker: Broker) -> Iterator[Any]:
    """The workload on a broker that may be killed, paused, and cut off. It is well again after the test."""
    yield replace(workload, broker=own_broker, kafka=connect(own_broker.options_for()))
    own_broker.resume()
    own_broker.start()
    if own_broker.proxy is not None:
        own_broker.proxy.restore()
