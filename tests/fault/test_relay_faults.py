"""P2, P3, P4: relay processes killed, frozen and stopped, with several batches in flight; histories counted."""

import signal
from typing import Any

import pytest

BATCH = 100
WINDOW = 400
#: Answers come so late that the window is full.
LATE = {"kafka-python": {"linger_ms": 100}, "confluent-kafka": {"linger.ms": 100}}


def in_flight(relay: Any) -> int:
    """Messages read and not settled."""
    return int(relay.sum_of("read") - relay.sum_of("settled"))


@pytest.mark.parametrize(
    ("step", "client"),
    [
        ("claimed", "kafka-python"),
        ("read", "kafka-python"),
        ("published", "kafka-python"),
        ("settled", "kafka-python"),
        ("published", "confluent-kafka"),
        ("settled", "confluent-kafka"),
    ],
)
def test_a_relay_killed_at_any_step_loses_nothing_and_repeats_at_most_its_window(
    workload: Any, spawn: Any, eventually: Any, step: str, client: str
) -> None:
    workload.publish(3_000)
    full = step in ("read", "published")
    most = []
    for _ in range(2):
        killed = spawn(client, LATE[client] if full else {}, fall_at=step, fall_after=1 if step == "claimed" else 3)
        assert killed.ended(30) == -signal.SIGKILL
        most.append(in_flight(killed))
    successor = spawn(client)
    eventually(lambda: workload.unsettled() == 0, "the successor settles the rest")
    assert successor.end() == 0
    assert successor.steps[-1]["step"] == "stopped"

    doubled = workload.check(duplicates=2 * WINDOW)
    if full:
        assert min(most) > BATCH, "several batches were in flight"
    if step == "published":
        assert doubled >= 2 * BATCH, "both were killed between the acknowledgement and the settling"


@pytest.mark.parametrize(("step", "after"), [("read", 1), ("published", 3)])
def test_a_relay_that_hangs_past_its_lease_is_fenced_and_cannot_settle_and_takes_part_again(
    workload: Any, spawn: Any, eventually: Any, step: str, after: int
) -> None:
    workload.publish(2_000)
    late = LATE["kafka-python"]
    hung = spawn(options=late, fall_at=step, fall_after=after, fall_by="freeze")
    hung.await_step(step, after)
    successor = spawn()
    eventually(lambda: workload.unsettled() == 0, "the successor takes over after the lease")
    workload.publish(500)
    settled_before = len(hung.of("settled"))
    hung.send(signal.SIGCONT)
    hung.await_step("fenced")
    told = [each["step"] for each in hung.steps]
    assert told[: told.index("fenced")].count("settled") == settled_before, "it settled what was not its any more"

    eventually(lambda: len(hung.shards) == len(successor.shards) == 8, "it takes part again")
    before = hung.sum_of("settled"), successor.sum_of("settled")
    workload.publish(500)
    eventually(lambda: workload.unsettled() == 0, "both together")
    assert hung.end() == 0
    assert successor.end() == 0

    assert hung.sum_of("settled") > before[0]
    assert successor.sum_of("settled") > before[1]
    doubled = workload.check(duplicates=WINDOW)
    if step == "read":
        assert doubled == 0, "it sent what was not its any more"
    else:
        assert doubled >= BATCH, "it hung between the acknowledgement and the settling"


def test_a_relay_told_to_stop_finishes_what_is_in_flight(workload: Any, spawn: Any, eventually: Any) -> None:
    workload.publish(3_000)
    for _ in range(3):
        stopped = spawn(options=LATE["kafka-python"])
        stopped.await_step("settled")
        assert stopped.end() == 0
        assert in_flight(stopped) == 0
    last = spawn()
    eventually(lambda: workload.unsettled() == 0, "the rest")
    assert last.end() == 0

    assert workload.check(duplicates=0) == 0
