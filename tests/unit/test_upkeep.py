"""The relay's duties beside publishing: each in its rhythm, and one that is not allowed does not end the others."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from postroom.messaging.errors import NotAuthorized
from postroom.outbox.log import Forgotten
from postroom.outbox.memory import MemoryLog
from postroom.relay.settings import RelaySettings
from postroom.relay.upkeep import Upkeep
from postroom.testing import FakeClock

Steps = Any  # tests/conftest.py


@dataclass
class Store(MemoryLog):
    """Remembers what is asked of the inbox."""

    added: int = 0
    kept: list[timedelta] = field(default_factory=list)
    answers: list[list[Forgotten]] = field(default_factory=list)
    refuses: bool = False

    def add_inbox_partitions(self) -> None:
        self.added += 1

    def prune_inbox(self, keep: timedelta, *, dry_run: bool = False, actor: str | None = None) -> Sequence[Forgotten]:
        assert not dry_run
        assert actor is None, "nobody did it"
        if self.refuses:
            raise NotAuthorized("not the owner")
        self.kept.append(keep)
        return self.answers.pop(0) if self.answers else []


def upkeep(store: Store, steps: Steps, clock: FakeClock, **settings: Any) -> Upkeep:
    return Upkeep(store, RelaySettings(**settings), steps, clock)


def test_the_inbox_gets_its_days_and_loses_old_ones_in_their_rhythm(steps: Steps) -> None:
    store, clock = Store(answers=[[Forgotten("inbox_20260101", 5)]]), FakeClock()
    duties = upkeep(store, steps, clock, inbox_retention_hours=48)
    for _ in range(121):
        duties.run()
        clock.advance(1.0)
    assert store.added == 5
    assert store.kept == [timedelta(hours=48)] * 3
    assert steps.of("inbox_pruned") == [{"parts": ["inbox_20260101"]}]


def test_what_is_left_of_old_rows_goes_soon_and_not_at_once(steps: Steps) -> None:
    store, clock = Store(answers=[[Forgotten("inbox_other", 10_000, more=True)]]), FakeClock()
    duties = upkeep(store, steps, clock)
    for seconds, calls in ((0.0, 1), (0.5, 1), (0.6, 2), (1.0, 2), (30.0, 2)):
        clock.advance(seconds)
        duties.run()
        assert len(store.kept) == calls, seconds
    assert store.kept[0] == timedelta(hours=720), "the default"


def test_a_relay_that_may_not_drop_tables_says_so_once(steps: Steps) -> None:
    store, clock = Store(refuses=True), FakeClock()
    duties = upkeep(store, steps, clock)
    for _ in range(200):
        duties.run()
        clock.advance(1.0)
    assert [facts["duty"] for facts in steps.of("not_allowed")] == ["prune_inbox"]
    assert store.added == 7


def test_the_inbox_remembers_for_an_hour_at_least() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        RelaySettings(inbox_retention_hours=0.9)
