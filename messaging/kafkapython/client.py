"""The kafka-python client: what each part is given."""

from collections.abc import Mapping, Sequence
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, codec
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from ..errors import ConfigurationError
from ..ports import PartitionsHook
from .cluster import AdminCluster
from .consumer import GroupConsumer
from .headers import tolerate_any_name
from .publisher import IdempotentPublisher
from .topics import AdminTopics, Reader

#: Ours where the application says nothing. A record in hand never expires: the client retries for ever.
_COMMON = {"bootstrap_timeout_ms": 10_000, "request_timeout_ms": 10_000, "reconnect_backoff_max_ms": 5_000}
_PRODUCER = {
    "acks": "all",
    "enable_idempotence": True,
    "delivery_timeout_ms": 2**31 - 1,
    "max_block_ms": 5_000,
    "batch_size": 262_144,
    "metrics_enabled": False,
}
_CONSUMER = {
    "auto_offset_reset": "earliest",
    "enable_auto_commit": False,
    "isolation_level": "read_committed",  # what another producer aborted was never said; confluent-kafka's default
    "metrics_enabled": False,
}
#: Options that would break a promise, with the reason.
_FORBIDDEN = {
    "acks": "every record needs acks='all'",
    "enable_idempotence": "order and once-only need the idempotent producer",
    "enable_auto_commit": "offsets are committed after the handler's transaction",
    "group_id": "the group is the inbox's",
    "key_serializer": "keys are bytes",
    "value_serializer": "payloads are bytes",
    "key_deserializer": "keys are bytes",
    "value_deserializer": "payloads are bytes",
    "partitioner": "records go where Java's default partitioner has them",
    "transactional_id": "the relay needs no Kafka transactions",
}
#: Whether a codec can be used here, and the extra of kafka-python that brings it.
_CODECS = {
    "gzip": (codec.has_gzip, ""),
    "snappy": (codec.has_snappy, "snappy"),
    "lz4": (codec.has_lz4, "lz4"),
    "zstd": (codec.has_zstd, "zstd"),
}


class KafkaPython:
    """See ``ports.Kafka``. ``options`` are kafka-python's own; each part takes those it knows.

    Raises ConfigurationError for an option that none knows or that would break a promise, and for a
    compression that is not installed.
    """

    def __init__(self, bootstrap_servers: str, options: Mapping[str, Any], compression: str = "none") -> None:
        tolerate_any_name()
        known = KafkaProducer.DEFAULT_CONFIG.keys() | KafkaConsumer.DEFAULT_CONFIG.keys()
        known |= KafkaAdminClient.DEFAULT_CONFIG.keys()
        for name in options:
            if name not in known:
                raise ConfigurationError(f"kafka-python knows no option {name!r}; see its documentation.")
            if name in _FORBIDDEN:
                raise ConfigurationError(f"The Kafka option {name!r} cannot be set: {_FORBIDDEN[name]}.")
        self._options = {**options, "bootstrap_servers": bootstrap_servers.split(",")}
        if "api_version" in options:
            self._options["api_version"] = tuple(options["api_version"])
        self._options.setdefault("compression_type", None if compression == "none" else compression)
        _require_codec(self._options["compression_type"])

    def publisher(self) -> IdempotentPublisher:
        return IdempotentPublisher(
            self._for(KafkaProducer, _PRODUCER),
            self._for(KafkaAdminClient, {"allow_auto_create_topics": False}),
        )

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
        options = {**self._for(KafkaConsumer, _CONSUMER), "group_id": group}
        if instance is not None:
            options["group_instance_id"] = instance
        if cooperative:
            options["partition_assignment_strategy"] = [CooperativeStickyAssignor]
        return GroupConsumer(options, topics, on_assigned, on_revoked)

    def reader(self) -> Reader:
        reading = {
            "group_id": None,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "allow_auto_create_topics": False,
        }
        return Reader({**self._for(KafkaConsumer, {"metrics_enabled": False}), **reading})

    def topics(self) -> AdminTopics:
        return AdminTopics(self._for(KafkaAdminClient, {}))

    def cluster(self) -> AdminCluster:
        return AdminCluster(self._for(KafkaAdminClient, {}))

    def _for(self, part: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
        merged = {**_COMMON, **defaults, **self._options}
        return {name: value for name, value in merged.items() if name in part.DEFAULT_CONFIG}


def _require_codec(name: str | None) -> None:
    if name is None:
        return
    if name not in _CODECS:
        raise ConfigurationError(f"kafka-python knows no compression {name!r}; there are {', '.join(_CODECS)}.")
    is_installed, extra = _CODECS[name]
    if not is_installed():
        raise ConfigurationError(f"Compression {name!r} is not installed; pip install 'kafka-python[{extra}]'.")
