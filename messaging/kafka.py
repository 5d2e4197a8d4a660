"""Which Kafka client to use, and how to reach the cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import ConfigurationError
from .ports import Kafka

Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How to reach a cluster.

    ``bootstrap_servers``: ``host:port``, several with commas. ``client``: ``kafka-python``, or ``confluent-kafka``
    (``confluent`` for short). ``options``: passed to the client library as they are, in its own names (for
    kafka-python ``security_protocol``, ``sasl_mechanism``, ``linger_ms``, …; for confluent-kafka, that is
    librdkafka, ``security.protocol``, ``sasl.mechanism``, ``linger.ms``, …); each part takes those it knows.
    ``compression``: of what is sent, for either client; an option of the library's own wins over it.
    """

    bootstrap_servers: str = "localhost:9092"
    client: str = "kafka-python"
    options: Mapping[str, Any] = field(default_factory=dict)
    compression: Compression = "none"


def connect(options: KafkaOptions) -> Kafka:
    """The parts of the chosen client. Does not connect yet. Raises ConfigurationError."""
    given = options.bootstrap_servers, options.options, options.compression
    match options.client:  # only the chosen client is imported
        case "kafka-python":
            from .kafkapython.client import KafkaPython

            return KafkaPython(*given)
        case "confluent-kafka" | "confluent":
            try:
                from .confluent.client import ConfluentKafka
            except ModuleNotFoundError as error:
                if error.name != "confluent_kafka":
                    raise
                raise ConfigurationError(
                    "The Kafka client 'confluent-kafka' is not installed; pip install 'postroom[confluent]'."
                ) from error

            return ConfluentKafka(*given)
    raise ConfigurationError(f"Kafka client {options.client!r} is not known; use 'kafka-python' or 'confluent-kafka'.")
