"""The command line as users have it: processes in a folder of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import pytest

from postroom.outbox import schema
from postroom.testing.kafka import Broker
from postroom.testing.postgres import Database


@dataclass
class Shell:
    """Runs ``postroom`` in a folder of its own, with an environment that holds what the test says."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
        return subprocess.Popen(
            [sys.executable, "-m", "postroom.cli.main", *arguments],
            cwd=self.folder,
            env={**inherited, "COLUMNS": "200", **self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str, code: int = 0) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def database_shell(shell: Shell, postroom_postgres: Database) -> Shell:
    """With an empty database."""
    shell.environment |= {"POSTROOM_DATABASE_URL": postroom_postgres.url}
    return shell


@pytest.fixture
def ready(database_shell: Shell, postroom_kafka: Broker) -> Shell:
    """With tables and Kafka."""
    schema.upgrade(database_shell.environment["POSTROOM_DATABASE_URL"])
    database_shell.environment |= {
        "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": postroom_kafka.bootstrap_servers,
        "POSTROOM_KAFKA_OPTIONS": json.dumps(dict(postroom_kafka.client_config)),
    }
    return database_shell


@dataclass
class Daemon:
    """A command that runs until it is stopped, and the events of its log."""

    process: "subprocess.Popen[str]"
    seen: list[dict[str, Any]] = field(default_factory=list)
    _lines: "Queue[str]" = field(default_factory=Queue)

    def __post_init__(self) -> None:
        Thread(target=self._listen, daemon=True).start()

    def await_event(self, event: str, **facts: Any) -> dict[str, Any]:
        while True:
            try:
                line = self._lines.get(timeout=60)
            except Empty:
                pytest.fail(f"no {event!r} in the log: {self.seen}")
            if not line:
                pytest.fail(f"ended without {event!r}: {self.seen}")
            self.seen.append(json.loads(line))
            if self.seen[-1]["event"] == event and facts.items() <= self.seen[-1].items():
                return self.seen[-1]

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put("")


@contextmanager
def _daemon(folder: Path, environment: dict[str, str], *arguments: str) -> Iterator[Daemon]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    with subprocess.Popen(
        [sys.executable, "-m", "postroom.cli.main", *arguments],
        cwd=folder,
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Daemon(process)
        finally:
            process.kill()


@pytest.fixture
def daemon(tmp_path: Path) -> Callable[..., AbstractContextManager[Daemon]]:
    """Runs a command that does not end by itself: ``daemon(environment, *arguments)``."""
    return partial(_daemon, tmp_path)


@pytest.fixture
def environment(postroom_postgres: Database, postroom_kafka: Broker) -> dict[str, str]:
    schema.upgrade(postroom_postgres.url)
    return {
        "POSTROOM_DATABASE_URL": postroom_postgres.url,
        "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": postroom_kafka.bootstrap_servers,
        "POSTROOM_KAFKA_OPTIONS": json.dumps(dict(postroom_kafka.client_config)),
        "POSTROOM_LOG_LEVEL": "debug",
    }
