"""The cluster as an operator sees it."""

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from ..errors import KafkaUnavailable, NotAuthorized
from ..records import Brokers, Copies
from .build import build
from .errors import translated

_ANSWER_WITHIN = 10.0


class AdminCluster:
    """See ``ports.Cluster``."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._admin: Any = build(AdminClient, options)

    def brokers(self) -> Brokers:
        return Brokers(len(self._metadata().brokers), None)  # librdkafka tells nobody the version

    def defaults(self) -> Mapping[str, str]:
        numbers = sorted(self._metadata().brokers)
        if not numbers:
            raise KafkaUnavailable("The cluster names no broker.")
        asked = ConfigResource(ConfigResource.Type.BROKER, str(numbers[0]))
        with translated():
            try:
                settings = self._admin.describe_configs([asked], request_timeout=_ANSWER_WITHIN)[asked].result()
            except KafkaException as error:
                if error.args[0].code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
                    raise NotAuthorized(
                        "Kafka does not tell the settings of its brokers; grant DESCRIBE_CONFIGS on the cluster."
                    ) from error
                raise
        return {each.name: each.value for each in settings.values() if each.value is not None}

    def copies(self, topics: Sequence[str]) -> Mapping[str, Copies]:
        found = self._metadata().topics
        return {
            topic: Copies.of(
                (len(part.replicas), len(part.isrs), part.leader >= 0) for part in found[topic].partitions.values()
            )
            for topic in topics
            if topic in found and found[topic].error is None and found[topic].partitions
        }

    def members(self, group: str) -> int:
        with translated():
            try:
                asked = self._admin.describe_consumer_groups([group], request_timeout=_ANSWER_WITHIN)
                return len(asked[group].result().members)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                    return 0
                raise

    def close(self) -> None:
        self._admin = None

    def _metadata(self) -> Any:
        with translated():
            return self._admin.list_topics(timeout=_ANSWER_WITHIN)
