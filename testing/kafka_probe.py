"""Whether a Kafka cluster is ready, asked by one Metadata request over a plain socket.

No client library: theirs retry, log and keep threads when there is nobody to talk to.
"""

import socket
import struct
from typing import Any

_METADATA = 3
_VERSION = 1  # understood by every broker, and by librdkafka's mock cluster
_ANSWER_SECONDS = 2.0


def is_ready(bootstrap_servers: str) -> bool:
    """Whether one of ``bootstrap_servers`` knows a broker, and a leader for every partition there is.

    Blocks for two seconds a server at most. Only for listeners without TLS and SASL.
    """
    return any(_is_ready(server.strip()) for server in bootstrap_servers.split(","))


def _is_ready(server: str) -> bool:
    host, _, port = server.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS) as connection:
            # Header: api key, version, correlation id, no client id. Body: null for every topic.
            request = struct.pack(">hhihi", _METADATA, _VERSION, 0, -1, -1)
            connection.sendall(struct.pack(">i", len(request)) + request)
            size = struct.unpack(">i", _receive(connection, 4))[0]
            return _has_leaders(_Reader(_receive(connection, size)))
    except (OSError, ValueError, struct.error):
        return False


def _has_leaders(answer: "_Reader") -> bool:
    answer.take("i")  # correlation id
    brokers = answer.take("i")
    for _ in range(brokers):
        answer.take("i")  # id
        answer.text()  # host
        answer.take("i")  # port
        answer.text()  # rack
    answer.take("i")  # controller
    leaderless = 0
    for _ in range(answer.take("i")):
        answer.take("h")  # the topic's error
        answer.text()
        answer.take("?")  # internal
        for _ in range(answer.take("i")):
            answer.take("h")  # the partition's error
            answer.take("i")  # partition
            leaderless += answer.take("i") < 0
            for _ in ("replicas", "in-sync replicas"):
                answer.skip(4 * answer.take("i"))
    return brokers > 0 and leaderless == 0


class _Reader:
    """Reads Kafka's primitive types one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, kind: str) -> Any:
        value = struct.unpack_from(">" + kind, self._data, self._at)[0]
        self.skip(struct.calcsize(">" + kind))
        return value

    def text(self) -> None:
        """Pass over a string, which may be null."""
        self.skip(max(self.take("h"), 0))

    def skip(self, count: int) -> None:
        self._at += count


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionResetError("the broker closed the connection")
        data += part
    return data
