"""Several relay processes that join, leave and are killed while messages keep coming."""

import random
import signal
import time
from collections import defaultdict
from typing import Any

import pytest

WINDOW = 400
LEASE = 4.0
#: Two heartbeats, what is in flight, and a machine that is busy with other things; less than a lease.
HAND_OVER = 3.0
SHARDS = 16


class Fleet:
    """Relay processes that share a log. Each event gives the moment when it began."""

    def __init__(self, spawn: Any, rng: random.Random) -> None:
        self._spawn = spawn
        self._rng = rng
        self.running: list[Any] = []
        self.kills = 0

    def join(self) -> float:
        relay = self._spawn(settings={"lease_seconds": LEASE})
        relay.await_step("started")
        self.running.append(relay)
        return float(relay.of("started")[0]["at"])

    def leave(self) -> float:
        began = time.monotonic()
        relay = self._one()
        assert relay.end() == 0
        assert not relay.of("fenced")
        return began

    def kill(self) -> float:
        began = time.monotonic()
        self.kills += 1
        assert self._one().end(signal.SIGKILL) == -signal.SIGKILL
        return began

    def shared(self) -> bool:
        """Each shard belongs to one relay, and all have their share."""
        shares = [relay.shards for relay in self.running]
        counts = sorted(map(len, shares))
        return sorted(shard for share in shares for shard in share) == [*range(SHARDS)] and counts[-1] - counts[0] <= 1

    def shared_at(self) -> float:
        """When the last of them got or gave shards."""
        return max(float(relay.of("claimed")[-1]["at"]) for relay in self.running)

    def work(self) -> dict[Any, int]:
        """What each has settled."""
        return {relay: relay.sum_of("settled") for relay in self.running}

    def _one(self) -> Any:
        return self.running.pop(self._rng.randrange(len(self.running)))


@pytest.mark.parametrize("seconds", [0.0, pytest.param(120.0, marks=[pytest.mark.slow, pytest.mark.timeout(400)])])
def test_relays_that_join_leave_and_are_killed_under_load_lose_nothing_and_keep_order(
    workload: Any, spawn: Any, writing: Any, eventually: Any, seconds: float
) -> None:
    rng = random.Random(int(seconds))
    fleet = Fleet(spawn, rng)
    took: dict[str, list[float]] = defaultdict(list)
    possible = {1: [fleet.join], 2: [fleet.join, fleet.leave, fleet.kill], 3: [fleet.leave, fleet.kill]}
    schedule = [fleet.join, fleet.join, fleet.join, fleet.kill, fleet.join, fleet.leave, fleet.kill]
    end = time.monotonic() + seconds
    with writing(workload):
        while schedule or time.monotonic() < end:
            event = schedule.pop(0) if schedule else rng.choice(possible[len(fleet.running)])
            began = event()
            eventually(fleet.shared, f"the shards are shared after {event.__name__}", LEASE + 30)
            took[event.__name__].append(fleet.shared_at() - began)
            before = fleet.work()

            def all_work(before: dict[Any, int] = before) -> bool:
                return all(relay.sum_of("settled") > count for relay, count in before.items())

            eventually(all_work, "all work")
    eventually(lambda: workload.unsettled() == 0, "all is settled")
    for _ in range(len(fleet.running)):
        fleet.leave()

    workload.check(duplicates=fleet.kills * WINDOW)
    assert max(took["join"] + took["leave"]) <= HAND_OVER, took
    assert max(took["kill"]) <= LEASE + HAND_OVER, took
