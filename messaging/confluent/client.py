"""The confluent-kafka client: what each part is given."""

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException, Producer

from ..errors import ConfigurationError
from ..ports import PartitionsHook
from .cluster import AdminCluster
from .consumer import GroupConsumer
from .publisher import GaplessPublisher
from .topics import AdminTopics, Reader

#: Ours where the application says nothing. A record in hand never expires: the client retries for ever.
_COMMON = {"socket.timeout.ms": 10_000, "reconnect.backoff.max.ms": 5_000, "log_level": 4}
_PRODUCER = {
    "acks": "all",
    "enable.idempotence": True,
    "enable.gapless.guarantee": True,
    "delivery.report.only.error": True,
    "message.timeout.ms": 0,
    "request.timeout.ms": 10_000,
    "partitioner": "murmur2_random",  # Java's default; messaging/partitioner.py is the same for kafka-python
    "linger.ms": 0,
    "batch.size": 262_144,
    # With its framing, such a record is just below what brokers take by default.
    "message.max.bytes": 1_048_400,
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 131_072,
}
_CONSUMER = {
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "allow.auto.create.topics": True,
}
#: Options that would break a promise, with the reason.
_REASONS = {
    "every record needs acks=all": ("acks", "request.required.acks"),
    "order and once-only need the idempotent producer": ("enable.idempotence",),
    "the publisher halts at the first failure": ("enable.gapless.guarantee",),
    "a record in hand never expires": ("message.timeout.ms", "delivery.timeout.ms"),
    "the publisher counts on it": ("delivery.report.only.error", "on_delivery", "dr_cb", "queuing.strategy"),
    "records go where Java's default partitioner has them": ("partitioner", "partitioner_cb"),
    "offsets are committed after the handler's transaction": (
        *("enable.auto.commit", "auto.commit.enable", "enable.auto.offset.store", "auto.commit.interval.ms"),
        "on_commit",
    ),
    "the group is the inbox's": ("group.id",),
    "the relay needs no Kafka transactions": ("transactional.id",),
    "it has a setting of its own": ("bootstrap.servers", "metadata.broker.list"),
}
_FORBIDDEN = {name: reason for reason, names in _REASONS.items() for name in names}
_UNKNOWN = "No such configuration property"


class ConfluentKafka:
    """See ``ports.Kafka``. ``options`` are librdkafka's own, in its names; each part takes those it knows.

    Raises ConfigurationError for an option that none knows, that has a wrong value, or that would break a promise.
    """

    def __init__(self, bootstrap_servers: str, options: Mapping[str, Any], compression: str = "none") -> None:
        for name in options:
            if name in _FORBIDDEN:
                raise ConfigurationError(f"The Kafka option {name!r} cannot be set: {_FORBIDDEN[name]}.")
        self._options = dict(options)
        if not options.keys() & {"compression.type", "compression.codec"}:
            self._options["compression.type"] = compression
        _check(self._options)
        self._options["bootstrap.servers"] = bootstrap_servers

    def publisher(self) -> GaplessPublisher:
        return GaplessPublisher({**_COMMON, **_PRODUCER, **self._options})

    def consumer(
        self,
        group: str,
        topics: Sequence[str],
        *,
        on_assigned: PartitionsHook,
        on_revoked: PartitionsHook,
        instance: str | None = None,
        cooperative: bool = False,
    ) -> GroupConsumer:
        options = {**_COMMON, **_CONSUMER, **self._options, "group.id": group}
        if instance is not None:
            options["group.instance.id"] = instance
        if cooperative:
            options["partition.assignment.strategy"] = "cooperative-sticky"
        return GroupConsumer(options, topics, on_assigned, on_revoked, cooperative=cooperative)

    def reader(self) -> Reader:
        return Reader({**_COMMON, **_CONSUMER, **self._options, "allow.auto.create.topics": False})

    def topics(self) -> AdminTopics:
        return AdminTopics({**_COMMON, **self._options})

    def cluster(self) -> AdminCluster:
        return AdminCluster({**_COMMON, **self._options})


def _check(options: Mapping[str, Any]) -> None:
    """Have librdkafka look at the options, without an address to connect to."""
    try:
        Producer({**_COMMON, **_PRODUCER, **options, "log_level": 0})
    except (KafkaException, TypeError, ValueError) as error:
        whole = " ".join(error.args[0].str().split()) if isinstance(error, KafkaException) else ""
        for name, value in sorted(options.items(), key=lambda option: option[0] not in whole):
            if reason := (whole if name in whole else _refusal({name: value})):
                told = f"confluent-kafka knows no option {name!r}; see librdkafka's CONFIGURATION.md"
                if _UNKNOWN not in reason:
                    told = f"The Kafka option {name!r} is refused: {reason}"
                raise ConfigurationError(f"{told}.") from error
        raise ConfigurationError(f"The Kafka options are refused: {error}.") from error


def _refusal(options: Mapping[str, Any]) -> str:
    try:
        Producer({**options, "log_level": 0})
    except KafkaException as error:
        return " ".join(error.args[0].str().split())
    except (TypeError, ValueError) as error:
        return str(error)
    return ""
