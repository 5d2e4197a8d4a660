"""Policies and handlers' options: layers, sentences for what cannot be, and what an error comes to."""

from typing import Any, cast

import psycopg
import pytest
import sqlalchemy as sa

from postroom.inbox import Context, Inbox, InboxSettings, Received
from postroom.inbox.fate import Fates
from postroom.inbox.policy import Policy
from postroom.messaging.errors import (
    ConfigurationError,
    HandlerTimeout,
    InvalidHandler,
    PayloadRefused,
    Poison,
    Unavailable,
    Verdict,
)


def charge(received: Received, ctx: Context) -> None: ...


def handler(**options: Any) -> Any:
    inbox = Inbox("billing")
    inbox.handler("orders", **options)(charge)
    return inbox.handlers[0]


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("attempts", 0, "a number from 1 to 1000"),
        ("attempts", True, "a number from 1 to 1000"),
        ("immediate", 0, "a number from 1 to 1000"),
        ("immediate", "2", "a number from 1 to 1000"),
        ("concurrency", 0, "a number from 1 to 256"),
        ("concurrency", 257, "a number from 1 to 256"),
        ("breaker_window", 1, "a number from 2 to 10000"),
        ("priority", 1_001, "a number from -1000 to 1000"),
        ("priority", 0.5, "a number from -1000 to 1000"),
        ("base", -1, "a number of seconds above 0"),
        ("base", float("inf"), "a number of seconds above 0"),
        ("cap", 0, "a number of seconds above 0"),
        ("timeout", 0, "a number of seconds above 0"),
        ("timeout", float("nan"), "a number of seconds above 0"),
        ("breaker_open_seconds", "30", "a number of seconds above 0"),
        ("rate", 0, "a number of messages per second above 0"),
        ("rate", float("inf"), "a number of messages per second above 0"),
        ("rate", True, "a number of messages per second above 0"),
        ("breaker_threshold", 0, "a share above 0, up to 1"),
        ("breaker_threshold", 1.1, "a share above 0, up to 1"),
        ("on_dead_letter", "stop", "'go-on' or 'wait'"),
        ("dead_letters_per_minute", -1, "a number from 0 to 1000000"),
        ("dead_letters_per_minute", 0.5, "a number from 0 to 1000000"),
        ("dead_letters_per_minute", 1_000_001, "a number from 0 to 1000000"),
        ("on_dead_letter", 1, "'go-on' or 'wait'"),
        ("retry_on", "TimeoutError", "exception classes"),
        ("retry_on", (TimeoutError, 3), "exception classes"),
        ("dead_letter_on", TimeoutError(), "exception classes"),
        ("dead_letter_on", None, "exception classes"),
        ("pause_on", KeyboardInterrupt, "exception classes"),
        ("batch", 1, "True or False"),
        ("adaptive", None, "True or False"),
        ("duplicates", "yes", "True or False"),
        ("by_idempotency_key", 1, "True or False"),
    ],
)
def test_a_bad_option_is_one_sentence_with_the_handler_and_the_option(option: str, value: object, wanted: str) -> None:
    with pytest.raises(InvalidHandler) as refused:
        handler(**{option: value})

    said = str(refused.value)
    assert said.startswith(f"The handler {__name__}.charge: {option} must be {wanted}, not ")
    assert said.count(". ") == 0
    assert "\n" not in said


def test_an_unknown_option_is_told_with_those_that_there_are() -> None:
    with pytest.raises(InvalidHandler, match=r"charge: there is no option 'atempts'; there are attempts, immediate,"):
        handler(atempts=3)


def test_the_settings_hold_where_a_handler_says_nothing_and_an_operator_has_the_last_word() -> None:
    settings = InboxSettings(attempts=7, immediate_attempts=3, backoff_base_seconds=0.5, backoff_cap_seconds=5.0)

    plain = handler().policy_by(settings)
    assert (plain.attempts, plain.immediate, plain.base, plain.cap) == (7, 3, 0.5, 5.0)
    own = handler(attempts=2, cap=60, rate=10).policy_by(settings)
    assert (own.attempts, own.immediate, own.cap, own.rate) == (2, 3, 60.0, 10.0)
    changed = handler(attempts=2).policy_by(settings, {"attempts": 9, "rate": 1}, {"rate": 2})
    assert (changed.attempts, changed.rate) == (9, 2.0)


def test_the_defaults_are_those_that_the_documents_tell() -> None:
    policy = handler().policy_by(InboxSettings())
    assert policy == Policy()
    assert policy.model_dump() == {
        "attempts": 5,
        "immediate": 2,
        "base": 0.1,
        "cap": 10.0,
        "timeout": None,
        "rate": None,
        "concurrency": None,
        "on_dead_letter": "go-on",
        "dead_letters_per_minute": 60,
        "breaker_threshold": 0.5,
        "breaker_window": 20,
        "breaker_open_seconds": 30.0,
    }


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ({"base": 60}, r"charge: base and cap: base must not be over cap\.$"),
        ({"attempts": 0}, r"charge: attempts: Input should be greater than or equal to 1, not 0\.$"),
        ({"attempts": "many"}, r"charge: attempts: .*, not 'many'\.$"),
        ({"rate": float("inf")}, r"charge: rate: .*finite.*, not inf\.$"),
        ({"colour": "red"}, r"charge: colour: .*, not 'red'\.$"),
        ({"dead_letters_per_minute": -1}, r"charge: dead_letters_per_minute: .* equal to 0, not -1\.$"),
        ({"on_dead_letter": "stop"}, r"charge: on_dead_letter: .*, not 'stop'\.$"),
    ],
)
def test_what_an_operator_wants_and_cannot_be_is_one_sentence(layer: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        handler().policy_by(InboxSettings(), layer)
    assert "\n" not in str(refused.value)


class Declined(Exception): ...


class Deadlock(psycopg.errors.DeadlockDetected): ...


RULES: dict[str, Any] = {
    "retry_on": (TimeoutError, sa.exc.IntegrityError),
    "dead_letter_on": Declined,
    "pause_on": [ConnectionError],
}


@pytest.mark.parametrize(
    ("error", "plain", "ruled"),
    [
        (RuntimeError(), Verdict.RETRY, Verdict.DEAD_LETTER),  # with retry_on, no others are worth it
        (TimeoutError(), Verdict.RETRY, Verdict.RETRY),
        (Declined(), Verdict.RETRY, Verdict.DEAD_LETTER),
        (ConnectionRefusedError(), Verdict.RETRY, Verdict.PAUSE),
        (Unavailable(), Verdict.PAUSE, Verdict.PAUSE),
        (Poison(), Verdict.DEAD_LETTER, Verdict.DEAD_LETTER),
        (PayloadRefused(), Verdict.DEAD_LETTER, Verdict.DEAD_LETTER),
        (HandlerTimeout(), Verdict.RETRY, Verdict.RETRY),  # ours is no stranger to retry_on
        (Deadlock(), Verdict.RETRY, Verdict.RETRY),
        (psycopg.OperationalError("the connection is lost"), Verdict.PAUSE, Verdict.PAUSE),
        (ConfigurationError(), Verdict.CRASH, Verdict.CRASH),
        (InvalidHandler(), Verdict.CRASH, Verdict.CRASH),
    ],
)
def test_what_an_error_comes_to(error: Exception, plain: Verdict, ruled: Verdict) -> None:
    judge = Fates.verdict
    nobody = cast("Fates", None)
    assert judge(nobody, handler(), error) is plain
    assert judge(nobody, handler(**RULES), error) is ruled


def test_pause_on_goes_before_dead_letter_on_and_both_before_retry_on() -> None:
    every = {"retry_on": OSError, "dead_letter_on": OSError, "pause_on": ConnectionError}
    assert Fates.verdict(cast("Fates", None), handler(**every), ConnectionError()) is Verdict.PAUSE
    assert Fates.verdict(cast("Fates", None), handler(**every), OSError()) is Verdict.DEAD_LETTER


def test_what_ends_the_inbox_ends_it_whatever_a_handler_says() -> None:
    ruled = handler(retry_on=Exception, pause_on=Exception, dead_letter_on=Exception)
    assert Fates.verdict(cast("Fates", None), ruled, ConfigurationError()) is Verdict.CRASH
