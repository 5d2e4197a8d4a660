"""Crash points: which there are, and when one falls."""

from typing import Any

import pytest

from postroom.cli.events import EVENTS
from postroom.messaging.errors import UsageError
from postroom.testing import Crash, crash_at
from postroom.testing.crash import INBOX_STEPS, MESSAGE_STEPS, RELAY_STEPS

#: Of the process around the relay or the inbox.
OF_THE_PROCESS = {"starting", "probed", "started", "signalled"}


def test_the_steps_are_those_of_the_table_of_events() -> None:
    told = {event.name: event for event in EVENTS if event.name not in OF_THE_PROCESS}
    assert {name for name, event in told.items() if "relay" in event.services} == RELAY_STEPS
    assert {name for name, event in told.items() if "inbox" in event.services} == INBOX_STEPS
    assert {name for name, event in told.items() if event.of_message} == MESSAGE_STEPS


def test_it_falls_once_at_the_nth_time_of_the_message_and_tells_before() -> None:
    steps: list[str] = []

    def tell(step: str, /, **facts: Any) -> None:
        steps.append(step)

    observe = crash_at("handled", times=2, of="a", observer=tell)
    observe("handled", message_id="a")
    observe("handled", message_id="b")
    observe("received", message_id="a")
    with pytest.raises(Crash, match="handled"):
        observe("handled", message_id="a")
    observe("handled", message_id="a")

    assert steps == ["handled", "handled", "received", "handled", "handled"]


def test_a_step_that_is_none_is_refused_with_a_list() -> None:
    with pytest.raises(UsageError, match=r"There is no step 'publish'; there are applied, assigned, .*, waiting\.$"):
        crash_at("publish")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"of": "a"},
            "The step 'published' is not of one message, so leave out `of`; those of one message are applied",
        ),
        ({"times": 0}, "times must be a number from 1, not 0"),
        ({"times": True}, "times must be a number from 1, not True"),
        ({"how": "explode"}, "how must be one of raise, kill, freeze, not 'explode'"),
    ],
)
def test_what_cannot_be_is_refused(options: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        crash_at("published", **options)
