"""`postroom demo` as a user runs it: a process, whose exit code says whether every count adds up."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
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
    for told in ("SIGKILL", "Kafka is gone", "sent a second time", "postroom dlq stats", "postroom dlq replay"):
        assert told in done.stderr
    assert re.search(r"replayed +3 .*\n.*confirmed +3", done.stderr), "the replay waited for the inbox"
    assert "Traceback" not in done.stderr + logs


@pytest.mark.skipif(sys.platform != "linux", reason="looks for what is left in /proc")
@pytest.mark.parametrize(
    ("number", "after"), [(signal.SIGINT, 1.0), (signal.SIGINT, 6.0), (signal.SIGTERM, 6.0), (signal.SIGKILL, 6.0)]
)
def test_a_demo_that_is_interrupted_leaves_nothing_behind(number: int, after: float, eventually: Any) -> None:
    mark = f"demo-{secrets.token_hex(6)}"  # inherited by all that the demo starts
    environment = {**clean_environment(), "POSTROOM_DEMO_PREFIX": mark}
    demo = subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > after and len(marked(mark)) > 1, "the moment of the interruption")
    demo.send_signal(number)
    out, _ = demo.communicate(timeout=60)

    assert demo.returncode == (130 if number == signal.SIGINT else -number), out
    assert "Traceback" not in out
    eventually(lambda: not marked(mark), "no process of the demo is left")


def marked(mark: str) -> set[int]:
    """The processes whose environment holds ``mark``."""
    found = set()
    for pid, (_, state) in process_table().items():
        with suppress(OSError):
            if state != "Z" and mark.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.add(pid)
    return found
