"""A group's coordinator that is not there yet."""

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import errors

from postroom.messaging.errors import KafkaUnavailable, NotAuthorized
from postroom.messaging.kafkapython import coordinator
from postroom.messaging.kafkapython.coordinator import ABSENT, ask_coordinator


def administrator() -> Any:
    cluster = SimpleNamespace(_coordinators={("group", "g"): 7})
    return SimpleNamespace(_manager=SimpleNamespace(cluster=cluster))


@pytest.mark.parametrize("absent", ABSENT)
def test_it_is_looked_for_again_and_asked_again(absent: type[Exception]) -> None:
    admin, known = administrator(), []

    def ask() -> str:
        known.append(dict(admin._manager.cluster._coordinators))
        admin._manager.cluster._coordinators["group", "g"] = 8
        if len(known) < 3:
            raise absent
        return "answer"

    assert ask_coordinator(admin, ask) == "answer"
    assert known == [{}, {}, {}]


def test_not_for_longer_than_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "_SECONDS", 0.3)
    asked = []

    def ask() -> None:
        asked.append(1)
        raise errors.NotCoordinatorError

    with pytest.raises(KafkaUnavailable):
        ask_coordinator(administrator(), ask)
    assert 2 <= len(asked) <= 5


def test_another_error_is_raised_at_once() -> None:
    asked = []

    def ask() -> None:
        asked.append(1)
        raise errors.GroupAuthorizationFailedError

    with pytest.raises(NotAuthorized):
        ask_coordinator(administrator(), ask)
    assert asked == [1]
