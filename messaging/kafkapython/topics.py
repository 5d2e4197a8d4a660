"""Topics as tools see them: their partitions, their offsets, their records without a group."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka import errors as kafka
from kafka.admin import ConfigResource, ConfigResourceType

from ..errors import KafkaUnavailable, UnknownTopic
from ..records import Partition, ReceivedRecord
from .build import build
from .consumer import received
from .coordinator import ask_coordinator
from .errors import translated

#: Without a record for this long, in seconds, while some should be there, reading gives up.
_SILENCE = 30.0


class Reader:
    """See ``ports.TopicReader``."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._consumer = build(KafkaConsumer, options)

    def offsets(self, topic: str) -> Mapping[int, tuple[int, int]]:
        with translated():
            if topic not in self._consumer.topics():
                raise UnknownTopic(f"Kafka knows no topic {topic!r}; check the name.")
            parts = [TopicPartition(topic, number) for number in self._consumer.partitions_for_topic(topic) or ()]
            try:
                first = self._consumer.beginning_offsets(parts)
                after_last = self._consumer.end_offsets(parts)
            except KeyError as error:  # kafka-python 3.0.12 drops the partitions that no broker leads
                raise KafkaUnavailable(f"A partition of topic {topic!r} has no leader now; try again.") from error
        return {part.partition: (first[part], after_last[part]) for part in parts}

    def offsets_at(self, topic: str, moment: datetime) -> Mapping[int, int]:
        ends = self.offsets(topic)
        stamp = int(moment.timestamp() * 1000)
        with translated():
            found = self._consumer.offsets_for_times({TopicPartition(topic, number): stamp for number in ends})
        at = {part.partition: each.offset for part, each in found.items() if each is not None}
        return {number: at.get(number, after_last) for number, (_, after_last) in ends.items()}

    def read(
        self, topic: str, start: Mapping[int, int] | None = None, end: Mapping[int, int] | None = None
    ) -> Iterator[ReceivedRecord]:
        begins: dict[TopicPartition, int] = {}
        ends: dict[TopicPartition, int] = {}
        for number, (first, last) in self.offsets(topic).items():
            begin = max(first, (start or {}).get(number, first))
            after_last = min(last, (end or {}).get(number, last))
            if begin < after_last:
                part = TopicPartition(topic, number)
                begins[part], ends[part] = begin, after_last
        if not ends:
            return
        with translated():
            self._consumer.assign(list(ends))
            for part, begin in begins.items():
                self._consumer.seek(part, begin)
        heard = time.monotonic()
        while ends:
            with translated():
                polled = self._consumer.poll(timeout_ms=500)
            if polled:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE:
                raise KafkaUnavailable(f"Kafka stopped answering while topic {topic!r} was read; try again.")
            for part, records in polled.items():
                yield from (received(record) for record in records if record.offset < ends.get(part, 0))
            self._drop_finished(ends)

    def _drop_finished(self, ends: dict[TopicPartition, int]) -> None:
        """By position, not by record: the last offsets may be compacted away or be transaction markers."""
        with translated():
            for part in [part for part, end in ends.items() if self._consumer.position(part) >= end]:
                del ends[part]  # not paused: kafka-python 3.0.12 may never give back what it holds of a paused one

    def close(self) -> None:
        self._consumer.close(autocommit=False, timeout_ms=1_000)


class AdminTopics:
    """See ``ports.Topics``."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._admin = build(KafkaAdminClient, options)

    def partitions(self) -> Mapping[str, int]:
        with translated():
            return {entry["name"]: len(entry["partitions"]) for entry in self._admin.describe_topics()}

    def create(self, topic: str, partitions: int, replication: int, config: Mapping[str, str]) -> bool:
        wanted = {"num_partitions": partitions, "replication_factor": replication, "configs": dict(config)}
        with translated():
            try:
                self._admin.create_topics({topic: wanted}, wait_for_metadata=True)
            except kafka.TopicAlreadyExistsError:
                return False
        return True

    def committed(self, group: str, topics: Sequence[str]) -> Mapping[Partition, int]:
        if not topics:
            return {}
        with translated():  # of these alone: a cluster may have thousands
            known = {entry["name"]: len(entry["partitions"]) for entry in self._admin.describe_topics(list(topics))}
        parts = [TopicPartition(topic, number) for topic in topics for number in range(known.get(topic, 0))]
        if not parts:
            return {}
        offsets = ask_coordinator(self._admin, lambda: self._admin.list_group_offsets({group: parts})[group])
        return {Partition(*part): found.offset for part, found in offsets.items() if found.offset >= 0}

    def close(self) -> None:
        self._admin.close()

    def configuration(self, topics: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        if not resources:
            return {}
        with translated():
            answer = self._admin.describe_configs(resources, config_filter="all")
        found: dict[str, dict[str, dict[str, Any]]] = answer.get("topic", {})
        return {
            topic: {name: each["value"] for name, each in settings.items() if each["value"] is not None}
            for topic, settings in found.items()
            if settings
        }
