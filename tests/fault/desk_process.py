"""An operator of dead letters in a process of its own, which tells its steps and can be told to fall at one.

``does``: ``catch up``, or ``run`` the ``plan``. ``fall_at``: kill itself at that step, the ``fall_after``-th time;
``inserted`` is where letters are in the tables and nothing is committed. ``batch``: letters in one.
"""

import json
import signal
import sys
from collections.abc import Sequence
from threading import get_ident
from typing import Any

from postroom.dlq import DeadLetter, Ledger, catch_up, ingest, run_plan
from postroom.dlq.ledger import Work
from postroom.messaging.kafka import KafkaOptions, connect


class Observer:
    """Writes the steps, and falls."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self._seen = 0

    def __call__(self, step: str, /, **facts: Any) -> None:
        print(json.dumps({"step": step, **facts}), flush=True)
        if step == self._told.get("fall_at"):
            self._seen += 1
            if self._seen == self._told.get("fall_after", 1):
                signal.pthread_kill(get_ident(), signal.SIGKILL)


def main() -> None:
    told = json.loads(sys.argv[1])
    observe = Observer(told)
    ledger = Ledger(told["url"])
    if told["does"] == "run":
        ran = run_plan(ledger, told["plan"], actor=told["actor"], batch=told["batch"], observer=observe)
        observe("done", count=ran.replayed)
        return
    insert = ingest.insert

    def inserted(work: Work, letters: Sequence[DeadLetter]) -> range:
        ids = insert(work, letters)
        observe("inserted")
        return ids

    ingest.insert = inserted
    ingest._BATCH = told["batch"]
    reader = connect(KafkaOptions(told["bootstrap_servers"], options=told["options"])).reader()
    caught = catch_up(reader, ledger, [told["topic"]], observer=observe)
    observe("done", count=caught.read)
    reader.close()


main()
