"""Building one of confluent-kafka's clients, which connect by themselves, so that a bad start is told."""

import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from ..errors import ConfigurationError, KafkaUnavailable
from .errors import translate, translated

T = TypeVar("T")

_log = logging.getLogger("confluent_kafka")
# Each part is given every option, and warns of those of the others.
_log.addFilter(lambda record: not record.getMessage().startswith("CONFWARN"))
#: For how long a broker may take to answer at first, in seconds.
_CONNECT_SECONDS = 10.0
_ASK_EVERY = 0.25


def build(part: type[T], options: Mapping[str, Any]) -> T:
    """``part(options)``, connected. Raises KafkaUnavailable, ConfigurationError."""
    heard: deque[KafkaError] = deque(maxlen=8)
    with translated():
        client: Any = part({"error_cb": heard.append, "logger": _log, **options})  # type: ignore[call-arg]
    patience = min(_CONNECT_SECONDS, int(options.get("socket.connection.setup.timeout.ms", 30_000)) / 1000)
    deadline = time.monotonic() + patience
    while True:
        try:
            client.cluster_id(_ASK_EVERY)
        except KafkaException as error:
            client.poll(0)  # what it heard
            for told in heard:
                if isinstance(ours := translate(told), ConfigurationError):
                    raise ours from error
            if time.monotonic() > deadline:
                last = heard[-1].str() if heard else error.args[0].str()
                raise KafkaUnavailable(f"Kafka does not answer ({last}).") from error
        else:
            built: T = client
            return built
