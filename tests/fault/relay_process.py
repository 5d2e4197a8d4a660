"""A relay in a process of its own, which can be told to die at a step: run by test_relay_faults.py."""

import json
import os
import signal
import sys
from threading import Event
from typing import Any

from postroom.messaging.kafka import KafkaOptions, connect
from postroom.outbox.database import open_store
from postroom.relay import Relay, RelaySettings


def main() -> None:
    told = json.loads(sys.argv[1])
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    seen = 0

    def observe(step: str, /, **facts: Any) -> None:
        nonlocal seen
        print(step, facts.get("count", ""), flush=True)
        if step == told.get("die_at"):
            seen += 1
            if seen == told["die_after"]:
                os.kill(os.getpid(), signal.SIGKILL)

    options = KafkaOptions(told["bootstrap_servers"], options=told["client_config"])
    settings = RelaySettings(**told["settings"])
    relay = Relay(open_store(told["url"]), connect(options), settings=settings, observer=observe)
    relay.start()
    while relay.running and not stop.wait(0.05):
        pass
    relay.stop()
    relay.join()


main()
