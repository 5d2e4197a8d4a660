"""What kafka-python raises, in our terms. The only list of its errors."""

from collections.abc import Iterator
from contextlib import contextmanager

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
        (
            kafka.SaslAuthenticationFailedError,
            kafka.UnsupportedSaslMechanismError,
            kafka.IllegalSaslStateError,
            kafka.KafkaConfigurationError,
        ),
        ConfigurationError,
        "Kafka does not accept the client's settings; check the security options",
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
