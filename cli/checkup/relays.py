"""Whether somebody publishes: a relay that says it runs while nothing moves is the worst of all."""

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from ...outbox.database import open_store
from .. import output
from .patient import Finding, Patient, State

if TYPE_CHECKING:
    from ..statistics import Instance, Shard

_LOOK = "postroom relay status, and the relay's log."


def running(patient: Patient) -> Iterator[Finding]:
    """A relay is alive, holds all shards, and can work; on SQLite there is one."""
    if not patient.has_tables:
        return
    if patient.on_postgres and patient.rows("other_cluster") != [(0,)]:
        told = "the cursors are of another PostgreSQL cluster, as after a restore: no relay runs on them"
        yield Finding("relay", "cursor", "problem", told, "Stop all relays; postroom relay reset-cursor --dry-run")
    alive = [each for each in patient.statistics.instances() if each.alive_seconds > 0]
    if not alive:
        yield Finding("relay", "", "warning", "none is running", "postroom relay run")
        return
    free = _without_relay(patient.statistics.shards())
    if free:
        told = f"{output.counted(free, 'shard')} without a relay, though {output.counted(len(alive), 'relay')} run"
        yield Finding("relay", "shards", "problem", told, f"It should not last for longer than a lease: {_LOOK}")
    for each in alive:
        if each.state in ("running", "standby", "starting"):
            yield Finding("relay", each.owner, "ok", f"{each.state}, {output.amount(each.published)} published")
        else:
            yield Finding("relay", each.owner, "warning", f"{each.state}: {each.detail or 'no reason told'}", _LOOK)
    if patient.dialect == "sqlite" and len(alive) > 1:
        yield _several_on_sqlite(alive)


def _several_on_sqlite(alive: "list[Instance]") -> Finding:
    hosts = {each.owner.partition(":")[0] for each in alive}
    if len(hosts) > 1:
        told = (
            f"{len(alive)} relays on {len(hosts)} machines use one SQLite file, whose locks do not hold over a network"
        )
        return Finding("relay", "SQLite", "problem", told, "Run one relay where the file is, or use PostgreSQL.")
    told = f"{len(alive)} relays run on SQLite, where only one works at a time and the others wait"
    return Finding("relay", "SQLite", "warning", told, "Run one; for several use PostgreSQL.")


def backlog(patient: Patient) -> Iterator[Finding]:
    """What waits to be published goes out."""
    if not patient.has_tables:
        return
    statistics, settings = patient.statistics, patient.app.settings.relay
    with closing(open_store(patient.app.database_url, patient.names)) as store:
        waiting, oldest, exact = store.backlog()
    everything, *topics = statistics.controls()
    for each in ([everything] if everything.paused is not None else []) + topics:
        what = f"topic {each.topic}" if each.topic else "all publishing"
        told = f"{what} is paused by {each.paused_by}: {each.paused}"
        back = f"postroom relay resume{f' --topic {each.topic}' if each.topic else ''}"
        yield Finding("backlog", each.topic, "warning", told, f"Ask who wrote the reason; then {back}")
    late = -(statistics.scheduled().next_in_seconds or 0.0)
    if late > settings.stuck_seconds:
        told = f"a delayed message has been due for {output.duration(late)}"
        yield Finding("backlog", "delayed", "problem", told, _LOOK)
    if not waiting or everything.paused is not None:
        yield Finding("backlog", "", "ok", f"{output.amount(waiting, exact=exact)} messages wait to be published")
        return
    told = f"{output.amount(waiting, exact=exact)} messages wait, the oldest for {output.duration(oldest)}"
    alive = [each for each in statistics.instances() if each.alive_seconds > 0]
    if not alive:
        yield Finding("backlog", "", "problem", f"{told}, and no relay is running", "postroom relay run")
        return
    settled = [one.settled_seconds_ago for one in statistics.shards() if one.settled_seconds_ago is not None]
    since = min(settled, default=oldest)
    if min(oldest, since) > settings.stuck_seconds:
        told += (
            f", and nothing was settled for {output.duration(since)} though a relay says that it is {alive[0].state}"
        )
        yield Finding("backlog", "", "problem", told, f"{_LOOK} docs/runbooks/backlog-grows.md")
    elif oldest > settings.stuck_seconds:
        yield Finding("backlog", "", "warning", told, "docs/runbooks/backlog-grows.md")
    else:
        yield Finding("backlog", "", "ok", told)


def parked(patient: Patient) -> Iterator[Finding]:
    """No message was refused by Kafka and waits for somebody to decide."""
    if not patient.has_tables:
        return
    for each in patient.statistics.parked():
        if not each.refused and not each.waiting:
            continue
        told = f"Kafka refused {output.counted(each.refused, 'message')}, and {each.waiting} of their keys wait behind"
        state: State = "problem" if each.refused > each.retrying else "warning"
        todo = f"postroom outbox parked list --topic {each.topic} says why; then retry or discard."
        yield Finding("parked", each.topic, state, told, todo)


def _without_relay(shards: "list[Shard]") -> int:
    return sum(each.owner is None or (each.lease_seconds or -1) <= 0 for each in shards)
