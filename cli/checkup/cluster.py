"""Whether Kafka answers, has the topics, and keeps what it acknowledges."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...messaging.errors import NotAuthorized
from .. import output
from .patient import Finding, Patient, State

if TYPE_CHECKING:
    from ...messaging.records import Copies

#: The latest messages of each shard, by which the topics of the log are known.
_LATEST = 200
#: The first Kafka that has headers and the idempotent producer.
_OLDEST_KAFKA = (0, 11)
#: What `Outbox(max_payload_bytes=…)` allows by default.
_MAX_PAYLOAD = 1_000_000


class Sent(NamedTuple):
    """A topic of the log. ``keyless``: some messages have no key; ``largest``: payload in bytes."""

    topic: str
    keyless: bool
    largest: int


def kafka(patient: Patient) -> Iterator[Finding]:
    """Kafka answers."""
    if not patient.has_settings:
        return
    address = patient.app.settings.kafka_bootstrap_servers
    if error := patient.kafka_error:
        from ..errors import sentence

        yield Finding("kafka", address, "problem", sentence(error), "Start it, or correct kafka_bootstrap_servers.")
        return
    brokers = patient.cluster.brokers()
    counts = f"{output.counted(brokers.number, 'broker')}, {output.counted(len(patient.partitions), 'topic')}"
    yield Finding("kafka", address, "ok", f"answers; {counts}")
    version = brokers.version
    if version is None:
        return
    if tuple(map(int, version.split(".")[:2])) < _OLDEST_KAFKA:
        told = f"it understands what {version} does, which has neither headers nor the idempotent producer"
        yield Finding("versions", "Kafka", "problem", told, "Upgrade the brokers.")
    else:
        yield Finding("versions", "Kafka", "ok", f"{version}, by what it understands")


def topics(patient: Patient) -> Iterator[Finding]:
    """Each topic of the inbox is there."""
    if patient.inbox is None or not patient.has_kafka:
        return
    for topic in patient.inbox.topics:
        count = patient.partitions.get(topic)
        if count is None:
            todo = f"Create it, with the partitions it needs: postroom topics create {topic} --partitions …"
            yield Finding("topic", topic, "problem", "is not there", todo)
        else:
            yield Finding("topic", topic, "ok", output.counted(count, "partition"))


def dead_letter_topics(patient: Patient) -> Iterator[Finding]:
    """Each dead letter of the inbox has a topic to go to."""
    if patient.inbox is None or not patient.has_kafka:
        return
    for topic, dead in zip(patient.inbox.topics, patient.dead_letter_topics, strict=True):
        count = patient.partitions.get(dead)
        if count is not None:
            yield Finding("topic", dead, "ok", f"for dead letters, {output.counted(count, 'partition')}")
            continue
        todo = f"postroom topics create {topic} --dead-letters {patient.inbox.group}"
        yield _absent(patient, dead, "is not there: a first dead letter", todo)


def topics_of_the_log(patient: Patient) -> Iterator[Finding]:
    """Kafka has the topics that the outbox holds messages for, and takes those without a key."""
    if not patient.has_kafka or not patient.has_tables:
        return
    sent = _sent(patient)
    for each in sent:
        if each.topic not in patient.partitions and each.topic not in patient.read_topics:
            todo = f"postroom topics create {each.topic} --partitions …"
            yield _absent(patient, each.topic, "is not there, and the outbox holds messages for it: the next one", todo)
    keyless = [each.topic for each in sent if each.keyless and each.topic in patient.partitions]
    for topic, config in patient.topics.configuration(keyless).items():
        if "compact" in config.get("cleanup.policy", ""):
            told = "it is compacted, so Kafka refuses messages without a key, and the outbox holds some"
            yield Finding("topic", topic, "problem", told, "Give each message a key, or set cleanup.policy to delete.")
    if sent and all(each.topic in patient.partitions for each in sent):
        yield Finding("topic", "of the outbox", "ok", f"{output.counted(len(sent), 'topic')}, all there")


def _absent(patient: Patient, topic: str, told: str, todo: str) -> Finding:
    """What comes of it depends on the brokers."""
    if patient.makes_topics:
        return Finding("topic", topic, "ok", f"{told} has the brokers make it, with their defaults")
    refused = f"{told} would be refused by Kafka and parked"
    if patient.makes_topics is None:
        return Finding(
            "topic", topic, "warning", f"{refused}, unless the brokers make topics, which they do not tell", todo
        )
    return Finding("topic", topic, "problem", refused, todo)


def copies(patient: Patient) -> Iterator[Finding]:
    """What Kafka acknowledged is on several brokers, and it can acknowledge more."""
    if not patient.has_kafka:
        return
    names = _known(patient)
    if not names:
        return
    brokers = patient.cluster.brokers().number
    found = patient.cluster.copies(names)
    settings = patient.topics.configuration(list(found))
    well = 0
    for topic, of in found.items():
        findings = list(judged_copies(topic, of, settings.get(topic, {}), brokers))
        well += not findings
        yield from findings
    if well:
        alone = ", one copy each, as there is one broker" if brokers == 1 else ""
        yield Finding("copies", "", "ok", f"{output.counted(well, 'topic')} as well copied as can be{alone}")


def judged_copies(topic: str, of: "Copies", config: Mapping[str, str], brokers: int) -> Iterator[Finding]:
    """What is wrong with how a topic is copied over so many brokers."""
    least = int(config.get("min.insync.replicas", "0"))
    if of.leaderless:
        told = f"{output.counted(of.leaderless, 'partition')} without a leader: nobody can write to them, or read"
        yield Finding("copies", topic, "problem", told, "Bring the brokers back that hold their copies.")
    elif least > of.in_sync:
        why = "so that Kafka takes nothing for it now"
        told = f"{of.in_sync} of {of.replicas} copies in sync, and min.insync.replicas is {least}, {why}"
        yield Finding("copies", topic, "problem", told, "Bring the other brokers back, or correct min.insync.replicas.")
    elif of.in_sync < of.replicas:
        told = f"{of.in_sync} of {of.replicas} copies in sync"
        yield Finding("copies", topic, "warning", told, "See what the other brokers do.")
    if brokers > 1 and of.replicas == 1:
        told = f"one copy on a cluster of {brokers} brokers: with that broker's disk its messages are gone"
        yield Finding("copies", topic, "warning", told, "Reassign it with a replication factor of 3.")
    elif of.replicas >= 3 and least == 1:  # noqa: PLR2004  with two copies there is no 2 to ask for
        told = (
            f"min.insync.replicas is 1 of {of.replicas}: acks=all may mean one copy, which its broker's end takes along"
        )
        yield Finding("copies", topic, "warning", told, "Set its min.insync.replicas to 2.")
    elif of.replicas > 1 and least == of.replicas:
        told = f"min.insync.replicas is {least} of {of.replicas}: Kafka takes nothing while one broker is away"
        yield Finding("copies", topic, "warning", told, f"Set it to {least - 1}, or add a replica.")
    if of.replicas > 1 and config.get("unclean.leader.election.enable") == "true":
        told = "unclean.leader.election.enable is true: a copy that is behind may take over, and what it lacks is gone"
        yield Finding("copies", topic, "problem", told, "Set it to false.")


def sizes(patient: Patient) -> Iterator[Finding]:
    """Topics take what the outbox and the inbox let through."""
    if not patient.has_kafka:
        return
    try:
        largest = {each.topic: each.largest for each in _sent(patient)} if patient.has_tables else {}
    except NotAuthorized:
        largest = {}
    dead = dict(zip(patient.dead_letter_topics, patient.inbox.topics, strict=True)) if patient.inbox else {}
    names = [topic for topic in {**largest, **dead} if topic in patient.partitions]
    sources = [topic for topic in dead.values() if topic in patient.partitions]
    found = patient.topics.configuration(list(dict.fromkeys([*names, *sources])))
    limits = {
        topic: int(config["max.message.bytes"]) for topic, config in found.items() if "max.message.bytes" in config
    }
    most = patient.app.settings.inbox.dead_letter_max_bytes
    for topic in names:
        limit, source = limits.get(topic), limits.get(dead.get(topic, ""), 0)
        if limit is None:
            continue
        if topic in dead and limit < max(most, source):
            told = (
                f"its max.message.bytes is {limit:,}, and a dead letter may have {max(most, source):,} bytes: it would "
                "be refused and parked"
            )
            todo = f"Set its max.message.bytes to {max(most, source):,}".replace(",", "")
            yield Finding("size", topic, "warning", told, f"{todo}, or lower inbox.dead_letter_max_bytes.")
        elif topic not in dead and limit < _MAX_PAYLOAD:
            state: State = "problem" if limit < largest.get(topic, 0) else "warning"
            told = (
                f"its max.message.bytes is {limit:,}, and the outbox lets payloads of {_MAX_PAYLOAD:,} bytes through "
                "by default: larger ones are refused and parked"
            )
            yield Finding("size", topic, state, told, f"Raise it, or give Outbox(max_payload_bytes={limit * 9 // 10}).")


def _sent(patient: Patient) -> Sequence[Sent]:
    """The topics of the latest messages. Raises NotAuthorized."""
    rows = patient.rows("latest_topics", {"most": _LATEST})
    return [Sent(topic, bool(keyless), largest) for topic, keyless, largest in rows]


def _known(patient: Patient) -> Sequence[str]:
    """The topics that are there, of the inbox and of the log, as far as we may read that."""
    try:
        of_log = [each.topic for each in _sent(patient)] if patient.has_tables else []
    except NotAuthorized:
        of_log = []
    return [topic for topic in dict.fromkeys([*patient.read_topics, *of_log]) if topic in patient.partitions]
