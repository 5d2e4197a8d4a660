"""`postroom demo` as a user runs it: a process, whose exit code says whether every count adds up."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from postroom.testing.supervisor import process_table

DEMO = [sys.executable, "-m", "postroom.cli.main", "demo", "--orders", "300"]


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}


def test_the_demo_loses_nothing_and_every_count_adds_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--json", "--keep-logs", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env=clean_environment(),
    )
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))

    assert done.returncode == 0, done.stderr[-2000:]
    ledger = json.loads(done.stdout)
    assert ledger.pop("duplicates_suppressed") >= 15
    assert ledger == {
        "ok": True,
        "orders": 300,
        "published": 1200,
        "consumed": 1200,
        "dead_lettered": 3,
        "replayed": 3,
        "lost": 0,
        "applied_twice": 0,
    }
    for told in ("SIGKILL", "Kafka is gone", "sent a second time", "postroom dlq list", "postroom dlq replay"):
        assert told in done.stderr
    assert "Traceback" not in done.stderr + logs


@pytest.mark.parametrize("after", [0.3, 6.0])
def test_a_demo_that_is_interrupted_leaves_nothing_behind(after: float, eventually: Any) -> None:
    before = set(process_table())
    demo = subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_environment())
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > after, "the moment of the interruption")
    demo.send_signal(signal.SIGINT)
    out, _ = demo.communicate(timeout=60)

    assert demo.returncode == 130, out
    assert "Traceback" not in out

    def ours() -> set[int]:
        """Children of children may be adopted: what is left of this demo carries its name or its servers'."""
        left = set(process_table()) - before
        return {pid for pid in left if any(name in command_of(pid) for name in ("postroom", "postgres"))}

    eventually(lambda: not ours(), "no process of the demo is left")


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
