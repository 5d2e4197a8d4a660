"""The clock that a test moves."""

from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import pytest

from postroom.messaging.clock import Clock
from postroom.testing import FakeClock

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def test_time_stands_still_until_it_is_moved() -> None:
    clock: Clock = FakeClock(NOW)
    assert (clock.now(), clock.monotonic()) == (NOW, 0.0)
    assert (clock.now(), clock.monotonic()) == (NOW, 0.0)


def test_advancing_moves_both_clocks_and_setting_only_the_walls() -> None:
    clock = FakeClock(NOW)
    clock.advance(timedelta(hours=1))
    clock.advance(0.5)
    assert (clock.now(), clock.monotonic()) == (NOW + timedelta(seconds=3600.5), 3600.5)
    clock.set(NOW - timedelta(days=1))
    assert (clock.now(), clock.monotonic()) == (NOW - timedelta(days=1), 3600.5)
    clock.advance(1.0)
    assert clock.now() == NOW - timedelta(days=1) + timedelta(seconds=1)


def test_a_wait_ends_when_time_was_moved_far_enough_and_not_before() -> None:
    clock, ended = FakeClock(NOW), Event()

    def wait() -> None:
        clock.wait(Event(), 60.0)
        ended.set()

    thread = Thread(target=wait)
    thread.start()
    clock.await_waiting()
    clock.set(NOW + timedelta(days=1))
    clock.advance(59.0)
    assert not ended.wait(0.05)
    clock.advance(1.0)
    assert ended.wait(10)
    thread.join()
    assert (clock.waiting, clock.waits) == (0, [60.0])


def test_a_wait_ends_when_its_event_is_set() -> None:
    clock, event = FakeClock(NOW), Event()
    told: list[bool] = []
    thread = Thread(target=lambda: told.append(clock.wait(event, 60.0)))
    thread.start()
    clock.await_waiting()
    event.set()
    thread.join(10)
    assert told == [True]


def test_a_passing_clock_moves_by_what_is_waited_for() -> None:
    clock = FakeClock(NOW, passing=True)
    assert not clock.wait(Event(), 30.0)
    assert clock.now() == NOW + timedelta(seconds=30)


def test_nobody_waiting_is_told() -> None:
    with pytest.raises(TimeoutError, match="0 threads wait for the fake clock"):
        FakeClock(NOW).await_waiting(timeout=0.01)


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_time_that_would_go_back_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="time does not go back"):
        FakeClock(NOW).advance(seconds)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        FakeClock(datetime(2026, 1, 1))  # noqa: DTZ001  the point of the test
