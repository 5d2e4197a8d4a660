"""P9: ready means making progress, not merely running."""

import pytest

from postroom.messaging.backoff import Backoff
from postroom.messaging.health import Health, State
from postroom.messaging.rate import Meter, TokenBucket
from postroom.relay.breaker import Breaker
from postroom.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def health(clock: FakeClock) -> Health:
    return Health(stuck_seconds=30, hung_seconds=60, clock=clock)


def test_running_without_progress_is_not_ready_while_messages_wait(clock: FakeClock, health: Health) -> None:
    health.became("running")
    health.waiting(work=True)
    clock.advance(29)
    health.beat()
    assert health.ready().ok
    clock.advance(2)
    health.beat()

    found = health.ready()
    assert (found.ok, found.reason) == (False, "messages wait and none was done for 31 s")
    assert health.live().ok, "a restart does not help"
    health.progressed()
    assert health.ready().ok


def test_progress_counts_from_the_last_one_and_not_from_the_first_message(clock: FakeClock, health: Health) -> None:
    health.became("running")
    for _ in range(10):
        health.waiting(work=True)
        clock.advance(20)
        health.progressed()
        health.beat()
        assert health.ready().ok


def test_with_nothing_to_do_it_stays_ready(clock: FakeClock, health: Health) -> None:
    health.became("running")
    health.waiting(work=True)
    health.waiting(work=False)
    clock.advance(3600)
    health.beat()

    assert health.ready().ok


@pytest.mark.parametrize("state", ["starting", "paused", "unavailable", "fenced", "stopping", "stopped"])
def test_a_daemon_that_does_not_work_says_so(health: Health, state: State) -> None:
    health.became(state, "why it is so")

    assert (health.ready().ok, health.ready().reason) == (False, f"{state}: why it is so")
    assert health.live().ok is (state != "stopped")


def test_standing_by_is_ready(health: Health) -> None:
    health.became("standby", "2 other relays have the shards")

    assert health.ready().ok


def test_a_loop_that_does_not_come_round_is_first_not_ready_and_then_not_alive(
    clock: FakeClock, health: Health
) -> None:
    health.became("running")
    clock.advance(31)
    assert (health.ready().ok, health.live().ok) == (False, True)
    clock.advance(30)
    assert (health.live().ok, health.live().reason) == (False, "hung for 61 s")
    health.beat()
    assert health.live().ok


def test_a_call_that_may_take_long_is_given_the_time_before_the_loop_counts_as_hung(
    clock: FakeClock, health: Health
) -> None:
    health.became("running")
    health.beat(40)
    clock.advance(99)
    assert health.live().ok, "an outage may take that long, and to start anew would not help"
    assert (health.ready().ok, health.ready().reason) == (False, "hung for 99 s")
    clock.advance(2)
    assert not health.live().ok
    health.beat()
    clock.advance(61)
    assert not health.live().ok, "the patience was for one call"


def test_what_work_waits_for_is_told(clock: FakeClock, health: Health) -> None:
    health.became("running")
    health.waiting(work=True, what="charge has run for 1 s")
    clock.advance(31)
    health.beat()
    health.waiting(work=True, what="charge has run for 32 s")
    assert health.ready().reason == "messages wait and none was done for 31 s: charge has run for 32 s"


def test_a_bucket_gives_its_rate_and_saves_up_a_fifth_of_a_second(clock: FakeClock) -> None:
    bucket = TokenBucket(clock)
    assert bucket.available(500) == 500, "no limit"
    bucket.limit(100)
    taken = 0
    for _ in range(100):
        clock.advance(0.1)
        taken += (count := bucket.available(500))
        bucket.take(count)
    assert 999 <= taken <= 1000
    clock.advance(60)
    assert bucket.available(500) == 20
    bucket.limit(None)
    assert bucket.available(500) == 500


def test_a_bucket_of_less_than_one_a_second_gives_one_now_and_then(clock: FakeClock) -> None:
    bucket = TokenBucket(clock)
    bucket.limit(0.5)
    given = []
    for _ in range(8):
        clock.advance(1)
        given.append(bucket.available(10))
        bucket.take(given[-1])

    assert given == [0, 1] * 4


def test_a_meter_follows_the_rate_and_comes_down_to_nothing(clock: FakeClock) -> None:
    meter, done = Meter(clock), 0
    for _ in range(12):
        clock.advance(1)
        done += 100
        rate = meter.rate(done)
    assert rate == pytest.approx(100, rel=0.01)
    for _ in range(12):
        clock.advance(1)
        rate = meter.rate(done)
    assert rate == 0


def test_a_breaker_opens_for_kafka_lets_one_try_through_and_closes(clock: FakeClock) -> None:
    breaker = Breaker(Backoff(1, 10), clock)
    assert (breaker.open_for(), breaker.probing, breaker.close()) == (0, False, False)
    seconds = breaker.open(of_kafka=True)
    assert breaker.open_for() == pytest.approx(seconds)
    clock.advance(10)
    assert (breaker.open_for(), breaker.probing, breaker.away_for()) == (0, True, 10)
    breaker.open(of_kafka=True)
    assert breaker.away_for() == 10, "from the first failure on"
    assert breaker.close()
    assert (breaker.probing, breaker.away_for()) == (False, 0)
    breaker.open(of_kafka=False)
    assert (breaker.probing, breaker.away_for()) == (True, 0)
