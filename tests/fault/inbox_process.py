"""An inbox in a process of its own, which tells its steps and can be told to fall at one: see conftest.py.

``fall_at``: kill itself at that step (of the message ``fall_of``), the ``fall_after``-th time. ``tell``: the steps
to tell, all by default. ``fails``: by message id, so many attempts of it fail. ``fail_every``: of all messages every
such one fails for its first two attempts, never many in a row. ``kills``: these messages end the process.
``while_exists``: a file without which nothing fails or kills any more.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from threading import Event, Lock
from typing import Any

import sqlalchemy as sa

from postroom.inbox import Context, Inbox, InboxRunner, InboxSettings, Received
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.observer import Observer
from postroom.testing import crash_at


def observer(told: dict[str, Any]) -> Observer:
    """Writes the steps, and falls."""
    lock = Lock()

    def tell(step: str, /, **facts: Any) -> None:
        if step in told.get("tell", [step]):
            plain = {name: fact if isinstance(fact, int | float | str) else str(fact) for name, fact in facts.items()}
            with lock:
                print(json.dumps({"step": step, "at": time.monotonic(), **plain}), flush=True)

    if "fall_at" not in told:
        return tell
    of, times = told.get("fall_of"), told.get("fall_after", 1)
    return crash_at(told["fall_at"], times=times, of=of, how="kill", observer=tell)


def handle(ctx: Context, told: dict[str, Any]) -> None:
    key, number = ctx.message_id.split("/")
    statement = sa.text("INSERT INTO effect (key, number) VALUES (:key, :number)")
    ctx.session.execute(statement, {"key": key, "number": int(number)})
    if "while_exists" in told and not Path(told["while_exists"]).exists():
        return
    if ctx.message_id in told.get("kills", ()):
        os._exit(7)
    fails = told.get("fails", {}).get(ctx.message_id, 0)
    if "fail_every" in told and (int(number) + int(key.removeprefix("key-"))) % told["fail_every"] == 0:
        fails = 2
    if ctx.attempt <= fails:
        raise RuntimeError("not yet")


def main() -> None:
    told = json.loads(sys.argv[1])
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    inbox = Inbox(told["group"])

    @inbox.handler(told["topic"], breaker_threshold=1.0)  # many fail here, and nothing is away
    def run(_: Received, ctx: Context) -> None:
        handle(ctx, told)

    observe = observer(told)
    runner = InboxRunner(
        inbox,
        database_url=told["url"],
        kafka=connect(KafkaOptions(told["bootstrap_servers"], told["client"], told["options"])),
        settings=InboxSettings(**told["settings"]),
        observer=observe,
    )
    observe("started")
    runner.start()
    while runner.running and not stop.wait(0.05):
        pass
    runner.stop()
    runner.join()


main()
