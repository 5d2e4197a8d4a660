"""Building one of kafka-python's clients without leaving threads behind when no broker answers."""

from typing import Any, TypeVar

from kafka.net.compat import KafkaNetClient

from .errors import translated

T = TypeVar("T")


def build(part: type[T], options: dict[str, Any]) -> T:
    """``part(**options)``. Raises KafkaUnavailable, ConfigurationError.

    A consumer or administrator whose constructor fails leaves its I/O thread running, one for each try of a
    long outage; so the network client that it was given is kept at hand, and closed.
    """
    made: list[Any] = []

    def network_client(**config: Any) -> Any:
        client = KafkaNetClient(**config)
        # kafka-python 3.0 takes this option and does not hand it on to where it is read.
        client.cluster.config["allow_auto_create_topics"] = options.get("allow_auto_create_topics", True)
        made.append(client)
        return client

    try:
        with translated():
            return part(**{"kafka_client": network_client, **options})
    except BaseException:
        for client in made:
            client.close()
        raise
