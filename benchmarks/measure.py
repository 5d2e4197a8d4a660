"""One measurement, in a process of its own: ``python -m benchmarks.measure '{"scenario": "drain", …}'``.

Prints its result as JSON. The runner holds our standard input open; when that ends, the runner is gone, and
so is our whole process group, relays and writers included.
"""

import json
import os
import signal
import sys
from pathlib import Path
from threading import Thread
from typing import Any

from .drain import Ask, drain
from .process import MeasurementError


def _scenario(name: str, ask: Ask) -> dict[str, Any]:
    # Imported here: what measures ours does not load in the peers' environment.
    if name == "latency":
        from .latency import latency

        return latency(ask)
    if name == "publish":
        from .publish import publish

        return publish(ask)
    if name == "inbox":
        from .inbox import inbox

        return inbox(ask)
    if name in ("ledger", "replay"):
        from . import dead_letters

        return {"ledger": dead_letters.ledger, "replay": dead_letters.replay}[name](ask)
    if name == "drain":
        return drain(ask)
    from . import resident

    return {"together": resident.together, "beside": resident.beside_idle_transaction, "idle": resident.idle}[name](ask)


def _end_with_runner() -> None:
    while os.read(0, 1):  # not by sys.stdin, whose lock a thread must not hold at the end
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Measure what the argument says, and print it."""
    Thread(target=_end_with_runner, daemon=True).start()
    asked = json.loads(sys.argv[1])
    scenario = asked.pop("scenario")
    asked["kills"] = tuple(asked.get("kills", ()))
    ask = Ask(
        url=os.environ["DATABASE_URL"],
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        work=Path(os.environ["WORK"]),
        **asked,
    )
    try:
        result = _scenario(scenario, ask)
    except MeasurementError as error:
        result = {"failed": str(error)}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
