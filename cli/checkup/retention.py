"""Whether the inbox remembers a message for as long as anything can bring it again."""

from collections.abc import Iterator, Mapping
from datetime import timedelta

from ...messaging.errors import PostroomError
from .. import output
from ..errors import sentence
from .patient import Finding, Patient

_HOUR_MS = 3_600_000


def of_outbox(patient: Patient) -> Iterator[Finding]:
    """The inbox remembers a message for as long as the outbox can bring it again."""
    if not patient.has_settings:
        return
    relay = patient.app.settings.relay
    keep = relay.inbox_retention_hours
    if keep < relay.retention_hours:
        yield Finding(
            "retention",
            "outbox",
            "problem",
            f"the outbox can replay messages of {_hours(relay.retention_hours)}, the inbox remembers {_hours(keep)}: "
            "an older one would run again",
            f"Raise relay.inbox_retention_hours to {relay.retention_hours:g}, or lower relay.retention_hours.",
        )
    else:
        told = f"the inbox remembers {_hours(keep)}, the outbox can replay {_hours(relay.retention_hours)}"
        yield Finding("retention", "outbox", "ok", told)


def of_topics(patient: Patient) -> Iterator[Finding]:
    """It does so for as long as a topic can, its own and that of its dead letters."""
    if not patient.has_kafka:
        return
    keep = patient.app.settings.relay.inbox_retention_hours
    there = [topic for topic in patient.read_topics if topic in patient.partitions]
    try:
        found = patient.topics.configuration(there)
    except PostroomError as error:
        told = f"the topics' retention is not known: {sentence(error)}"
        yield Finding("retention", "kafka", "warning", told, f"See that it is below {_hours(keep)}.")
        return
    for topic in there:
        yield _of_topic(topic, found.get(topic), keep)


def of_ledger(patient: Patient) -> Iterator[Finding]:
    """It does so for as long as the ledger can: a dead letter that was handled can be replayed once more."""
    if not patient.has_tables:
        return
    keep = patient.app.settings.relay.inbox_retention_hours
    group = None if patient.inbox is None else patient.inbox.group
    [(count, oldest)] = patient.rows("letters_outliving", {"age": keep * 3_600, "group": group})
    if not count:
        yield Finding("retention", "ledger", "ok", f"no dead letter was handled longer ago than {_hours(keep)}")
        return
    letters = output.counted(count, "dead letter")
    told = (
        f"the ledger has {letters} that were handled longer ago than the inbox remembers ({_hours(keep)}), the oldest "
        f"{output.duration(oldest)} ago: replayed with --again, they run a second time"
    )
    todo = (
        f"postroom dlq purge --older-than {keep:.0f}h, or raise relay.inbox_retention_hours to {_up(oldest / 3_600)}."
    )
    yield Finding("retention", "ledger", "warning", told, todo)


def _of_topic(topic: str, config: Mapping[str, str] | None, keep: float) -> Finding:
    """The retention of a topic beside the inbox's, in hours."""
    below = f"See that its retention.ms is at most {keep * _HOUR_MS:.0f}."
    if config is None or not _is_number(config.get("retention.ms")):
        return Finding("retention", topic, "warning", "its settings may not be read", below)
    milliseconds = int(config["retention.ms"])
    again = "a group that starts over, or a replay, runs again what is older"
    if "compact" in config.get("cleanup.policy", ""):
        told = f"it is compacted and keeps the last message of each key for ever, the inbox {_hours(keep)}: {again}"
        return Finding(
            "retention", topic, "warning", told, "Do not read it again from its beginning, or be idempotent."
        )
    if milliseconds < 0:
        told = f"it keeps its messages for ever (retention.ms is {milliseconds}), the inbox {_hours(keep)}: {again}"
        return Finding("retention", topic, "warning", told, f"Set its retention.ms to {keep * _HOUR_MS:.0f} or less.")
    hours = milliseconds / _HOUR_MS
    if hours > keep:
        told = f"it keeps its messages for {_hours(hours)}, the inbox only {_hours(keep)}: {again}"
        todo = f"Raise relay.inbox_retention_hours to {_up(hours)}, or lower its retention.ms."
        return Finding("retention", topic, "problem", told, todo)
    segment = config.get("segment.ms")
    longest = hours + (int(segment) / _HOUR_MS if segment is not None and segment.isdecimal() else 0)
    if longest > keep:
        told = f"Kafka drops whole segments, so it may keep messages for {_hours(longest)}, the inbox {_hours(keep)}"
        return Finding("retention", topic, "warning", told, f"Raise relay.inbox_retention_hours to {_up(longest)}.")
    return Finding("retention", topic, "ok", f"it keeps its messages for {_hours(hours)}, the inbox {_hours(keep)}")


def _is_number(text: str | None) -> bool:
    return text is not None and text.lstrip("-").isdecimal()


def _up(hours: float) -> str:
    """Whole hours, not less."""
    return f"{-int(-hours // 1):d}"


def _hours(hours: float) -> str:
    return output.span(timedelta(hours=hours))
