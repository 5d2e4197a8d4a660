"""A relay in a process of its own, which tells its steps and can be told to fall at one: see conftest.py."""

import json
import resource
import signal
import sys
import time
from pathlib import Path
from threading import Event, get_ident
from typing import Any

from postroom.messaging.kafka import KafkaOptions, connect
from postroom.outbox.database import open_store
from postroom.relay import Relay, RelaySettings


def resident() -> int:
    """Memory that is resident now, in bytes; where that is not told, the most there ever was."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    told = json.loads(sys.argv[1])
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    seen = 0

    def observe(step: str, /, **facts: Any) -> None:
        nonlocal seen
        plain = {
            name: fact if isinstance(fact, int | float | str | list | tuple) else str(fact)
            for name, fact in facts.items()
        }
        print(json.dumps({"step": step, "at": time.monotonic(), "resident": resident(), **plain}), flush=True)
        if step == told.get("fall_at"):
            seen += 1
            if seen == told["fall_after"]:
                signal.pthread_kill(get_ident(), told["fall_by"])  # at this very step

    relay = Relay(
        open_store(told["url"]),
        connect(KafkaOptions(told["bootstrap_servers"], told["client"], told["options"])),
        settings=RelaySettings(**told["settings"]),
        observer=observe,
    )
    observe("started")
    relay.start()
    while relay.running and not stop.wait(0.05):
        pass
    relay.stop()
    relay.join()


main()
