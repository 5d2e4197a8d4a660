"""The gate: rate, bulkhead, adaptive concurrency, breaker and an operator's pause, on a clock of our own."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.inbox.gate import AdaptiveLimit, Gate
from postroom.inbox.policy import Policy
from postroom.messaging.backoff import Backoff
from postroom.testing import FakeClock


def gate(clock: FakeClock, *, workers: int = 4, adaptive: bool = False, **policy: Any) -> Gate:
    return Gate(Policy(**policy), clock, Backoff(1.0, 8.0), workers=workers, adaptive=adaptive)


def test_without_limits_a_whole_batch_may_begin() -> None:
    assert gate(FakeClock()).room(50) == 50


def test_no_more_batches_at_a_time_than_its_bulkhead() -> None:
    bulkhead = gate(FakeClock(), concurrency=2)
    for _ in range(2):
        assert bulkhead.room(10) == 10
        bulkhead.begin(10)
    assert bulkhead.room(10) == 0
    assert bulkhead.opens_in() == float("inf")
    bulkhead.end(0.1)
    assert bulkhead.room(10) == 10
    assert bulkhead.opens_in() == 0.0


def test_a_bulkhead_is_never_wider_than_there_are_workers() -> None:
    wide = gate(FakeClock(), workers=1, concurrency=100)
    wide.begin(1)
    assert wide.room(1) == 0


def test_an_operators_pause_shuts_it_until_it_is_taken_back() -> None:
    shut = gate(FakeClock())
    shut.paused = "wrong prices"
    assert (shut.room(1), shut.is_shut, shut.opens_in()) == (0, True, float("inf"))
    shut.paused = None
    assert (shut.room(1), shut.is_shut, shut.opens_in()) == (1, False, 0.0)


@given(rate=st.floats(0.5, 200.0), steps=st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(1, 50)), max_size=60))
def test_the_rate_is_kept_over_any_stretch_of_time(rate: float, steps: list[tuple[float, int]]) -> None:
    clock = FakeClock()
    slow = gate(clock, rate=rate)
    slow.room(1)
    begun = 0
    for seconds, wanted in steps:
        clock.advance(seconds)
        room = slow.room(wanted)
        assert 0 <= room <= wanted
        if room:
            slow.begin(room)
            slow.end(0.0)
            begun += room
        assert begun <= rate * clock.monotonic() + max(1.0, rate / 5) + 1e-6


def test_a_rate_of_less_than_one_a_second_lets_something_through() -> None:
    clock = FakeClock()
    slow = gate(clock, rate=0.1)
    begun = 0
    for _ in range(100):
        clock.advance(slow.opens_in())
        if slow.room(5):
            slow.begin(1)
            slow.end(0.0)
            begun += 1
    assert begun == pytest.approx(clock.monotonic() * 0.1, abs=1)


def test_a_rate_that_an_operator_sets_holds_from_then_on() -> None:
    clock = FakeClock()
    changed = gate(clock)
    assert changed.room(50) == 50
    changed.policy = Policy(rate=5.0)
    assert changed.room(50) == 0
    clock.advance(1.0)
    assert changed.room(50) == 1
    changed.policy = Policy()
    assert changed.room(50) == 50


def test_half_open_one_message_tries_alone() -> None:
    clock = FakeClock()
    tried = gate(clock)
    seconds = tried.breaker.unavailable() or 0.0
    assert (tried.is_shut, tried.room(10), tried.opens_in()) == (True, 0, seconds)
    clock.advance(seconds)
    assert (tried.is_shut, tried.room(10)) == (False, 1)
    tried.begin(1)
    assert tried.room(10) == 0
    tried.breaker.succeeded("probe")
    tried.end(0.1)
    assert tried.room(10) == 10


def test_one_that_began_before_the_breaker_opened_does_not_send_out_a_second_probe() -> None:
    clock = FakeClock()
    tried = gate(clock)
    tried.begin(1)  # slow
    tried.begin(1)
    clock.advance(tried.breaker.unavailable() or 0.0)
    tried.end(0.1)
    tried.begin(1)  # the probe
    tried.end(5.0)  # the slow one
    assert tried.room(1) == 0
    tried.end(0.1)  # the probe told nothing
    assert tried.room(1) == 1


def run(limit: AdaptiveLimit, clock: FakeClock, seconds: float, times: int, ceiling: int = 32) -> None:
    for _ in range(times):
        clock.advance(seconds / limit.limit)
        limit.note(seconds, ceiling)


def test_concurrency_grows_while_nothing_gets_slower_up_to_the_ceiling() -> None:
    clock = FakeClock()
    limit = AdaptiveLimit(clock)
    assert limit.limit == 2
    run(limit, clock, 0.1, 10)
    assert 3 <= limit.limit <= 6
    run(limit, clock, 0.1, 5_000)
    assert limit.limit == 32


def test_concurrency_falls_where_messages_take_twice_as_long_and_comes_back() -> None:
    clock = FakeClock()
    limit = AdaptiveLimit(clock)
    run(limit, clock, 0.1, 5_000)
    run(limit, clock, 0.5, 60)
    low = limit.limit
    assert low <= 16
    run(limit, clock, 0.1, 500)
    assert limit.limit > low


def test_a_new_normal_is_accepted_in_the_end() -> None:
    clock = FakeClock()
    limit = AdaptiveLimit(clock)
    run(limit, clock, 0.1, 1_000)
    run(limit, clock, 0.5, 60)
    low = limit.limit
    run(limit, clock, 0.5, 3_000)
    assert limit.limit > low


def test_what_was_on_its_way_together_is_one_sign_of_slowness() -> None:
    clock = FakeClock()
    limit = AdaptiveLimit(clock)
    run(limit, clock, 0.1, 5_000, ceiling=10)
    for _ in range(10):
        limit.note(5.0, 10)  # at the same moment
    assert limit.limit == 8


@given(notes=st.lists(st.tuples(st.floats(0.0, 100.0), st.integers(1, 64)), max_size=100))
def test_the_limit_stays_between_one_and_the_ceiling(notes: list[tuple[float, int]]) -> None:
    clock = FakeClock()
    limit = AdaptiveLimit(clock)
    for seconds, ceiling in notes:
        clock.advance(seconds)
        limit.note(seconds, ceiling)
        assert limit.limit >= 1
    for _ in range(2):
        limit.note(0.0, 1)
    adaptive = gate(clock, workers=3, adaptive=True)
    adaptive.begin(1)
    adaptive.begin(1)
    assert adaptive.room(1) == 0  # two to begin with
    adaptive.end(0.1)
    assert adaptive.room(1) == 1
