"""The circuit breaker: what opens it, what does not, and who may try."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.inbox.breaker import Breaker
from postroom.inbox.policy import Policy
from postroom.messaging.backoff import Backoff
from postroom.testing import FakeClock

POLICY = Policy(breaker_window=4, breaker_threshold=0.5, breaker_open_seconds=30.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    return Breaker(clock, Backoff(1.0, 8.0))


def opened(breaker: Breaker) -> Breaker:
    for message in range(3):
        assert breaker.failed(message, POLICY, first=True) is None
    assert breaker.failed(3, POLICY, first=True) == 30.0
    return breaker


def test_it_opens_when_the_share_of_the_window_failed(breaker: Breaker) -> None:
    for message, failed in enumerate([False, False, True]):
        assert (breaker.failed(message, POLICY, first=True) if failed else breaker.succeeded(message) or None) is None
    assert breaker.failed(3, POLICY, first=True) == 30.0
    assert breaker.is_open
    assert breaker.opens_in() == 30.0


def test_it_stays_closed_below_the_share_and_while_the_window_is_not_full(breaker: Breaker) -> None:
    for message in range(3):
        assert breaker.failed(message, POLICY, first=True) is None
    for message in range(3, 7):
        assert breaker.succeeded(message) == 0
    assert breaker.failed(7, POLICY, first=True) is None
    assert not breaker.is_open
    assert breaker.opens_in() == 0.0


def test_only_the_last_messages_count(breaker: Breaker) -> None:
    for message in range(100):
        breaker.succeeded(message)
    assert breaker.failed("a", POLICY, first=True) is None
    assert breaker.failed("b", POLICY, first=True) == 30.0


def test_one_message_that_fails_for_ever_is_one_message(breaker: Breaker) -> None:
    for attempt in range(1_000):
        if attempt % 100 == 0:
            breaker.succeeded(f"another {attempt}")
        assert breaker.failed("poison", POLICY, first=True) is None


def test_a_message_that_failed_and_then_succeeded_is_a_success(breaker: Breaker) -> None:
    for message in range(4):
        breaker.failed(message, POLICY, first=True) if message < 3 else None
        breaker.succeeded(message)
    assert breaker.failed(9, POLICY, first=True) is None


def test_a_message_that_fails_again_is_among_the_last(breaker: Breaker) -> None:
    breaker.failed("a", POLICY, first=True)
    for message in (1, 2, 3):
        breaker.succeeded(message)
    assert breaker.failed("a", POLICY, first=True) is None
    for message in (4, 5):
        breaker.succeeded(message)
    assert breaker.failed("b", POLICY, first=True) == 30.0


def test_one_probe_at_a_time_when_its_time_is_over(breaker: Breaker, clock: FakeClock) -> None:
    opened(breaker)
    clock.advance(29.9)
    assert breaker.opens_in() == pytest.approx(0.1)
    clock.advance(30.0)
    assert breaker.opens_in() == 0.0
    assert breaker.is_open
    breaker.begin()
    assert breaker.opens_in() == float("inf")


def test_a_probe_that_succeeds_closes_it_and_forgets(breaker: Breaker, clock: FakeClock) -> None:
    opened(breaker)
    clock.advance(30.0)
    breaker.begin()
    assert breaker.succeeded("probe") == 1
    assert not breaker.is_open
    assert breaker.failures == 0
    for message in range(3):
        assert breaker.failed(message, POLICY, first=True) is None  # the old ones count no more


def test_a_probe_that_fails_opens_it_for_as_long_again(breaker: Breaker, clock: FakeClock) -> None:
    opened(breaker)
    clock.advance(30.0)
    breaker.begin()
    assert breaker.failed("probe", POLICY, first=True) == 30.0
    assert breaker.opens_in() == 30.0
    assert breaker.failures == 2


def test_a_probe_that_tells_nothing_lets_another_one_try(breaker: Breaker, clock: FakeClock) -> None:
    opened(breaker)
    clock.advance(30.0)
    breaker.begin()
    breaker.ended()
    assert breaker.is_open
    assert breaker.opens_in() == 0.0


def test_a_probe_that_is_poison_of_itself_closes_it(breaker: Breaker, clock: FakeClock) -> None:
    opened(breaker)
    assert breaker.undecided() == 0  # no probe: one that was on its way
    assert breaker.is_open
    clock.advance(30.0)
    breaker.begin()
    assert breaker.undecided() == 1
    assert not breaker.is_open


def test_those_on_their_way_when_it_opened_prolong_nothing(breaker: Breaker, clock: FakeClock) -> None:
    opened(breaker)
    clock.advance(10.0)
    assert breaker.failed("late", POLICY, first=True) is None
    assert breaker.unavailable() is None
    assert breaker.opens_in() == 20.0


def test_what_says_that_it_is_away_opens_at_once_and_for_longer_each_time(breaker: Breaker, clock: FakeClock) -> None:
    longest = 0.0
    for failures in range(1, 8):
        seconds = breaker.unavailable()
        assert seconds is not None
        assert seconds <= min(8.0, 2.0 ** (failures - 1))
        longest = max(longest, seconds)
        clock.advance(seconds)
        breaker.begin()
    assert longest > 1.0
    assert breaker.succeeded("probe") == 7


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["ok", "fail", "away", "poison", "nothing"]), st.integers(0, 9)), max_size=80
    )
)
def test_it_never_lets_more_than_one_try_and_always_lets_one_in_the_end(steps: list[tuple[str, int]]) -> None:
    clock = FakeClock()
    breaker = Breaker(clock, Backoff(1.0, 8.0))
    for step, message in steps:
        if breaker.opens_in() > 0:
            assert breaker.opens_in() <= 30.001
            clock.advance(breaker.opens_in())
        was_open = breaker.is_open
        breaker.begin()
        assert breaker.opens_in() == (float("inf") if was_open else 0.0)
        if step == "ok":
            assert (breaker.succeeded(message) > 0) == was_open
        elif step == "fail":
            assert breaker.failed(message, POLICY, first=True) in ((30.0,) if was_open else (None, 30.0))
        elif step == "away":
            assert breaker.unavailable() is not None
        elif step == "poison":
            assert (breaker.undecided() > 0) == was_open
        breaker.ended()
        assert breaker.opens_in() < float("inf")


def test_what_fails_again_opens_nothing_however_often(breaker: Breaker) -> None:
    for number in range(4):
        breaker.succeeded(f"good {number}")
    for number in range(100):
        assert breaker.failed(f"poisoned {number % 8}", POLICY, first=False) is None

    assert not breaker.is_open
