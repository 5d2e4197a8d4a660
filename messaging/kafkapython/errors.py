"""What kafka-python raises, in our terms. The only list of its errors."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from kafka import errors as kafka

from ..errors import (
    ConfigurationError,
    Fenced,
    Interrupted,
    InvalidRecord,
    KafkaUnavailable,
    NotAuthorized,
    PostroomError,
    RecordTooLarge,
    UnknownTopic,
)

_SECURITY = "Kafka does not accept the client's settings; check the security options"
#: A broker that goes away in the midst of a handshake.
_TORN = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
_FILES = (FileNotFoundError, PermissionError, IsADirectoryError)
_AUTHENTICATION = (
    kafka.SaslAuthenticationFailedError,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
)

_TABLE: tuple[tuple[tuple[type[Exception], ...], type[PostroomError], str], ...] = (
    (
        (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError),
        RecordTooLarge,
        "Kafka refuses a record of this size; raise the topic's max.message.bytes, or send less",
    ),
    (
        (kafka.UnknownTopicOrPartitionError, kafka.InvalidTopicError),
        UnknownTopic,
        "Kafka knows no such topic; create it",
    ),
    (
        (kafka.ClusterAuthorizationFailedError, kafka.TransactionalIdAuthorizationFailedError),
        ConfigurationError,
        "Kafka does not allow the idempotent producer; grant IDEMPOTENT_WRITE on the cluster",
    ),
    ((kafka.AuthorizationError,), NotAuthorized, "Kafka does not allow this; grant the right"),
    (
        (kafka.InvalidRecordError, kafka.InvalidTimestampError, kafka.UnsupportedForMessageFormatError),
        InvalidRecord,
        "Kafka's validation refuses the record",
    ),
    (
        (
            kafka.InvalidReplicationFactorError,
            kafka.InvalidPartitionsError,
            kafka.InvalidConfigurationError,
            kafka.PolicyViolationError,
        ),
        ConfigurationError,
        "Kafka refuses these settings of a topic",
    ),
    (
        (kafka.UnsupportedVersionError,),
        ConfigurationError,
        "The broker does not know this request; it is too old",
    ),
    (
        (
            kafka.CommitFailedError,
            kafka.IllegalGenerationError,
            kafka.UnknownMemberIdError,
            kafka.RebalanceInProgressError,
            kafka.FencedInstanceIdError,
        ),
        Fenced,
        "The group gave the partition to another member",
    ),
    (
        (*_AUTHENTICATION, kafka.KafkaConfigurationError),
        ConfigurationError,
        _SECURITY,
    ),
    (
        (
            kafka.KafkaConnectionError,
            kafka.KafkaTimeoutError,
            kafka.MetadataEmptyBrokerList,
            kafka.NodeNotReadyError,
            kafka.BrokerNotAvailableError,
            kafka.CoordinatorNotAvailableError,
            kafka.RetriableError,
        ),
        KafkaUnavailable,
        "Kafka does not answer",
    ),
)


class Attempt(NamedTuple):
    """How a try to connect ended. ``greeted``: the broker had said its version, so that TLS was done."""

    error: BaseException
    greeted: bool


def refusal(attempts: Sequence[Attempt], *, authenticates: bool) -> ConfigurationError | None:
    """What is wrong with the settings, when that is why no connection came about.

    kafka-python tries again whatever it was, and then tells of a timeout only. It also may lose the broker's answer
    to a wrong password, as the broker closes the connection after it: when little else happens, that is it.
    """
    for error, _ in attempts:
        if isinstance(error, (*_AUTHENTICATION, *_FILES)):
            return ConfigurationError(f"{_SECURITY} ({_reason(error)}).")
        for cause in (error, error.__context__):
            if isinstance(cause, ssl.SSLError) and not isinstance(cause, _TORN):
                return ConfigurationError(f"{_SECURITY} ({_reason(cause)}).")
    hung_up = sum(greeted and isinstance(error, kafka.KafkaConnectionError) for error, greeted in attempts)
    if authenticates and hung_up > 1 and 2 * hung_up > len(attempts):
        return ConfigurationError(f"{_SECURITY} (the broker hangs up when it has the user and the password).")
    return None


def translate(error: BaseException) -> PostroomError:
    """Ours for theirs; Interrupted for what says nothing about the record itself."""
    for theirs, ours, sentence in _TABLE:
        if isinstance(error, theirs):
            return ours(f"{sentence} ({_reason(error)}).")
    return Interrupted(f"Publishing was interrupted ({_reason(error)}).")


@contextmanager
def translated() -> Iterator[None]:
    """Translate what the block raises."""
    try:
        yield
    except (kafka.KafkaError, OSError) as error:
        raise translate(error) from error


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    name = type(error).__name__
    return (text if name in text else f"{name}: {text}" if text else name)[:500]
