"""One run: services under fire, then peace, the books, the repair, and the books again."""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from os import environ
from pathlib import Path

import psycopg
from kafka.admin import ConfigResource, KafkaAdminClient

from postroom.outbox.database import open_store
from postroom.outbox.log import LogStore

from . import services
from .books import read_history
from .cluster import Cluster, Plan, cluster
from .history import check, totals
from .machine import able
from .nemesis import Nemesis
from .schedule import WRITERS, make_schedule

CLIENTS = ("kafka-python", "confluent-kafka")
_STUCK_SECONDS = 120.0
_JOINED_WITHIN = 15.0
_MOST_SECONDS = 900.0
_LOOK = 0.2
_BIG_TOPIC_BYTES = "1000000"

Tell = Callable[[str], None]


@dataclass
class Result:
    """``findings``: what is not as promised, a sentence each; none is the aim. ``folder``: logs and journals."""

    seed: int
    seconds: float
    folder: Path
    findings: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    totals: Mapping[str, int] = field(default_factory=dict)
    starts: Mapping[str, int] = field(default_factory=dict)
    quiet_after: float = 0.0
    missing: Mapping[str, str] = field(default_factory=dict)


def run(
    seed: int, seconds: float, folder: Path, tell: Tell, *, pace: float = 0.02, clients: Sequence[str] = CLIENTS
) -> Result:
    """Fire for so many ``seconds``, and what came of it. ``pace``: seconds between two transactions of a host.

    ``clients``: Kafka's, of which the seed chooses one for each host.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    missing = able()
    can = {"disk", "clock"} - missing.keys()
    rng = random.Random(seed)
    plan = Plan(
        seed,
        (rng.choice(clients), rng.choice(clients)),
        rng.choice(("dynamic", "static", "cooperative")),
        rng.choice((1, 20)),
        pace,
        killer_every=max(60.0, seconds / 3),
    )
    result = Result(seed, seconds, folder, missing=missing)
    with cluster(folder, plan, small_disks="disk" in can) as one:
        tell(f"{one.postgres.origin}; {one.broker.origin}; {plan}")
        one.start_services()
        nemesis = Nemesis(one, tell)
        nemesis.run(make_schedule(seed, seconds, can))
        one.heal()
        one.keeper.retire(*WRITERS)
        tell("peace")
        result.faults = Counter(fault.kind for fault in nemesis.done)
        result.quiet_after = _await_quiet(one, result.findings)
        result.findings += check(read_history(one, nemesis.done), repaired=False)
        _postroom(one, result.findings, "verify")
        tell("repair: the handlers are mended, the topic takes what it refused; parked and dead are sent again")
        _repair(one, result.findings)
        _await_quiet(one, result.findings)
        result.findings += _unready(one)
        _postroom(one, result.findings, "verify")
        history = read_history(one, nemesis.done)
        result.findings += [each for each in check(history, repaired=True) if each not in result.findings]
        result.totals = totals(history)
        result.starts = one.keeper.starts
        one.keeper.retire(*one.keeper.names)
        result.findings += one.keeper.findings
    return result


def _await_quiet(one: Cluster, findings: list[str]) -> float:
    """Until nothing is left to do; how long it took. That nothing moves, though something is left, is a finding."""
    began = moved = time.monotonic()
    before = ""
    store = open_store(one.url)
    try:
        while left := _left(one, store):
            now = time.monotonic()
            if left != before:
                before, moved = left, now
            if now - moved > _STUCK_SECONDS or now - began > _MOST_SECONDS:
                findings.append(
                    f"P9: {now - began:.0f} s after all works again, {now - moved:.0f} s of them still: {left}"
                )
                break
            time.sleep(_LOOK)
    finally:
        store.close()
    return time.monotonic() - began


def _left(one: Cluster, store: LogStore) -> str:
    """What is still to be done, in a few words; empty when nothing is."""
    waiting = store.backlog()[0]
    if waiting:
        return f"{waiting} messages wait in the outbox"
    with psycopg.connect(one.url) as connection:
        held = connection.execute("SELECT consumer_group, count(*) FROM postroom.inbox_held GROUP BY 1").fetchall()
    if held:
        return f"messages are held: {held}"
    with closing(one.kafka.topics()) as topics, closing(one.kafka.reader()) as reader:
        for inbox, topic in ((services.billing, services.ORDERS), (services.shipping, services.PAYMENTS)):
            at = {part.number: offset for part, offset in topics.committed(inbox.group, [topic]).items()}
            behind = {number: (at.get(number, 0), end) for number, (_, end) in reader.offsets(topic).items()}
            if late := {number: told for number, told in behind.items() if told[0] < told[1]}:
                return f"{inbox.group} has not read all of {topic}: {late}"
    return ""


def _repair(one: Cluster, findings: list[str]) -> None:
    """As an operator would: mend the cause, then send again what failed."""
    with psycopg.connect(one.url) as connection:
        connection.execute("INSERT INTO repair DEFAULT VALUES")
    admin = KafkaAdminClient(bootstrap_servers=one.broker.bootstrap_servers)
    admin.alter_configs([ConfigResource("TOPIC", services.ORDERS, {"max.message.bytes": _BIG_TOPIC_BYTES})])
    admin.close()
    reason = ("--yes", "--reason", "mended")
    _postroom(one, findings, "outbox", "parked", "retry", "--all", *reason)
    _postroom(one, findings, "dlq", "replay", "--wait", "3m", *reason)


def _postroom(one: Cluster, findings: list[str], *command: str) -> None:
    """Run it past all that may be broken; what it says is kept, and that it fails is a finding."""
    done = subprocess.run(
        [sys.executable, "-m", "postroom.cli.main", *command, "--json"],
        env={
            **environ,
            "POSTROOM_DATABASE_URL": one.url,
            "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": one.broker.bootstrap_servers,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    with (one.folder / f"{'-'.join(command[:2])}.json").open("a") as kept:
        kept.write(done.stdout + done.stderr)
    if done.returncode:
        told = (done.stderr or done.stdout).strip()[-300:]
        findings.append(f"`postroom {' '.join(command)}` ended with {done.returncode}: {told}")


def _unready(one: Cluster) -> list[str]:
    """P9: now that all is done, each daemon has to be ready, once a group that was joined anew is shared out."""
    findings = []
    for name, address in one.keeper.addresses.items():
        until = time.monotonic() + _JOINED_WITHIN
        while (told := _asked(name, address)) and time.monotonic() < until:
            time.sleep(0.5)
        findings += told
    return findings


def _asked(name: str, address: str) -> list[str]:
    """What speaks against its being ready."""
    host, _, port = address.partition(":")
    connection = HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        told = json.loads(answer.read())
    except OSError as error:
        return [f"P9: {name} does not answer in peace: {error}"]
    else:
        return [] if answer.status == 200 else [f"P9: {name} is not ready in peace: {told}"]
    finally:
        connection.close()
