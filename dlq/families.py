"""The header families of dead letters: who wrote it, and what its headers say about the failure.

    postroom   ``postroom_dlq_…`` beside Kafka's names              messaging/dead_letter.py
    spring     ``kafka_dlt-…``; ``kafka_original-…`` and            KafkaHeaders of Spring for Apache Kafka
               ``kafka_exception-…`` from its retry topics
    streams    ``__streams.errors.…``                               ExceptionHandlerUtils of Kafka Streams (KIP-1034)
    connect    ``__connect.errors.…``                               DeadLetterQueueReporter of Kafka Connect (KIP-298)
    kafka      ``__dlq.errors.…``                                   share groups (KIP-1191)
    unknown    none of these

Numbers are text, but for Spring's, which are big-endian integers. Where Spring wrote a header more than once,
the first place is the original one and the last exception is the one it died of.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

from ..messaging.dead_letter import KIP_1191, OURS
from ..messaging.envelope import parse_timestamp
from ..messaging.headers import HeaderPairs

SPRING = "kafka_dlt-"
_SPRING_ORIGINAL = ("kafka_dlt-original-", "kafka_original-")
_SPRING_EXCEPTION = ("kafka_dlt-exception-", "kafka_exception-", "kafka_dlt-key-exception-", "kafka_key-exception-")
STREAMS = "__streams.errors."
CONNECT = "__connect.errors."
_MOST = 2**63 - 1  # what the columns hold
_MOST_INTEGER = 2**31 - 1
#: What a replay takes off besides ours. A record that kept them would be taken for one that failed before.
FOREIGN = (SPRING, *_SPRING_ORIGINAL, *_SPRING_EXCEPTION, "retry_topic-", STREAMS, CONNECT)


class Diagnosis(NamedTuple):
    """What the headers tell; None for what they do not."""

    family: str
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    group: str | None = None
    error: str | None = None
    message: str | None = None
    stack: str | None = None
    handler: str | None = None
    deliveries: int | None = None
    first_failed_at: datetime | None = None
    last_failed_at: datetime | None = None
    fingerprint: str | None = None
    inbox_id: str | None = None


def diagnose(headers: HeaderPairs, names: Mapping[str, bytes] | None = None) -> Diagnosis:
    """Read whichever family ``headers`` belong to. Never raises: what cannot be read is None.

    ``names``: as ``by_name`` has them, where they are at hand.
    """
    names = by_name(headers) if names is None else names
    for prefixes, read in _FAMILIES:
        for name in names:
            if name.startswith(prefixes):
                return read(names, headers)
    return Diagnosis(family="unknown")


def by_name(headers: HeaderPairs) -> Mapping[str, bytes]:
    """Values by name; of several of one name the first."""
    return dict(reversed(headers))


def is_copied(family: str, key: bytes | None, payload: bytes | None) -> bool:
    """Share groups write headers alone unless told to copy the record: there is nothing to replay then."""
    return family != "kafka" or key is not None or payload is not None


def _postroom(headers: Mapping[str, bytes], _: HeaderPairs) -> Diagnosis:
    return Diagnosis(
        family="postroom",
        topic=_text(headers, KIP_1191 + "topic"),
        partition=_number(headers, KIP_1191 + "partition", _MOST_INTEGER),
        offset=_number(headers, KIP_1191 + "offset"),
        group=_text(headers, KIP_1191 + "group"),
        error=_text(headers, OURS + "exception"),
        message=_text(headers, KIP_1191 + "message"),
        stack=_text(headers, OURS + "stack"),
        handler=_text(headers, OURS + "handler"),
        deliveries=_number(headers, KIP_1191 + "delivery.count", _MOST_INTEGER),
        first_failed_at=parse_timestamp(_text(headers, OURS + "first_failed_at")),
        last_failed_at=parse_timestamp(_text(headers, OURS + "last_failed_at")),
        fingerprint=_text(headers, OURS + "fingerprint"),
        inbox_id=_text(headers, OURS + "inbox_id"),
    )


def _spring(headers: Mapping[str, bytes], pairs: HeaderPairs) -> Diagnosis:
    original = [prefix for prefix in _SPRING_ORIGINAL if prefix + "topic" in headers]
    exceptions = [prefix for prefix in _SPRING_EXCEPTION if prefix + "fqcn" in headers]
    place = original[0] if original else _SPRING_ORIGINAL[0]
    exception = exceptions[0] if exceptions else _SPRING_EXCEPTION[0]
    latest = dict(pairs)
    return Diagnosis(
        family="spring",
        topic=_text(headers, place + "topic"),
        partition=_integer(headers, place + "partition", _MOST_INTEGER),
        offset=_integer(headers, place + "offset"),
        group=_text(headers, SPRING + "original-consumer-group"),
        # The outer class is that of Spring's container; its cause is what the listener raised.
        error=_text(latest, exception.replace("key-", "") + "cause-fqcn") or _text(latest, exception + "fqcn"),
        message=_text(latest, exception + "message"),
        stack=_text(latest, exception + "stacktrace"),
        deliveries=_integer(latest, "retry_topic-attempts", _MOST_INTEGER),
    )


def _streams(headers: Mapping[str, bytes], _: HeaderPairs) -> Diagnosis:
    error = _text(headers, STREAMS + "exception")  # Throwable.toString(): the class, a colon, the message
    return Diagnosis(
        family="streams",
        topic=_text(headers, STREAMS + "topic"),
        partition=_number(headers, STREAMS + "partition", _MOST_INTEGER),
        offset=_number(headers, STREAMS + "offset"),
        error=error and error.split(":", 1)[0].strip(),
        message=_text(headers, STREAMS + "message"),
        stack=_text(headers, STREAMS + "stacktrace"),
    )


def _connect(headers: Mapping[str, bytes], _: HeaderPairs) -> Diagnosis:
    connector = _text(headers, CONNECT + "connector.name")
    where = (_text(headers, CONNECT + "stage"), _text(headers, CONNECT + "class.name"))
    return Diagnosis(
        family="connect",
        topic=_text(headers, CONNECT + "topic"),
        partition=_number(headers, CONNECT + "partition", _MOST_INTEGER),
        offset=_number(headers, CONNECT + "offset"),
        group=connector and f"connect-{connector}",  # a sink connector's consumer group, unless it was overridden
        error=_text(headers, CONNECT + "exception.class.name"),
        message=_text(headers, CONNECT + "exception.message"),
        stack=_text(headers, CONNECT + "exception.stacktrace"),
        handler=" ".join(filter(None, where)) or None,
    )


def _kafka(headers: Mapping[str, bytes], _: HeaderPairs) -> Diagnosis:
    return Diagnosis(
        family="kafka",
        topic=_text(headers, KIP_1191 + "topic"),
        partition=_number(headers, KIP_1191 + "partition", _MOST_INTEGER),
        offset=_number(headers, KIP_1191 + "offset"),
        group=_text(headers, KIP_1191 + "group"),
        message=_text(headers, KIP_1191 + "message"),
        deliveries=_number(headers, KIP_1191 + "delivery.count", _MOST_INTEGER),
    )


#: The first that matches; ours before Kafka's, whose names it uses too.
_FAMILIES: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, bytes], HeaderPairs], Diagnosis]], ...] = (
    ((OURS,), _postroom),
    ((SPRING, *_SPRING_ORIGINAL, *_SPRING_EXCEPTION), _spring),
    ((STREAMS,), _streams),
    ((CONNECT,), _connect),
    ((KIP_1191,), _kafka),
)


def _text(headers: Mapping[str, bytes], name: str) -> str | None:
    value = headers.get(name)
    return value.decode(errors="replace") if value else None


def _number(headers: Mapping[str, bytes], name: str, most: int = _MOST) -> int | None:
    value = headers.get(name)
    number = int(value) if value and len(value) < 20 and value.isdigit() else -1  # noqa: PLR2004  no offset is longer
    return number if 0 <= number <= most else None


def _integer(headers: Mapping[str, bytes], name: str, most: int = _MOST) -> int | None:
    value = headers.get(name)
    number = int.from_bytes(value, signed=True) if value and len(value) in (4, 8) else -1
    return number if 0 <= number <= most else None
