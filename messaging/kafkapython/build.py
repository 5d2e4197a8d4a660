"""Building one of kafka-python's clients without leaving threads behind when no broker answers."""

from typing import Any, TypeVar

from kafka.net.compat import KafkaNetClient

from ..errors import KafkaUnavailable
from .errors import Attempt, refusal, translated

T = TypeVar("T")


def build(part: type[T], options: dict[str, Any]) -> T:
    """``part(**options)``. Raises KafkaUnavailable, ConfigurationError.

    A consumer or administrator whose constructor fails leaves its I/O thread running, one for each try of a
    long outage; so the network client that it was given is kept at hand, and closed.
    """
    made: list[Any] = []
    attempts: list[Attempt] = []

    def network_client(**config: Any) -> Any:
        client = KafkaNetClient(**config)
        # kafka-python 3.0 takes this option and does not hand it on to where it is read.
        client.cluster.config["allow_auto_create_topics"] = options.get("allow_auto_create_topics", True)
        _listen(client._manager, attempts)  # it tells nobody else why it could not connect
        made.append(client)
        return client

    try:
        with translated():
            return part(**{"kafka_client": network_client, **options})
    except BaseException as error:
        for client in made:
            client.close()
        authenticates = str(options.get("security_protocol")).startswith("SASL")
        if isinstance(error, KafkaUnavailable) and (why := refusal(attempts, authenticates=authenticates)):
            raise why from error
        raise


def _listen(manager: Any, attempts: list[Attempt]) -> None:
    """Have ``attempts`` hold how each try to connect failed."""
    connect = manager._connect

    async def listening(node: Any, connection: Any, *args: Any, **options: Any) -> None:
        await connect(node, connection, *args, **options)
        error = connection.init_future.exception if connection.init_future.is_done else None
        if error is not None:
            attempts.append(Attempt(error, connection.broker_version is not None))

    manager._connect = listening
