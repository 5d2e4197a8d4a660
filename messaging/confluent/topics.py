"""Topics as tools see them: their partitions, their offsets, their records without a group."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]

from ..errors import KafkaUnavailable, NotAuthorized, UnknownTopic
from ..ports import DEFAULT
from ..records import Partition, ReceivedRecord
from .build import build
from .consumer import received
from .errors import translate, translated

#: Without a record for this long, in seconds, while some should be there, reading gives up.
_SILENCE = 30.0
_ANSWER_WITHIN = 10.0
_AT_ONCE = 1000


class Reader:
    """See ``ports.TopicReader``."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        # librdkafka asks for a group; nothing is ever committed to it, and nobody joins it.
        group = f"postroom-reader-{uuid4()}"
        self._consumer: Any = build(Consumer, {**options, "group.id": group, "enable.partition.eof": True})

    def offsets(self, topic: str) -> Mapping[int, tuple[int, int]]:
        with translated():
            known = self._consumer.list_topics(topic, _ANSWER_WITHIN).topics[topic]
            if known.error is not None:
                error = translate(known.error)
                if isinstance(error, UnknownTopic):
                    raise UnknownTopic(f"Kafka knows no topic {topic!r}; check the name.")
                raise error
            return {
                number: self._consumer.get_watermark_offsets(TopicPartition(topic, number), _ANSWER_WITHIN)
                for number in sorted(known.partitions)
            }

    def offsets_at(self, topic: str, moment: datetime) -> Mapping[int, int]:
        ends = self.offsets(topic)
        stamp = int(moment.timestamp() * 1000)
        with translated():
            asked = [TopicPartition(topic, number, stamp) for number in ends]
            found = self._consumer.offsets_for_times(asked, _ANSWER_WITHIN)
            for each in found:
                if each.error is not None:
                    raise KafkaException(each.error)
        at = {each.partition: each.offset for each in found if each.offset >= 0}
        return {number: at.get(number, after_last) for number, (_, after_last) in ends.items()}

    def read(
        self, topic: str, start: Mapping[int, int] | None = None, end: Mapping[int, int] | None = None
    ) -> Iterator[ReceivedRecord]:
        begins: list[TopicPartition] = []
        ends: dict[int, int] = {}
        for number, (first, last) in self.offsets(topic).items():
            begin = max(first, (start or {}).get(number, first))
            after_last = min(last, (end or {}).get(number, last))
            if begin < after_last:
                begins.append(TopicPartition(topic, number, begin))
                ends[number] = after_last
        if not ends:
            return
        with translated():
            self._consumer.assign(begins)
        heard = time.monotonic()
        while ends:
            with translated():
                first = self._consumer.poll(0.5)
                messages = [] if first is None else [first, *self._consumer.consume(_AT_ONCE, 0)]
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE:
                raise KafkaUnavailable(f"Kafka stopped answering while topic {topic!r} was read; try again.")
            for message in messages:
                if record := _take(message, ends):
                    yield record
        with translated():
            self._consumer.unassign()

    def close(self) -> None:
        self._consumer.close()


def _take(message: Any, ends: dict[int, int]) -> ReceivedRecord | None:
    """The record, if it is before its partition's end. What has come to its end is dropped from ``ends``."""
    number, error = message.partition(), message.error()
    end = ends.get(number, 0)
    if error is None:
        if message.offset() >= end - 1:
            ends.pop(number, None)
        return received(message) if message.offset() < end else None
    if error.code() != KafkaError._PARTITION_EOF:
        raise translate(error)
    ends.pop(number, None)  # the last offsets may be compacted away or be transaction markers
    return None


def _is_there(partitions: int | None, wanted: int) -> bool:
    return partitions is not None and wanted in (partitions, DEFAULT)


class AdminTopics:
    """See ``ports.Topics``."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._admin: Any = build(AdminClient, options)

    def partitions(self) -> Mapping[str, int]:
        with translated():
            topics = self._admin.list_topics(timeout=_ANSWER_WITHIN).topics
        return {name: len(found.partitions) for name, found in topics.items() if found.error is None}

    def create(self, topic: str, partitions: int, replication: int, config: Mapping[str, str]) -> bool:
        wanted = NewTopic(topic, num_partitions=partitions, replication_factor=replication, config=dict(config))
        with translated():
            try:
                self._admin.create_topics([wanted], request_timeout=_ANSWER_WITHIN)[topic].result()
            except KafkaException as error:
                if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                    return False
                raise
        deadline = time.monotonic() + _ANSWER_WITHIN
        while not _is_there(self.partitions().get(topic), partitions) and time.monotonic() < deadline:
            self._admin.poll(0.05)  # it takes the cluster a while to know a new topic everywhere
        return True

    def committed(self, group: str, topics: Sequence[str]) -> Mapping[Partition, int]:
        known = self.partitions()
        parts = [TopicPartition(topic, number) for topic in topics for number in range(known.get(topic, 0))]
        if not parts:
            return {}
        with translated():
            asked = [ConsumerGroupTopicPartitions(group, parts)]
            answer = self._admin.list_consumer_group_offsets(asked, request_timeout=_ANSWER_WITHIN)[group].result()
        return {
            Partition(part.topic, part.partition): part.offset for part in answer.topic_partitions if part.offset >= 0
        }

    def close(self) -> None:
        self._admin = None

    def configuration(self, topics: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        if not topics:
            return {}
        asked = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
        found: dict[str, dict[str, str]] = {}
        with translated():
            for resource, answer in self._admin.describe_configs(asked, request_timeout=_ANSWER_WITHIN).items():
                try:
                    settings = answer.result()
                except KafkaException as error:
                    if isinstance(translate(error.args[0]), UnknownTopic | NotAuthorized):
                        continue
                    raise
                found[resource.name] = {each.name: each.value for each in settings.values() if each.value is not None}
        return found
