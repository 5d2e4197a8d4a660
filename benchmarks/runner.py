"""Runs measurements, each in a process of its own and a database of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console

from .peers import ROOT, Peers
from .process import tail
from .servers import Servers
from .systems import is_peer

#: For what a measurement does besides waiting for the system: fill the table, read everything back.
_AROUND_SECONDS = 120.0
_PER_MESSAGE_SECONDS = 1 / 5_000
_SLOT_SECONDS = 15.0


class Runner:
    """Keeps what was measured, and what could not be."""

    def __init__(self, servers: Servers, peers: Peers, console: Console) -> None:
        self._servers = servers
        self._peers = peers
        self._console = console
        self.records: list[dict[str, Any]] = []
        self.skipped: dict[str, str] = {}

    def available(self, names: list[str]) -> list[str]:
        """Those that can be measured here; of the others it is noted why not."""
        found = []
        for name in names:
            why = self._peers.missing(name) if is_peer(name) else None
            if why is None:
                found.append(name)
            elif name not in self.skipped:
                self.skipped[name] = why
                self._console.print(f"  [yellow]skipped[/] {name}: {why}", highlight=False)
        return found

    def measure(self, case: str, turn: int, system: str, scenario: str, **ask: Any) -> dict[str, Any]:
        """One measurement. A failed one is recorded with ``failed``, the reason."""
        began = time.monotonic()
        with self._console.status(f"{case}, round {turn}: {system}"):
            result = self._run(system, {"scenario": scenario, "system": system, **ask})
        record = {"case": case, "round": turn, "system": system, **result}
        self.records.append(record)
        if "failed" in record:
            told = f"[red]failed[/]: {record['failed']}"
        else:
            hidden = ("memory", "loads", "bytes_per_record", "misplaced", "start_seconds", "settled_rate")
            told = ", ".join(f"{name} {value}" for name, value in result.items() if name not in hidden)
        elapsed = time.monotonic() - began
        self._console.print(f"  {case} {turn} [bold]{system}[/] ({elapsed:.0f} s): {told}", highlight=False)
        return record

    def _run(self, system: str, ask: dict[str, Any]) -> dict[str, Any]:
        limit = _AROUND_SECONDS + 3 * ask.get("seconds", 120) + ask.get("n", 0) * _PER_MESSAGE_SECONDS
        python = self._peers.python if is_peer(system) else sys.executable
        with (
            self._servers.postgres.database() as database,
            tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as work,
        ):
            environment = {
                **os.environ,
                **self._peers.environment(),
                "DATABASE_URL": database.url,
                "KAFKA_BOOTSTRAP_SERVERS": self._servers.kafka.bootstrap_servers,
                "WORK": work,
            }
            command = [str(python), "-m", "benchmarks.measure", json.dumps(ask)]
            try:
                return _outcome(command, environment, Path(work), limit)
            finally:
                _await_free_slots(database.url)


def _await_free_slots(url: str) -> None:
    """A killed reader's replication slot is its own for a moment more, and so long its database cannot be dropped."""
    deadline = time.monotonic() + _SLOT_SECONDS
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute("SELECT 1 FROM pg_replication_slots WHERE active").fetchone():
            connection.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
            if time.monotonic() > deadline:
                return
            time.sleep(0.1)  # between two looks at the server


def _outcome(command: list[str], environment: dict[str, str], work: Path, limit: float) -> dict[str, Any]:
    output, log = work / "result.json", work / "measure.log"
    with output.open("wb") as out, log.open("wb") as err:
        process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            return {"failed": f"it took more than {limit:.0f} s: {tail(log)}"}
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its relays and writers
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
    if code != 0:
        return {"failed": f"it ended with {code}: {tail(log)}"}
    result: dict[str, Any] = json.loads(output.read_text())
    return result
