"""The one error tree of Postroom. Each leaf carries its verdict: what the daemon that meets it does.

    PostroomError
    ├── UsageError                 RAISE        the caller's mistake; nothing was written
    │   ├── NotInTransaction
    │   ├── InvalidMessage
    │   │   └── MessageTooLarge
    │   ├── InvalidHandler
    │   └── InvalidUpcaster
    ├── ConfigurationError         CRASH        wrong settings; an operator has to act
    │   └── SchemaError
    │       ├── SchemaMissing
    │       ├── SchemaOutdated
    │       └── SchemaTooNew
    ├── Fenced                     CRASH        somebody else owns the work now
    ├── Unavailable                PAUSE        a dependency is away; nothing is burned
    │   ├── KafkaUnavailable
    │   └── DatabaseUnavailable
    ├── Interrupted                RETRY        publishing stopped before an answer came
    ├── HandlerTimeout             RETRY        a handler took longer than it may
    ├── Refused                    PARK         Kafka will never take this record
    │   ├── RecordTooLarge
    │   ├── UnknownTopic
    │   ├── NotAuthorized
    │   └── InvalidRecord
    └── Poison                     DEAD_LETTER  no attempt at handling this message can succeed
        ├── UndecodablePayload
        ├── PayloadRefused
        │   ├── UnknownVersion
        │   ├── MissingField
        │   └── WrongType
        ├── HandlerCrashed
        └── Unhandled

Adapters translate what their library raises (``raise … from``); nobody else lists a Kafka client's
or a driver's errors. An exception outside the tree, raised by a handler, is retried a bounded
number of times.
"""

from enum import Enum
from typing import ClassVar


class Verdict(Enum):
    """What to do about an error."""

    RAISE = "raise"
    RETRY = "retry"
    PARK = "park"
    DEAD_LETTER = "dead-letter"
    PAUSE = "pause"
    CRASH = "crash"


class PostroomError(Exception):
    """The root. ``str(error)`` is one sentence that says what to do."""

    verdict: ClassVar[Verdict] = Verdict.RAISE


class UsageError(PostroomError):
    """The caller's mistake. Nothing was written."""


class NotInTransaction(UsageError):
    """A message was published outside a transaction, so it could not be atomic with anything."""


class InvalidMessage(UsageError, ValueError):
    """A topic, key, payload, header or id of the wrong type or form."""


class MessageTooLarge(InvalidMessage):
    """Larger than the outbox accepts; Kafka would refuse it later."""


class InvalidHandler(UsageError):
    """A handler that cannot be called as it was registered."""


class InvalidUpcaster(UsageError):
    """An upcaster that leads nowhere, or cannot be called as it was registered."""


class ConfigurationError(PostroomError):
    """Wrong settings. An operator has to act."""

    verdict = Verdict.CRASH


class SchemaError(ConfigurationError):
    """The tables do not fit this version of Postroom."""


class SchemaMissing(SchemaError):
    """The tables are not there."""


class SchemaOutdated(SchemaError):
    """The tables are of an older version."""


class SchemaTooNew(SchemaError):
    """The tables are of a newer version than this program knows."""


class Fenced(PostroomError):
    """The lease was lost: another process owns the work now, and what was not settled is its."""

    verdict = Verdict.CRASH


class Unavailable(PostroomError):
    """A dependency is away. Work pauses and resumes by itself; no attempt is counted."""

    verdict = Verdict.PAUSE


class KafkaUnavailable(Unavailable):
    """No broker answers."""


class DatabaseUnavailable(Unavailable):
    """The database does not answer, or the connection was cut."""


class Interrupted(PostroomError):
    """Publishing stopped before the broker's answer came; the record may or may not be there."""

    verdict = Verdict.RETRY


class HandlerTimeout(PostroomError):
    """A handler took longer than it may; what it did was rolled back."""

    verdict = Verdict.RETRY


class Refused(PostroomError):
    """Kafka will never take this record. ``of_topic``: nor any other of its topic, as things are."""

    verdict = Verdict.PARK
    of_topic: ClassVar[bool] = False


class RecordTooLarge(Refused):
    """Over the limit of the topic, the broker or the client."""


class UnknownTopic(Refused):
    """The topic does not exist and is not created by itself, or its name is illegal."""

    of_topic = True


class NotAuthorized(Refused):
    """The client may not write to the topic."""

    of_topic = True


class InvalidRecord(Refused):
    """The broker's validation refused the record (for example no key on a compacted topic)."""


class Poison(PostroomError):
    """No attempt at handling this message can succeed."""

    verdict = Verdict.DEAD_LETTER


class UndecodablePayload(Poison):
    """The bytes are not JSON."""


class PayloadRefused(Poison):
    """The model that the handler asked for refuses the payload. Its own are the refusals of validators and limits."""


class UnknownVersion(PayloadRefused):
    """The record is of a newer version than the model."""


class MissingField(PayloadRefused):
    """A field that the model requires is not there."""


class WrongType(PayloadRefused):
    """A value is of another type than the model's."""


class HandlerCrashed(Poison):
    """The process ended each time while it handled this message."""


class Unhandled(Poison):
    """The group has no handler for this type and was told to dead-letter such messages."""


def verdict_of(error: BaseException) -> Verdict:
    """The verdict of ``error``; RETRY for what does not belong to the tree."""
    return error.verdict if isinstance(error, PostroomError) else Verdict.RETRY
