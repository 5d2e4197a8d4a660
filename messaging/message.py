"""The message as the application publishes it, and its id."""

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from .errors import InvalidMessage
from .headers import check_headers

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
MAX_KEY_BYTES = 16_384
MAX_TYPE_LENGTH = 255


def uuid7() -> UUID:
    """A time-ordered UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, 74 random."""
    value = (time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message without a model: bytes for a topic.

    ``topic``: a legal Kafka topic name. ``key``: ``bytes``, or ``str`` (taken as UTF-8), or ``None``
    (no order among such messages). ``payload``: ``bytes``; ``None`` is a tombstone and needs a key.
    ``type``: the CloudEvents type, 1 to 255 characters. ``headers``: text by name. ``id``: the message
    id, a UUID version 7 unless given.

    Raises InvalidMessage, which names the field, what it got and what is allowed.
    """

    topic: str
    payload: bytes | None
    key: bytes | str | None = None
    type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    id: UUID = field(default_factory=uuid7)

    def __post_init__(self) -> None:
        check_topic(self.topic)
        object.__setattr__(self, "key", check_key(self.key))
        if self.payload is not None and not isinstance(self.payload, bytes):
            raise InvalidMessage(
                f"payload must be bytes or None, not {type(self.payload).__name__}; "
                "encode it first, or publish an Event."
            )
        if self.payload is None and self.key is None:
            raise InvalidMessage("A message without payload is a tombstone, and a tombstone needs a key.")
        check_type(self.type)
        object.__setattr__(self, "headers", check_headers(self.headers))
        if not isinstance(self.id, UUID):
            raise InvalidMessage(f"id must be a uuid.UUID, not {type(self.id).__name__}.")


def check_topic(topic: object) -> str:
    """``topic``, if Kafka accepts it as a name. Raises InvalidMessage."""
    if not isinstance(topic, str) or not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise InvalidMessage(
            f"topic {topic!r} is no legal Kafka topic name: use 1 to 249 of the characters a-z A-Z 0-9 . _ -"
        )
    return topic


def check_type(type_: object) -> str:
    """``type_``, if it can be a CloudEvents type. Raises InvalidMessage."""
    if not isinstance(type_, str) or not 0 < len(type_) <= MAX_TYPE_LENGTH or not type_.isprintable():
        raise InvalidMessage(f"type must be a string of 1 to {MAX_TYPE_LENGTH} printable characters, not {type_!r}.")
    return type_


def check_key(key: object) -> bytes | None:
    """The key as bytes; ``str`` is encoded as UTF-8. Raises InvalidMessage."""
    if isinstance(key, str):
        try:
            key = key.encode()
        except UnicodeEncodeError:
            raise InvalidMessage("key holds a lone surrogate, which is no text; give it as bytes.") from None
    if key is not None and not isinstance(key, bytes):
        raise InvalidMessage(f"key must be str, bytes or None, not {type(key).__name__}.")
    if key is not None and len(key) > MAX_KEY_BYTES:
        raise InvalidMessage(f"key has {len(key)} bytes; at most {MAX_KEY_BYTES} are allowed.")
    return key
