"""Which Kafka client to use, and how to reach the cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigurationError
from .ports import Kafka


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How to reach a cluster.

    ``bootstrap_servers``: ``host:port``, several with commas. ``client``: ``kafka-python``. ``options``:
    passed to the client library as they are, in its own names (for kafka-python ``security_protocol``,
    ``sasl_mechanism``, ``compression_type``, ``linger_ms``, …); each part takes those it knows.
    """

    bootstrap_servers: str = "localhost:9092"
    client: str = "kafka-python"
    options: Mapping[str, Any] = field(default_factory=dict)


def connect(options: KafkaOptions) -> Kafka:
    """The parts of the chosen client. Does not connect yet. Raises ConfigurationError."""
    if options.client != "kafka-python":
        raise ConfigurationError(f"Kafka client {options.client!r} is not known; use 'kafka-python'.")
    from .kafkapython.client import KafkaPython  # noqa: PLC0415  only the chosen client is imported

    return KafkaPython(options.bootstrap_servers, options.options)
