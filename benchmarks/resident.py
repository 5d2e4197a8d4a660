"""Measurements of a relay of ours that runs already: several of them, beside an open transaction, and idle."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg

from .drain import Ask, Bench, bench
from .postroom_system import PostroomSystem, shards_by_owner
from .topic import steady_rate

_READY_SECONDS = 40.0
_SETTLE_SECONDS = 3.0
_LOAD_SECONDS = 60.0


def together(ask: Ask) -> dict[str, Any]:
    """``ask.instances`` relays that have shared out the shards, then ``ask.n`` messages in one transaction."""
    with bench(ask) as made:
        for instance in range(ask.instances):
            made.start(instance)
        _await_shared(made)
        _load(made, ask.n, ask.n)
        shares = shards_by_owner(made.connection)
        made.end()
        contents = made.topic.read()
    return {
        "n": ask.n,
        "instances": ask.instances,
        "rate": steady_rate(contents.times),
        "shards": shares,
        "cpu_seconds": [round(relay.cpu_seconds, 2) for relay in made.relays],
        "peak_mb": round(max(relay.peak_mb for relay in made.relays), 1),
        **contents.facts(ask.n),
    }


def beside_idle_transaction(ask: Ask) -> dict[str, Any]:
    """Loads of ``ask.n`` messages, one after the other, for ``ask.seconds`` each: alone, beside, alone again.

    Beside: another connection has an xid, a snapshot and one uncommitted message, and does nothing.
    """
    loads: dict[str, list[int]] = {"alone": [], "beside": []}
    written = 0
    with bench(ask) as made:
        relay = made.start()
        _await_shared(made)
        phases: list[tuple[str, range]] = []
        for phase in ("alone", "beside", "alone"):
            with _idle_transaction(made) if phase == "beside" else _nothing():
                until = time.time() + ask.seconds
                while time.time() < until:
                    _load(made, ask.n, made.topic.count() + ask.n)
                    phases.append((phase, range(written, written + ask.n)))
                    written += ask.n
        made.await_all(written + 1, time.time() + _LOAD_SECONDS, [relay])  # the idle transaction's own message
        contents = made.topic.read()
    for phase, numbers in phases:
        rate = steady_rate([contents.first_seen[number] for number in numbers if number in contents.first_seen])
        loads[phase].append(rate or 0)
    return {
        "n": ask.n,
        "rate_alone": round(statistics.median(loads["alone"])),
        "rate_beside": round(statistics.median(loads["beside"])),
        "loads": loads,
        "peak_mb": round(relay.peak_mb, 1),
        **contents.facts(written),
    }


def idle(ask: Ask) -> dict[str, Any]:
    """How much of a core a relay takes that has nothing to do."""
    with bench(ask) as made:
        relay = made.start()
        _await_shared(made)
        made.system.fill(made.connection, 1_000)  # so that everything that will ever be imported is
        made.await_all(1_000, time.time() + _LOAD_SECONDS, [relay])
        time.sleep(_SETTLE_SECONDS)  # until it is idle
        relay.sample()
        cpu, began = relay.cpu_seconds, time.time()
        time.sleep(ask.seconds)  # this is what is measured
        relay.sample()
        percent = 100 * (relay.cpu_seconds - cpu) / (time.time() - began)
        relay.require_running()
    return {"seconds": ask.seconds, "cpu_percent": round(percent, 2), "peak_mb": round(relay.peak_mb, 1)}


def _load(made: Bench, count: int, total: int) -> None:
    _ours(made).fill_at_once(made.connection, count)
    made.await_all(total, time.time() + _LOAD_SECONDS + count / 1_000, made.relays)


def _await_shared(made: Bench) -> None:
    """Until the relays hold the shards, as evenly as they will within the time."""
    deadline = time.time() + _READY_SECONDS
    while time.time() < deadline:
        shares = shards_by_owner(made.connection)
        if len(shares) == len(made.relays) and shares[0] - shares[-1] <= 1:
            time.sleep(1)  # they have told of their shares, and finish what they had begun
            return
        for relay in made.relays:
            relay.require_running()
        time.sleep(0.1)  # between two looks at the table


@contextmanager
def _idle_transaction(made: Bench) -> Iterator[None]:
    """Open for the length of the block, then committed; its message has an id that no load has."""
    with psycopg.connect(made.ask.url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        system = _ours(made)
        cursor = psycopg.RawCursor(connection)
        cursor.execute(
            system.insert_sql.encode(), system.insert_args("idle", '{"id": -1, "key": "idle", "seq": 1, "ts": 0}')
        )
        yield
        connection.commit()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _ours(made: Bench) -> PostroomSystem:
    return cast("PostroomSystem", made.system)
