"""What librdkafka answers, in our terms. The only list of its errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

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

_TABLE: tuple[tuple[tuple[int, ...], type[PostroomError], str], ...] = (
    (
        (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE),
        RecordTooLarge,
        "Kafka refuses a record of this size; raise the topic's max.message.bytes, or send less",
    ),
    (
        (
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError.TOPIC_EXCEPTION,
            KafkaError._UNKNOWN_TOPIC,
        ),
        UnknownTopic,
        "Kafka knows no such topic; create it",
    ),
    (
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
        ConfigurationError,
        "Kafka does not allow the idempotent producer; grant IDEMPOTENT_WRITE on the cluster",
    ),
    (
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED),
        NotAuthorized,
        "Kafka does not allow this; grant the right",
    ),
    (
        (
            KafkaError.INVALID_RECORD,
            KafkaError.INVALID_MSG,
            KafkaError.INVALID_TIMESTAMP,
            KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        ),
        InvalidRecord,
        "Kafka's validation refuses the record",
    ),
    (
        (
            KafkaError.INVALID_REPLICATION_FACTOR,
            KafkaError.INVALID_PARTITIONS,
            KafkaError.INVALID_CONFIG,
            KafkaError.POLICY_VIOLATION,
        ),
        ConfigurationError,
        "Kafka refuses these settings of a topic",
    ),
    (
        (KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE),
        ConfigurationError,
        "The broker does not know this request; it is too old",
    ),
    (
        (
            KafkaError.ILLEGAL_GENERATION,
            KafkaError.UNKNOWN_MEMBER_ID,
            KafkaError.REBALANCE_IN_PROGRESS,
            KafkaError.FENCED_INSTANCE_ID,
            KafkaError._ASSIGNMENT_LOST,
            KafkaError._FENCED,
        ),
        Fenced,
        "The group gave the partition to another member",
    ),
    (
        (
            KafkaError.SASL_AUTHENTICATION_FAILED,
            KafkaError.UNSUPPORTED_SASL_MECHANISM,
            KafkaError.ILLEGAL_SASL_STATE,
            KafkaError._AUTHENTICATION,
            KafkaError._SSL,
            KafkaError._INVALID_ARG,
            KafkaError._NOT_CONFIGURED,
        ),
        ConfigurationError,
        "Kafka does not accept the client's settings; check the security options",
    ),
    (
        (
            KafkaError._TRANSPORT,
            KafkaError._TIMED_OUT,
            KafkaError._ALL_BROKERS_DOWN,
            KafkaError._RESOLVE,
            KafkaError._WAIT_COORD,
            KafkaError.LEADER_NOT_AVAILABLE,
            KafkaError.BROKER_NOT_AVAILABLE,
            KafkaError.COORDINATOR_NOT_AVAILABLE,
            KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
            KafkaError.NOT_COORDINATOR,
            KafkaError.REQUEST_TIMED_OUT,
            KafkaError.NETWORK_EXCEPTION,
        ),
        KafkaUnavailable,
        "Kafka does not answer",
    ),
)
_BY_CODE = {code: (ours, sentence) for codes, ours, sentence in _TABLE for code in codes}


def translate(error: KafkaError) -> PostroomError:
    """Ours for theirs; Interrupted for what says nothing about the record itself."""
    ours, sentence = _BY_CODE.get(error.code(), (Interrupted, "Publishing was interrupted"))
    return ours(f"{sentence} ({_reason(error)}).")


@contextmanager
def translated() -> Iterator[None]:
    """Translate what the block raises. A closed handle is as good as an absent broker."""
    try:
        yield
    except KafkaException as error:
        raise translate(error.args[0]) from error
    except RuntimeError as error:
        raise KafkaUnavailable(f"The Kafka client is closed ({error}).") from error


def _reason(error: KafkaError) -> str:
    return f"{error.name()}: {' '.join(error.str().split())}"[:500]
