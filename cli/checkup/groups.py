"""Whether consumer groups read, and how far they are behind."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from threading import Event
from typing import TYPE_CHECKING

from ...messaging.errors import PostroomError
from .. import output
from .patient import Finding, Patient

if TYPE_CHECKING:
    from ..lag import Lag

#: Groups that the tables know, when no inbox is named.
_MOST_GROUPS = 20
#: Between two looks, which tell whether a group moves, in seconds.
_PAUSE = 1.0


def paused(patient: Patient) -> Iterator[Finding]:
    """Nothing is paused, and no key waits for a dead letter."""
    if not patient.has_tables:
        return
    from ...inbox.desk import Desk

    group = patient.inbox.group if patient.inbox else None
    with closing(Desk(patient.app.database_url, patient.names)) as desk:
        controls, counts = desk.controls(group), desk.held_counts()
    for each in controls:
        if each.paused is not None:
            kind, _, name = each.subject.partition(":")
            told = f"{f'{kind} {name}' if kind else 'the group'} is paused by {each.changed_by}: {each.paused}"
            back = f"postroom inbox resume --group {each.group}{f' --{kind} {name}' if kind else ''}"
            yield Finding("inbox", each.group, "warning", told, f"Ask who wrote the reason; then {back}")
    for count in counts:
        if count.state == "dead-letter" and group in (None, count.group):
            told = f"{output.counted(count.messages, 'key')} of {count.topic} wait for a dead letter to be resolved"
            todo = f"postroom dlq list --group {count.group}; then replay or discard."
            yield Finding("inbox", count.group, "warning", told, todo)


def lag(patient: Patient) -> Iterator[Finding]:
    """Groups that are behind move, and somebody is there to read."""
    if not patient.has_kafka:
        return
    from ..lag import Lagging

    groups = _groups(patient)
    with closing(Lagging(patient.app)) as lagging:
        before, error = lagging.measure(groups)
        if error is not None:
            yield Finding("lag", "", "unknown", error, "postroom inbox status")
            return
        behind = {
            group: groups[group] for group, topics in before.items() if any(lag.messages for lag in topics.values())
        }
        after = before
        if behind:
            patient.clock.wait(Event(), _PAUSE)
            after, error = lagging.measure(behind)
    for group, topics in before.items():
        members = _members(patient, group)
        for topic, lag in topics.items():
            yield _of_topic(group, topic, lag, after.get(group, {}).get(topic, lag), members)


def _groups(patient: Patient) -> Mapping[str, list[str]]:
    if patient.inbox is not None:
        return {patient.inbox.group: [topic for topic in patient.inbox.topics if topic in patient.partitions]}
    if not patient.has_tables:
        return {}
    from ...inbox.desk import Desk

    with closing(Desk(patient.app.database_url, patient.names)) as desk:
        return {group: [] for group in desk.groups()[:_MOST_GROUPS]}


def _members(patient: Patient, group: str) -> int | None:
    try:
        return patient.cluster.members(group)
    except PostroomError:
        return None


def _of_topic(group: str, topic: str, before: "Lag", after: "Lag", members: int | None) -> Finding:
    place, read = f"{group}, {topic}", after.read - before.read
    who = "" if members is None else f", {output.counted(members, 'member')}"
    told = f"{output.amount(after.messages)} behind{who}"
    if not after.messages:
        return Finding("lag", place, "ok", f"{told}; nothing waits")
    if members == 0:
        return Finding("lag", place, "problem", f"{told}: nobody reads", "postroom inbox run MODULE:INBOX")
    if read > 0:
        more = after.messages - before.messages
        moves = f"{read:,} read within the last second, and the lag {'grows' if more > 0 else 'does not grow'}"
        return Finding("lag", place, "ok", f"{told}; {moves}")
    if before.uncommitted == before.partitions:
        told += "; the group never committed an offset of it"
    told += "; none was read within a second"
    return Finding("lag", place, "warning", told, "postroom inbox status; docs/runbooks/consumer-lag.md")
