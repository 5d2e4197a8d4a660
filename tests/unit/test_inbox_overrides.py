"""What operators may set of a handler's policy, and how the command line offers it."""

import click
import pytest

from postroom.cli.policy import set_
from postroom.inbox.desk import SETTINGS, check_setting, parse_setting, told
from postroom.inbox.desk.overrides import check_together
from postroom.messaging.errors import UsageError


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("attempts", "1", 1),
        ("attempts", "1000", 1000),
        ("immediate", "1", 1),
        ("base", "0.001", 0.001),
        ("cap", "86400", 86_400.0),
        ("timeout", "1e-3", 0.001),
        ("rate", "0.5", 0.5),
        ("concurrency", "256", 256),
        ("on_dead_letter", "wait", "wait"),
        ("on_dead_letter", "go-on", "go-on"),
        ("dead_letters_per_minute", "0", 0),
        ("dead_letters_per_minute", "1000000", 1_000_000),
        ("breaker_threshold", "1", 1.0),
        ("breaker_open_seconds", "30", 30.0),
    ],
)
def test_what_a_setting_may_be(name: str, text: str, value: object) -> None:
    found = parse_setting(name, text)
    assert (found, type(found)) == (value, type(value))
    assert check_setting(name, value) == value


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("attempts", "0", "a whole number from 1 to 1,000"),
        ("attempts", "1001", "a whole number from 1 to 1,000"),
        ("attempts", "2.5", "a whole number from 1 to 1,000"),
        ("attempts", "", "a whole number from 1 to 1,000"),
        ("attempts", "9" * 5000, "a whole number from 1 to 1,000"),
        ("immediate", "0", "a whole number from 1 to 1,000"),
        ("base", "0", "a number above 0 and up to 86,400"),
        ("base", "-0.1", "a number above 0 and up to 86,400"),
        ("cap", "86401", "a number above 0 and up to 86,400"),
        ("cap", "nan", "a number above 0 and up to 86,400"),
        ("timeout", "inf", "a number above 0 and up to 86,400"),
        ("rate", "0", "a number above 0 and up to 10,000,000"),
        ("rate", "fast", "a number above 0 and up to 10,000,000"),
        ("concurrency", "0", "a whole number from 1 to 256"),
        ("concurrency", "257", "a whole number from 1 to 256"),
        ("on_dead_letter", "stop", "go-on or wait"),
        ("on_dead_letter", "1", "go-on or wait"),
        ("dead_letters_per_minute", "-1", "a whole number from 0 to 1,000,000"),
        ("dead_letters_per_minute", "none", "a whole number from 0 to 1,000,000"),
        ("breaker_threshold", "0", "a number above 0 and up to 1"),
        ("breaker_threshold", "1.01", "a number above 0 and up to 1"),
        ("breaker_open_seconds", "0", "a number above 0 and up to 86,400"),
    ],
)
def test_what_it_may_not_be_is_told_with_setting_value_and_range(name: str, text: str, allowed: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_setting(name, text)
    assert str(raised.value) == f"{name} is {text!r}; it must be {allowed}."


@pytest.mark.parametrize(("name", "value"), [("attempts", True), ("attempts", 2.5), ("rate", "5"), ("rate", None)])
def test_a_value_of_another_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{name} is {value!r}; it must be"):
        check_setting(name, value)


def test_a_setting_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="no setting 'speed' of a policy; there are attempts, immediate"):
        check_setting("speed", 1)


def test_settings_that_do_not_fit_each_other_are_refused() -> None:
    check_together({"immediate": 3, "attempts": 3, "base": 1.0, "cap": 1.0})
    check_together({"immediate": 3, "base": 1.0})
    with pytest.raises(UsageError, match=r"immediate is 4; it must be from 1 to attempts, which is 3\."):
        check_together({"immediate": 4, "attempts": 3})
    with pytest.raises(UsageError, match=r"base of x is 2; it must be above 0 and up to cap, which is 1\.5\."):
        check_together({"base": 2.0, "cap": 1.5}, " of x")
    with pytest.raises(UsageError, match=r"cap is 1\.5; it must be at least base, which is 2\."):
        check_together({"base": 2.0, "cap": 1.5}, "", {"cap"})


def test_a_policy_in_words_has_the_order_of_the_settings_and_what_is_unknown() -> None:
    assert told({"rate": 5.0, "attempts": 3, "later": 1}) == "attempts 3, rate 5, later 1"
    assert told({}) == "as the handler and the settings say"


def test_the_command_has_an_option_for_each_setting() -> None:
    own = [param.name for param in set_.params if isinstance(param, click.Option)]
    assert own[1 : 1 + len(SETTINGS)] == list(SETTINGS), own
