"""The writers of the latency measurement, in a process of their own.

Open-loop: a message is due at its time whether or not the one before is written. Eight connections, one
committed INSERT a message; a key keeps to its connection, so that its commits follow its sequence.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import psycopg

from .systems import System, load
from .workload import KEYS, body

_CONNECTIONS = 8
_STRIDE = 7_919  # a prime: walks through all keys, neighbours far apart


class _Times:
    def __init__(self, count: int) -> None:
        self.inserting = [0.0] * count
        self.committed = [0.0] * count
        self.late = [0.0] * count


_Due = asyncio.Queue[tuple[int, str, int, float] | None]


async def _work(system: System, queue: _Due, times: _Times, *, warm_up: bool) -> None:
    url = os.environ["DATABASE_URL"]
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0)
    async with connection, psycopg.AsyncRawCursor(connection) as cursor:
        while (due := await queue.get()) is not None:
            number, key, sequence, at = due
            began = time.time()
            value = body(-number - 1 if warm_up else number, key, sequence, began)
            await cursor.execute(system.insert_sql.encode(), system.insert_args(key, value))
            times.inserting[number], times.committed[number], times.late[number] = began, time.time(), began - at


async def _write(system: System, count: int, rate: int, *, warm_up: bool) -> _Times:
    times = _Times(count)
    queues: list[_Due] = [asyncio.Queue() for _ in range(_CONNECTIONS)]
    sequences: Counter[str] = Counter()
    async with asyncio.TaskGroup() as workers:
        for queue in queues:
            workers.create_task(_work(system, queue, times, warm_up=warm_up))
        began = time.time() + 0.5  # by then all are connected
        for number in range(count):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.time()))
            place = number * _STRIDE % KEYS
            key = f"key-{place:04d}"
            sequences[key] += 1
            queues[place % _CONNECTIONS].put_nowait((number, key, sequences[key], due))
        for queue in queues:
            queue.put_nowait(None)
    return times


def main() -> None:
    """Write, then tell when each message was written."""
    name, topic, count, rate, purpose, target = sys.argv[1:]
    system, _ = load(name, topic)
    times = asyncio.run(_write(system, int(count), int(rate), warm_up=purpose == "warm-up"))
    Path(target).write_text(json.dumps(vars(times)))


if __name__ == "__main__":
    main()
