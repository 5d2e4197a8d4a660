"""Writing a dead letter: its row and its message, in one transaction."""

from collections.abc import Callable

import sqlalchemy as sa

from ..messaging.dead_letter import KIP_1191, OURS, Failure, dead_letter_headers, dead_letter_topic
from ..messaging.headers import HeaderPairs
from ..outbox.entry import Entry
from ..outbox.names import Names
from ..outbox.write import write_sqlalchemy
from .dedupe import Closing, close_message
from .delivery import Delivery

#: What Kafka adds to a record, and to each header, at most.
_RECORD_BYTES = 100
_HEADER_BYTES = 10
#: What may be shortened, first things first.
_DIAGNOSIS = (OURS + "stack", KIP_1191 + "message")


def dead_letter(delivery: Delivery, group: str, failure: Failure, max_bytes: int) -> Entry:
    """The message that goes to the dead-letter topic. The diagnosis is shortened to keep to ``max_bytes``.

    A record that is over it by itself is not cut: the relay parks what Kafka refuses.
    """
    record = delivery.record
    headers = dead_letter_headers(record, group, failure, delivery.message_id)
    headers = [(name.replace("\x00", "�"), value) for name, value in headers]  # jsonb knows no U+0000
    for name in _DIAGNOSIS:
        headers = _shortened(headers, name, _size(delivery, headers) - max_bytes)
    topic = dead_letter_topic(delivery.topic, group)
    type_ = delivery.type_or_unknown()
    return Entry.forwarded(delivery.entry_id(), topic, record.key, type_, record.value, headers)


def bury(
    connection: sa.Connection,
    delivery: Delivery,
    group: str,
    failure: Failure,
    *,
    names: Names,
    max_bytes: int,
    check: Callable[[], None],
    before_commit: Callable[[], None],
) -> bool:
    """Close the message and write its dead letter in ``connection``'s transaction; False: it was closed before.

    ``check`` comes in between; what it raises ends it, and the transaction with it.
    """
    closing = Closing(
        group=group,
        message_id=delivery.message_id,
        outcome="dead-lettered",
        topic=delivery.topic,
        handler=failure.handler,
        attempts=failure.attempts,
        replays=delivery.replays,
    )
    if not close_message(connection, closing, names):
        return False
    check()
    write_sqlalchemy(connection, [dead_letter(delivery, group, failure, max_bytes)], names)
    before_commit()
    return True


def _size(delivery: Delivery, headers: HeaderPairs) -> int:
    record = delivery.record
    parts = [record.key or b"", record.value or b"", *(name.encode() + value for name, value in headers)]
    return sum(map(len, parts)) + _RECORD_BYTES + _HEADER_BYTES * len(headers)


def _shortened(headers: HeaderPairs, name: str, excess: int) -> list[tuple[str, bytes]]:
    """``headers`` with up to ``excess`` bytes less in the one of that name; its end stays, if any can."""
    if excess <= 0:
        return list(headers)
    return [(own, _end(value, excess) if own == name else value) for own, value in headers]


def _end(text: bytes, excess: int) -> bytes:
    return text[excess:].decode(errors="ignore").encode()  # the cut may go through a character
