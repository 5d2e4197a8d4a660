"""How fast a backlog gets to Kafka, and what remains true when the relay is killed on the way."""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from .process import MeasuredProcess, MeasurementError
from .systems import System, family, load
from .topic import Contents, Topic, fresh_topic, steady_rate

POLL_SECONDS = 0.05
_SETTLE_POLL_SECONDS = 0.02
_QUIET_SECONDS = 2.0


@dataclass(frozen=True)
class Ask:
    """What is to be measured. ``seconds`` bounds the wait for the system, not its preparation."""

    system: str
    url: str
    bootstrap_servers: str
    work: Path
    n: int = 0
    seconds: float = 120.0
    instances: int = 1
    kills: tuple[float, ...] = ()
    rate: int = 1_000
    memory: bool = False


class Bench:
    """A system with its tables in a fresh database and a topic of its own; its relays end with the block."""

    def __init__(self, ask: Ask, connection: psycopg.Connection[Any], topic: Topic) -> None:
        self.ask = ask
        self.connection = connection
        self.topic = topic
        self.relays: list[MeasuredProcess] = []
        self.system, self._folder = load(ask.system, topic.name)

    def start(self, instance: int = 0) -> MeasuredProcess:
        """Another relay."""
        command, environment = self.system.relay(instance)
        relay = MeasuredProcess(command, environment, self._folder, self.ask.work / f"relay-{len(self.relays)}.log")
        self.relays.append(relay)
        return relay

    def end(self) -> None:
        """SIGKILL every relay that is left."""
        for relay in self.relays:
            relay.end()

    def await_all(self, count: int, deadline: float, running: list[MeasuredProcess]) -> float:
        """Until ``count`` are in Kafka and nothing is pending; when that was. Raises MeasurementError."""
        found = 0
        while found < count or self.system.pending(self.connection):
            # Looking takes a share of the two cores that are measured, so it is done now and then.
            time.sleep(_SETTLE_POLL_SECONDS if found >= count else POLL_SECONDS)
            if time.time() > deadline:
                raise MeasurementError(f"{found} of {count} messages were in Kafka when the time was over")
            for relay in running:
                relay.require_running()
            found = self.topic.count()
        return time.time()


@contextmanager
def bench(ask: Ask) -> Iterator[Bench]:
    """Everything that a measurement needs; taken down at the end."""
    with ExitStack() as stack:
        connection = stack.enter_context(psycopg.connect(ask.url, autocommit=True))
        topic = stack.enter_context(fresh_topic(ask.bootstrap_servers, family(ask.system)))
        made = Bench(ask, connection, topic)
        made.system.setup(connection)
        stack.callback(made.system.teardown, connection)
        stack.callback(made.end)
        yield made


def drain(ask: Ask) -> dict[str, Any]:
    """A backlog of ``ask.n``, with ``ask.instances`` relays, and a SIGKILL at each of ``ask.kills``."""
    with bench(ask) as made:
        _fill(made.system, made.connection, ask.n)
        began = time.time()
        for instance in range(ask.instances):
            made.start(instance)
        kills = _kill_on_the_way(made, began + ask.seconds)
        settled = made.await_all(ask.n, began + ask.seconds, made.relays[-ask.instances :])
        if ask.kills:
            _await_quiet(made.topic)
        made.end()
        contents = made.topic.read()
    times = sorted(contents.times)
    facts = {
        "n": ask.n,
        "rate": steady_rate(times),
        "start_seconds": round(times[0] / 1000 - began, 2),
        "first_to_settled_seconds": round(settled - times[0] / 1000, 2),
        "settled_rate": round(ask.n / max(0.001, settled - times[0] / 1000)),
        **contents.facts(ask.n),
    }
    if family(ask.system) != "raw":  # its process also makes the records, and holds them all
        facts["cpu_seconds"] = round(sum(relay.cpu_seconds for relay in made.relays), 2)
        facts["peak_mb"] = round(max(relay.peak_mb for relay in made.relays), 1)
    if ask.kills:
        facts |= _kill_facts(kills, contents)
    if ask.memory:
        facts["memory"] = made.relays[0].memory
    return facts


def _fill(system: System, connection: psycopg.Connection[Any], count: int) -> None:
    system.fill(connection, count)
    for table in system.tables:
        connection.execute(f"ANALYZE {table}".encode())
    connection.execute("CHECKPOINT")
    system.before_relay(connection)


@dataclass(frozen=True)
class _Kill:
    """``at``: how much was in Kafka. ``time``: when that was."""

    at: int
    time: float
    resumed_seconds: float


def _kill_on_the_way(made: Bench, deadline: float) -> list[_Kill]:
    """SIGKILL the relay at each fraction, and start it again at once."""
    done = []
    for fraction in made.ask.kills:
        _await_more(made, int(made.ask.n * fraction), deadline)
        time.sleep(random.uniform(0.02, 0.2))  # not at the edge of a batch
        killed = time.time()
        made.relays[-1].end()
        time.sleep(0.2)  # what the broker had received is appended by now; nothing tells when
        at = made.topic.count()
        if at >= made.ask.n:
            raise MeasurementError("all was in Kafka before the kill: more messages are needed")
        made.start()
        _await_more(made, at + 1, deadline)
        done.append(_Kill(at, killed, round(time.time() - killed, 2)))
    return done


def _kill_facts(kills: list[_Kill], contents: Contents) -> dict[str, Any]:
    """A duplicate belongs to the last kill before it."""
    ends = [*(kill.time for kill in kills[1:]), float("inf")]
    return {
        "killed_at": [kill.at for kill in kills],
        "resumed_seconds": [kill.resumed_seconds for kill in kills],
        "duplicates_per_kill": [
            sum(kill.time <= appended / 1000 < end for appended in contents.duplicate_times)
            for kill, end in zip(kills, ends, strict=True)
        ],
    }


def _await_more(made: Bench, count: int, deadline: float) -> None:
    while (found := made.topic.count()) < count:
        if time.time() > deadline:
            raise MeasurementError(f"{found} of {made.ask.n} messages were in Kafka when the time was over")
        made.relays[-1].require_running()
        time.sleep(POLL_SECONDS)  # as above


def _await_quiet(topic: Topic) -> None:
    """After kills, also what comes twice counts: wait until nothing more comes."""
    count, since = topic.count(), time.time()
    while time.time() - since < _QUIET_SECONDS:
        time.sleep(POLL_SECONDS)  # as above
        if (now := topic.count()) != count:
            count, since = now, time.time()
