"""Wrong security options and an outage look alike to kafka-python; here they are told apart."""

import ssl
from typing import Any

import pytest
from kafka import errors as kafka

from postroom.messaging.kafkapython.errors import Attempt, refusal

HUNG_UP = kafka.KafkaConnectionError("socket disconnected")
REFUSED = kafka.KafkaConnectionError("connection refused")


def handshake(cause: Exception) -> Any:
    """As kafka-python wraps what TLS says."""
    try:
        try:
            raise cause
        except ssl.SSLError:
            raise kafka.KafkaConnectionError(f"Handshake failed: {cause}")  # noqa: B904  just so
    except kafka.KafkaConnectionError as error:
        return error


@pytest.mark.parametrize(
    ("attempts", "told"),
    [
        ([Attempt(REFUSED, False), Attempt(kafka.SaslAuthenticationFailedError("wrong"), True)], "wrong"),
        ([Attempt(handshake(ssl.SSLCertVerificationError("not trusted")), False)], "not trusted"),
        ([Attempt(FileNotFoundError(2, "No such file"), False)], "No such file"),
        ([Attempt(HUNG_UP, True), Attempt(HUNG_UP, True), Attempt(REFUSED, False)], "hangs up"),
    ],
)
def test_what_no_second_try_can_change_is_a_wrong_setting(attempts: list[Attempt], told: str) -> None:
    found = refusal(attempts, authenticates=True)
    assert found is not None
    assert told in str(found)


@pytest.mark.parametrize(
    "attempts",
    [
        [],
        [Attempt(REFUSED, False)] * 5,
        [Attempt(handshake(ssl.SSLEOFError("torn")), False)] * 3,
        [Attempt(HUNG_UP, True)],
        [Attempt(kafka.KafkaTimeoutError("SASL Authentication timed out"), True)] * 3,
        [Attempt(HUNG_UP, True), Attempt(HUNG_UP, True), *[Attempt(REFUSED, False)] * 2],
    ],
)
def test_what_may_pass_is_an_outage(attempts: list[Attempt]) -> None:
    assert refusal(attempts, authenticates=True) is None


def test_without_a_password_a_broker_that_hangs_up_is_an_outage() -> None:
    assert refusal([Attempt(HUNG_UP, True)] * 3, authenticates=False) is None
