"""A relay in a process of its own, which tells its steps and can be told to fall at one: see conftest.py."""

import json
import resource
import signal
import sys
import time
from pathlib import Path
from threading import Event
from typing import Any

from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.observer import Observer
from postroom.outbox.database import open_store
from postroom.relay import Relay, RelaySettings
from postroom.testing import crash_at


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

    def tell(step: str, /, **facts: Any) -> None:
        plain = {
            name: fact if isinstance(fact, int | float | str | list | tuple) else str(fact)
            for name, fact in facts.items()
        }
        print(json.dumps({"step": step, "at": time.monotonic(), "resident": resident(), **plain}), flush=True)

    observe: Observer = tell
    if "fall_at" in told:
        observe = crash_at(told["fall_at"], times=told["fall_after"], how=told["fall_by"], observer=tell)
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
